"""Alignment: a face's square as FER-2013 frames it, from its eyes or its box.

Where faces lie in FER-2013 was measured with YuNet on 800 of its training images: the eyes at
(0.31, 0.38) and (0.68, 0.38) of width and height, the box from 0.09 to 0.90 and from 0.00 to 1.04.
A model that was trained on such images reads this framing as much as the face (docs/results).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

# The eye on the image's left and the one on its right, as shares of the square's side.
Point = tuple[float, float]
EYES: tuple[Point, Point] = ((14.8 / 48, 18.3 / 48), (32.7 / 48, 18.3 / 48))
# A detector's box: its height in sides of the square, and where in the square its centre lies.
BOX_HEIGHT = 1.04
BOX_CENTRE = (0.5, 0.52)
# Samples along a pixel's side; a larger square is reduced first.
_MOST_SAMPLES = 32
# Eyes nearer to each other than this share of the box's width are no two eyes (a profile).
_NEAREST_EYES = 0.1


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face that was found in an upright image; coordinates in pixels, 0 at the outer edge."""

    box: tuple[float, float, float, float]  # left, top, width, height; may reach outside the image
    score: float  # of the detector, 0 to 1
    eyes: tuple[Point, Point] | None = None  # the person's right eye first: on the image's left
    reference: tuple[Point, Point] = EYES  # where this detector sees them in FER-2013's square

    def moved(self, move: Callable[[Point], Point]) -> Face:
        """With all points moved; the box still lies along the image's edges."""
        left, top, width, height = self.box
        (x0, y0), (x1, y1) = move((left, top)), move((left + width, top + height))
        box = (min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))
        eyes = self.eyes and (move(self.eyes[0]), move(self.eyes[1]))
        return replace(self, box=box, eyes=eyes)

    def scaled(self, factor: float) -> Face:
        """In an image that is so many times as large."""
        return self.moved(lambda point: (factor * point[0], factor * point[1]))


@dataclass(frozen=True, kw_only=True)
class Square:
    """A turned square in an image: where its top left corner lies, and its upper edge."""

    corner: Point  # x, y
    edge: Point  # from the top left corner to the top right one; its length is the side

    @property
    def side(self) -> float:
        """In pixels of the image."""
        return math.hypot(*self.edge)


def square_of(face: Face) -> Square:
    """The square to cut out: by the eyes where they are known, else by the box."""
    left, top, width, height = face.box
    if face.eyes is not None:
        first, second = (complex(*eye) for eye in face.eyes)
        if abs(second - first) > _NEAREST_EYES * width:
            here, there = (complex(*eye) for eye in face.reference)
            edge = (second - first) / (there - here)
            corner = first - here * edge
            return Square(corner=(corner.real, corner.imag), edge=(edge.real, edge.imag))
    side = height / BOX_HEIGHT
    x, y = left + width / 2, top + height / 2
    return Square(corner=(x - BOX_CENTRE[0] * side, y - BOX_CENTRE[1] * side), edge=(side, 0.0))


def cut(grey: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square's content, upright; what lies outside of the image repeats its edge.

    Args:
        grey: (H, W) uint8 or float32.
        square: in pixels of the image.
        size: S, height and width of the result, pixels.

    Returns:
        (S, S) of the same type. Each pixel is the mean of a grid of bilinear samples, one for each
        pixel of the image that it covers: a filter before turning would blur twice.
    """
    (x, y), (across, along) = square.corner, square.edge
    samples = max(1, math.ceil(square.side / size))  # along each side of a pixel of the result
    corners = [(x, y), (x + across, y + along), (x - along, y + across)]
    corners.append((x + across - along, y + along + across))
    # Only what is needed, and the image's edge repeated around it.
    left, top = (math.floor(min(values)) - 2 for values in zip(*corners, strict=True))
    right, bottom = (math.ceil(max(values)) + 2 for values in zip(*corners, strict=True))
    image = _with_edges(grey, left, top, right, bottom)
    if samples > _MOST_SAMPLES:
        less = samples // _MOST_SAMPLES
        image, samples = image.reduce(less), math.ceil(samples / less)
        x, y, across, along = x / less, y / less, across / less, along / less
        left, top = left / less, top / less
    fine = size * samples
    # From the result to the image. Pillow looks at the middle of each pixel by itself.
    matrix = (
        across / fine, -along / fine, x - left,
        along / fine, across / fine, y - top,
    )  # fmt: skip
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    turned = image.transform((fine, fine), affine, matrix, bilinear)
    return np.asarray(turned.reduce(samples) if samples > 1 else turned)


def _with_edges(grey: np.ndarray, left: int, top: int, right: int, bottom: int) -> Image.Image:
    """The part of an image from left and top to right and bottom; its edge repeated outside."""
    height, width = grey.shape
    # Of a square far outside the nearest pixel is all there is.
    x0, x1 = (min(max(v, low), low + width - 1) for v, low in ((left, 0), (right, 1)))
    y0, y1 = (min(max(v, low), low + height - 1) for v, low in ((top, 0), (bottom, 1)))
    around = ((y0 - min(top, y0), max(bottom, y1) - y1), (x0 - min(left, x0), max(right, x1) - x1))
    return Image.fromarray(np.pad(grey[y0:y1, x0:x1], around, mode="edge"))
