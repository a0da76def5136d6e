"""The prepared dataset: decoded, split and audited once, then opened memory-mapped by every stage.

<data home>/<name>-<fingerprint>/   images.npy labels.npy splits.npy ids.npy manifest.json
<data home>/sources/<source key>    the folder that holds what this request came to
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments import __version__
from fer_experiments.config import DataConfig
from fer_experiments.data.audit import audit
from fer_experiments.data.images import LabelledImages
from fer_experiments.data.sources import Source, open_source
from fer_experiments.data.splits import SPLITS, assign, without_leaks
from fer_experiments.data.storage import data_home, open_array, write_folder, write_text
from fer_experiments.errors import DataError

# Raised when prepared folders of older versions can no longer be read.
FORMAT = 1
# What dataset cards tell.
_DESCRIBED = {"split", "source", "audit", "skipped", "colour_converted", "resized"}


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


def prepare(config: DataConfig) -> PreparedDataset:
    """Finds the prepared dataset that the configuration asks for, or makes it.

    Raises:
        UsageError: `dataset` names nothing that can be read.
        DataError: the images do not allow what was asked, or the disk is full.
    """
    source = _source(config)
    identity = source.identity()
    key = _source_key(identity, config)
    return find(key) or write(source.read(config), config, identity, key)


def lookup(config: DataConfig) -> PreparedDataset | None:
    """The prepared dataset, if it has been made already."""
    return find(_source_key(_source(config).identity(), config))


def image_count(config: DataConfig) -> int | None:
    """How many images the source holds, where that can be told without decoding."""
    return _source(config).count()


def find(key: str) -> PreparedDataset | None:
    """What an earlier request with this source key came to."""
    pointer = data_home() / "sources" / key
    try:
        prepared = open_prepared(data_home() / pointer.read_text(encoding="utf-8").strip())
    except (OSError, ValueError, DataError):
        return None
    return prepared if is_intact(prepared) else None


def by_fingerprint(fingerprint: str) -> PreparedDataset | None:
    """The prepared dataset with exactly this content, whatever it was made from."""
    for folder in data_home().glob(f"*-{fingerprint[:16]}"):
        try:
            prepared = open_prepared(folder)
        except DataError:
            continue
        if prepared.fingerprint == fingerprint and is_intact(prepared):
            return prepared
    return None


def is_intact(prepared: PreparedDataset) -> bool:
    """Whether pixels, labels and class names are still those that the fingerprint was made of.

    Reads every pixel: 0.1 s for FER-2013.
    """
    found = _fingerprint(prepared.class_names, prepared.images, prepared.labels, prepared.splits)
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
            manifest["format"] == FORMAT
            and manifest.keys() >= _DESCRIBED
            and prepared.images.shape == (total, size, size)
            and prepared.images.dtype == np.uint8
            and prepared.labels.shape == (total,)
            and prepared.labels.dtype == np.int64
            and prepared.ids.shape == (total,)
            and prepared.ids.dtype.kind == "U"
            and np.isin(prepared.labels, np.arange(len(prepared.class_names))).all()
            and prepared.counts == _counts(prepared.labels, prepared.splits, prepared.class_names)
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


def write(
    data: LabelledImages, config: DataConfig, identity: dict[str, Any], key: str
) -> PreparedDataset:
    """Splits, audits and writes; the folder appears under its name only when it is whole."""
    assigned = assign(data, config)
    splits = without_leaks(assigned, data.images) if config.leaks == "drop" else assigned
    dropped = int((splits != assigned).sum())
    order = np.concatenate([np.flatnonzero(splits == split) for split in SPLITS])
    images, labels, splits = data.images[order], data.labels[order], splits[order]
    fingerprint = _fingerprint(data.class_names, images, labels, splits)
    manifest = {
        "format": FORMAT,
        "name": data.name,
        "fingerprint": fingerprint,
        "class_names": list(data.class_names),
        "image_size": config.image_size,
        "counts": _counts(labels, splits, data.class_names),
        "split": config.split,
        "val_fraction": config.val_fraction if config.split == "holdout" else None,
        "limit": config.limit,
        "data_seed": config.data_seed,
        "leaks": config.leaks,
        "source": {"dataset": config.dataset, **identity},
        "source_key": key,
        "audit": audit(images, labels, splits) | {"dropped_from_train": dropped},
        "skipped": list(data.bad),
        "colour_converted": data.colour_converted,
        "resized": data.resized,
        "package_version": __version__,
    }
    arrays = {
        "images": images,
        "labels": labels.astype(np.int64),
        "splits": splits.astype("U5"),
        "ids": np.array([data.ids[i] for i in order]),
    }
    folder = data_home() / f"{data.name}-{fingerprint[:16]}"
    write_folder(folder, arrays, manifest, is_whole=_is_whole)
    write_text(data_home() / "sources" / key, folder.name)
    return open_prepared(folder)


def _is_whole(folder: Path) -> bool:
    try:
        return is_intact(open_prepared(folder))
    except DataError:
        return False


def _source(config: DataConfig) -> Source:
    return open_source(
        config.dataset, synthetic_count=config.synthetic_count, data_seed=config.data_seed
    )


def _source_key(identity: dict[str, Any], config: DataConfig) -> str:
    asked = {
        "format": FORMAT,
        "source": identity,
        "split": config.split,
        "val_fraction": config.val_fraction,
        "image_size": config.image_size,
        "limit": config.limit,
        "data_seed": config.data_seed,
        "leaks": config.leaks,
        "on_bad_image": config.on_bad_image,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _counts(
    labels: np.ndarray, splits: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, list[int]]:
    """Images per class, by split."""
    return {
        split: np.bincount(labels[splits == split], minlength=len(class_names)).tolist()
        for split in SPLITS
    }


def _fingerprint(
    class_names: tuple[str, ...], images: np.ndarray, labels: np.ndarray, splits: np.ndarray
) -> str:
    digest = hashlib.sha256(json.dumps([class_names, images.shape]).encode())
    codes = np.array([SPLITS.index(split) for split in splits], dtype=np.uint8)
    for array in (images, labels.astype("<i8"), codes):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
