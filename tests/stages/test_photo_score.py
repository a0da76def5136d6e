"""The photo score of an evaluation, recomputed; and what is said of a model that loses much."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from fer_experiments.data.images import FER_CLASSES
from fer_experiments.data.prepared import by_fingerprint
from fer_experiments.evaluation.predictions import predict
from fer_experiments.scores import scores_of
from fer_experiments.stages.photo_score import photo_score
from fer_experiments.tracking.models import describe, load

from ..conftest import Fer, Job
from ..faces.photos import grace_hopper


def test_it_is_recomputed_from_the_crops(job: Job) -> None:
    run = MlflowClient().get_run(job.runs["evaluate"])
    logged = describe(run.data.tags["model_uri"])
    prepared = by_fingerprint(logged.dataset_fingerprint)
    assert prepared is not None
    images, labels = prepared.split("val")
    [folder] = (Path(os.environ["FER_DATA_HOME"]) / "photos").glob("*")
    crops, found = (np.load(folder / f"{name}.npy") for name in ("crops", "found"))
    assert crops.shape == images.shape
    model = load(logged)
    told = run.data.metrics
    assert told["val/photo/images"] == found.sum() > 0
    assert told["val/photo/found"] == pytest.approx(found.mean())
    for name, pixels in (("plain_accuracy", images), ("accuracy", crops)):
        right = predict(model, pixels[found]).argmax(axis=1) == labels[found]
        assert told[f"val/photo/{name}"] == pytest.approx(right.mean())
    confusion = np.zeros((7, 7))
    np.add.at(confusion, (labels[found], predict(model, crops[found]).argmax(axis=1)), 1)
    assert told["val/photo/macro_f1"] == pytest.approx(float(scores_of(confusion)["macro_f1"]))
    # Its model holds them too, by the name of the data.
    held = MlflowClient().get_logged_model(logged.model_id).metrics
    assert held is not None
    assert {m.dataset_name for m in held if m.key == "val/photo/accuracy"} == {"synthetic val"}


def test_small_images_have_none(job: Job) -> None:
    class Tiny:
        image_size = 16

        def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((3, 16, 16), np.uint8), np.zeros(3, int)

    assert photo_score(lambda pixels: pixels, Tiny(), data_seed=0) == {}  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_model_that_loses_much_on_photos_says_so(job: Job, fer: Fer, tmp_path: Path) -> None:
    grace_hopper().save(tmp_path / "photo.jpg")
    grace_hopper().resize((48, 48)).save(tmp_path / "crop.png")
    uri = MlflowClient().get_run(job.runs["evaluate"]).data.tags["model_uri"]
    client, model_id = MlflowClient(), uri.removeprefix("models:/")
    before = {m.key: m.value for m in client.get_logged_model(model_id).metrics or []}

    def asked(name: str, plain: float, after: float) -> str:
        for key, value in (("plain_accuracy", plain), ("accuracy", after)):
            client.log_metric(
                job.runs["evaluate"], f"val/photo/{key}", value, step=99, model_id=model_id
            )
        outcome = fer("predict", tmp_path / name, "--model", uri)
        assert outcome.exit_code == 0, outcome.err
        return outcome.err

    try:
        warned = asked("photo.jpg", 0.634, 0.502)
        assert "Warning: this model names 63.4% of val rightly, but 50.2% where" in warned
        assert "Warning" not in asked("crop.png", 0.634, 0.502)  # nothing was searched
        assert "Warning" not in asked("photo.jpg", 0.634, 0.61)
    finally:
        asked("crop.png", before["val/photo/plain_accuracy"], before["val/photo/accuracy"])


@pytest.mark.slow
def test_a_model_of_crops_is_evaluated_on_photos(job: Job, fer: Fer, tmp_path: Path) -> None:
    """Their faces are cut out and framed as its training images are."""
    faces = 0
    for part in ("train", "val"):
        for label in FER_CLASSES:
            for number in range(2):
                faces += 1
                path = tmp_path / "photos" / part / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                shade = [v * (100 - faces) // 100 for v in range(256)] * 3
                grace_hopper().resize((256, 300)).point(shade).save(path)
    uri = MlflowClient().get_run(job.runs["evaluate"]).data.tags["model_uri"]
    asked = ("--model", uri, "--dataset", tmp_path / "photos")
    outcome = fer("evaluate", *asked, "--detector", "mtcnn")
    assert outcome.exit_code == 0, outcome.err
    assert "14 images" in outcome.out
    run = MlflowClient().get_run(outcome.done())
    assert run.data.params["detector"] == "mtcnn"
