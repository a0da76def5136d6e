"""The saved views of an experiment: written once, never in the way, and showing what they say."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fer_experiments.tracking import names, sync, views
from fer_experiments.tracking.lifecycle import open_run

from ..conftest import Fer, Job, process_environment

TAG = "mlflow.sharedViewState."
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@pytest.fixture
def store(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A store and a data home of this test's own."""
    monkeypatch.setenv("FER_DATA_HOME", str(empty_store / "data"))
    return MlflowClient()


def tags_of(client: MlflowClient, experiment: str = "fer2013") -> dict[str, str]:
    return dict(client.get_experiment_by_name(experiment).tags)


def views_in(tags: dict[str, str]) -> dict[str, str]:
    """What MLflow's page lists: names by id."""
    return {
        tag.removeprefix(TAG): json.loads(value)["name"]
        for tag, value in tags.items()
        if tag.startswith(TAG)
    }


def state_of(tag: str) -> dict[str, Any]:
    kind, _, packed = json.loads(tag)["state"].partition(";")
    assert kind == "deflate"
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert isinstance(state, dict)
    return state


@pytest.fixture(scope="module")
def written(job: Job) -> dict[str, dict[str, Any]]:
    """The states of the views that the job has brought, by name."""
    tags = tags_of(MlflowClient())
    return {name: state_of(tags[TAG + id_]) for id_, name in views_in(tags).items()}


# When they are written.


@pytest.mark.parametrize("stage", ["train", "finetune", "evaluate"])
def test_the_first_run_that_finishes_brings_them(store: MlflowClient, stage: str) -> None:
    with open_run(stage, "tiny"):
        pass
    found = views_in(tags_of(store))
    assert sorted(found.values()) == ["Compare models", "Learning curves"]
    assert tags_of(store)[names.VIEWS] in next(iter(found))  # the suite's version


def test_other_stages_and_runs_that_fail_bring_none(store: MlflowClient) -> None:
    with open_run("prepare", "faces"):
        pass
    with pytest.raises(RuntimeError), open_run("train", "tiny"):
        raise RuntimeError
    assert not views_in(tags_of(store))


def test_a_run_that_was_offline_brings_them_when_it_is_delivered(store: MlflowClient) -> None:
    with open_run("train", "tiny", offline=True):
        pass
    assert store.get_experiment_by_name("fer2013") is None
    sync.deliver_all()
    assert len(views_in(tags_of(store))) == 2


def test_they_are_written_once(store: MlflowClient) -> None:
    with open_run("train", "tiny"):
        pass
    before = tags_of(store)
    experiment_id = store.get_experiment_by_name("fer2013").experiment_id
    removed, kept = (tag for tag in before if tag.startswith(TAG))
    store.delete_experiment_tag(experiment_id, removed)  # by a person, in MLflow's page
    with open_run("evaluate", "tiny"):
        pass
    after = tags_of(store)
    assert after == {tag: value for tag, value in before.items() if tag != removed}
    assert list(views.links(experiment_id)) == [json.loads(after[kept])["name"]]


def test_another_version_replaces_them_and_leaves_a_persons_own_alone(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment_id = store.create_experiment("mine")
    store.set_experiment_tag(experiment_id, f"{TAG}3f9c", '{"name": "Compare models"}')
    # The last try is of somebody who has not upgraded.
    for version, shown in (("0.9.0", "0.9.0"), ("0.10.0", "0.10.0"), ("0.9.0", "0.10.0")):
        monkeypatch.setattr(views, "__version__", version)
        views.write(store, experiment_id)
        tags = tags_of(store, "mine")
        assert tags[f"{TAG}3f9c"] == '{"name": "Compare models"}'
        assert tags[names.VIEWS] == shown
        assert set(views_in(tags)) == {
            "3f9c",
            f"fer_experiments-{shown}-compare-models",
            f"fer_experiments-{shown}-learning-curves",
        }


def test_they_leave_room_for_a_persons_own(store: MlflowClient) -> None:
    experiment_id = store.create_experiment("full")
    for i in range(39):
        store.set_experiment_tag(experiment_id, f"{TAG}{i}", '{"name": "a view"}')
    views.write(store, experiment_id)
    assert len(views_in(tags_of(store, "full"))) == 39
    store.delete_experiment_tag(experiment_id, f"{TAG}0")
    views.write(store, experiment_id)
    assert len(views_in(tags_of(store, "full"))) == 40


def test_no_run_fails_for_them(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise MlflowException("you may not write to this experiment")

    with open_run("prepare", "faces"):  # makes the experiment
        pass
    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    with open_run("train", "tiny") as writer:
        assert views.closing_lines(writer.experiment_id) == []
    assert store.get_run(writer.run_id).info.status == "FINISHED"
    assert not views_in(tags_of(store))


# What they show.


def test_they_fit_into_a_tag(job: Job) -> None:
    tags = tags_of(MlflowClient())
    assert all(len(value) < 5000 for tag, value in tags.items() if tag.startswith(TAG))


def test_they_find_the_runs_of_their_stages(job: Job, written: dict[str, dict[str, Any]]) -> None:
    client = MlflowClient()
    experiment_id = client.get_experiment_by_name("fer2013").experiment_id
    stages = {"Compare models": {"evaluate"}, "Learning curves": {"train", "finetune"}}
    assert set(written) == set(stages)
    for name, state in written.items():
        order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
        runs = client.search_runs([experiment_id], state["searchFilter"], order_by=[order])
        assert {run.data.tags["stage"] for run in runs} == stages[name]
        assert {job.runs[stage] for stage in stages[name]} <= {run.info.run_id for run in runs}
        # Only this order folds runs below their parents.
        assert state["orderByKey"] != "attributes.start_time"


def test_every_column_and_chart_has_values(job: Job, written: dict[str, dict[str, Any]]) -> None:
    for name, stage in (("Compare models", "evaluate"), ("Learning curves", "finetune")):
        run, state = MlflowClient().get_run(job.runs[stage]), written[name]
        held = {f"metrics.`{metric}`" for metric in run.data.metrics}
        held |= {f"params.`{param}`" for param in run.data.params}
        assert set(state["selectedColumns"]) <= held
        assert set(state["columnWidths"]) <= set(state["columnOrder"])
        charts = {chart["metricKey"] for chart in state["compareRunCharts"]}
        assert charts <= run.data.metrics.keys()
        # MLflow adds the others, in a section for each beginning of a name; open, unless known.
        sections = {section["name"] for section in state["compareRunSections"]}
        others = {
            "System metrics" if metric.startswith("system/") else metric.rpartition("/")[0]
            for metric in run.data.metrics.keys() - charts
        }
        assert {other or "Model metrics" for other in others} <= sections


@pytest.mark.slow
def test_commands_lead_to_them(job: Job, fer: Fer) -> None:
    for command in (["evaluate", "--backbone", "tiny"], ["compare"]):
        lines = [x for x in fer(*command).out.splitlines() if x.startswith("view   ")]
        assert [line.split("  ")[-1] for line in lines] == ["Compare models", "Learning curves"]
        assert all("/#/experiments/1/runs?" in line for line in lines)
        assert [line.split()[1] for line in lines] == list(views.links("1").values())


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="looks at MLflow's page with Chromium")
def test_a_link_opens_the_page_with_those_runs_alone(job: Job, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "fer_experiments", "ui", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=process_environment(),
    ) as process:  # fmt: skip
        try:
            links = {}
            assert process.stdout is not None
            while (line := process.stdout.readline()) and not line.startswith("models"):
                if line.startswith("view") and "/#/experiments/1/" in line:
                    _, link, name = line.strip().split(maxsplit=2)
                    links[name] = link
            pages = {name: rendered(link, tmp_path) for name, link in links.items()}
        finally:
            process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    for name, stages in (
        ("Compare models", {"evaluate"}),
        ("Learning curves", {"train", "finetune"}),
    ):
        text = pages[name]
        assert f">{name}<" in text  # the name of the view on its button
        ids = set(re.findall(r"/experiments/1/runs/([0-9a-f]{32})", text))
        assert {job.runs[stage] for stage in stages} <= ids
        found = {MlflowClient().get_run(run_id).data.tags["stage"] for run_id in ids}
        assert found == stages
    for column in ("backbone", "seed", "val/macro_f1", "test/accuracy"):
        assert f">{column}<" in pages["Compare models"]
    for chart in ("val/loss", "train/macro_f1"):
        assert f">{chart}<" in pages["Learning curves"]


def rendered(link: str, folder: Path) -> str:
    """The page as a browser shows it, when its scripts have done their work."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless=new", "--disable-gpu", f"--user-data-dir={folder}/profile",
            *(["--no-sandbox"] if os.getuid() == 0 else []), "--window-size=2400,1400",
            "--virtual-time-budget=60000", "--dump-dom", link,
        ],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return done.stdout
