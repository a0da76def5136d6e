"""Crops turned back into photos: each pasted into a larger picture, searched, found and cut out.

What a model loses on such crops it loses on photos: the detector's eyes are never quite where
they were in the image that the model was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from fer_experiments.faces.alignment import Face, Square
from fer_experiments.faces.detection import FaceDetector
from fer_experiments.faces.photos import face_pixels

# How many times as large as it is, and turned by how much, a crop is pasted.
SCALES, TILT = (1.0, 4.0), 15.0  # degrees to either side
# The picture's side, in sides of the pasted crop.
_AROUND = 2.0
# Pictures that are searched at once, and their side then, pixels.
_AT_ONCE, _SEARCHED_SIDE = 16, 320
# Of what surrounds it, in sides of the crop.
_BLUR = 1 / 6


@dataclass(frozen=True, kw_only=True)
class Pasted:
    """A picture with one crop in it."""

    picture: np.ndarray  # (H, W) uint8
    square: Square  # where the crop lies

    def holds(self, face: Face) -> bool:
        """Whether it is the pasted face: its centre lies in the middle half of the crop."""
        left, top, width, height = face.box
        (x, y), (across, along) = self.square.corner, self.square.edge
        right, down = left + width / 2 - x, top + height / 2 - y
        length = across**2 + along**2
        u = (right * across + down * along) / length
        v = (down * across - right * along) / length
        return 0.25 <= u <= 0.75 and 0.25 <= v <= 0.75


def paste(crop: np.ndarray, rng: np.random.Generator) -> Pasted:
    """The crop (S, S) uint8 at a random scale and tilt in a picture of twice its side."""
    size = len(crop)
    scale = rng.uniform(*SCALES)
    angle = np.deg2rad(rng.uniform(-TILT, TILT))
    side = scale * size
    across, along = side * np.cos(angle), side * np.sin(angle)
    length = round(_AROUND * side)
    # The middle of the crop lies in the middle of the picture, but for a tenth of its side.
    x, y = length / 2 + rng.uniform(-0.1, 0.1, 2) * side
    corner = (x - (across - along) / 2, y - (along + across) / 2)
    around = _surrounded(crop)
    # From the picture to the padded crop.
    a, b = size * across / side**2, size * along / side**2
    shift = (size - a * corner[0] - b * corner[1], size + b * corner[0] - a * corner[1])
    picture = Image.fromarray(around).transform(
        (length, length),
        Image.Transform.AFFINE,
        (a, b, shift[0], -b, a, shift[1]),
        Image.Resampling.BICUBIC,
    )
    return Pasted(picture=np.asarray(picture), square=Square(corner=corner, edge=(across, along)))


def _surrounded(crop: np.ndarray) -> np.ndarray:
    """The crop (S, S) in the middle of (3 S, 3 S): mirrored around, and so blurred that no mirrored
    face is left."""
    size = len(crop)
    mirrored = Image.fromarray(np.pad(crop, size, mode="symmetric"))
    around = np.asarray(mirrored.filter(ImageFilter.GaussianBlur(_BLUR * size))).copy()
    around[size:-size, size:-size] = crop
    return around


def found_again(
    crops: np.ndarray, detector: FaceDetector, *, seed: int
) -> Iterator[np.ndarray | None]:
    """Each crop after it was pasted, found and aligned; None where it was not found.

    Args:
        crops: (N, S, S) uint8.
        detector: as `detection.open_detector` gives it.
        seed: decides scales, tilts and places.

    Yields:
        (S, S) uint8.
    """
    size = crops.shape[1]
    threshold = detector.thresholds.upright
    for start in range(0, len(crops), _AT_ONCE):
        pasted = [
            paste(np.asarray(crop), np.random.default_rng([seed, number]))
            for number, crop in enumerate(crops[start : start + _AT_ONCE], start=start)
        ]
        pictures, factors = zip(*(_searched(p.picture) for p in pasted), strict=True)
        for one, factor, faces in zip(
            pasted, factors, detector.detect_in_all(pictures, threshold), strict=True
        ):
            scaled = (face.scaled(factor) for face in faces)
            face = next((face for face in scaled if one.holds(face)), None)
            yield None if face is None else face_pixels(one.picture, face, size=size)


def _searched(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """In colours and at one size, so that many go through at once; and the picture's pixels for
    one. Half of them or so `predict` would search at their own size."""
    image = Image.fromarray(picture).convert("RGB")
    resized = image.resize((_SEARCHED_SIDE, _SEARCHED_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(resized), len(picture) / _SEARCHED_SIDE
