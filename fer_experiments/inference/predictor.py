"""A model with all that it takes to judge images: bytes or arrays in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fer_experiments.data.images import PixelRule
from fer_experiments.faces.alignment import Face
from fer_experiments.faces.detection import AUTO, NONE
from fer_experiments.faces.photos import Photo, Search, read_photo


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
class Judged:
    """A face in an image, and what the model says of it."""

    predicted: str  # the class with the highest probability
    probabilities: dict[str, float]  # by class
    face: Face | None  # where it was found; None: the image was judged as it is


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A classifier, the names of its classes, and how images become its pixels."""

    # Pixels (N, S, S) uint8, which may be memory-mapped, to probabilities (N, C) float32.
    classify: Callable[[np.ndarray], np.ndarray]
    class_names: tuple[str, ...]
    image_size: int  # S, pixels
    rule: PixelRule
    identity: Identity
    # Pixels (N, S, S) uint8 and classes (N,) to maps (N, S, S) from 0 to 1 of what spoke for them.
    heat_map: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    def read(self, image: bytes | np.ndarray, search: Search, *, largest: bool = False) -> Photo:
        """An image as the model sees it; see `faces.photos.read_photo`."""
        return read_photo(
            image, size=self.image_size, rule=self.rule, search=search, largest=largest
        )

    def predict(self, images: Sequence[bytes | np.ndarray]) -> np.ndarray:
        """Class probabilities of images that are faces already; nothing is searched.

        Args:
            images: contents of image files, or uint8 arrays, grey (H, W) or colours (H, W, 3), of
                any size.

        Returns:
            (N, C) float32, in the order of `images`.

        Raises:
            Unreadable: a file is no image that can be read.
        """
        search = Search(NONE)
        pixels = [self.read(image, search).crops[0].pixels for image in images]
        return self.probabilities(np.array(pixels, dtype=np.uint8))

    def faces(
        self, image: bytes | np.ndarray, *, detector: str = AUTO, largest: bool = False
    ) -> list[Judged]:
        """The faces in a photo and what each shows, the largest face first.

        Args:
            image: content of an image file, or a uint8 array, (H, W) or (H, W, 3).
            detector: `auto`, `mtcnn`, `yunet:FILE` or `none`; `auto` takes an image of at most
                twice the model's size for a face.
            largest: the largest face only.

        Raises:
            Unreadable: the file is no image that can be read.
            ConfigError, UsageError: the detector cannot be used.
        """
        crops = self.read(image, Search(detector), largest=largest).crops
        if not crops:
            return []
        found = self.probabilities(np.stack([crop.pixels for crop in crops]))
        return [
            Judged(
                predicted=self.class_names[int(p.argmax())],
                probabilities=dict(zip(self.class_names, map(float, p), strict=True)),
                face=crop.face,
            )
            for crop, p in zip(crops, found, strict=True)
        ]

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Class probabilities (N, C) float32 of images (N, S, S) uint8 at the model's size."""
        if not len(pixels):
            return np.empty((0, len(self.class_names)), dtype=np.float32)
        return self.classify(pixels)
