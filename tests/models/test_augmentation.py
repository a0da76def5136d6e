"""Random changes to training images."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from fer_experiments.config import AugmentationConfig
from fer_experiments.models.augmentation import build_layers

GREY = np.full((200, 48, 48, 1), 100.0, dtype=np.float32)
# Of a grey image, brightness gives one grey level, erasing leaves most pixels as they were.
TWO = {"rotation": 0.0, "shift": 0.0, "flip": False, "brightness": 0.3, "erasing": 1.0}


def changed(num_ops: int, *, seed: int = 0) -> np.ndarray:
    """The images (N, H·W) after the configured changes."""
    pixels = GREY
    for layer in build_layers(AugmentationConfig(**TWO, num_ops=num_ops), seed=seed):
        pixels = layer(pixels, training=True)
    return keras.ops.convert_to_numpy(pixels).reshape(len(GREY), -1)


def test_each_image_gets_one_of_two_changes() -> None:
    images = changed(1)
    brighter = (images == images[:, :1]).all(axis=1)
    erased = (images == 100).any(axis=1) & ~brighter
    assert (brighter ^ erased).all()
    assert 60 < brighter.sum() < 140


@pytest.mark.parametrize("num_ops", [0, 2, 7])
def test_each_image_gets_all_changes(num_ops: int) -> None:
    assert not (changed(num_ops) == 100).any(axis=1).any()


def test_which_ones_follows_from_the_seed() -> None:
    np.testing.assert_array_equal(changed(1), changed(1))
    assert (changed(1) != changed(1, seed=100)).any()


def test_nothing_changes_outside_training() -> None:
    (layer,) = build_layers(AugmentationConfig(**TWO, num_ops=1), seed=0)
    np.testing.assert_array_equal(layer(GREY, training=False), GREY)
