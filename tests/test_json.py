"""What scripts read: one line of JSON on standard output, whatever the command says beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from .conftest import QUICK, Fer, Job

# What each kind of value must be, by the name of the field.
RUN: dict[str, Callable[[Any], bool]] = {
    "run_id": lambda v: isinstance(v, str) and len(v) == 32,
    "scores": lambda v: all(isinstance(x, float) for x in v.values()),
    "uri": lambda v: v is None or v.startswith("models:/m-"),
    "link": lambda v: v.startswith("http"),
    "files": lambda v: all(isinstance(x, str) for x in v),
    "told": lambda v: all(isinstance(x, str) for x in v),
}


def told(fer: Fer, *arguments: str) -> Any:
    """The one line; everything else stands on standard error."""
    outcome = fer(*arguments, "--json")
    assert outcome.exit_code == 0, outcome.err
    [line] = outcome.out.splitlines()
    return json.loads(line)


def check_run(found: dict[str, Any], *, more: tuple[str, ...] = ()) -> None:
    assert set(found) == {*RUN, *more}
    for name, is_right in RUN.items():
        assert is_right(found[name]), (name, found[name])
    files = {
        path.path
        for folder in {str(Path(file).parent) for file in found["files"]}
        for path in MlflowClient().list_artifacts(found["run_id"], "" if folder == "." else folder)
    }
    assert set(found["files"]) <= files


def test_runs_tell_id_scores_address_link_and_files(fresh_store: Path, fer: Fer) -> None:
    prepared = told(fer, "prepare", *QUICK[:4])
    assert prepared["dataset"]["manifest"]["counts"]
    check_run(prepared, more=("dataset",))
    trained = told(fer, "train", "--backbone", "tiny", *QUICK[:6])
    check_run(trained)
    assert trained["uri"] and "learning_curves.png" in trained["files"]
    assert trained["scores"].keys() >= {"val/accuracy", "val/macro_f1"}
    judged = told(fer, "evaluate", "--run-id", trained["run_id"])
    check_run(judged)
    metrics = MlflowClient().get_run(judged["run_id"]).data.metrics
    assert judged["scores"]["val/macro_f1"] == metrics["val/macro_f1"]
    check_run(told(fer, "compare"))
    check_run(told(fer, "register"))


def test_lists_are_lists(job: Job, fer: Fer) -> None:
    runs = told(fer, "runs", "--stage", "train")
    assert job.runs["train"] in [run["id"] for run in runs]
    assert {run["stage"] for run in runs} == {"train"}
    versions = told(fer, "registry")
    assert {"name", "number", "model_uri", "tags", "aliases"} <= set(versions[0])
    assert set(told(fer, "cache")) == {"features", "unfinished"}
    assert told(fer, "doctor")["fer_experiments"]


def test_what_was_delivered_is_a_list(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", str(fresh_store / "data"))
    assert told(fer, "sync") == []
    kept = told(fer, "train", "--backbone", "tiny", *QUICK[:6], "--offline")
    assert kept["link"] is None
    [delivered] = told(fer, "sync")
    assert (delivered["left"], delivered["problem"]) == (0, None)
    assert MlflowClient().get_run(delivered["run_id"]).info.status == "FINISHED"


def test_a_dry_run_tells_configuration_and_estimate(fresh_store: Path, fer: Fer) -> None:
    [found] = told(fer, "train", "--backbone", "tiny", *QUICK[:6], "--dry-run")
    assert found["config"]["backbone"] == "tiny"
    assert found["seconds"] > 0 and found["disk_megabytes"] > 0
    assert sum(found["images"].values()) == 210


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_error_stands_on_standard_error_alone(command: str, fresh_store: Path, fer: Fer) -> None:
    options = {"train": ("--backbone", "nothing"), "evaluate": ("--run-id", "0" * 32)}
    outcome = fer(command, *options[command], "--json")
    assert outcome.exit_code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("Error: ")
