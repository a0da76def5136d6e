"""Labelled images in memory, and one image file to one array of grey pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_experiments.config import DataConfig
from fer_experiments.data.files import Unreadable
from fer_experiments.errors import DataError, first_line, shown

# The seven emotions in label order, as Kaggle's folders sort.
FER_CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
# A larger image is no photo of a face, and might be made to fill the memory.
LARGEST_PHOTO = 100_000_000  # pixels
# What photos come as. Pillow knows more, some of which (EPS) it hands to other programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Everything a source holds, before it is split."""

    name: str  # names the registered model: fer2013, synthetic, or the folder's own name
    images: np.ndarray  # (N, H, W) uint8
    labels: np.ndarray  # (N,) int64, index into class_names
    ids: list[str]  # path within the source, or usage and row of the CSV
    parts: np.ndarray  # (N,) "train" or "test": the half in which the source keeps the image
    class_names: tuple[str, ...]
    bad: tuple[str, ...] = ()  # "id: reason" of what was skipped
    colour_converted: int = 0
    resized: int = 0


class BadImage(Unreadable):
    """These bytes are no image that can be read whole; the message says why in a few words."""


@dataclass(frozen=True)
class Decoded:
    """Grey pixels and what had to be done to get them."""

    pixels: np.ndarray  # (H, W) uint8
    colour_converted: bool
    resized_from: tuple[int, int] | None  # (height, width)


def decode(content: bytes, *, image_size: int | None) -> Decoded:
    """Reads an image of any usual format as grey, scaled to `image_size` (None: as it is).

    16-bit images are scaled to 8 bits; of an animation the first frame counts; the orientation
    that a camera noted is applied.

    Raises:
        BadImage: empty, truncated, not an image, or too large to be a photo.
    """
    if not content:
        raise BadImage("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > LARGEST_PHOTO:
                raise BadImage(f"{image.width}×{image.height} pixels are too many")
            image.load()
            upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
            return _to_grey(upright, image_size)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage("too many pixels") from None
    # Pillow's decoders raise almost anything on damaged input.
    except Exception as error:
        raise BadImage(f"cannot be decoded: {first_line(error, 80)}") from None


def _to_grey(image: Image.Image, image_size: int | None) -> Decoded:
    colour = image.mode != "L"
    if image.mode.startswith("I;16") or image.mode == "I":
        # convert("L") clips 16-bit values instead of scaling them.
        wide = np.asarray(image)
        wide = wide.clip(0, 2**16 - 1) if wide.itemsize > 2 else wide
        grey = Image.fromarray((wide >> 8).astype(np.uint8))
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        backdrop = Image.new("RGBA", image.size, "white")
        grey = Image.alpha_composite(backdrop, image.convert("RGBA")).convert("L")
    else:
        grey = image.convert("L") if colour else image
    pixels = np.asarray(grey)
    if image_size is None or pixels.shape == (image_size, image_size):
        return Decoded(pixels, colour, resized_from=None)
    return Decoded(resize(pixels, image_size), colour, resized_from=pixels.shape)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Grey pixels (H, W) scaled to (size, size)."""
    if pixels.shape == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def refuse_bad(bad: Sequence[str], total: int, config: DataConfig, where: str) -> None:
    """Raises DataError for bad images, unless the configuration skips them and some are good."""
    if not bad or (config.on_bad_image == "skip" and len(bad) < total):
        return
    some = "; ".join(shown(reason, 200) for reason in bad[:3])
    some += f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    advice = (
        "mend them, or pass on_bad_image=skip" if len(bad) < total else "none of them is an image"
    )
    raise DataError(f"{len(bad)} of {total} images in {where} cannot be read ({some}): {advice}")
