"""All files of a source decoded with all cores, their grey scaled by one rule."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from fer_experiments.config import DataConfig
from fer_experiments.data.files import Unreadable, as_text
from fer_experiments.data.images import (
    BYTE,
    FAINT,
    Cut,
    PixelRule,
    decode,
    pixel_hash,
    refuse_bad,
    to_pixels,
    white_of,
)
from fer_experiments.data.parallel import in_order
from fer_experiments.errors import DataError, escaped, quote

# Files that a process decodes at a time.
_CHUNK = 1024
# Other processes help when they save at least the time of so many files, because starting them
# costs 2 seconds: on 2 cores 32,298 files took 136 µs each with them and 138 µs without.
_WORTH_HELPERS = 16 * _CHUNK


class Readable(Protocol):
    """Files that can be read by other processes, too."""

    @property
    def path(self) -> Path:
        """Where they are, for messages."""

    def open(self) -> Callable[[str], bytes]:
        """A function from relative path to content, which raises Unreadable."""


@dataclass(frozen=True, kw_only=True)
class DecodedFiles:
    """The files that could be decoded, in their order, and what was done to them."""

    images: np.ndarray  # (N, H, W) uint8
    hashes: np.ndarray  # (N, 16) uint8
    kept: list[int]  # which of the files they are
    rule: PixelRule
    bad: tuple[str, ...]
    colour_converted: int
    resized: int
    not_square: int
    no_face: int


@dataclass(frozen=True)
class _Range:
    """What is known of the numbers of an image whose file does not say what is white."""

    kind: str
    lowest: float
    highest: float


@dataclass(frozen=True)
class _Chunk:
    """What decoding some files came to, each list in their order."""

    images: np.ndarray  # (N, H, W) uint8, zeros where a file is bad or its range not known yet
    hashes: np.ndarray  # (N, 16) uint8
    reasons: list[str | None] = field(default_factory=list)  # why a file is bad
    ranges: list[_Range | None] = field(default_factory=list)
    colour: list[bool] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)  # (H, W) as decoded
    no_face: list[bool] = field(default_factory=list)  # a detector found none


def decode_files(
    paths: Sequence[str],
    files: Readable,
    config: DataConfig,
    rule: PixelRule,
    cut: Cut | None = None,
) -> DecodedFiles:
    """Decodes with all cores; `cut` cuts faces out, and may be pickled.

    Values of more than 8 bits need the range of all files, so such files are decoded twice.

    Raises:
        DataError: bad images with `on_bad_image=refuse`, or a range that is unclear.
    """
    size = config.image_size
    found = _decode(paths, files, size, rule, cut)
    rule = replace(rule, white={**rule.white, **_whites(paths, found.ranges, files.path)})
    again = [i for i, seen in enumerate(found.ranges) if seen and found.reasons[i] is None]
    if again:
        scaled = _decode([paths[i] for i in again], files, size, rule, cut)
        found.images[again] = scaled.images
        for i, reason, missed in zip(again, scaled.reasons, scaled.no_face, strict=True):
            found.reasons[i], found.no_face[i] = reason, missed
    bad = tuple(reason for reason in found.reasons if reason)
    refuse_bad(bad, len(paths), config, str(files.path))
    dropped = config.on_no_face == "drop"
    kept = [
        i
        for i, reason in enumerate(found.reasons)
        if reason is None and not (dropped and found.no_face[i])
    ]
    whole = len(kept) == len(paths)
    shapes = [found.shapes[i] for i in kept]
    return DecodedFiles(
        images=found.images if whole else found.images[kept],
        hashes=found.hashes if whole else found.hashes[kept],
        kept=kept,
        rule=rule,
        bad=bad,
        colour_converted=sum(found.colour[i] for i in kept),
        resized=sum(shape != (size, size) for shape in shapes),
        not_square=sum(height != width for height, width in shapes),
        no_face=sum(found.no_face),
    )


def _decode(
    paths: Sequence[str], files: Readable, size: int, rule: PixelRule, cut: Cut | None
) -> _Chunk:
    """All of them as one chunk."""
    found = _Chunk(*_empty(len(paths), size))
    tasks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
    helpers = len(paths) * (1 - 1 / (os.cpu_count() or 1)) >= _WORTH_HELPERS
    for chunk in in_order(partial(_decoder, files, size, rule, cut), tasks, helpers=helpers):
        part = slice(len(found.reasons), len(found.reasons) + len(chunk.reasons))
        found.images[part], found.hashes[part] = chunk.images, chunk.hashes
        for name in ("reasons", "ranges", "colour", "shapes", "no_face"):
            getattr(found, name).extend(getattr(chunk, name))
    return found


def _empty(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, size, size), dtype=np.uint8), np.zeros((count, 16), dtype=np.uint8)


def _decoder(
    files: Readable, size: int, rule: PixelRule, cut: Cut | None
) -> Callable[[Sequence[str]], _Chunk]:
    """A process opens an archive once for all its tasks."""
    return partial(_decode_some, files.open(), size, rule, cut)


def _decode_some(
    read: Callable[[str], bytes],
    size: int,
    rule: PixelRule,
    cut: Cut | None,
    paths: Sequence[str],
) -> _Chunk:
    chunk = _Chunk(*_empty(len(paths), size))
    for i, path in enumerate(paths):
        reason: str | None = None
        seen: _Range | None = None
        colour, shape, missed = False, (size, size), False
        try:
            decoded = decode(read(path), colours=cut is not None)
            grey, colour, shape = decoded.grey, decoded.colour_converted, decoded.grey.shape
            chunk.hashes[i] = np.frombuffer(pixel_hash(grey), dtype=np.uint8)
            white = decoded.white or rule.white.get(decoded.kind)
            if white is None:
                seen = _Range(decoded.kind, float(grey.min()), float(grey.max()))
            elif decoded.kind != BYTE and grey.max() > white:
                raise Unreadable(f"its values reach {grey.max():g}, and {white:g} is white")
            else:
                face = None if cut is None else cut(decoded, white)
                missed = cut is not None and face is None
                chunk.images[i] = (
                    to_pixels(grey, size=size, crop=rule.crop, white=white)
                    if face is None
                    else face
                )
        except Unreadable as error:
            reason = f"{escaped(as_text(path))}: {error}"
        chunk.reasons.append(reason)
        chunk.ranges.append(seen)
        chunk.colour.append(colour)
        chunk.shapes.append(shape)
        chunk.no_face.append(missed)
    return chunk


def _whites(paths: Sequence[str], ranges: Sequence[_Range | None], where: Path) -> dict[str, float]:
    """The value that is white in images of each kind of number, told by all of them.

    Raises:
        DataError: the brightest value is white in no usual range, or most images would be dark.
    """
    by_kind: dict[str, list[tuple[_Range, str]]] = defaultdict(list)
    for path, seen in zip(paths, ranges, strict=True):
        if seen is not None:
            by_kind[seen.kind].append((seen, path))
    whites = {}
    for kind, images in by_kind.items():
        brightest, path = max(images, key=lambda image: image[0].highest)
        white = white_of(kind, brightest.highest)
        faint = sum(s.highest - s.lowest < FAINT * (white or np.inf) for s, _ in images)
        if white is None or 2 * faint > len(images):
            raise DataError(
                f"Expected images of more than 8 bits in {where} whose brightest value tells what "
                f"is white (1 of fractions; 255, 1023, 4095, 16383 or 65535). Received: "
                f"{brightest.highest:g} in {quote(as_text(path), 200)}"
                + ("" if white is None else f", while most of {len(images)} are far darker")
                + "; scale them to 8 bits"
            )
        whites[kind] = white
    return whites
