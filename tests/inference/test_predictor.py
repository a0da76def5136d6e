"""A predictor takes files and arrays alike, and needs no MLflow."""

import io
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from fer_experiments.data.files import Unreadable
from fer_experiments.data.images import PixelRule
from fer_experiments.inference.predictor import Predictor

NAMES = ("dark", "bright")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Gives the mean grey level as the probability of the second class."""
    pixels = keras.Input((16, 16, 1))
    mean = keras.layers.Rescaling(1 / 255)(keras.layers.GlobalAveragePooling2D()(pixels))
    both = keras.layers.Concatenate()([keras.ops.subtract(1.0, mean), mean])
    return Predictor(
        network=keras.Model(pixels, both), class_names=NAMES, image_size=16, rule=PixelRule()
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


def test_it_needs_no_mlflow() -> None:
    code = "import sys; sys.modules['mlflow'] = None; import fer_experiments.inference.predictor"
    subprocess.run([sys.executable, "-c", code], check=True)
