"""`make demo`'s job with both real backbones, and the same on real images where there are any."""

from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from ..conftest import Fer

pytestmark = pytest.mark.slow


def evaluations() -> dict[str, Run]:
    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string="tags.stage = 'evaluate'",
        output_format="list",
    )
    return {run.data.tags["backbone"]: run for run in found}


def test_both_backbones_learn_every_drawn_emotion_and_none_is_perfect(
    fer: Fer, fresh_store: Path
) -> None:
    outcome = fer("main", "--recipe", "demo")
    assert outcome.exit_code == 0, outcome.err
    assert "models:/emotion-synthetic@champion is version 1" in outcome.out
    judged = evaluations()
    assert set(judged) == {"vgg16", "resnet50"}
    for backbone, run in judged.items():
        scores = run.data.metrics
        for split in ("val", "test"):
            best_guess = scores[f"{split}/majority_share"]
            assert best_guess + 0.15 < scores[f"{split}/accuracy"] < 1, backbone
        # Of both splits: each has five disgusted faces, and how a processor rounds may decide
        # whether one of five is found.
        found = {name.rsplit("_", 1)[-1] for name, v in scores.items() if "/recall_" in name and v}
        assert len(found) == 7, backbone


def test_the_job_on_real_images_with_real_weights(
    fer: Fer, fresh_store: Path, shared: Path
) -> None:
    outcome = fer(
        "main", "--dataset", shared / "fer2013" / "archive.zip", "--split", "holdout",
        "--weights", shared / "weights", "--limit", "140", "--epochs", "1",
        "--finetune-epochs", "1",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.err
    assert "models:/emotion-fer2013@champion is version 1" in outcome.out
    for run in evaluations().values():
        assert run.data.metrics["test/images"] == 140
        assert run.data.params["weights"] == str(shared / "weights")
