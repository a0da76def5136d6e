"""The central square of a photo, as the images became pixels that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_experiments.data.files import Unreadable
from fer_experiments.data.images import Decoded, PixelRule, decode, to_pixels, white_of


@dataclass(frozen=True, kw_only=True)
class Square:
    """A photo as a model sees it."""

    pixels: np.ndarray  # (S, S) uint8
    white: float  # the value that was taken for white
    white_because: str  # how that is known; empty: the file's format says so
    shrunk: bool  # by more than half: a photo rather than a cut-out face


def square(content: bytes, *, size: int, rule: PixelRule) -> Square:
    """Decodes an image file, upright and grey, and gives its central square.

    Args:
        content: of the file.
        size: S, of the model's images, pixels.
        rule: how the model's own images became pixels.

    Raises:
        Unreadable: it is no image that can be read, or it is unclear what is white in it.
    """
    decoded = decode(content)
    white, why = _white(decoded, rule)
    return Square(
        pixels=to_pixels(decoded.grey, size=size, crop=rule.crop, white=white),
        white=white,
        white_because=why,
        shrunk=min(decoded.grey.shape) > 2 * size,
    )


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
