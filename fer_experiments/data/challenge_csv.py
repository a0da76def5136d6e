"""The original challenge file `fer2013.csv`."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from fer_experiments.config import DataConfig
from fer_experiments.data.images import (
    FER_CLASSES,
    OFFICIAL_NAME,
    Cut,
    LabelledImages,
    PixelRule,
    pixel_hashes,
    refuse_bad,
    to_pixels,
)
from fer_experiments.data.layout import Placed, Reading
from fer_experiments.data.listing import Files, FolderFiles
from fer_experiments.data.parallel import in_order
from fer_experiments.errors import ConfigError, DataError, quote, summarize

# The challenge numbers the emotions in another order than the alphabetical folders.
CSV_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CSV_USAGES = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}


_COLUMNS = ("emotion", "pixels", "Usage")
_VOTES = "image name"  # a column of FER+'s fer2013new.csv
# What stands for a class in the column emotion: the challenge's number, its name or a usual word.
_LABELS = (
    {str(number): name for number, name in enumerate(CSV_EMOTIONS)}
    | {name: name for name in CSV_EMOTIONS}
    | {"anger": "angry", "disgusted": "disgust", "fearful": "fear", "happiness": "happy"}
    | {"sadness": "sad", "surprised": "surprise"}
)


class _Row(NamedTuple):
    """A row that can be used."""

    number: int  # in the file, from 0
    label: str
    usage: str
    pixels: np.ndarray  # (H, W) uint8


# Rows that a process parses at a time.
_CHUNK = 512
# Characters of a field and of a line: 1024×1024 pixels as text. A longer one is no image's row, and
# one without an end would fill the memory.
_LONGEST = 2**22
# Bytes of a file from which on other processes help.
_MANY = 2**25


@dataclass(frozen=True)
class CsvSource:
    """The original challenge file, columns `emotion`, `pixels`, `Usage`, wherever it lies."""

    files: Files
    member: str
    size: int  # bytes
    name = OFFICIAL_NAME

    @classmethod
    def at(cls, path: Path) -> CsvSource:
        """A file by itself."""
        return cls(FolderFiles(path.parent), path.name, path.stat().st_size)

    @property
    def path(self) -> Path:
        """Where it lies, in an archive perhaps."""
        return self.files.path / self.member

    def identity(self) -> dict[str, Any]:
        """A digest of the file's bytes."""
        digest = hashlib.sha256()
        try:
            with self.files.stream(self.member) as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {_reason(error)}") from None
        return {"kind": "csv", "sha256": digest.hexdigest()}

    def has_votes(self) -> bool:
        """Whether it is FER+'s table, which has votes and no pixels."""
        header, _ = _header(self.files, self.member)
        return _VOTES in header and "pixels" not in header

    @cached_property
    def _reading(self) -> Reading:
        placed = []
        for number, row in enumerate(self._rows()):
            try:
                label, usage = _label(row), _usage(row)
            except ValueError:  # a bad row, which `read` refuses or skips
                continue
            placed.append(Placed(_id(usage, number), CSV_USAGES[usage], label))
        if not placed:
            raise DataError(f"Expected rows below the header of {self.path}. Found: none")
        return Reading(files=tuple(placed), class_names=FER_CLASSES)

    def reading(self) -> Reading:
        """What the rows say of emotion and usage; pixels are not looked at."""
        return self._reading

    def read(self, config: DataConfig, rule: PixelRule, cut: Cut | None = None) -> LabelledImages:
        """Parses every row.

        Raises:
            DataError: columns are missing, or bad rows with `on_bad_image=refuse`.
        """
        if cut is not None:
            raise ConfigError(
                f"Expected detector=none for {self.path}, which holds faces and no photos. "
                f"Received: detector={quote(config.detector)}"
            )
        rows: list[_Row] = []
        bad: list[str] = []
        for parsed in in_order(_parser, self._chunks(), helpers=self.size >= _MANY):
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
        hashes = pixel_hashes([row.pixels for row in rows])
        resized = 0
        for i, row in enumerate(rows):
            resized += row.pixels.shape != (size, size)
            images[i] = to_pixels(row.pixels, size=size, crop=rule.crop)
        return LabelledImages(
            name=self.name,
            images=images,
            hashes=hashes,
            labels=np.array([FER_CLASSES.index(row.label) for row in rows]),
            ids=[_id(row.usage, row.number) for row in rows],
            parts=np.array([CSV_USAGES[row.usage] for row in rows]),
            class_names=FER_CLASSES,
            rule=PixelRule(crop=rule.crop),
            bad=tuple(bad),
            resized=resized,
        )

    def _chunks(self) -> Iterator[list[tuple[int, dict[str, str]]]]:
        """Rows with their numbers in the file, from 0; some at a time."""
        numbered = enumerate(self._rows())
        while chunk := list(islice(numbered, _CHUNK)):
            yield chunk

    def _rows(self) -> Iterator[dict[str, str]]:
        header, delimiter = _header(self.files, self.member)
        missing = [name for name in _COLUMNS if name.lower() not in header]
        if self.has_votes():
            raise DataError(
                f"Expected pixels in {self.path}. Received: FER+'s table, which has votes and no "
                "pixels; pass the challenge's fer2013.csv"
            )
        if missing:
            raise DataError(
                f"Expected columns {', '.join(_COLUMNS)} in {self.path}. "
                f"Missing: {', '.join(missing)}"
            )
        with _as_csv(self.path), self.files.stream(self.member) as raw:
            file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
            reader = csv.reader(_lines(file), delimiter=delimiter)
            next(reader)
            for row in reader:
                if row:  # a blank line, as at the end of an edited file, is no row
                    yield dict(zip(header, row, strict=False))


def is_table(files: Files, member: str) -> bool:
    """Whether a CSV is the challenge's, or FER+'s, by its header."""
    try:
        header, _ = _header(files, member)
    except DataError:
        return False
    return "pixels" in header or _VOTES in header


def _header(files: Files, member: str) -> tuple[list[str], str]:
    """The columns' names in lower case, and what stands between them."""
    path = files.path / member
    with _as_csv(path), files.stream(member) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        first = next(_lines(file), "")
        delimiter = max(",;\t", key=first.count)
        names = next(csv.reader([first], delimiter=delimiter), [])
    return [name.strip().lower() for name in names], delimiter


@contextmanager
def _as_csv(path: Path) -> Iterator[None]:
    """Turns what reading raises into DataError."""
    csv.field_size_limit(_LONGEST)
    try:
        yield
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as CSV: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or summarize(error)


def _id(usage: str, number: int) -> str:
    """The row's number in the file, from 0 as data frames count, whatever rows are skipped."""
    return f"{usage}_{number:08d}"


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
    """Each row, or what is wrong with it; in messages the first row is row 1."""
    parsed: list[_Row | str] = []
    for number, row in rows:
        try:
            parsed.append(_Row(number, _label(row), _usage(row), _pixels(row)))
        except ValueError as error:
            parsed.append(f"row {number + 1}: {error}")
    return parsed


def _label(row: dict[str, str]) -> str:
    """The class; ValueError says what is wrong."""
    emotion = row.get("emotion", "").strip()
    label = _LABELS.get(emotion.lower())
    if label is None:
        raise ValueError(f"emotion must be 0 to 6 or a class, is '{quote(emotion, 20)}'")
    return label


def _usage(row: dict[str, str]) -> str:
    usage = row.get("usage", "").strip()
    if usage not in CSV_USAGES:
        raise ValueError(f"Usage must be one of {', '.join(CSV_USAGES)}, is '{quote(usage, 20)}'")
    return usage


def _pixels(row: dict[str, str]) -> np.ndarray:
    """(H, W) uint8."""
    try:
        # Many times faster than NumPy reads numbers from text; refuses what fits no byte.
        pixels = np.array(bytearray(map(int, row.get("pixels", "").split())))
    except ValueError:
        raise ValueError("pixels must be whole numbers from 0 to 255") from None
    side = int(pixels.size**0.5)
    if side == 0 or side * side != pixels.size:
        raise ValueError(f"pixels must fill a square, are {pixels.size}")
    return pixels.reshape(side, side)
