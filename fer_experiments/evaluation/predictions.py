"""A model and images to probabilities, with or without test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments.config import AugmentationConfig
from fer_experiments.errors import ConfigError
from fer_experiments.models.forward import forward

if TYPE_CHECKING:
    import keras

_MOST_VIEWS = 100
# Small changes: a face stays a face in the middle of its image.
_AUGMENTATION = AugmentationConfig(rotation=10, shift=0.05, zoom=0.05, flip=True)


@dataclass(frozen=True, kw_only=True)
class Views:
    """Versions of each image whose probabilities are averaged; the image itself is one of them."""

    mirror: bool  # the image and its mirror image, or else
    count: int  # this many: the image itself and random small changes, drawn alike every time


def test_time_views(tta: str) -> Views | None:
    """What `tta` means: `none`, `flip`, or a number of views.

    Raises:
        ConfigError: it is none of them.
    """
    if tta == "none":
        return None
    if tta == "flip":
        return Views(mirror=True, count=2)
    if tta.isdecimal() and 2 <= int(tta) <= _MOST_VIEWS:
        return Views(mirror=False, count=int(tta))
    raise ConfigError(
        f"Expected tta to be none, flip, or a number of views from 2 to {_MOST_VIEWS}. "
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
    """
    changes = [None] if views is None else list(_changes(views))
    by_view = [np.concatenate(list(forward(model, images, change=c))) for c in changes]
    return np.asarray(np.mean(by_view, axis=0, dtype=np.float32))  # (N, C)


def _changes(views: Views) -> Iterator[Callable[[np.ndarray], np.ndarray] | None]:
    yield None
    if views.mirror:
        yield lambda pixels: np.ascontiguousarray(pixels[:, :, ::-1])
        return
    from fer_experiments.models.augmentation import build_layers

    for number in range(1, views.count):
        layers = build_layers(_AUGMENTATION, seed=1000 * number)

        def change(pixels: np.ndarray, layers: list[keras.layers.Layer] = layers) -> np.ndarray:
            for layer in layers:
                pixels = layer(pixels, training=True)
            return np.asarray(pixels)

        yield change
