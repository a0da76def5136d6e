"""The split that was resolved, never auto, stands wherever a split is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from fer_experiments.config import Config
from fer_experiments.stages.evaluate import with_data

from ..conftest import Fer, Job
from ..data.helpers import noise, write_folder


def test_runs_of_a_whole_job_hold_the_split_that_was_resolved(job: Job) -> None:
    client = MlflowClient()
    stages = [stage for stage in job.runs if stage not in ("compare", "register")]
    assert {"prepare", "train", "finetune", "evaluate", "main"} <= {*stages, "main"}
    for run_id in [job.main, *(job.runs[stage] for stage in stages)]:
        assert client.get_run(run_id).data.params["split"] == "official"
    for stage in ("train", "finetune", "evaluate"):
        path = client.download_artifacts(job.runs[stage], "config.json")
        assert json.loads(Path(path).read_text())["split"] == "official"


@pytest.mark.parametrize(
    ("parts", "asked", "resolved"),
    [
        (("",), (), "holdout"),
        (("train/", "test/"), (), "given"),
        (("train/", "test/"), ("--split", "holdout"), "holdout"),
        (("train/", "test/"), ("--recipe", "baseline"), "holdout"),
    ],
)
def test_prepare_says_and_stores_it(
    parts: tuple[str, ...], asked: tuple[str, ...], resolved: str, fer: Fer, fresh_store: Path
) -> None:
    pixels = iter(noise(40, size=48))
    files = {f"{p}{c}/{i}.png": next(pixels) for p in parts for c in "ab" for i in range(10)}
    folder = write_folder(fresh_store / "faces", files)
    outcome = fer("prepare", "--dataset", folder, *asked)
    assert outcome.exit_code == 0, outcome.err
    assert f"split {resolved}" in outcome.out.splitlines()[0]
    # What a recipe names need not be said again.
    said = "--recipe baseline" if "--recipe" in asked else f"--split {resolved}"
    assert said in outcome.out.splitlines()[-1]
    client = MlflowClient()
    experiment = client.get_experiment_by_name("fer2013")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["split"] == resolved
    card = client.download_artifacts(run.info.run_id, "dataset/card.json")
    assert json.loads(Path(card).read_text())["split"] == resolved


def test_another_dataset_has_its_own_split() -> None:
    trained = Config().replace(dataset="archive.zip", split="official")
    assert with_data(trained, {}).data.split == "official"
    assert with_data(trained, {"limit": 70}).data.split == "official"
    assert with_data(trained, {"dataset": "archive.zip"}).data.split == "official"
    assert with_data(trained, {"dataset": "own"}).data.split == "auto"
    assert with_data(trained, {"dataset": "own", "split": "holdout"}).data.split == "holdout"
