"""A loaded model with all that it takes to judge images: bytes or arrays in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments.data.images import PixelRule, to_pixels
from fer_experiments.evaluation.predictions import predict
from fer_experiments.faces.square import Square, square

if TYPE_CHECKING:
    import keras

_WHITE = 255.0


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A classifier, the names of its classes, and how images become its pixels."""

    network: keras.Model
    class_names: tuple[str, ...]
    image_size: int
    rule: PixelRule

    def square(self, content: bytes) -> Square:
        """An image file as the model sees it; see `faces.square`."""
        return square(content, size=self.image_size, rule=self.rule)

    def predict(self, images: Sequence[bytes | np.ndarray]) -> np.ndarray:
        """Class probabilities.

        Args:
            images: contents of image files, or grey images (H, W) uint8 of any size.

        Returns:
            (N, C) float32, in the order of `images`.

        Raises:
            Unreadable: a file is no image that can be read.
        """
        pixels = [
            self.square(image).pixels
            if isinstance(image, bytes)
            else to_pixels(image, size=self.image_size, crop=self.rule.crop, white=_WHITE)
            for image in images
        ]
        if not pixels:
            return np.empty((0, len(self.class_names)), dtype=np.float32)
        return self.probabilities(np.stack(pixels))

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Class probabilities (N, C) float32 of images (N, S, S) uint8 at the model's size."""
        return predict(self.network, pixels)
