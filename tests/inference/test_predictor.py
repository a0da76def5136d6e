"""A predictor takes files and arrays alike, and needs no Keras, TensorFlow or MLflow."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fer_experiments.data.files import Unreadable
from fer_experiments.data.images import PixelRule
from fer_experiments.inference.predictor import Identity, Predictor

NAMES = ("dark", "bright")


@pytest.fixture
def predictor() -> Predictor:
    """Gives the mean grey level as the probability of the second class."""

    def classify(pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (16, 16)
        bright = pixels.mean(axis=(1, 2), dtype=np.float32) / 255
        return np.stack([1 - bright, bright], axis=1)

    return Predictor(
        classify=classify,
        class_names=NAMES,
        image_size=16,
        rule=PixelRule(),
        identity=Identity(address="grey.onnx", uri="models:/m-1", run_id="a1"),
    )


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def test_files_and_arrays_give_the_same_in_their_order(predictor: Predictor) -> None:
    dark, bright = (np.full((40, 60), grey, dtype=np.uint8) for grey in (51, 204))
    found = predictor.predict([dark, png(bright), bright, png(dark)])
    assert found.shape == (4, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found[:, 1], [0.2, 0.8, 0.8, 0.2], atol=1e-6)


def test_the_central_square_is_what_is_judged(predictor: Predictor) -> None:
    image = np.zeros((32, 96), dtype=np.uint8)
    image[:, 32:64] = 255
    np.testing.assert_allclose(predictor.predict([image, png(image)])[:, 1], 1.0, atol=1e-6)


def test_nothing_gives_nothing(predictor: Predictor) -> None:
    assert predictor.predict([]).shape == (0, 2)


def test_what_is_no_image_is_refused(predictor: Predictor) -> None:
    with pytest.raises(Unreadable):
        predictor.predict([b"no image"])


def test_it_needs_no_large_library() -> None:
    absent = ("keras", "tensorflow", "mlflow")
    code = f"import sys; sys.modules |= dict.fromkeys({absent})\n"
    code += "import fer_experiments.inference.predictor"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_identity_is_a_line() -> None:
    here = Identity(address="models:/m-1", uri="models:/m-1", run_id="a1", versions=("faces/3",))
    assert str(here) == "models:/m-1 (faces/3) of run a1"
    file = Identity(address="a.onnx", uri="models:/m-1", run_id="a1", versions=("faces/3",))
    assert str(file) == "a.onnx (faces/3; models:/m-1) of run a1"
    assert str(Identity(address="m", uri="m", run_id="a1")) == "m of run a1"
