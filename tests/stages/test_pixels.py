"""One way to pixels: a file means the same to prepare, to evaluate and to predict."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image

from fer_experiments.data.images import to_pixels
from fer_experiments.tracking.models import describe

from ..conftest import Fer
from ..data.helpers import encode
from . import designed


@pytest.fixture(scope="module")
def plain(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 16×16 on which the designed model 0 is mostly right."""
    answers = [designed.answers(0.8, seed=1)]
    return designed.write_images(tmp_path_factory.mktemp("designed") / "plain", answers)


@pytest.fixture(scope="module")
def model(plain: Path) -> str:
    """The designed model, trained on square images; its run."""
    return designed.log_designed(plain, 0, confidence=0.9)


def wide_copy(source: Path, target: Path) -> Path:
    """The test images of a dataset, each between noise: 16×32, the middle as it was."""
    rng = np.random.default_rng(0)
    shutil.copytree(source, target)
    for file in (target / "test").rglob("*.png"):
        picture = rng.integers(0, 256, (16, 32), dtype=np.uint8)
        picture[:, 8:24] = np.asarray(Image.open(file))
        Image.fromarray(picture).save(file)
    return target


def twelve_bits(source: Path, target: Path) -> Path:
    """All images of a dataset as a camera's values from 0 to 4080, in files of 16 bits."""
    shutil.copytree(source, target)
    for file in target.rglob("*.png"):
        file.write_bytes(encode(np.asarray(Image.open(file)).astype(np.uint16) * 16))
    return target


def evaluated(run_id: str, split: str) -> dict[str, str]:
    """The class that an evaluation named, by the image's path in the dataset."""
    found = mlflow.artifacts.load_dict(f"runs:/{run_id}/{split}/predictions.json")
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]
    return {row["id"]: row["predicted"] for row in rows}


def run_id_in(out: str) -> str:
    found = re.search(r"^run    (\w+)$", out, re.MULTILINE)
    assert found
    return found[1]


def model_uri(run_id: str) -> str:
    return mlflow.get_run(run_id).data.tags["model_uri"]


def predicted(fer: Fer, folder: Path, uri: str) -> dict[str, str]:
    """The class that predict names, by the image's path in the folder's parent."""
    outcome = fer("predict", folder, "--model", uri, "--detector", "none", "--json")
    assert outcome.exit_code == 0, outcome.err
    rows = [json.loads(line) for line in outcome.out.splitlines()[:-1]]  # last, a summary
    return {str(Path(row["file"]).relative_to(folder.parent)): row["predicted"] for row in rows}


def as_older_versions_logged_it(run_id: str) -> None:
    """Takes out of a model's description what older versions did not write."""
    assert describe(model_uri(run_id)).crop == "central_square"
    model_id = model_uri(run_id).removeprefix("models:/")
    location = mlflow.MlflowClient().get_logged_model(model_id).artifact_location
    file = Path(location.removeprefix("file://")) / "MLmodel"
    text = file.read_text()
    shorter = re.sub(r"^  (crop: \w+|white: \{\})\n", "", text, flags=re.MULTILINE)
    assert text.count("\n") == shorter.count("\n") + 2
    file.write_text(shorter)
    assert describe(model_uri(run_id)).crop == "squash"


def test_photos_that_are_not_square_mean_the_same_to_evaluate_and_predict(
    plain: Path, model: str, fer: Fer, tmp_path: Path
) -> None:
    wide = wide_copy(plain, tmp_path / "wide")
    uri = model_uri(model)
    outcome = fer("evaluate", "--run-id", model, "--dataset", wide, "--split", "official")
    assert outcome.exit_code == 0, outcome.err
    judged = evaluated(run_id_in(outcome.out), "val")
    assert predicted(fer, wide / "test", uri) == judged
    # The middle is what the model was made for, and noise at the sides changes nothing.
    assert predicted(fer, plain / "test", uri) == judged


@pytest.mark.slow
def test_models_of_older_versions_see_squashed_images_everywhere(
    plain: Path, fer: Fer, tmp_path: Path
) -> None:
    wide = wide_copy(plain, tmp_path / "wide")
    old = designed.log_designed(plain, 0, confidence=0.9)
    as_older_versions_logged_it(old)
    outcome = fer("evaluate", "--run-id", old, "--dataset", wide, "--split", "official")
    assert outcome.exit_code == 0, outcome.err
    judged = evaluated(run_id_in(outcome.out), "val")
    found = predicted(fer, wide / "test", model_uri(old))
    assert found == judged
    for name in list(judged)[:50]:
        pixels = to_pixels(np.asarray(Image.open(wide / name)), size=16, crop="squash")
        assert judged[name] == brightest_column(pixels)
    assert predicted(fer, plain / "test", model_uri(old)) != judged
    # What is made from it sees what it sees.
    for command in (
        ("calibrate", "--run-id", old),
        ("ensemble", "--run-ids", old, "--tta", "flip"),
    ):
        outcome = fer(*command)
        assert outcome.exit_code == 0, outcome.err
        assert describe(model_uri(run_id_in(outcome.out))).crop == "squash"


def brightest_column(pixels: np.ndarray) -> str:
    """What the designed model 0 says: the class whose column is brightest in the first row."""
    from fer_experiments.data.images import FER_CLASSES

    return FER_CLASSES[int(pixels[0, : len(FER_CLASSES)].argmax())]


def test_data_made_for_another_crop_are_refused(
    plain: Path, model: str, fer: Fer, tmp_path: Path
) -> None:
    from fer_experiments.config import DataConfig
    from fer_experiments.data.images import PixelRule
    from fer_experiments.data.prepared import prepare
    from fer_experiments.errors import DataError
    from fer_experiments.stages import evaluate
    from fer_experiments.stages.selection import Meant

    wide = wide_copy(plain, tmp_path / "wide")
    asked: dict[str, Any] = {"dataset": str(wide), "split": "official", "image_size": 16}
    squashed = prepare(DataConfig(**asked), PixelRule(crop="squash"))
    with pytest.raises(DataError, match=r"crop central_square.*Received: crop squash"):
        evaluate.run(Meant(run_id=model), data=asked, fingerprint=squashed.fingerprint)


def test_twelve_bits_are_told_and_mean_the_same_everywhere(
    plain: Path, model: str, fer: Fer, fresh_store: Path
) -> None:
    camera = twelve_bits(plain, fresh_store / "camera")
    outcome = fer("prepare", "--dataset", camera, "--split", "official", "--image-size", 16)
    assert outcome.exit_code == 0, outcome.err
    assert "of whole numbers of more than 8 bits, 4095 is white" in outcome.out
    assert "less than a tenth" not in outcome.out
    card = mlflow.artifacts.load_text(f"runs:/{run_id_in(outcome.out)}/dataset/card.md")
    assert "4095 is white" in card
    own = designed.log_designed(camera, 0, confidence=0.9)
    outcome = fer("evaluate", "--run-id", own)
    assert outcome.exit_code == 0, outcome.err
    judged = evaluated(run_id_in(outcome.out), "val")
    assert predicted(fer, camera / "test", model_uri(own)) == judged
    assert {Path(name).parent.name for name in judged} == set(judged.values())
