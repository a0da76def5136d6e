"""Class folders with images, alone or in parts, on disk or inside a zip; or a table in there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments.config import DataConfig
from fer_experiments.data import layout
from fer_experiments.data.challenge_csv import CsvSource, is_table
from fer_experiments.data.decoding import decode_files
from fer_experiments.data.files import as_text, suffix_of
from fer_experiments.data.images import FER_CLASSES, OFFICIAL_NAME, Cut, LabelledImages, PixelRule
from fer_experiments.data.listing import Files, Listing, TarFiles
from fer_experiments.errors import DataError, quote

# The names of the challenge's table in its own archives, which hold other tables too.
_TABLES = ("fer2013.csv", "icml_face_data.csv")


@dataclass(frozen=True)
class TreeSource:
    """Class folders, alone or in parts, on disk or inside a zip; or what holds fer2013.csv."""

    files: Files
    class_level: int | None = None
    on_empty_class: str = "refuse"

    @cached_property
    def _listing(self) -> Listing:
        """What the tree holds, walked once for identity, reading and images."""
        return self.files.listing()

    @cached_property
    def _table(self) -> CsvSource | None:
        """The challenge's table, where there are no folders of images."""
        sizes = {path: mark[0] for path, mark in self._listing.files}
        if layout.has_folders(sizes):
            return None
        tables = [
            CsvSource(self.files, path, size)
            for path, size in sizes.items()
            if suffix_of(path) == ".csv" and is_table(self.files, path)
        ]
        named = [t for name in _TABLES for t in tables if t.path.name.lower() == name]
        # With pixels first: FER+'s table lies beside the challenge's.
        chosen = named[:1] or [t for t in tables if not t.has_votes()] or tables
        if len(chosen) > 1:
            raise DataError(
                f"Expected one table of images in {self.files.path}. Found: "
                f"{', '.join(quote(t.member) for t in chosen)}; pass one of them"
            )
        return chosen[0] if chosen else None

    @cached_property
    def _reading(self) -> layout.Reading:
        paths = [path for path, _ in self._listing.files]
        if self._table is not None:
            others = layout.left_out(path for path in paths if path != self._table.member)
            reading = self._table.reading()
            return replace(reading, table=self._table.member, left_out=others)
        if isinstance(self.files, TarFiles):
            raise DataError(
                f"Expected a tar that holds fer2013.csv. Received: {self.files.path} with "
                f"{len(paths)} other files; unpack it, and pass the folder"
            )
        return layout.read(
            [*paths, *self._listing.junk],
            self._listing.empty_folders,
            where=self.files.path,
            class_level=self.class_level,
            on_empty_class=self.on_empty_class,
        )

    @property
    def name(self) -> str:
        """What the dataset will be called, unless odd files are skipped as unreadable."""
        if self._table is not None:
            return self._table.name
        return self._called(self._reading.files)

    def _called(self, files: Iterable[layout.Placed]) -> str:
        official = self._reading.class_names == FER_CLASSES and all(
            layout.OFFICIAL_FILE.match(Path(file.path).name) for file in files
        )
        return OFFICIAL_NAME if official else _slug(self.files.path)

    def reading(self) -> layout.Reading:
        """What the folders mean; nothing is decoded.

        Raises:
            DataError: what lies there, or its names, cannot be read in one way.
        """
        return self._reading

    def identity(self) -> dict[str, Any]:
        """A digest of all paths with their sizes and times (zip: check sums), and of their meaning
        where versions before layout.py took it for another.
        """
        if self._table is not None:
            return self._table.identity()
        listing = self._listing
        digest = hashlib.sha256()
        for path, mark in listing.files:
            digest.update(f"{path}\0{mark}\n".encode("utf-8", "surrogateescape"))
        identity = {"kind": "tree", "root": self.files.path.name, "listing": digest.hexdigest()}
        meant = [(f.path, f.part, f.label) for f in self._reading.files]
        if meant != _read_before([path for path, _ in listing.files]):
            told = json.dumps([meant, self._reading.class_names]).encode()
            identity["reading"] = hashlib.sha256(told).hexdigest()
        return identity

    def read(self, config: DataConfig, rule: PixelRule, cut: Cut | None = None) -> LabelledImages:
        """Decodes every image in every class folder.

        Raises:
            DataError: as `reading`; a class without a readable training image, or bad images with
                `on_bad_image=refuse`.
        """
        if self._table is not None:
            return self._table.read(config, rule, cut)
        files, class_names = self._reading.files, self._reading.class_names
        decoded = decode_files([file.path for file in files], self.files, config, rule, cut)
        kept = [files[i] for i in decoded.kept]
        lost = set(class_names) - {f.label for f in kept if f.part == "train"}
        if lost:
            raise DataError(
                f"Expected readable training images of every class in {self.files.path}. "
                f"Found: none of {', '.join(sorted(lost))}"
            )
        index = {name: i for i, name in enumerate(class_names)}
        return LabelledImages(
            name=self._called(kept),
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
            no_face=decoded.no_face,
        )


def _read_before(paths: Iterable[str]) -> list[tuple[str, str, str]]:
    """(path, part, class) of each file, as versions before layout.py read the same listing.

    Data that they prepared is found again where they read it rightly, which is what this tells.
    """
    parts = {"train": "train", "training": "train"} | dict.fromkeys(
        ("test", "testing", "validation", "valid", "val"), "test"
    )
    split = [(path, layout.names_in(path)) for path in paths]
    found = [
        (path, parts[names[-3].lower()], names[-2])
        for path, names in split
        if len(names) >= 3 and names[-3].lower() in parts
    ]
    return found or [(path, "train", names[-2]) for path, names in split if len(names) >= 2]


def _slug(path: Path) -> str:
    name = path.name.lower().removesuffix(".zip")
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:40].rstrip("-") or "images"
