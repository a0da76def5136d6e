"""`fer runs`, beginnings of ids, links, and `fer ui`: what stands where, and how to get there."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from fer_experiments.errors import RunError
from fer_experiments.tracking import names, pages, runs
from fer_experiments.tracking.lifecycle import open_run

from ..conftest import Fer, Job, process_environment

PREPARE = ("prepare", "--recipe", "demo", "--synthetic-count", "70")


def made(run_id: str, stage: str = "train", *, experiment: str = "0") -> str:
    """A finished run of this id."""
    import sqlite3

    client = MlflowClient()
    run = client.create_run(
        experiment, tags={names.SUITE: "0", "stage": stage}, run_name=run_id[:6]
    )
    client.set_terminated(run.info.run_id, "FINISHED")
    with sqlite3.connect(client.tracking_uri.removeprefix("sqlite:///")) as database:
        for table in ("runs", "tags"):
            database.execute(
                f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?", (run_id, run.info.run_id)
            )
    return run_id


def test_runs_are_listed_by_stage_with_ids_and_scores(job: Job, fer: Fer) -> None:
    outcome = fer("runs")
    assert outcome.exit_code == 0
    client = MlflowClient()
    for stage in ("train", "finetune", "evaluate"):
        run = client.get_run(job.runs[stage])
        (line,) = (
            line for line in outcome.out.splitlines() if line.startswith(run.info.run_id[:8])
        )
        assert "FINISHED" in line
        assert run.info.run_name in line
        assert f"\n{stage}: " in f"\n{outcome.out}"
    scores = client.get_run(job.runs["evaluate"]).data.metrics
    for name in ("val/accuracy", "val/macro_f1", "test/accuracy", "test/macro_f1"):
        assert f"{scores[name]:.4f}" in line
    assert outcome.out.index("train:") < outcome.out.index("finetune:")
    only = fer("runs", "--stage", "evaluate").out
    assert job.runs["evaluate"][:8] in only
    assert "train: " not in only


def test_the_score_of_a_training_is_the_kept_epochs(fresh_store: Path, fer: Fer) -> None:
    with open_run("train", "tiny") as writer:
        for epoch, score in enumerate((0.25, 0.75, 0.5), start=1):
            writer.metrics({"val/macro_f1": score}, step=epoch)
        writer.metrics({"best_epoch": 2})
    line = next(x for x in fer("runs").out.splitlines() if x.startswith(writer.run_id[:8]))
    assert line.split()[-1] == "0.7500"


def test_unfinished_runs_are_listed_as_what_they_are(fresh_store: Path, fer: Fer) -> None:
    with pytest.raises(MemoryError), open_run("train", "tiny"):
        raise MemoryError
    assert "FAILED" in fer("runs").out


def test_many_runs_are_cut_and_said_to_be(fresh_store: Path, fer: Fer) -> None:
    for i in range(17):
        made(f"{i:032x}"[::-1])
    outcome = fer("runs", "--stage", "train")
    assert "train: 17" in outcome.out
    assert "and 2 older ones: fer runs --stage train --all" in outcome.out
    assert fer("runs", "--all").out.count("FINISHED") == 17


def test_a_stage_that_there_is_not(fer: Fer, fresh_store: Path) -> None:
    outcome = fer("runs", "--stage", "trian")
    assert outcome.exit_code == 2
    assert "Received: stage=trian" in outcome.error


# Beginnings of ids.


def test_the_beginning_of_an_id_is_enough(fresh_store: Path) -> None:
    whole = made("ab12cd" + "0" * 26)
    made("ab34" + "0" * 28)
    for beginning in (whole, whole[:6], "ab12"):
        assert runs.get_run(beginning, stages=("train",)).id == whole
    with pytest.raises(RunError, match="which does not exist"):
        runs.get_run("ab1", stages=("train",))  # too short to be meant
    with pytest.raises(RunError, match="which does not exist"):
        runs.get_run("ab56", stages=("train",))


def test_a_beginning_of_several_ids_is_refused_with_all_of_them(fresh_store: Path) -> None:
    other = MlflowClient().create_experiment("another")
    first, second = made("ab12c" + "0" * 27), made("ab12d" + "0" * 27, experiment=other)
    with pytest.raises(RunError, match="several begin") as raised:
        runs.get_run("ab12", stages=("train",))
    assert first[:12] in str(raised.value)
    assert second[:12] in str(raised.value)


def test_a_command_takes_the_beginning_and_stores_the_whole(job: Job, fer: Fer) -> None:
    ids = [job.runs[stage] for stage in ("train", "finetune")]
    outcome = fer("ensemble", "--run-ids", ",".join(i[:8] for i in ids))
    assert outcome.exit_code == 0, outcome.err
    made = MlflowClient().get_run(outcome.out.split("run    ")[1].split()[0])
    assert made.data.tags["member_run_ids"] == ",".join(ids)
    twice = fer("ensemble", "--run-ids", f"{ids[0]},{ids[0][:8]}")
    assert twice.exit_code == 2
    assert "each once" in twice.error


def test_a_run_is_resumed_by_the_beginning_of_its_id(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", str(fresh_store / "data"))
    with pytest.raises(MemoryError), open_run("train", "tiny") as writer:
        raise MemoryError
    outcome = fer("finetune", "--resume", writer.run_id[:8])
    assert outcome.exit_code == 2
    assert "a run of stage train" in outcome.error
    outcome = fer("finetune", "--resume", "0000")
    assert "which is finished or was started elsewhere" in outcome.error


# Look-ups, and links to what is there.


def test_look_ups_go_through_every_experiment(fresh_store: Path) -> None:
    other = MlflowClient().create_experiment("through mlflow run")
    there = {made(c * 32, experiment=e) for c, e in (("a", "0"), ("b", other))}
    assert {run.id for run in runs.search("train")} == there
    only = runs.search("train", experiment="through mlflow run")
    assert [run.id for run in only] == ["b" * 32]


def test_links_are_of_the_experiment_and_open_runs_not_traces(fresh_store: Path, fer: Fer) -> None:
    MlflowClient().create_experiment("first")
    outcome = fer(*PREPARE, "--experiment", "mine")
    experiment = MlflowClient().get_experiment_by_name("mine").experiment_id
    (run,) = MlflowClient().search_runs([experiment])
    assert (
        f"open   http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run.info.run_id}"
        "?workflowType=machine_learning" in outcome.out
    )


def test_a_server_shows_its_own_pages(fresh_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pages.has_server()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host/mlflow/")
    assert pages.has_server()
    assert pages.run("7", "ab") == (
        "https://host/mlflow/#/experiments/7/runs/ab?workflowType=machine_learning"
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_taken_port_is_named_with_one_that_is_free(fresh_store: Path, fer: Fer) -> None:
    assert fer(*PREPARE).exit_code == 0
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        outcome = fer("ui", "--port", str(port))
    assert outcome.exit_code == 2
    assert f"Received: PORT={port}, where another program listens" in outcome.error
    found = re.search(r"make ui PORT=(\d+)", outcome.error)
    assert found is not None
    assert int(found[1]) > port


@pytest.mark.slow
def test_ui_links_to_every_experiment_and_commands_link_to_it(fresh_store: Path, fer: Fer) -> None:
    assert fer(*PREPARE, "--experiment", "my faces").exit_code == 0
    made("a" * 32)  # in Default, as `mlflow run` without a name leaves it
    MlflowClient().create_experiment("of another tool")
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "fer_experiments", "ui", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=process_environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(4)]
            url = f"http://127.0.0.1:{port}"
            mine = MlflowClient().get_experiment_by_name("my faces").experiment_id
            assert lines == [
                f"store   sqlite:///{fresh_store}/mlflow.db",
                f"runs    {url}/#/experiments/0/runs?workflowType=machine_learning  Default",
                f"runs    {url}/#/experiments/{mine}/runs?workflowType=machine_learning  my faces",
                f"models  {url}/#/models",
            ]
            request = urllib.request.Request(
                f"{url}/api/2.0/mlflow/experiments/search",
                json.dumps({"max_results": 10}).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                shown = {e["name"] for e in json.load(answer)["experiments"]}
            assert {"my faces", "Default", "of another tool"} <= shown
            assert f"open   {url}/#/experiments/" in fer(*PREPARE).out
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert pages.address() == "http://127.0.0.1:5000"
