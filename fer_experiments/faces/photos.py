"""The one way in which an image becomes a model's pixels, for prepare, predict and whoever asks.

An image that is a face's crop already is judged as it is. In a photo faces are searched and each is
cut out and turned as FER-2013 frames faces (`alignment`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fer_experiments.data.files import Unreadable
from fer_experiments.data.images import BYTE, Decoded, PixelRule, decode, to_pixels, white_of
from fer_experiments.faces.alignment import Face, cut, square_of
from fer_experiments.faces.detection import (
    AUTO,
    MTCNN,
    NONE,
    FaceDetector,
    check_spec,
    find_faces,
    open_detector,
)

# How pixels were come by.
AS_IT_IS, CENTRAL_SQUARE = "as it is", "central square"
# A crop has at most so many times the side of the model's images, and nearly equal sides.
_LARGEST_CROP, _LONGEST_CROP = 2.0, 1.25


@dataclass(frozen=True, kw_only=True)
class Crop:
    """One face as a model sees it."""

    pixels: np.ndarray  # (S, S) uint8
    face: Face | None = None  # where it was found; None: the image was not searched


@dataclass(frozen=True, kw_only=True)
class Photo:
    """What came of an image."""

    crops: tuple[Crop, ...]  # the largest face first; empty: no face was found
    way: str  # "as it is", "central square", or the detector that searched it
    white: float  # the value that was taken for white
    white_because: str  # how that is known; empty: the file's format says so
    shrunk: bool  # by more than half, without being searched: a photo rather than a crop


class Search:
    """Whether images are searched for faces, and with what; the detector is opened when needed."""

    def __init__(self, spec: str = AUTO) -> None:
        """`auto`, `none`, `mtcnn` or `yunet:FILE`.

        Raises:
            ConfigError, UsageError: see `detection.open_detector`.
        """
        check_spec(spec)
        self.spec = spec

    @cached_property
    def detector(self) -> FaceDetector:
        """MTCNN unless another was named."""
        return open_detector(MTCNN if self.spec == AUTO else self.spec)

    def takes_as_it_is(self, shape: tuple[int, int], size: int) -> bool:
        """Whether an image (height, width) is not searched, for a model of this size."""
        if self.spec == AUTO:
            return max(shape) <= min(_LARGEST_CROP * size, _LONGEST_CROP * min(shape))
        return self.spec == NONE


def read_photo(
    image: bytes | np.ndarray, *, size: int, rule: PixelRule, search: Search, largest: bool = False
) -> Photo:
    """An image as a model sees it, or each face in it.

    Args:
        image: content of a file; or grey (H, W) or colours (H, W, 3), uint8.
        size: S, of the model's images, pixels.
        rule: how the model's own images became pixels.
        search: whether and with what faces are searched.
        largest: take the largest face only.

    Raises:
        Unreadable: it is no image that can be read, or it is unclear what is white in it.
        ConfigError, UsageError: see `detection.open_detector`.
    """
    decoded = (
        decode(image, colours=search.spec != NONE) if isinstance(image, bytes) else _decoded(image)
    )
    white, why = _white(decoded, rule)
    way, shrunk = _way(decoded, search, size, rule)
    if way in (AS_IT_IS, CENTRAL_SQUARE):
        pixels = to_pixels(decoded.grey, size=size, crop=rule.crop, white=white)
        crops = [Crop(pixels=pixels)]
    else:
        faces = find_faces(colours(decoded, white), search.detector)
        crops = [
            Crop(pixels=face_pixels(decoded.grey, face, size=size, white=white), face=face)
            for face in (faces[:1] if largest else faces)
        ]
    return Photo(
        crops=tuple(crops),
        way=way,
        white=white,
        white_because=why,
        shrunk=shrunk,
    )


def face_pixels(grey: np.ndarray, face: Face, *, size: int, white: float = 255.0) -> np.ndarray:
    """A face, cut out and upright, as (size, size) uint8; `white` as of `to_pixels`."""
    if grey.dtype == np.uint8:
        return cut(grey, square_of(face), size)
    scaled = cut(grey.astype(np.float32), square_of(face), size) * (255 / white)
    return np.rint(scaled).astype(np.uint8)


def colours(decoded: Decoded, white: float) -> np.ndarray:
    """(H, W, 3) uint8, as detectors take them."""
    if decoded.colours is not None:
        return decoded.colours
    grey = decoded.grey
    if grey.dtype != np.uint8:
        grey = np.rint(grey.astype(np.float32) * (255 / white)).astype(np.uint8)
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


def _way(decoded: Decoded, search: Search, size: int, rule: PixelRule) -> tuple[str, bool]:
    """How the image becomes pixels, and whether it looks like a photo that is not searched."""
    shape = decoded.grey.shape
    if not search.takes_as_it_is((shape[0], shape[1]), size):
        return search.detector.name, False
    if search.spec == NONE and shape[0] != shape[1]:
        way = CENTRAL_SQUARE if rule.crop == "central_square" else AS_IT_IS
    else:
        way = AS_IT_IS
    return way, min(shape) > 2 * size


def _decoded(image: np.ndarray) -> Decoded:
    if image.ndim == 3:
        from PIL import Image

        grey = np.asarray(Image.fromarray(image).convert("L"))
        return Decoded(grey=grey, kind=BYTE, white=255.0, colour_converted=True, colours=image)
    return Decoded(grey=image, kind=BYTE, white=255.0, colour_converted=False)


def _white(decoded: Decoded, rule: PixelRule) -> tuple[float, str]:
    highest = float(decoded.grey.max())
    if decoded.white is not None:
        return decoded.white, ""
    white = rule.white.get(decoded.kind)
    if white is None:
        white = white_of(decoded.kind, highest)
        if white is None:
            raise Unreadable(f"its brightest value, {highest:g}, does not tell what is white")
        return white, "as their brightest value says"
    if highest > white:
        raise Unreadable(
            f"its values reach {highest:g}, and in the model's images {white:g} is white"
        )
    return white, "as in the model's images"
