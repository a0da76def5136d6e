"""Runs that are cut short, kept on this machine, delivered later."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from fer_experiments.tracking.journal import Journal

from ..conftest import Fer, process_environment

pytestmark = pytest.mark.usefixtures("unpainted")
TINY = ["--backbone", "tiny", "--recipe", "demo", "--synthetic-count", "210"]
# What is random about training stays so: augmentation anew every epoch, and dropout.
RANDOM = [*TINY, "--cache", "off", "--dropout", "0.5", "--rotation", "10"]


def runs() -> list[Run]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name("fer2013")
    return [] if experiment is None else list(client.search_runs([experiment.experiment_id]))


def only_run(stage: str) -> Run:
    (found,) = (run for run in runs() if run.data.tags["stage"] == stage)
    return found


def history(run: Run, name: str) -> list[tuple[int, float]]:
    points = MlflowClient().get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in points)


def weights(run: Run) -> list[np.ndarray]:
    model = mlflow.pyfunc.load_model(run.data.tags["model_uri"]).get_raw_model()
    return list(model.get_weights())


def journals() -> list[Path]:
    return sorted(Path(os.environ["FER_DATA_HOME"], "runs").glob("[!.]*"))


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fer_experiments", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(),
    )


def wait_for(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(f"no line begins with {beginning}")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill9", "sigterm"])
def test_a_training_that_was_cut_short_goes_on_to_the_same_end(
    how: signal.Signals, own_home: Path, fer: Fer
) -> None:
    arguments = ["train", *RANDOM, "--epochs", "12"]
    process = start(*arguments)
    wait_for(process, "epoch  3/12")
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    cut_short = only_run("train")
    if how == signal.SIGTERM:
        assert process.returncode == 143
        assert err.splitlines()[-1] == "Error: terminated"
        assert cut_short.info.status == "KILLED"
        assert f"fer train --resume {cut_short.info.run_id}" in out
    else:
        assert cut_short.info.status == "RUNNING"
        assert fer("doctor").exit_code == 0  # which opens no run
        assert fer("prepare", *TINY[2:]).exit_code == 0
        cut_short = only_run("train")
        assert cut_short.info.status == "FAILED"
        assert "ended without a word" in cut_short.data.tags["failure_reason"]
    how_to = f"`fer train --resume {cut_short.info.run_id}`"
    assert how_to in cut_short.data.tags["mlflow.note.content"]
    assert "1 runs that did not finish" in fer("cache").out

    assert fer("train", "--resume", cut_short.info.run_id).exit_code == 0
    resumed = only_run("train")
    assert resumed.info.status == "FINISHED"
    assert "failure_reason" not in resumed.data.tags
    assert journals() == []
    assert fer(*arguments).exit_code == 0
    whole, _ = (run for run in runs() if run.data.tags["stage"] == "train")
    assert whole.info.run_id != resumed.info.run_id
    for name in ("train/loss", "val/loss", "val/macro_f1"):
        assert [step for step, _ in history(resumed, name)] == list(range(1, 13))
        np.testing.assert_allclose(history(resumed, name), history(whole, name), atol=1e-4)
    for ours, theirs in zip(weights(resumed), weights(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert set(resumed.data.metrics) | {"x"} >= set(whole.data.metrics) - {
        name for name in whole.data.metrics if name.startswith("system/")
    }

    again = fer("train", "--resume", resumed.info.run_id)
    assert again.exit_code == 2
    assert "which is finished" in again.error


@pytest.mark.parametrize("damage", ["unreadable", "no JSON"])
def test_a_journal_that_cannot_be_read_is_left_as_it_is(
    damage: str, own_home: Path, fer: Fer
) -> None:
    folder = own_home / "home" / "runs" / ("0" * 32)
    folder.mkdir(parents=True)
    events = folder / "journal.jsonl"
    if damage == "unreadable":
        events.mkdir()  # reading it is an error of the operating system's, as of a disk's
    else:
        events.write_text("{broken\n")
    outcome = fer("sync")
    assert outcome.exit_code == 0
    assert f"Warning: {folder} cannot be read" in outcome.err
    assert "it is left as it is" in outcome.err
    fer("cache", "--clear", "--unfinished")
    assert events.exists()
    assert "or cannot be read" in fer("train", "--resume", folder.name).err


def test_what_was_delivered_is_looked_for_where_the_note_of_it_is_damaged(
    own_home: Path, fer: Fer
) -> None:
    from fer_experiments.tracking.delivery import MlflowDelivery
    from fer_experiments.tracking.journal import Journal

    started = {"stage": "prepare", "name": "x", "tags": {"stage": "prepare"}, "experiment": "x"}
    journal = Journal.create(**started, parent=None, adopt=None, store=None, request=None)
    MlflowDelivery(journal).deliver_now()
    run_id = journal.run_id
    (journal.folder / "delivered.json").write_text("{broken")
    journal.close()
    again = Journal.open(journal.folder)
    assert again is not None and again.run_id is None
    MlflowDelivery(again).deliver_now()
    assert again.run_id == run_id
    again.close()


def test_resume_takes_no_other_option(fer: Fer) -> None:
    for command in ("train", "finetune", "main"):
        outcome = fer(command, "--resume", "0" * 32, "--epochs", "3")
        assert outcome.exit_code == 2
        assert "Expected resume alone" in outcome.error


def test_what_cannot_be_resumed_is_named(own_home: Path, fer: Fer) -> None:
    outcome = fer("train", "--resume", "0" * 32)
    assert outcome.exit_code == 2
    assert f"Received: {'0' * 32}, which is finished or was started elsewhere" in outcome.error


def test_an_offline_run_is_delivered_as_it_was(own_home: Path, fer: Fer) -> None:
    before = time.time() * 1000
    outcome = fer("train", *TINY, "--epochs", "2", "--offline")
    after = time.time() * 1000
    assert outcome.exit_code == 0, outcome.err
    assert not (own_home / "mlflow.db").exists()
    (folder,) = journals()
    assert f"kept   {folder}" in outcome.out

    outcome = fer("sync")
    assert outcome.exit_code == 0, outcome.err
    assert "0 left" in outcome.out
    run = only_run("train")
    assert run.info.status == "FINISHED"
    assert run.data.params["backbone"] == "tiny"
    assert run.info.run_name == "tiny train demo s0"
    assert before <= run.info.start_time <= run.info.end_time <= after
    client = MlflowClient()
    points = client.get_metric_history(run.info.run_id, "val/accuracy")
    assert [point.step for point in points] == [1, 2]
    assert all(before <= point.timestamp <= after for point in points)
    assert len(weights(run)) > 0
    assert run.data.tags["model_uri"] in run.data.tags["mlflow.note.content"]
    assert journals() == []
    assert "nothing waits" in fer("sync").out
    assert fer("finetune", "--run-id", run.info.run_id, "--finetune-epochs", "1").exit_code == 0


@pytest.mark.slow
def test_a_machine_without_mlflow_trains_offline(own_home: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['mlflow'] = None\n"  # importing it fails
        "from fer_experiments.entry import main\n"
        "main(sys.argv[1:])"
    )

    def without_mlflow(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, "train", *TINY, "--epochs", "1", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=process_environment(),
        )

    refused = without_mlflow()
    assert refused.returncode == 1
    assert "MLflow is not installed here; pass --offline" in refused.stderr
    done = without_mlflow("--offline")
    assert done.returncode == 0, done.stderr
    assert len(journals()) == 1


@pytest.mark.slow
def test_a_last_line_that_was_cut_off_is_left_out(own_home: Path, fer: Fer) -> None:
    assert fer("train", *TINY, "--epochs", "1", "--offline").exit_code == 0
    (folder,) = journals()
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["kind"] == "end"
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:9])
    assert fer("sync").exit_code == 0
    run = only_run("train")
    assert run.info.status == "FAILED"  # as far as anybody can tell
    assert fer("train", "--resume", run.info.run_id).exit_code == 0
    assert only_run("train").info.status == "FINISHED"
    assert [step for step, _ in history(only_run("train"), "train/loss")] == [1]


@pytest.mark.slow
def test_a_journal_of_another_store_is_left_alone(
    own_home: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start("train", *TINY, "--epochs", "500")
    wait_for(process, "epoch   1/")
    process.kill()
    process.communicate()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{own_home}/other.db")
    outcome = fer("sync")
    assert outcome.exit_code == 1
    assert f"belongs to MLFLOW_TRACKING_URI=sqlite:///{own_home}/mlflow.db" in outcome.error
    assert runs() == []
    assert len(journals()) == 1


@pytest.mark.slow
def test_forgotten_runs_cannot_be_resumed(own_home: Path, fer: Fer) -> None:
    process = start("train", *TINY, "--epochs", "500")
    wait_for(process, "epoch   1/")
    process.terminate()
    process.communicate()
    assert len(journals()) == 1
    assert "freed" in fer("cache", "--clear", "--unfinished").out
    assert journals() == []
    assert fer("cache", "--unfinished").exit_code == 2


def test_a_metric_goes_on_after_its_last_step(own_home: Path) -> None:
    journal = Journal.create(name="a", stage="train", tags={})
    assert journal.next_step("train/loss") == 0
    journal.new_points({"train/loss": 1.0, "val/loss": 2.0}, 3)
    journal.new_points({"val/loss": 2.0}, 7)
    assert (journal.next_step("train/loss"), journal.next_step("val/loss")) == (4, 8)
    journal.remove()


def test_points_that_come_from_two_threads_at_once(own_home: Path) -> None:
    journal = Journal.create(name="a", stage="train", tags={})
    stop = threading.Event()

    def write() -> None:
        step = 0
        while not stop.is_set():
            journal.new_points({f"train/{step % 7}": 1.0}, step)
            step += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            assert journal.next_step("system/cpu") == 0
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(before)
        journal.remove()
