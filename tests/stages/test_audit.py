"""`fer audit` on planted faults and on clean faces, and what `prepare` says of the same."""

import csv
import io
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run
from PIL import Image

from fer_experiments.data.synthetic import draw_faces

from ..conftest import Fer


def newest(stage: str) -> Run:
    return mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.stage = '{stage}'",
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )[0]


def audit_metrics(run: Run) -> dict[str, float]:
    return {k.removeprefix("audit/"): v for k, v in run.data.metrics.items() if "audit/" in k}


def groups_of(run: Run) -> list[dict[str, str]]:
    text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/audit/groups.csv")
    return list(csv.DictReader(io.StringIO(text)))


def artifacts(run: Run) -> set[str]:
    found = mlflow.artifacts.list_artifacts(run_id=run.info.run_id, artifact_path="audit")
    return {item.path for item in found or []}


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Drawn faces with a leak, a pair of two labels, a near-duplicate and two blank images."""
    images, _, ids = draw_faces(count=100, seed=5)
    faces = dict(zip(ids, images, strict=True))
    angry, happy = (sorted(n for n in ids if f"train/{c}/" in n) for c in ("angry", "happy"))
    [val, *_] = sorted(n for n in ids if "PublicTest" in n and "/happy/" in n)
    faces[val] = faces[happy[0]]
    faces[happy[1]] = faces[angry[0]]
    faces[happy[2]] = np.clip(faces[happy[3]].astype(int) + 5, 0, 255).astype(np.uint8)
    faces[angry[1]] = np.zeros((48, 48), np.uint8)
    faces[angry[2]] = np.full((48, 48), 200, np.uint8)
    for name, face in faces.items():
        path = tmp_path / "faulty" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(path)
    return tmp_path / "faulty"


def test_planted_faults_are_found(faulty: Path, fer: Fer, fresh_store: Path) -> None:
    outcome = fer("audit", "--dataset", faulty, "--split", "official")
    assert outcome.exit_code == 0, outcome.err
    assert "2 sets of identical images (4 images); 1 sets reach over splits" in outcome.out
    assert "1 sets of near-duplicates (2 images)" in outcome.out
    assert "--leaks drop" in outcome.out
    run = newest("audit")
    assert audit_metrics(run) == {
        "duplicate_groups": 2,
        "duplicate_images": 4,
        "cross_split_groups": 1,
        "val_in_train": 1,
        "test_in_train": 0,
        "conflicting_groups": 1,
        "dropped_from_train": 0,
        "blank_images_train": 2,
        "blank_images_val": 0,
        "blank_images_test": 0,
        "faint_images_train": 2,
        "faint_images_val": 0,
        "faint_images_test": 0,
        "near_groups": 1,
        "near_images": 2,
        "near_cross_split_groups": 0,
        "near_conflicting_groups": 0,
        "near_val_in_train": 0,
        "near_test_in_train": 0,
    }
    rows = groups_of(run)
    assert [(row["group"], row["kind"]) for row in rows] == [
        ("1", "exact"), ("1", "exact"), ("2", "exact"), ("2", "exact"), ("3", "near"), ("3", "near")
    ]  # fmt: skip
    assert [row["label"] for row in rows] == ["angry", *["happy"] * 5]
    assert [row["split"] for row in rows] == [*["train"] * 3, "val", "train", "train"]
    assert all(Path(faulty, row["id"]).exists() for row in rows)
    assert artifacts(run) == {"audit/groups.csv", "audit/examples.png"}
    assert "1 sets of near-duplicates" in run.data.tags["mlflow.note.content"]
    assert run.info.status == "FINISHED"


def test_prepare_writes_the_exact_groups_and_drops_leaks(
    faulty: Path, fer: Fer, fresh_store: Path
) -> None:
    asked = ("prepare", "--dataset", faulty, "--split", "official")
    assert fer(*asked).exit_code == 0
    run = newest("prepare")
    assert {row["kind"] for row in groups_of(run)} == {"exact"}
    assert audit_metrics(run)["val_in_train"] == 1
    outcome = fer(*asked, "--leaks", "drop")
    assert outcome.exit_code == 0
    assert "1 training images that also stand there were dropped" in outcome.out
    run = newest("prepare")
    assert run.data.params["leaks"] == "drop"
    assert audit_metrics(run)["val_in_train"] == 0
    assert audit_metrics(run)["dropped_from_train"] == 1


def test_clean_faces_have_no_faults(fer: Fer, fresh_store: Path) -> None:
    outcome = fer("audit", "--recipe", "demo", "--synthetic-count", "210", "--experiment", "mine")
    assert outcome.exit_code == 0, outcome.err
    assert "no near-duplicates" in outcome.out
    assert "--leaks" not in outcome.out
    run = newest("audit")
    assert mlflow.get_experiment(run.info.experiment_id).name == "mine"
    counts = audit_metrics(run)
    assert {"duplicate_images", "val_in_train", "near_images", "blank_images_test"} <= set(counts)
    assert set(counts.values()) == {0}
    assert groups_of(run) == []
    assert artifacts(run) == {"audit/groups.csv"}
    assert fer("prepare", "--recipe", "demo", "--synthetic-count", "210").exit_code == 0
    assert artifacts(newest("prepare")) == set()
