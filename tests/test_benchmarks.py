"""The recorded measurements are whole, and the pages of results tell them as they are."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import gpu, recipes
from benchmarks.recipes import tables
from fer_experiments.data.images import FER_CLASSES

from .conftest import ROOT, Job
from .data.helpers import write_folder

RESULTS = Path(ROOT, "benchmarks", "results.json")
NAMES = {
    *(
        f"{row}_{backbone}"
        for row in (
            "head", "head_views4", "head_cached", "finetune", "recipe",
            "extract", "predict", "whole",
        )
        for backbone in ("vgg16", "resnet50")
    ),
    "prepare", "startup_help", "startup_error", "memory_10x", "growth",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(RESULTS.read_text())}


def test_what_was_measured_is_known_and_whole(rows: dict[str, dict[str, Any]]) -> None:
    assert set(rows) == NAMES
    for row in rows.values():
        assert list(row) == ["name", "ours", "reference", "ratio", "unit", "note"]
        assert row["ours"] > 0
        assert row["ratio"] > 0


def test_the_speed_page_tells_the_ratios_that_were_measured(
    rows: dict[str, dict[str, object]],
) -> None:
    page = (ROOT / "docs" / "results" / "speed.md").read_text()
    for name, row in rows.items():
        assert f"| `{name}` | {row['ratio']:.3g} |" in page


def test_the_accuracy_page_tells_the_runs_that_were_made() -> None:
    page = (ROOT / "docs" / "results" / "accuracy.md").read_text()
    for table in tables().values():
        assert table in page


def test_the_accuracy_page_tells_the_trainings_without_mlflow() -> None:
    page = (ROOT / "docs" / "results" / "accuracy.md").read_text()
    joined = re.findall(r"--join (\S+)", page)
    assert len(joined) == 2
    assert gpu.table(gpu.RESULTS, joined) in page


@pytest.mark.slow
def test_a_training_without_mlflow_leaves_scores_and_goes_on(tmp_path: Path) -> None:
    """Its predictions for val, in ten crops and disturbed; what is done is not done again."""
    faces = tmp_path / "faces"
    rng = np.random.default_rng(0)
    files = {
        f"{part}/{name}/{usage}_{10 * i + n}.png": rng.integers(0, 256, (48, 48), dtype=np.uint8)
        for part, usage in (("train", "Training"), ("test", "PublicTest"))
        for i, name in enumerate(FER_CLASSES)
        for n in range(3)
    }
    write_folder(faces, files)
    command = [
        sys.executable, "-m", "benchmarks.gpu", "train", "trial-tiny", "--epochs", "1",
        "--dataset", str(faces), "--weights", "none", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "finetune epoch 2: loss" in first.stdout
    with np.load(tmp_path / "out" / "trial-tiny-0" / "predictions.npz") as file:
        found = dict(file)
    assert found["crops"].shape == found["shift 2 0"].shape == found["none"].shape == (21, 7)
    assert (
        "done already"
        in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )


def test_start_up_is_told_beside_a_python_that_does_nothing() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.startup", "--rounds", "1"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rows = [line.strip("| ").split(" | ") for line in told.splitlines() if line.startswith("| `")]
    nothing, *commands = [row[0] for row in rows]
    assert nothing == "`python -c pass`"
    assert commands == ["`fer --help`", "`fer train --help`", "`fer train --epochs abc`"]
    for _, wall, cpu, wall_ratio, cpu_ratio in rows[1:]:
        assert float(wall) > 0 < float(cpu)
        # Imports of ours take longer than Python's own, the CPU's time surely.
        assert float(cpu_ratio) > 1
        assert float(wall_ratio) == pytest.approx(float(wall) / float(rows[0][1]), rel=0.1)
    assert rows[0][3:] == ["1.0", "1.0"]


def test_disturbed_faces_are_moved_by_what_is_said() -> None:
    image = np.zeros((1, 48, 48), dtype=np.uint8)
    image[0, 20, 30] = 255
    found = dict(gpu.disturbed(image))
    assert found["shift 2 0"][0, 22, 30] == found["shift 0 -2"][0, 20, 28] == 255
    # A point 3.5 rows above the middle (23.5, 23.5) and 6.5 columns right of it, both ways.
    for degrees in (10, -10):
        turn = np.deg2rad(degrees)
        down, right = -3.5, 6.5
        expected = (
            23.5 + down * np.cos(turn) - right * np.sin(turn),
            23.5 + down * np.sin(turn) + right * np.cos(turn),
        )
        weights = found[f"turn {degrees}"][0].astype(float)
        centre = [
            (weights.sum(axis=1 - axis) * np.arange(48)).sum() / weights.sum() for axis in (0, 1)
        ]
        assert centre == pytest.approx(expected, abs=0.3)
    rows, columns = np.nonzero(found["scale 1.1"][0])
    assert (rows.mean(), columns.mean()) == pytest.approx((23.5 - 3.85, 23.5 + 7.15), abs=0.6)


@pytest.fixture
def kept(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Kept predictions of the job's evaluation, by the name of their file."""
    monkeypatch.setattr(recipes, "PREDICTIONS", tmp_path / "predictions")
    done = CliRunner().invoke(recipes.main, ["keep", job.runs["evaluate"]])
    assert done.exit_code == 0, done.output
    return job.runs["evaluate"][:8]


def test_kept_predictions_are_judged_as_their_evaluation_was(job: Job, kept: str) -> None:
    from mlflow.tracking import MlflowClient

    scores = MlflowClient().get_run(job.runs["evaluate"]).data.metrics
    done = CliRunner().invoke(recipes.main, ["join", kept])
    assert done.exit_code == 0, done.output
    low, high = (scores[f"val/interval/macro_f1_{end}"] for end in ("low", "high"))
    assert f"val: accuracy {scores['val/accuracy']:.3f}" in done.output
    assert f"macro_f1 {scores['val/macro_f1']:.3f} ({low:.3f}–{high:.3f})" in done.output
    # The mean of a model with itself is that model.
    assert CliRunner().invoke(recipes.main, ["join", kept, kept]).output == done.output


def test_predictions_that_cannot_be_joined_are_refused(kept: str, tmp_path: Path) -> None:
    import numpy as np

    unknown = CliRunner().invoke(recipes.main, ["join", kept, "nothing"])
    assert unknown.exit_code == 2
    assert f"Expected kept predictions, of {kept}. Received: nothing" in unknown.output

    file = tmp_path / "predictions" / f"{kept}.npz"
    with np.load(file) as stored:
        arrays = dict(stored) | {"fingerprint": np.array("of other images")}
    np.savez(file.with_name("other.npz"), allow_pickle=False, **arrays)
    other = CliRunner().invoke(recipes.main, ["join", kept, "other"])
    assert other.exit_code == 1
    assert "Expected predictions of the same images" in other.output


def test_a_run_that_fer_made_is_taken_up_by_its_evaluation(job: Job, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    out = tmp_path / "taken.jsonl"
    given = ["--changed", "epochs=2;finetune_epochs=1", "--out", str(out)]
    done = CliRunner().invoke(recipes.main, ["take", job.runs["evaluate"], *given])
    assert done.exit_code == 0, done.output
    [line] = (json.loads(text) for text in out.read_text().splitlines())
    assert (line["recipe"], line["backbone"]) == ("demo", "tiny")
    assert line["changed"] == {"epochs": "2", "finetune_epochs": "1"}
    assert (line["train_run_id"], line["run_id"]) == (job.runs["train"], job.runs["finetune"])
    assert [epoch["epoch"] for epoch in line["history"]] == [1, 2, 3]
    scores = MlflowClient().get_run(job.runs["evaluate"]).data.metrics
    assert line["scores"]["val/accuracy"] == round(scores["val/accuracy"], 6)
