"""What version 1 registered still loads, predicts, is evaluated, compared, resumed."""

import gzip
import json
import re
import sqlite3
import tarfile
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from fer_experiments.tracking.models import describe
from fer_experiments.tracking.runs import config_of, get_run, recent

from .conftest import ROOT, Fer

FIXTURE = ROOT / "tests" / "fixtures" / "version_1"
CHAMPION = "models:/emotion-synthetic@champion"


@pytest.fixture
def older(fresh_store: Path) -> Path:
    """The store of version 1, in the folder that MLflow looks in."""
    here = str(fresh_store)
    script = gzip.decompress((FIXTURE / "store.sql.gz").read_bytes()).decode()
    (fresh_store / "mlflow.db").unlink(missing_ok=True)
    with sqlite3.connect(fresh_store / "mlflow.db") as database:
        database.executescript(script.replace("@HERE@", here))
    database.close()
    with tarfile.open(FIXTURE / "artifacts.tar.gz") as files:
        files.extractall(fresh_store, filter="data")
    for file in fresh_store.rglob("MLmodel"):
        file.write_text(file.read_text().replace("@HERE@", here))
    return fresh_store


def scores_of(stage: str) -> dict[str, float]:
    [run] = [run for run in recent() if run.stage == stage]
    return dict(run.metrics)


def test_its_configurations_mean_what_they_meant(older: Path) -> None:
    [run] = [run for run in recent() if run.stage == "finetune"]
    config = config_of(get_run(run.id, stages=("finetune",)))
    assert config.model.truncate_at == "block2_out"
    assert config.model.head == "global_average_pooling"
    assert config.features.augmented_copies == 1
    assert (run.params["truncate_at"], run.params["augmented_copies"]) == ("block2_out", "1")
    assert describe(CHAMPION).config == config


def test_its_champion_predicts(older: Path, fer: Fer, tmp_path: Path) -> None:
    Image.fromarray(np.full((48, 48), 90, dtype=np.uint8)).save(tmp_path / "face.png")
    outcome = fer("predict", tmp_path / "face.png", "--json")
    assert outcome.exit_code == 0, outcome.err
    row, last = map(json.loads, outcome.out.splitlines())
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert last["summary"]["model"]["uri"] == describe(CHAMPION).uri


def test_its_champion_is_evaluated_as_it_was(older: Path, fer: Fer) -> None:
    before = scores_of("evaluate")
    outcome = fer("evaluate", "--model", CHAMPION, "--json")
    assert outcome.exit_code == 0, outcome.err
    scores = json.loads(outcome.out)["scores"]
    for name in ("val/accuracy", "val/macro_f1", "test/accuracy", "test/macro_f1"):
        assert scores[name] == pytest.approx(before[name], abs=1e-6), name
    assert scores["val/log_loss"] == pytest.approx(before["val/log_loss"], abs=1e-4)


def test_its_evaluations_are_compared_and_the_champion_stays(older: Path, fer: Fer) -> None:
    outcome = fer("compare")
    assert outcome.exit_code == 0, outcome.err
    assert re.search(r"^tiny finetune demo s0 ", outcome.out, re.MULTILINE)
    outcome = fer("register")
    assert outcome.exit_code == 0, outcome.err
    assert "already champion" in outcome.out
    version = MlflowClient().get_model_version_by_alias("emotion-synthetic", "champion")
    assert int(version.version) == 1


@pytest.mark.slow
def test_its_training_is_gone_on_with(older: Path, fer: Fer) -> None:
    [run] = [run for run in recent() if run.stage == "train"]
    outcome = fer("finetune", "--run-id", run.id, "--finetune-epochs", "1", "--json")
    assert outcome.exit_code == 0, outcome.err
    tuned = get_run(json.loads(outcome.out)["run_id"], stages=("finetune",))
    assert tuned.tags["source_run_id"] == run.id
    assert tuned.params["augmented_copies"] == "1"
