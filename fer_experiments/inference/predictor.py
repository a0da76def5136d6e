"""A model with all that it takes to judge images: bytes or arrays in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fer_experiments.data.images import PixelRule, to_pixels
from fer_experiments.faces.square import Square, square

_WHITE = 255.0


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which model it is."""

    address: str  # a model URI, or a file's name
    uri: str  # models:/m-…, the logged model that it is or was exported from
    run_id: str  # of the run that logged it
    # Registered versions that hold it, such as emotion-fer2013/3; of a file: when it was written.
    versions: tuple[str, ...] = ()

    def __str__(self) -> str:
        """All of it in a line."""
        made_from = [] if self.address == self.uri else [self.uri]
        told = "; ".join([*self.versions, *made_from])
        return f"{self.address}{f' ({told})' if told else ''} of run {self.run_id}"


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A classifier, the names of its classes, and how images become its pixels."""

    # Pixels (N, S, S) uint8, which may be memory-mapped, to probabilities (N, C) float32.
    classify: Callable[[np.ndarray], np.ndarray]
    class_names: tuple[str, ...]
    image_size: int  # S, pixels
    rule: PixelRule
    identity: Identity

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
        return self.probabilities(np.array(pixels, dtype=np.uint8))

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Class probabilities (N, C) float32 of images (N, S, S) uint8 at the model's size."""
        if not len(pixels):
            return np.empty((0, len(self.class_names)), dtype=np.float32)
        return self.classify(pixels)
