"""A model and images to probabilities, with or without test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments.config import AugmentationConfig
from fer_experiments.errors import ConfigError
from fer_experiments.models.batched_inference import infer_in_batches
from fer_experiments.models.crops import Crop, crop_of

if TYPE_CHECKING:
    import keras

_MOST_VIEWS = 100
# Small changes: a face stays a face in the middle of its image.
_AUGMENTATION = AugmentationConfig(rotation=10, shift=0.05, zoom=0.05, flip=True)


@dataclass(frozen=True, kw_only=True)
class Views:
    """Versions of each image whose probabilities are averaged; the image itself is one of them."""

    kind: str  # flip: and its mirror image; crops: five crops and their mirror images; random: and
    # small changes, drawn alike every time
    count: int


def test_time_views(tta: str) -> Views | None:
    """What `tta` means: `none`, `flip`, `crops`, or a number of views.

    Raises:
        ConfigError: it is none of them.
    """
    if tta == "none":
        return None
    if tta == "flip":
        return Views(kind="flip", count=2)
    if tta == "crops":
        return Views(kind="crops", count=10)
    if tta.isdecimal() and 2 <= int(tta) <= _MOST_VIEWS:
        return Views(kind="random", count=int(tta))
    raise ConfigError(
        f"Expected tta to be none, flip, crops, or a number of views from 2 to {_MOST_VIEWS}. "
        f"Received: tta={tta[:80]}"
    )


def predict(model: keras.Model, images: np.ndarray, *, views: Views | None = None) -> np.ndarray:
    """Class probabilities.

    Args:
        model: a classifier of raw pixels (N, H, W, 1).
        images: (N, H, W) uint8, may be memory-mapped.
        views: average over these; None: the images as they are.

    Returns:
        (N, C) float32, in the order of `images`.

    Raises:
        ConfigError: crops are wanted of a model that looks at whole images.
    """
    changes = [None] if views is None else list(_changes(views, model))
    by_view = [np.concatenate(list(infer_in_batches(model, images, change=c))) for c in changes]
    return np.asarray(np.mean(by_view, axis=0, dtype=np.float32))  # (N, C)


def _changes(
    views: Views, model: keras.Model
) -> Iterator[Callable[[np.ndarray], np.ndarray] | None]:
    if views.kind == "crops":
        yield from _ten_crops(model)
        return
    yield None
    if views.kind == "flip":
        yield _mirrored
        return
    from fer_experiments.models.augmentation import build_layers

    for number in range(1, views.count):
        layers = build_layers(_AUGMENTATION, seed=1000 * number)

        def change(pixels: np.ndarray, layers: list[keras.layers.Layer] = layers) -> np.ndarray:
            for layer in layers:
                pixels = layer(pixels, training=True)
            return np.asarray(pixels)

        yield change


def _mirrored(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _ten_crops(model: keras.Model) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """The five crops of an image and the same five of its mirror image."""
    crop = crop_of(model)
    if crop is None:
        raise ConfigError(
            "Expected a model that was trained with crop for tta=crops. "
            "Received: one that looks at whole images"
        )
    for place in crop.five:
        yield partial(crop.moved, place=place)
        yield partial(_mirrored_and_moved, crop, place)


def _mirrored_and_moved(crop: Crop, place: tuple[int, int], pixels: np.ndarray) -> np.ndarray:
    return crop.moved(_mirrored(pixels), place)
