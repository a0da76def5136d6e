"""Labelled images in memory; one image file to grey values, and grey values to a model's pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fer_experiments.config import DataConfig
from fer_experiments.data.files import READS_AVIF, READS_HEIC, Unreadable
from fer_experiments.errors import DataError, quote, summarize

# The seven emotions in label order, as Kaggle's folders sort.
FER_CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
# What data with these classes and the challenge's names of files are called.
OFFICIAL_NAME = "fer2013"
# A larger image is no photo of a face, and might be made to fill the memory.
LARGEST_PHOTO = 100_000_000  # pixels
# What photos come as. Pillow knows more, some of which (EPS) it hands to other programs.
FORMATS = (
    "JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP",
    *(("AVIF",) if READS_AVIF else ()),
    *(("HEIF",) if READS_HEIC else ()),
)  # fmt: skip

# What becomes of an image that is not square: its central square is taken; or all of it is pressed
# into a square, as in data and for models of older versions.
CENTRAL_SQUARE, SQUASH = "central_square", "squash"

# What an image's numbers are, by which their range is told: 8 bits, of which 255 is white; whole
# numbers of up to 32 bits; fractions; and 16-bit colours, of which Pillow keeps the upper 8 bits.
BYTE, INTEGER, FLOAT, COLOUR = "byte", "integer", "float", "colour"
# White in 8, 10, 12, 14 and 16 bits.
_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
# An image whose brightest and darkest value are nearer than this share of the range shows little.
FAINT = 0.1
# The brightest value of all is at least this share of white, or white is something else.
_BRIGHT = 0.25


@dataclass(frozen=True, kw_only=True)
class PixelRule:
    """How grey values become pixels, but for the size: the same for a data set and its models."""

    crop: str = CENTRAL_SQUARE
    detector: str = "none"  # what cut the faces out of photos: none, mtcnn, yunet
    # By kind of number, the value that is white where files do not say; others: the data decide.
    white: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """Everything a source holds, before it is split."""

    name: str  # names the registered model: fer2013, synthetic, or the folder's own name
    images: np.ndarray  # (N, H, W) uint8
    hashes: np.ndarray  # (N, 16) uint8, `pixel_hash` of each image
    labels: np.ndarray  # (N,) int64, index into class_names
    ids: list[str]  # path within the source, or usage and row of the CSV
    parts: np.ndarray  # (N,) "train" or "test": the half in which the source keeps the image
    class_names: tuple[str, ...]
    rule: PixelRule = field(default_factory=PixelRule)  # how values became pixels
    bad: tuple[str, ...] = ()  # "id: reason" of what was skipped
    colour_converted: int = 0
    resized: int = 0
    not_square: int = 0  # before they were cropped or pressed
    no_face: int = 0  # photos in which a detector found none, kept or not


class BadImage(Unreadable):
    """These bytes are no image that can be read whole; the message says why in a few words."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Grey values as the file has them."""

    grey: np.ndarray  # (H, W) uint8; int32 or float32 where `kind` is integer or float
    kind: str  # byte, integer, float, colour
    white: float | None  # the value that is white; None: the file does not say
    colour_converted: bool
    colours: np.ndarray | None = None  # (H, W, 3) uint8 if asked for; None: it has none of 8 bits


# From an image and the value that is white in it to a face's pixels (S, S) uint8; None: no face.
Cut = Callable[[Decoded, float], np.ndarray | None]


def decode(content: bytes, *, colours: bool = False) -> Decoded:
    """Reads an image of any usual format as grey, and in colours if these are asked for.

    Of an animation the first frame counts; the orientation that a camera noted is applied.

    Raises:
        BadImage: empty, truncated, not an image, of values that are no brightness, or too large to
            be a photo.
    """
    if not content:
        raise BadImage("empty file")
    _know_heic()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > LARGEST_PHOTO:
                raise BadImage(f"{image.width}×{image.height} pixels are too many")
            kind, white = _numbers(image)
            image.load()
            upright = ImageOps.exif_transpose(image) if "exif" in image.info else image
            return _to_grey(upright, kind, white, colours=colours)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage("too many pixels") from None
    # Pillow's decoders raise almost anything on damaged input.
    except Exception as error:
        raise BadImage(f"cannot be decoded: {summarize(error, 80)}") from None


@cache
def _know_heic() -> None:
    """Tells Pillow of the format, once."""
    if READS_HEIC:
        import pillow_heif

        pillow_heif.register_heif_opener()


def _numbers(image: Image.Image) -> tuple[str, float | None]:
    """Kind of an image's numbers, and the value that is white if its format says so."""
    # What Pillow will decode, known only before it does: "RGB;16B", or ("L", 4095) of PGM.
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    arguments = tiles[0].args if tiles else ()
    told = arguments if isinstance(arguments, tuple) else (arguments,)
    raw = str(told[0]) if told else ""
    # PGM tells its highest value, and Pillow scales by it to 16 bits. Many write 65535 whatever
    # the values are, as other formats do.
    scaled = image.format == "PPM" and len(told) == 2 and 255 < told[1] < 65535
    if image.mode == "F":
        return FLOAT, None
    if image.mode == "I" or image.mode.startswith("I;16"):
        return INTEGER, 65535.0 if scaled else 4095.0 if raw == "I;12" else None
    wide = ";16" in raw or (image.format == "PPM" and len(told) == 2 and told[1] == 65535)
    return (COLOUR, None) if wide else (BYTE, 255.0)


def _to_grey(image: Image.Image, kind: str, white: float | None, *, colours: bool) -> Decoded:
    colour = image.mode != "L"
    if kind in (INTEGER, FLOAT):
        grey = np.asarray(image).astype(np.float32 if kind == FLOAT else np.int32)
        if not np.isfinite(grey).all():
            raise BadImage("some of its values are no numbers")
        if grey.min() < 0 or grey.max() > _WHITES[-1]:
            raise BadImage(
                f"its values from {grey.min():g} to {grey.max():g} are no brightness of 8 to 16 "
                "bits: scale it"
            )
        return Decoded(grey=grey, kind=kind, white=white, colour_converted=True)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        backdrop = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    grey = np.asarray(image.convert("L") if image.mode != "L" else image)
    rgb = np.asarray(image.convert("RGB")) if colours and colour else None
    return Decoded(grey=grey, kind=kind, white=white, colour_converted=colour, colours=rgb)


def white_of(kind: str, highest: float) -> float | None:
    """The value that is white in images whose brightest value is `highest`; None: unclear."""
    if kind == COLOUR:
        white = 255.0  # of the upper 8 bits
    elif kind == FLOAT and highest <= 1:
        white = 1.0
    else:
        white = next((w for w in _WHITES if highest <= w), float("inf"))
    return white if highest >= _BRIGHT * white else None


def pixel_hash(grey: np.ndarray) -> bytes:
    """16 bytes that tell an image from others: BLAKE2b over shape and values.

    Args:
        grey: upright grey values as decoded, (H, W), before they are scaled, cropped or resized.
            Whole numbers hash the same in whatever type they are.
    """
    if grey.dtype.kind in "iu":
        grey = grey.astype(np.uint8 if grey.max(initial=0) < 256 else "<u2", copy=False)
    else:
        grey = grey.astype("<f4", copy=False)
    digest = hashlib.blake2b(repr((grey.shape, grey.dtype.kind)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(grey).data)
    return digest.digest()


def pixel_hashes(images: Iterable[np.ndarray]) -> np.ndarray:
    """`pixel_hash` of each image (H, W), as (N, 16) uint8."""
    joined = b"".join(pixel_hash(image) for image in images)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 16)


def to_pixels(
    grey: np.ndarray, *, size: int, crop: str = CENTRAL_SQUARE, white: float = 255.0
) -> np.ndarray:
    """Grey values to the pixels that a model sees: the one way, of prepare, evaluate and predict.

    Args:
        grey: upright grey values as decoded, (H, W).
        size: height and width of the result, pixels.
        crop: "central_square", or "squash" for models of older versions.
        white: the value that becomes 255; 0 stays 0.

    Returns:
        (size, size) uint8, scaled bilinearly.
    """
    if crop == CENTRAL_SQUARE:
        side = min(grey.shape)
        top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
        grey = grey[top : top + side, left : left + side]
    if grey.dtype != np.uint8:  # resized before it is rounded to 8 bits
        return np.rint(resize(grey.astype(np.float32), size) * (255 / white)).astype(np.uint8)
    return resize(grey, size)


def resize(grey: np.ndarray, size: int) -> np.ndarray:
    """Grey values (H, W), uint8 or float32, scaled to (size, size)."""
    if grey.shape == (size, size):
        return grey
    image = Image.fromarray(np.ascontiguousarray(grey))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def refuse_bad(bad: Sequence[str], total: int, config: DataConfig, where: str) -> None:
    """Raises DataError for bad images, unless the configuration skips them and some are good."""
    if not bad or (config.on_bad_image == "skip" and len(bad) < total):
        return
    some = "; ".join(quote(reason, 200) for reason in bad[:3])
    some += f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    advice = (
        "mend them, or pass on_bad_image=skip" if len(bad) < total else "none of them is an image"
    )
    raise DataError(f"{len(bad)} of {total} images in {where} cannot be read ({some}): {advice}")
