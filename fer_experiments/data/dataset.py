"""The prepared dataset, opened memory-mapped by every stage.

<data home>/<name>-<fingerprint>/   images, labels, ids, hashes (.npy) and manifest.json

Images are ordered train, val, test. Folders of format 1, of older versions, have no hashes, and
images in them that were not square are squashed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments.data.images import CENTRAL_SQUARE, SQUASH, PixelRule, pixel_hashes
from fer_experiments.data.storage import open_array
from fer_experiments.errors import DataError

SPLITS = ("train", "val", "test")
# Raised when prepared folders get another content.
FORMAT = 2
# What dataset cards tell.
DESCRIBED = {"split", "source", "audit", "skipped", "colour_converted", "resized"}


@dataclass(frozen=True)
class PreparedDataset:
    """One prepared folder. Images are ordered train, val, test, so a split is one slice."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """What the dataset is called: fer2013, synthetic, or the folder's name."""
        return str(self.manifest["name"])

    @property
    def fingerprint(self) -> str:
        """SHA-256 over class names, pixels, labels and splits, in hexadecimal."""
        return str(self.manifest["fingerprint"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """In label order."""
        return tuple(self.manifest["class_names"])

    @property
    def image_size(self) -> int:
        """Height and width, pixels."""
        return int(self.manifest["image_size"])

    @property
    def crop(self) -> str:
        """What became of images that were not square: "central_square" or "squash"."""
        older = SQUASH if self.manifest["resized"] else CENTRAL_SQUARE
        return str(self.manifest.get("crop", older))

    @property
    def white(self) -> dict[str, float]:
        """By kind of number, the value that is white in files of more than 8 bits."""
        return dict(self.manifest.get("white", {}))

    @property
    def rule(self) -> PixelRule:
        """How the images became pixels."""
        return PixelRule(crop=self.crop, white=self.white, detector=self.detector)

    @property
    def detector(self) -> str:
        """What cut the faces out of photos: none, mtcnn or yunet."""
        return str(self.manifest.get("detector", "none"))

    def suits(self, rule: PixelRule) -> bool:
        """Whether the images became pixels as this rule says.

        Faces that a detector cut out fit all models: they are framed as FER-2013's are.
        """
        not_square = self.manifest.get("not_square", self.manifest["resized"])
        whites = self.white
        return (rule.crop == self.crop or not not_square) and all(
            whites.get(kind, white) == white for kind, white in rule.white.items()
        )

    @property
    def counts(self) -> dict[str, list[int]]:
        """Images per class, by split."""
        return dict(self.manifest["counts"])

    def size(self, split: str) -> int:
        """How many images the split has."""
        return sum(self.counts[split])

    @cached_property
    def images(self) -> np.ndarray:
        """(N, H, W) uint8, memory-mapped."""
        return open_array(self.folder / "images.npy")

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int64."""
        return open_array(self.folder / "labels.npy")

    @cached_property
    def ids(self) -> np.ndarray:
        """(N,) text: path within the source."""
        return open_array(self.folder / "ids.npy")

    @cached_property
    def hashes(self) -> np.ndarray | None:
        """(N, 16) uint8, `pixel_hash` of each image as it was before it was cropped and resized.

        None in folders of format 1 whose images were changed: prepare them again.
        """
        if self.manifest["format"] > 1:
            return open_array(self.folder / "hashes.npy")
        changed = self.manifest["resized"] or self.manifest["colour_converted"]
        return None if changed else pixel_hashes(self.images)

    @cached_property
    def splits(self) -> np.ndarray:
        """(N,) "train", "val" or "test"."""
        return np.repeat(SPLITS, [self.size(split) for split in SPLITS])

    def slice(self, split: str) -> slice:
        """Where the split's images lie."""
        start = sum(self.size(s) for s in SPLITS[: SPLITS.index(split)])
        return slice(start, start + self.size(split))

    def split(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W) uint8 and labels (N,) of one split."""
        part = self.slice(name)
        return self.images[part], self.labels[part]


def is_intact(prepared: PreparedDataset) -> bool:
    """Whether pixels, labels and class names are still those that the fingerprint was made of.

    The images' hashes too, where they are kept. Reads every pixel: 0.1 s for FER-2013.
    """
    found = fingerprint_of(prepared.class_names, prepared.images, prepared.labels, prepared.splits)
    if prepared.manifest["format"] > 1 and digest(prepared.hashes) != prepared.manifest["hashes"]:
        return False
    return found == prepared.fingerprint


def open_prepared(folder: Path) -> PreparedDataset:
    """Opens a prepared folder.

    Raises:
        DataError: it is not there, or its arrays do not match its manifest.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        prepared = PreparedDataset(folder, manifest)
        size = prepared.image_size
        total = sum(prepared.size(split) for split in SPLITS)
        whole = (
            manifest["format"] in (1, FORMAT)
            and manifest.keys() >= DESCRIBED
            and prepared.images.shape == (total, size, size)
            and prepared.images.dtype == np.uint8
            and prepared.labels.shape == (total,)
            and prepared.labels.dtype == np.int64
            and prepared.ids.shape == (total,)
            and prepared.ids.dtype.kind == "U"
            and (manifest["format"] == 1 or _are_hashes(prepared.hashes, total))
            and (manifest["format"] == 1 or isinstance(manifest["hashes"], str))
            and np.isin(prepared.labels, np.arange(len(prepared.class_names))).all()
            and prepared.counts == counts_of(prepared.labels, prepared.splits, prepared.class_names)
        )
    # What stands in a damaged manifest may be of any type, size and depth.
    except (
        OSError, EOFError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError,
        RecursionError,
    ):  # fmt: skip
        whole = False
    if not whole:
        raise DataError(
            f"Expected a whole prepared dataset in {folder}. Received: missing or damaged files; "
            "delete the folder and run prepare again"
        )
    return prepared


def digest(hashes: np.ndarray | None) -> str:
    """SHA-256 of the images' hashes, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(hashes).data).hexdigest()


def _are_hashes(hashes: np.ndarray | None, count: int) -> bool:
    return hashes is not None and hashes.shape == (count, 16) and hashes.dtype == np.uint8


def counts_of(
    labels: np.ndarray, splits: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, list[int]]:
    """Images per class, by split."""
    return {
        split: np.bincount(labels[splits == split], minlength=len(class_names)).tolist()
        for split in SPLITS
    }


def fingerprint_of(
    class_names: tuple[str, ...], images: np.ndarray, labels: np.ndarray, splits: np.ndarray
) -> str:
    """SHA-256 over class names, pixels, labels and splits, in hexadecimal."""
    digest = hashlib.sha256(json.dumps([class_names, images.shape]).encode())
    codes = np.array([SPLITS.index(split) for split in splits], dtype=np.uint8)
    for array in (images, labels.astype("<i8"), codes):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
