"""Where a run is written and what it is called, when it is adopted, and when it can be resumed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image

from fer_experiments.environment import seconds
from fer_experiments.errors import (
    DataError,
    DiskFullError,
    FerError,
    RunError,
    TrackingError,
    TrainingError,
    UsageError,
    WeightsError,
)
from fer_experiments.tracking import store
from fer_experiments.tracking.journal import Journal
from fer_experiments.tracking.lifecycle import open_run, resumable

from ..conftest import Fer

pytestmark = pytest.mark.usefixtures("unpainted")
PREPARE = ("prepare", "--recipe", "demo", "--synthetic-count", "70")


def made() -> list[tuple[str, str]]:
    """Experiment and name of each run in the store."""
    client = MlflowClient()
    names = {e.experiment_id: e.name for e in client.search_experiments()}
    return [
        (names[run.info.experiment_id], str(run.info.run_name))
        for run in client.search_runs(list(names))
    ]


def adopted(fresh: Path, monkeypatch: pytest.MonkeyPatch, name: str | None = None) -> str:
    """A run as `mlflow run` makes it for our process, and its id in the environment."""
    run = MlflowClient(f"sqlite:///{fresh}/mlflow.db").create_run("0", run_name=name)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    return str(run.info.run_id)


def journals(folder: Path) -> list[Path]:
    return list((folder / "home" / "runs").glob("[!.]*"))


# Numbers from the environment.


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("FER_TRACKING_PATIENCE", ("abc", "-1", "nan", "1,5", "2 min"), "0 or more"),
        ("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", ("abc", "-1", "nan", "0"), "more than 0"),
    ],
)
def test_a_variable_that_is_no_number_is_refused_at_the_start(
    name: str,
    values: tuple[str, ...],
    rule: str,
    own_home: Path,
    fer: Fer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offline = ("train", "--backbone", "tiny", "--recipe", "demo", "--offline")
    for value in values:
        monkeypatch.setenv(name, value)
        for arguments in (PREPARE, offline):
            outcome = fer(*arguments)
            assert outcome.exit_code == 2
            assert outcome.error == (
                f"Error: Expected {name} to be a number of seconds, {rule}. Received: {value}; "
                "change or unset it"
            )
    assert not (own_home / "mlflow.db").exists()
    assert journals(own_home) == []


def test_seconds_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FER_TRACKING_PATIENCE", raising=False)
    assert seconds("FER_TRACKING_PATIENCE", 120) == 120
    for given, expected in (
        ("", 120), (" ", 120), ("0", 0), ("2.5", 2.5), (" 30 ", 30), ("1e3", 1000),
        ("inf", float("inf")),
    ):  # fmt: skip
        monkeypatch.setenv("FER_TRACKING_PATIENCE", given)
        assert seconds("FER_TRACKING_PATIENCE", 120) == expected


# What the user gave stays.


def test_an_experiment_is_chosen_by_its_id(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", MlflowClient().create_experiment("mine"))
    outcome = fer(*PREPARE)
    assert outcome.exit_code == 0, outcome.err
    assert made() == [("mine", "prepare synthetic")]
    assert fer(*PREPARE, "--experiment", "another").exit_code == 0
    assert made()[0] == ("another", "prepare synthetic")


def test_an_experiments_id_that_does_not_exist_is_named(
    own_home: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "4711")
    outcome = fer(*PREPARE)
    assert outcome.exit_code == 2
    assert f"MLFLOW_EXPERIMENT_ID to be an experiment of sqlite:///{own_home}" in outcome.error
    assert "Received: 4711" in outcome.error
    assert made() == []
    assert journals(own_home) == []


def test_a_name_and_an_id_of_two_experiments_are_refused(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", MlflowClient().create_experiment("one"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "two")
    outcome = fer(*PREPARE)
    assert outcome.exit_code == 2
    assert "Received: two, whose id is" in outcome.error
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "one")
    assert fer(*PREPARE).exit_code == 0
    assert made() == [("one", "prepare synthetic")]


def test_a_runs_name_is_chosen_by_mlflows_variable(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_NAME", "first look")
    assert fer(*PREPARE).exit_code == 0
    assert made() == [("fer2013", "first look")]


def test_stages_of_a_larger_job_keep_their_names(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_NAME", "first look")
    with open_run("main", "whole") as main, open_run("prepare", "prepare faces", parent=main):
        pass
    assert sorted(name for _, name in made()) == ["first look", "prepare faces"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [("first look", "first look"), (None, "prepare synthetic"), ("a-b-1", "a-b-1")],
)
def test_the_name_that_mlflow_run_was_given_stays(
    given: str | None, kept: str, fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = adopted(fresh_store, monkeypatch, given)
    assert fer(*PREPARE).exit_code == 0
    run = MlflowClient().get_run(run_id)
    assert (run.info.run_name, run.data.tags["mlflow.runName"]) == (kept, kept)
    assert run.data.tags["stage"] == "prepare"
    assert made() == [("Default", kept)]


# A run id that is left over.


def test_a_run_that_does_not_exist_is_not_adopted(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowClient().create_experiment("x")  # so that there is a store
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    outcome = fer(*PREPARE)
    assert outcome.exit_code == 2
    assert "MLFLOW_RUN_ID" in outcome.error
    assert f"Received: {'0' * 32}, which does not exist in sqlite:///" in outcome.error
    assert outcome.error.endswith("unset MLFLOW_RUN_ID")


@pytest.mark.parametrize("arguments", [PREPARE, ("train", "--backbone", "vgg17")])
def test_a_finished_run_is_neither_adopted_nor_said_to_have_failed(
    arguments: tuple[str, ...], fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fer(*PREPARE).exit_code == 0
    client = MlflowClient()
    experiment = client.get_experiment_by_name("fer2013").experiment_id
    (before,) = client.search_runs([experiment])
    monkeypatch.setenv("MLFLOW_RUN_ID", before.info.run_id)
    outcome = fer(*arguments)
    assert outcome.exit_code == 2
    assert ("the prepare run of another command" in outcome.error) == (arguments == PREPARE)
    (after,) = client.search_runs([experiment])
    assert after.data.tags == before.data.tags
    assert after.info.status == "FINISHED"


def test_a_run_of_somebody_elses_that_has_ended_is_not_adopted(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = adopted(fresh_store, monkeypatch)
    MlflowClient().set_terminated(run_id, "KILLED")
    outcome = fer(*PREPARE)
    assert outcome.exit_code == 2
    assert "which is KILLED" in outcome.error


def test_a_refused_request_says_why_in_the_run_that_mlflow_run_made(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = adopted(fresh_store, monkeypatch)
    assert fer("train", "--backbone", "vgg17").exit_code == 2
    assert "vgg17" in MlflowClient().get_run(run_id).data.tags["failure_reason"]


# What to do about a store that cannot be used.


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("127.0.0.1:5000", "did you mean MLFLOW_TRACKING_URI=http://127.0.0.1:5000?"),
        ("localhost:5000", "did you mean MLFLOW_TRACKING_URI=http://localhost:5000?"),
        ("mlflow.example.org", "did you mean MLFLOW_TRACKING_URI=http://mlflow.example.org?"),
        ("https:/host", "did you mean MLFLOW_TRACKING_URI=https://host?"),
        ("mlflow.db", "did you mean MLFLOW_TRACKING_URI=sqlite:////"),
        ("./mlruns", "did you mean MLFLOW_TRACKING_URI=sqlite:///mlflow.db"),
        ("sqlite:///", "Expected MLFLOW_TRACKING_URI to name a file"),
        ("postgresql+psycopg2://me@127.0.0.1:9/db", "pip install psycopg2-binary"),
        ("mysql+pymysql://me@127.0.0.1:9/db", "pip install pymysql"),
        ("http://127.0.0.1:9", "start the server"),
    ],
)
@pytest.mark.parametrize("command", [PREPARE, ("compare",)], ids=["writes", "reads"])
def test_an_address_that_cannot_work_is_explained(
    command: tuple[str, ...],
    uri: str,
    advice: str,
    own_home: Path,
    fer: Fer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("psycopg2", "pymysql"):
        monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outcome = fer(*command)
    assert outcome.exit_code == 1
    assert advice in outcome.error
    assert ("start the server" in outcome.error) == uri.startswith("http://")
    assert list(own_home.glob("*.db")) == []


def test_a_library_for_artifacts_is_missed_before_the_work(
    own_home: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    MlflowClient().create_experiment("far", artifact_location="s3://bucket/far")
    outcome = fer(*PREPARE, "--experiment", "far")
    assert outcome.exit_code == 1
    assert "pip install boto3" in outcome.error
    assert "start the server" not in outcome.error
    assert made() == []


def test_a_database_of_an_older_mlflow_says_how_to_upgrade(own_home: Path) -> None:
    error = mlflow.MlflowException(
        "Detected out-of-date database schema (found version x, but expected y). Take a backup of "
        "your database, then run 'mlflow db upgrade <database_uri>'"
    )
    assert f"run mlflow db upgrade sqlite:///{own_home}/mlflow.db" in store.message(error)


@pytest.mark.parametrize(
    "command",
    [
        ("compare",),
        ("register",),
        ("evaluate",),
        ("evaluate", "--run-id", "0" * 32),
        ("evaluate", "--model", "models:/emotion-x@champion"),
        ("calibrate",),
        ("finetune",),
        ("ensemble", "--run-ids", f"{'0' * 32},{'1' * 32}"),
        ("promote", "--version", "1", "--model-name", "emotion-x"),
        ("rollback", "--model-name", "emotion-x"),
        ("registry", "--model-name", "emotion-x"),
        ("predict", "x.png"),
        ("runs", "--experiment", "x"),
        ("ui",),
    ],
    ids=" ".join,
)
def test_what_only_reads_names_the_store_and_makes_none(
    command: tuple[str, ...], own_home: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (48, 48)).save(own_home / "x.png")
    place = own_home / "nowhere" / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}")
    outcome = fer(*command)
    assert outcome.exit_code == 2
    assert f"sqlite:///{place}, which does not exist yet" in outcome.error
    assert not place.parent.exists()
    assert not (own_home / "mlflow.db").exists()


@pytest.mark.parametrize("command", [("runs",), ("registry",), ("doctor",)], ids=" ".join)
def test_lists_of_a_store_that_is_not_there(
    command: tuple[str, ...], own_home: Path, fer: Fer
) -> None:
    outcome = fer(*command)
    assert outcome.exit_code == 0
    assert f"sqlite:///{own_home}/mlflow.db, which does not exist yet" in outcome.out
    assert not (own_home / "mlflow.db").exists()


# When resuming a run is offered.


def ends_with(error: BaseException, *, epochs: int, stage: str = "train") -> Run:
    """The run that ends with this error after so many epochs."""
    with pytest.raises(type(error)), open_run(stage, "a run") as writer:
        for epoch in range(1, epochs + 1):
            writer.metrics({"train/loss": 1.0}, step=epoch)
        raise error
    return MlflowClient().get_run(writer.run_id)


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (UsageError("no such thing"), False, True),
        (TrainingError("the loss is not finite"), False, False),
        (DataError("an image is damaged"), False, True),
        (WeightsError("a layer is missing"), False, True),
        (DiskFullError("the disk is full"), True, True),
        (TrackingError("the store is away"), True, True),
        (FerError("something"), True, True),
        (MemoryError("no memory"), True, True),
        (KeyboardInterrupt(), True, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
@pytest.mark.parametrize("epochs", [0, 2])
def test_a_start_that_can_only_fail_again_is_not_to_be_resumed(
    error: BaseException,
    before: bool,
    after: bool,
    epochs: int,
    own_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = ends_with(error, epochs=epochs)
    offered = after if epochs else before
    hint = f"fer train --resume {run.info.run_id}"
    assert (f"next   {hint}" in capsys.readouterr().out) == offered
    assert (hint in run.data.tags["mlflow.note.content"]) == offered
    assert (len(journals(own_home)) == 1) == offered


def test_a_job_is_to_be_resumed_for_what_its_earlier_stages_trained(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WeightsError), open_run("main", "whole") as main:
        with open_run("train", "first", parent=main) as writer:
            writer.metrics({"train/loss": 1.0}, step=1)
        with open_run("train", "second", parent=main) as writer:
            raise WeightsError("a layer is missing")
    assert f"next   fer main --resume {main.run_id}" in capsys.readouterr().out
    kept = journals(own_home)
    assert len(kept) == 2  # the job and the stage that main resumes


def test_an_offline_run_is_resumed_offline(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MemoryError), open_run("train", "a run", offline=True) as writer:
        raise MemoryError
    hint = f"next   fer train --resume {writer.run_id} --offline"
    assert hint in capsys.readouterr().out
    assert not (own_home / "mlflow.db").exists()


@pytest.mark.parametrize("typed", ["{}/link/mlflow.db", "/{}//mlflow.db?timeout=60"])
def test_a_run_belongs_to_its_store_however_the_address_is_typed(
    typed: str, own_home: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_home / "link").symlink_to(own_home, target_is_directory=True)
    run_id = ends_with(MemoryError(), epochs=1).info.run_id
    # Of a process that was killed before it reached the store.
    begun: dict[str, Any] = {"tags": {}, "experiment": "fer2013", "experiment_id": None}
    nothing: dict[str, None] = dict.fromkeys(("parent", "adopt", "request"))
    Journal.create(
        stage="prepare", name="killed", store=store.address(), **begun, **nothing
    ).close()

    elsewhere = f"sqlite:///{own_home}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
    with pytest.raises(RunError, match=rf"started with MLFLOW_TRACKING_URI=.*{own_home}/mlflow.db"):
        resumable(run_id, "train")
    assert "belongs to MLFLOW_TRACKING_URI=" in fer("sync").error

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{typed.format(own_home)}")
    journal = resumable(run_id, "train")  # which also ends what was killed
    journal.close()
    assert sorted(name for _, name in made()) == ["a run", "killed"]
    assert len(journals(own_home)) == 1


def test_no_variable_is_left_over_between_tests() -> None:
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ


def test_two_runs_can_be_open_at_once_and_neither_belongs_to_the_other(own_home: Path) -> None:
    """In two threads, each with a run nested in its own."""
    both_are_open = threading.Barrier(2)
    stages: dict[str, tuple[str, str]] = {}

    def job(name: str) -> None:
        with open_run("main", f"job {name}") as main:
            both_are_open.wait()
            with open_run("prepare", f"prepare {name}", parent=main) as writer:
                both_are_open.wait()
                stages[name] = (main.run_id, writer.run_id)

    threads = [threading.Thread(target=job, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for main, nested in stages.values():
        runs = {run_id: MlflowClient().get_run(run_id) for run_id in (main, nested)}
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        assert runs[nested].data.tags["mlflow.parentRunId"] == main
        assert "mlflow.parentRunId" not in runs[main].data.tags


CHILD = """
import json, sys
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.writer import Parent

with open_run("train", "a stage", parent=Parent(**json.loads(sys.argv[1]))) as writer:
    writer.metrics({"train/loss": 1.0}, step=1)
    raise MemoryError
"""


def test_a_run_in_another_process_belongs_to_the_job_and_says_how_to_resume_it(
    own_home: Path,
) -> None:
    with open_run("main", "whole") as main:
        sent = json.dumps(dataclasses.asdict(main.as_parent()))
        child = subprocess.run(
            [sys.executable, "-c", CHILD, sent], capture_output=True, text=True, check=False
        )
    assert "MemoryError" in child.stderr
    client = MlflowClient()
    [run] = client.search_runs([main.experiment_id], "tags.stage = 'train'")
    assert run.data.tags["mlflow.parentRunId"] == main.run_id
    assert f"fer main --resume {main.run_id}" in run.data.tags["mlflow.note.content"]
    assert run.info.status == "FAILED"
