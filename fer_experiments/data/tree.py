"""Class folders with images, alone or under `train/` and `test/`, on disk or inside a zip."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer_experiments.config import DataConfig, is_text
from fer_experiments.data.decoding import decode_files
from fer_experiments.data.files import LARGEST_FILE, Unreadable, as_text, is_junk, read_file
from fer_experiments.data.images import FER_CLASSES, LabelledImages, PixelRule
from fer_experiments.errors import DataError, first_line, shown

_OFFICIAL_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_\d+")
# What is not for training was held out, whatever it is called.
_PARTS = {"train": "train", "training": "train"} | dict.fromkeys(
    ("test", "testing", "validation", "valid", "val"), "test"
)
# A class's name is part of the names of its scores, of which MLflow stores 250 characters.
_LONGEST_CLASS = 100


@dataclass(frozen=True)
class _File:
    """One file of a tree and how it lies there."""

    path: str  # posix, relative to the tree's root
    part: str  # train or test
    label: str  # name of its class folder


class _Files(Protocol):
    """A tree of files, in a folder or in a zip."""

    @property
    def path(self) -> Path:
        """The folder or the zip."""

    def listing(self) -> list[tuple[str, Any]]:
        """(relative posix path, what changes when the content does), sorted."""

    def open(self) -> Callable[[str], bytes]:
        """A function from relative path to content."""


@dataclass(frozen=True)
class FolderFiles:
    """The files below a folder."""

    path: Path

    def listing(self) -> list[tuple[str, Any]]:
        """Path and (size, times of change) of every file, three folders deep at most."""
        return sorted(self._walk(self.path, "", above=()))

    def _walk(
        self, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[str, Any]]:
        # Instead of os.walk: a class folder may be a link, and links that lead back must end.
        try:
            entries = list(os.scandir(folder))
            about = folder.stat()
        except OSError as error:
            raise DataError(f"{folder} cannot be read: {error.strerror}") from None
        if (about.st_dev, about.st_ino) in above:
            return
        above = (*above, (about.st_dev, about.st_ino))
        for entry in entries:
            if is_junk(entry.name):
                continue
            if _is_folder(entry):
                if len(above) <= 3:
                    yield from self._walk(Path(entry.path), f"{prefix}{entry.name}/", above)
            else:
                try:
                    stat = entry.stat()
                    # The second time changes with the content even where the first is set back.
                    mark = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
                    yield f"{prefix}{entry.name}", mark
                except OSError:  # a dangling link: reading it will say so
                    yield f"{prefix}{entry.name}", (0, 0)

    def open(self) -> Callable[[str], bytes]:
        """A reader of single files; raises Unreadable."""
        return lambda relative: read_file(self.path / relative)


@dataclass(frozen=True)
class ZipFiles:
    """The members of a zip."""

    path: Path
    # Members are read in memory and never written out, so no path inside a zip can escape.
    largest_member: int = LARGEST_FILE

    def listing(self) -> list[tuple[str, Any]]:
        """Path and (size, check sum) of every member."""
        with self._opened() as archive:
            return sorted(
                (info.filename, (info.file_size, info.CRC))
                for info in archive.infolist()
                if not info.is_dir() and not any(is_junk(part) for part in _parts(info.filename))
            )

    def open(self) -> Callable[[str], bytes]:
        """A reader of single members; raises Unreadable."""
        archive = self._opened()

        def read(relative: str) -> bytes:
            try:
                member = archive.getinfo(relative)
                if member.file_size > self.largest_member:
                    raise Unreadable(f"larger than {self.largest_member / 2**20:.0f} MB")
                if member.flag_bits & 1:
                    raise Unreadable("encrypted: unpack the zip and pass the folder")
                with archive.open(member) as file:
                    # Not all that comes: the size that a bomb tells of itself may be a lie.
                    return file.read(member.file_size + 1)
            except Unreadable:
                raise
            # Damage shows as BadZipFile, zlib.error, RuntimeError (encrypted) and more.
            except Exception as error:
                raise Unreadable(f"cannot be unpacked: {first_line(error)}") from None

        return read

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        # Damage shows as BadZipFile, OSError, struct.error, UnicodeDecodeError and more.
        except Exception as error:
            raise DataError(
                f"{self.path} cannot be opened as a zip: {first_line(error)}. "
                "If it was downloaded, download it again"
            ) from None


@dataclass(frozen=True)
class TreeSource:
    """Class folders, alone or under `train/` and `test/`, on disk or inside a zip."""

    files: _Files

    @cached_property
    def _listing(self) -> list[tuple[str, Any]]:
        """What the tree holds, walked once for identity, count and images."""
        return self.files.listing()

    def identity(self) -> dict[str, Any]:
        """A digest of all paths with their sizes and times (zip: check sums)."""
        digest = hashlib.sha256()
        for path, mark in self._listing:
            digest.update(f"{path}\0{mark}\n".encode("utf-8", "surrogateescape"))
        return {"kind": "tree", "root": self.files.path.name, "listing": digest.hexdigest()}

    def count(self) -> int:
        """Files in class folders."""
        return len(self._members())

    def read(self, config: DataConfig, rule: PixelRule) -> LabelledImages:
        """Decodes every file in every class folder.

        Raises:
            DataError: no images, one class only, a class only in test or without a readable
                image, or bad images with `on_bad_image=refuse`.
        """
        members = self._members()
        class_names = _class_names(members, self.files.path)
        decoded = decode_files([member.path for member in members], self.files, config, rule)
        kept = [members[i] for i in decoded.kept]
        lost = set(class_names) - {f.label for f in kept if f.part == "train"}
        if lost:
            raise DataError(
                f"Expected readable training images of every class in {self.files.path}. "
                f"Found: none of {', '.join(sorted(lost))}"
            )
        official = class_names == FER_CLASSES and all(
            _OFFICIAL_NAME.match(_parts(f.path)[-1]) for f in kept
        )
        index = {name: i for i, name in enumerate(class_names)}
        return LabelledImages(
            name="fer2013" if official else _slug(self.files.path),
            images=decoded.images,
            hashes=decoded.hashes,
            labels=np.array([index[f.label] for f in kept], dtype=np.int64),
            ids=[as_text(f.path) for f in kept],
            parts=np.array([f.part for f in kept]),
            class_names=class_names,
            rule=decoded.rule,
            bad=decoded.bad,
            colour_converted=decoded.colour_converted,
            resized=decoded.resized,
            not_square=decoded.not_square,
        )

    def _members(self) -> list[_File]:
        """The files that lie in class folders, with part and class told by their folders."""
        paths = [(path, _parts(path)) for path, _ in self._listing]
        found = [
            _File(path, _PARTS[parts[-3].lower()], parts[-2])
            for path, parts in paths
            if len(parts) >= 3 and parts[-3].lower() in _PARTS
        ]
        if not found:
            found = [_File(path, "train", parts[-2]) for path, parts in paths if len(parts) >= 2]
        if not found:
            raise DataError(
                f"Expected class folders with images (angry/…, or train/angry/…) in "
                f"{self.files.path}. Found: {len(paths)} files, none in a class folder"
            )
        return found


def _class_names(members: Iterable[_File], where: Path) -> tuple[str, ...]:
    by_part = Counter((f.part, f.label) for f in members)
    train = {label for part, label in by_part if part == "train"}
    only_test = {label for part, label in by_part if part == "test"} - train
    if only_test:
        raise DataError(
            f"Expected every class in the training part of {where}. "
            f"Only in test: {', '.join(sorted(only_test))}"
        )
    if len(train) < 2:
        raise DataError(
            f"Expected at least two classes in {where}. Found: {', '.join(sorted(train))}"
        )
    for name in train:
        if len(name) > _LONGEST_CLASS or not is_text(name):
            raise DataError(
                f"Expected class folders with names of at most {_LONGEST_CLASS} characters, none "
                f"of them a control character, in {where}. Received: {shown(name)}"
            )
    return tuple(sorted(train))


def _parts(path: str) -> list[str]:
    """The names in a posix path, without the `.` of `./train/angry/1.jpg`."""
    return [part for part in path.split("/") if part not in ("", ".")]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it will say so
        return False


def _slug(path: Path) -> str:
    name = path.name.lower().removesuffix(".zip")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:40].rstrip("-") or "images"
