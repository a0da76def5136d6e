"""A model and images to probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fer_experiments.models.forward import forward

if TYPE_CHECKING:
    import keras


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Class probabilities.

    Args:
        model: a classifier of raw pixels (N, H, W, 1).
        images: (N, H, W) uint8, may be memory-mapped.

    Returns:
        (N, C) float32, in the order of `images`.
    """
    return np.concatenate(list(forward(model, images)))  # (N, C)
