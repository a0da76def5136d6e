"""What `make faults` does, a few moments of it; and that its comparison finds what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults import report
from tests.faults.comparison import RunState, State, differences
from tests.faults.jobs import cached, epochs, under_way
from tests.faults.moments import Tally
from tests.faults.processes import Place
from tests.faults.results import Result
from tests.faults.table import FAULTS

from ..conftest import ROOT, process_environment

RUN = RunState(
    params={"learning_rate": "0.001"},
    tags={"backbone": "tiny", "mlflow.note.content": "val accuracy 50.0 %, 12 s"},
    metrics={
        "train/loss": [(1, 1.5), (2, 1.25)],
        "time/epoch_seconds": [(1, 0.5), (2, 0.25)],
        "system/cpu": [(0, 10.0)],
    },
    artifacts={
        "scores.json": {"accuracy": 0.5, "seconds": 3.0},
        "predictions.json": {"id": ["a", "b"], "confidence": [0.5, 0.75]},
        "probabilities.npz": {"probabilities": np.array([0.25, 0.75], dtype=np.float32)},
    },
    datasets=[("synthetic train", "0123")],
    models=1,
    weights=[np.array([1.0, 2.0], dtype=np.float32)],
    model_scores={"val/accuracy": 0.5},
)
STATE = State(
    runs={"train": RUN},
    doubles=[],
    registry=[("emotion-synthetic", "1", "<train model>", "champion", "the first version")],
    files={"features/tiny-1/features.npy": "abc"},
)


def found(**changes: Any) -> State:
    """What a job left whose train run has these changes."""
    return replace(STATE, runs={"train": replace(RUN, **changes)})


def test_the_comparison_passes_over_times_and_the_load_on_the_machine() -> None:
    other = found(
        tags={**RUN.tags, "mlflow.note.content": "val accuracy 50.0 %, 47 s", "resumed": "once"},
        metrics={
            "train/loss": RUN.metrics["train/loss"],
            "time/epoch_seconds": [(1, 9.0), (2, 8.0)],
        },
        artifacts={**RUN.artifacts, "scores.json": {"accuracy": 0.50001, "seconds": 4.0}},
    )
    assert differences(STATE, other) == []


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (found(params={}), "param learning_rate"),
        (found(params={"learning_rate": "0.01"}), "param learning_rate"),
        (found(tags={}), "tag backbone"),
        (found(metrics={**RUN.metrics, "train/loss": [(1, 1.5)]}), "steps 1 instead of 1, 2"),
        (
            found(metrics={**RUN.metrics, "train/loss": [(1, 1.5), (2, 1.25), (2, 1.25)]}),
            "several times at steps 2",
        ),
        (found(metrics={**RUN.metrics, "train/loss": [(1, 1.5), (2, 1.26)]}), "at step 2"),
        (found(metrics={**RUN.metrics, "val/loss": [(1, 1.0)]}), "metric val/loss"),
        (found(metrics={**RUN.metrics, "time/epoch_seconds": [(1, 0.5)]}), "time/epoch_seconds"),
        (
            found(artifacts={k: v for k, v in RUN.artifacts.items() if "npz" not in k}),
            "probabilities.npz is missing",
        ),
        (
            found(
                artifacts={**RUN.artifacts, "predictions.json": {"id": ["a"], "confidence": [0.5]}}
            ),
            "1 entries instead of 2",
        ),
        (
            found(
                artifacts={
                    **RUN.artifacts,
                    "probabilities.npz": {"probabilities": np.array([0.5, 0.5], np.float32)},
                }
            ),
            "differs by 0.25",
        ),
        (
            found(artifacts={**RUN.artifacts, "scores.json": "unreadable: no JSON"}),
            "unreadable",
        ),
        (found(datasets=[]), "datasets"),
        (found(models=2), "2 models"),
        (found(weights=[np.array([1.0, 2.001], dtype=np.float32)]), "weights differ by 0.001"),
        (found(weights=[]), "other weights"),
        (found(model_scores={}), "scores of the model"),
        (replace(STATE, runs={}), "no finished train run"),
        (replace(STATE, runs={**STATE.runs, "register": RUN}), "an unexpected register run"),
        (replace(STATE, doubles=["several finished train runs"]), "several finished"),
        (replace(STATE, registry=[]), "registry"),
        (replace(STATE, files={}), "is missing"),
        (replace(STATE, files={**STATE.files, ".writing-x": "abc"}), ".writing-x is new"),
        (replace(STATE, files=dict.fromkeys(STATE.files, "abd")), "other content"),
    ],
)  # fmt: skip
def test_the_comparison_finds(state: State, word: str) -> None:
    problems = differences(STATE, state)
    assert any(word in problem for problem in problems), problems


def test_where_the_cache_had_no_room_numbers_may_differ_but_nothing_may_be_missing() -> None:
    other = found(weights=[np.array([1.1, 2.0], dtype=np.float32)])
    other = replace(other, files={})
    assert differences(STATE, other, fallback=True) == []
    assert differences(STATE, found(artifacts={}), fallback=True)
    assert differences(STATE, found(metrics={}), fallback=True)


def test_the_stage_that_is_under_way_is_read_from_what_was_printed(tmp_path: Path) -> None:
    place = Place.make(tmp_path / "place")
    text = "synthetic: 490 train, 105 val\n\n"
    assert under_way(place, text) == "start-up"
    text += "tiny train demo s3: 490 training images of synthetic\n"
    assert under_way(place, text) == "start-up"
    text += "features of tiny: 1085 images up to block2_out, computed once, 5 MB in /data\n"
    assert under_way(place, text) == "cache"
    text += "features: 1085 images computed (0.6 s)\n"
    assert under_way(place, text) == "train"
    text += "epoch 1/2   train loss 2.0\n"
    assert under_way(place, text) == "train"
    text += "epoch 2/2   train loss 1.5\n"
    assert under_way(place, text) == "log"
    assert epochs(text) == [1, 2]
    text += "tiny train demo s3: val accuracy 30.0%, macro-F1 0.2 (epoch picked on val)\n\n"
    text += "tiny finetune demo s3: from tiny train demo s3, unfrozen: block2_2_conv\n"
    assert under_way(place, text) == "fine-tune"
    assert epochs(text) == []
    text += "features: all found in the cache (0.0 s)\nepoch 3/3   train loss 1.2\n"
    assert under_way(place, text) == "log"
    assert epochs(text) == [3]


def test_what_was_lost_stands_in_the_note() -> None:
    tally = Tally(name="kill9", planned=2)
    tally.add("killed 3.0 s into cached, in train", [])
    tally.add("killed 9.0 s into cached, in log", ["main run is still RUNNING", "and more"])
    result = tally.result("kill -9")
    assert (result.tried, result.survived) == (2, 1)
    assert "in log: main run is still RUNNING" in result.note


def test_the_page_tells_the_rows_that_were_saved() -> None:
    rows = report.read(report.ROWS)
    assert set(rows) <= set(FAULTS)
    page = (ROOT / "docs" / "results" / "reliability.md").read_text()
    for row in rows.values():
        assert 0 <= row.survived <= row.tried
        assert row.note
    lines = report.markdown(rows.values())
    assert len(lines) > len(rows) > 0
    assert [line for line in lines if line not in page] == []


def test_a_row_that_is_tried_again_replaces_the_old_one_and_keeps_the_page(
    tmp_path: Path,
) -> None:
    page = tmp_path / "reliability.md"
    page.write_text((ROOT / "docs" / "results" / "reliability.md").read_text())
    for survived in (1, 2):
        row = Result(name="kill9", tried=2, survived=survived, note=r"odd \1 | note")
        report.write([row], tmp_path / "faults.json", page=page)
    [saved] = json.loads((tmp_path / "faults.json").read_text())
    assert saved == {"name": "kill9", "tried": 2, "survived": 2, "note": r"odd \1 | note"}
    text = page.read_text()
    assert r"| `kill9` | 2 | 2 | odd \1 \| note |" in text
    assert len(re.findall("faults: (?:begin|end)", text)) == 2
    assert text.startswith("# Reliability")


def test_jobs_are_commands_that_exist() -> None:
    job = cached(quick=True)
    assert job.stage == "main"
    assert job.going_on("abc") == ("main", "--resume", "abc")


@pytest.mark.slow
def test_the_command_tries_what_is_asked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--quick", "--only", "parallel"],
        cwd=ROOT,
        env=process_environment(TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "parallel: 3 of 3" in done.stdout
    assert report.read(report.QUICK_ROWS)["parallel"].survived == 3
