"""What stands in a run's journal is read as it was written, or not at all."""

import dataclasses
import json
from pathlib import Path

import pytest

from fer_experiments.tracking import journal as journals
from fer_experiments.tracking.events import (
    FORMAT,
    KINDS,
    Artifact,
    End,
    Event,
    Metrics,
    Model,
    Params,
    Resume,
    Start,
    Table,
    Tags,
    UsedDataset,
    from_line,
    to_line,
)
from fer_experiments.tracking.journal import Journal

EVERY: list[Event] = [
    Start(time=1, stage="train", name="a", tags={"b": "c"}, parent=("d", "e"), request={"f": [1]}),
    Resume(time=2),
    Params(time=3, values={"epochs": "1"}),
    Tags(time=4, values={"a": "b"}),
    Metrics(time=5, values={"loss": 1.5}, step=2, model_id="m-1", dataset=("faces val", "abc")),
    Artifact(time=6, file="1/report.txt", folder="val"),
    Table(time=7, file="2/table.json"),
    UsedDataset(
        time=8, name="faces", digest="abc", source="faces.zip", split="val", arrays=[[[1], "u1"]]
    ),
    Model(time=9, file="3/model.keras", example=[[[0]]], metadata={"class_names": ["sad"]}),
    End(time=10, status="FAILED", resumable=False),
]


def test_every_kind_of_event_is_here() -> None:
    assert {type(event) for event in EVERY} == set(KINDS.values())


@pytest.mark.parametrize("event", EVERY, ids=lambda event: type(event).__name__)
def test_what_is_written_is_read_back(event: Event) -> None:
    line = to_line(event)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert from_line(line) == event


def test_a_journal_of_the_version_before_the_format_had_a_number_is_read() -> None:
    old = {
        "kind": "start", "time": 1, "stage": "train", "name": "a", "tags": {}, "experiment": "b",
        "experiment_id": None, "parent": ["c", "d"], "adopt": None, "store": "sqlite:///x.db",
        "request": None,
    }  # fmt: skip
    assert from_line(json.dumps(old).encode()) == Start(
        time=1, stage="train", name="a", tags={}, experiment="b", parent=("c", "d"),
        store="sqlite:///x.db",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}, of another fer_experiments"),
        ({"kind": "made up"}, "does not know"),
        ({"made_up": 1}, "does not know"),
        ({"stage": None, "kind": "tags"}, "does not know"),
    ],
)
def test_what_this_version_cannot_know_is_refused(changes: dict[str, object], why: str) -> None:
    line = json.loads(to_line(EVERY[0])) | changes
    with pytest.raises(ValueError, match=why):
        from_line(json.dumps(line).encode())


def test_a_journal_of_a_newer_version_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", str(tmp_path))
    journal = Journal.create(stage="train", name="a", tags={})
    journal.close()
    newer = dataclasses.replace(journal.start, format=FORMAT + 1)
    file = journal.folder / "journal.jsonl"
    file.write_bytes(to_line(newer))
    assert list(journals.unfinished()) == []
    assert f"format {FORMAT + 1}" in capsys.readouterr().err
    assert file.read_bytes() == to_line(newer)
