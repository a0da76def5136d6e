"""The original challenge file `fer2013.csv`."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from fer_experiments.config import DataConfig
from fer_experiments.data.images import (
    FER_CLASSES,
    LabelledImages,
    PixelRule,
    pixel_hashes,
    refuse_bad,
    to_pixels,
)
from fer_experiments.data.parallel import in_order
from fer_experiments.errors import DataError, first_line, shown

# The challenge numbers the emotions in another order than the alphabetical folders.
CSV_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CSV_USAGES = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}


_Row = tuple[int, str, np.ndarray]  # emotion number, usage, pixels (H, W)
# Rows that a process parses at a time.
_CHUNK = 512
# Characters of a field and of a line: 1024×1024 pixels as text. A longer one is no image's row, and
# one without an end would fill the memory.
_LONGEST = 2**22
# Bytes of a file from which on other processes help.
_MANY = 2**25


@dataclass(frozen=True)
class CsvSource:
    """The original challenge file: columns `emotion`, `pixels`, `Usage`."""

    path: Path

    def identity(self) -> dict[str, Any]:
        """A digest of the file's bytes."""
        try:
            with self.path.open("rb") as file:
                return {"kind": "csv", "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from None

    def count(self) -> None:
        """Not known without reading the file."""
        return

    def read(self, config: DataConfig, rule: PixelRule) -> LabelledImages:
        """Parses every row.

        Raises:
            DataError: columns are missing, or bad rows with `on_bad_image=refuse`.
        """
        rows: list[_Row] = []
        bad: list[str] = []
        helpers = self.path.stat().st_size >= _MANY
        for parsed in in_order(_parser, self._chunks(), helpers=helpers):
            for row in parsed:
                if isinstance(row, str):
                    bad.append(row)
                else:
                    rows.append(row)
        refuse_bad(bad, len(rows) + len(bad), config, str(self.path))
        if not rows:
            raise DataError(f"Expected rows below the header of {self.path}. Found: none")
        size = config.image_size
        images = np.empty((len(rows), size, size), dtype=np.uint8)
        hashes = pixel_hashes([pixels for _, _, pixels in rows])
        resized = 0
        for i, (_, _, pixels) in enumerate(rows):
            resized += pixels.shape != (size, size)
            images[i] = to_pixels(pixels, size=size, crop=rule.crop)
        return LabelledImages(
            name="fer2013",
            images=images,
            hashes=hashes,
            labels=np.array([FER_CLASSES.index(CSV_EMOTIONS[e]) for e, _, _ in rows]),
            ids=[f"{usage}_{i:08d}" for i, (_, usage, _) in enumerate(rows)],
            parts=np.array([CSV_USAGES[usage] for _, usage, _ in rows]),
            class_names=FER_CLASSES,
            rule=PixelRule(crop=rule.crop),
            bad=tuple(bad),
            resized=resized,
        )

    def _chunks(self) -> Iterator[list[tuple[int, dict[str, str]]]]:
        """Numbered rows, some at a time."""
        numbered = enumerate(self._rows(), start=1)
        while chunk := list(islice(numbered, _CHUNK)):
            yield chunk

    def _rows(self) -> Iterator[dict[str, str]]:
        csv.field_size_limit(_LONGEST)
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(_lines(file))
                header = [name.strip() for name in next(reader, [])]
                missing = [n for n in ("emotion", "pixels", "Usage") if n not in header]
                if missing:
                    raise DataError(
                        f"Expected columns emotion, pixels, Usage in {self.path}. "
                        f"Missing: {', '.join(missing)}"
                    )
                for row in reader:
                    if row:  # a blank line, as at the end of an edited file, is no row
                        yield dict(zip(header, row, strict=False))
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise DataError(f"{self.path} cannot be read as CSV: {first_line(error)}") from None


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a file, none of them read further than a row can reach."""
    number = 1
    while line := file.readline(_LONGEST + 1):
        if len(line) > _LONGEST:
            raise csv.Error(f"line {number} is longer than {_LONGEST} characters")
        yield line
        number += 1


def _parser() -> Callable[[list[tuple[int, dict[str, str]]]], list[_Row | str]]:
    return _parse_rows


def _parse_rows(rows: list[tuple[int, dict[str, str]]]) -> list[_Row | str]:
    """Each row, or what is wrong with it."""
    parsed: list[_Row | str] = []
    for number, row in rows:
        try:
            parsed.append(_parse_row(row))
        except ValueError as error:
            parsed.append(f"row {number}: {error}")
    return parsed


def _parse_row(row: dict[str, str]) -> _Row:
    """(emotion number, usage, pixels (H, W) uint8); ValueError says what is wrong."""
    emotion, usage = row.get("emotion", "").strip(), row.get("Usage", "").strip()
    if emotion not in {str(i) for i in range(len(CSV_EMOTIONS))}:
        raise ValueError(f"emotion must be 0 to 6, is '{shown(emotion, 20)}'")
    if usage not in CSV_USAGES:
        raise ValueError(f"Usage must be one of {', '.join(CSV_USAGES)}, is '{shown(usage, 20)}'")
    try:
        # Many times faster than NumPy reads numbers from text; refuses what fits no byte.
        pixels = np.array(bytearray(map(int, row.get("pixels", "").split())))
    except ValueError:
        raise ValueError("pixels must be whole numbers from 0 to 255") from None
    side = int(pixels.size**0.5)
    if side == 0 or side * side != pixels.size:
        raise ValueError(f"pixels must fill a square, are {pixels.size}")
    return int(emotion), usage, pixels.reshape(side, side)
