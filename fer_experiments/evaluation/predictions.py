"""A model and images to probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

# A choice of memory, not of speed: activations of 64 images fit anywhere.
BATCH_SIZE = 64
# Images that are float32 in memory at a time, so that the images may outgrow it.
_CHUNK = 4096


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Class probabilities.

    Args:
        model: a classifier of raw pixels (N, H, W, 1).
        images: (N, H, W) uint8, may be memory-mapped.

    Returns:
        (N, C) float32, in the order of `images`.
    """
    parts = [
        model.predict(
            images[start : start + _CHUNK].astype(np.float32)[..., np.newaxis],
            batch_size=BATCH_SIZE,
            verbose=0,
        )
        for start in range(0, len(images), _CHUNK)
    ]
    return np.concatenate(parts)  # (N, C)
