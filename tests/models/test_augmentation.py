"""Random changes to training images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from fer_experiments.config import AugmentationConfig
from fer_experiments.models.augmentation import build_layers
from fer_experiments.models.crops import Crop

GREY = np.full((200, 48, 48, 1), 100.0, dtype=np.float32)
OFF: dict[str, Any] = {"rotation": 0.0, "shift": 0.0, "flip": False}
# Of a grey image, brightness gives one grey level, erasing leaves most pixels as they were.
TWO = {**OFF, "brightness": 0.3, "erasing": 1.0}


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


def moved(seed: int = 0, **changes: float) -> np.ndarray:
    """A vertical edge (left black, right white) after the moves, (N, H, W)."""
    edge = np.zeros((100, 48, 48, 1), dtype=np.float32)
    edge[:, :, 24:] = 255
    for layer in build_layers(AugmentationConfig(**(OFF | changes)), seed=seed):
        edge = layer(edge, training=True)
    return keras.ops.convert_to_numpy(edge)[..., 0]


def test_a_shift_moves_the_edge_by_at_most_its_share_and_goes_on_outside() -> None:
    images = moved(shift=0.25)
    black = (images[:, 20] < 128).sum(axis=1)  # columns left of the edge
    assert black.min() >= 24 - 12 and black.max() <= 24 + 12
    assert black.min() < 16 and black.max() > 32
    assert (images[:, :, 0] == 0).all() and (images[:, :, -1] == 255).all()


def test_a_rotation_turns_about_the_middle_by_at_most_its_degrees() -> None:
    images = moved(rotation=30.0)
    np.testing.assert_allclose(images[:, 23:25, 23:25].mean(axis=(1, 2)), 127.5, atol=1)
    slope = ((images[:, 4] < 128).sum(axis=1) - (images[:, 43] < 128).sum(axis=1)) / 39
    degrees = np.degrees(np.arctan(slope))
    assert np.abs(degrees).max() <= 31
    assert degrees.min() < -25 and degrees.max() > 25


def test_a_zoom_keeps_the_middle_and_makes_the_image_larger_or_smaller() -> None:
    stripe = np.zeros((100, 48, 48, 1), dtype=np.float32)
    stripe[:, :, 16:32] = 255
    config = AugmentationConfig(rotation=0.0, shift=0.0, flip=False, zoom=0.25)
    (layer,) = build_layers(config, seed=0)
    seen = keras.ops.convert_to_numpy(layer(stripe, training=True))[..., 0]
    width = (seen[:, 20] > 128).sum(axis=1)
    assert 12 <= width.min() < 14 and 20 < width.max() <= 22
    np.testing.assert_allclose(seen, seen[:, :, ::-1], atol=0.1)


def test_moves_are_one_change_unless_each_image_gets_some_of_them() -> None:
    moves: dict[str, Any] = {"rotation": 10.0, "shift": 0.1, "zoom": 0.1, "flip": False}
    assert len(build_layers(AugmentationConfig(**moves), seed=0)) == 1
    assert len(build_layers(AugmentationConfig(**moves, num_ops=3), seed=0)) == 3


def test_a_random_crop_takes_every_place_equally_often_and_leaves_its_pixels() -> None:
    """Each pixel of these images says where it stood."""
    rows, columns = np.meshgrid(np.arange(48), np.arange(48), indexing="ij")
    places = np.stack([rows * 48 + columns] * 2_000)[..., np.newaxis].astype(np.float32)
    off = AugmentationConfig(rotation=0, shift=0, flip=False)
    (layer,) = build_layers(off, seed=0, crop=Crop(image_size=48, size=43))
    seen = keras.ops.convert_to_numpy(layer(places, training=True))[:, 2:45, 2:45, 0]
    first = seen[:, 0, 0].astype(int)
    tops, lefts = np.divmod(first, 48)
    for image, top, left in zip(seen[:50], tops, lefts, strict=False):
        np.testing.assert_array_equal(image, places[0, top : top + 43, left : left + 43, 0])
    counts = np.bincount(tops * 6 + lefts, minlength=36)
    assert len(counts) == 36
    # 2,000 draws in 36 places: chi-square of 35 degrees of freedom, 99.9 % of them below 66.6.
    assert ((counts - 2_000 / 36) ** 2 / (2_000 / 36)).sum() < 66.6


def test_a_random_crop_stands_still_outside_training() -> None:
    off = AugmentationConfig(rotation=0, shift=0, flip=False)
    (layer,) = build_layers(off, seed=0, crop=Crop(image_size=48, size=44))
    np.testing.assert_array_equal(layer(GREY, training=False), GREY)
