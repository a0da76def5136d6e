"""The prepared dataset: decoded, split and audited once, then opened memory-mapped by every stage.

<data home>/<name>-<fingerprint>/   images, labels, splits, ids, hashes (.npy) and manifest.json
<data home>/sources/<source key>    the folder that holds what this request came to, and the request

Requests that come to the same pixels, labels and splits share a folder, whose manifest tells of the
first of them. Folders of format 1, of older versions, have no hashes, and images in them that
were not square are squashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments import __version__
from fer_experiments.config import DataConfig
from fer_experiments.data.audit import audit
from fer_experiments.data.images import (
    CENTRAL_SQUARE,
    SQUASH,
    LabelledImages,
    PixelRule,
    pixel_hashes,
)
from fer_experiments.data.layout import Reading
from fer_experiments.data.sources import Source, open_source
from fer_experiments.data.splits import SPLITS, assign, resolve, without_leaks
from fer_experiments.data.storage import data_home, open_array, write_folder, write_text
from fer_experiments.errors import DataError

# Raised when prepared folders get another content.
FORMAT = 2
# Of the key of a request: data that older versions prepared are found as long as it stays.
_KEY_FORMAT = 1
# What dataset cards tell.
_DESCRIBED = {"split", "source", "audit", "skipped", "colour_converted", "resized"}
# What the content decides, and not the request that came to it.
_CONTENT = {"format", "name", "fingerprint", "class_names", "image_size", "counts", "hashes"}


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

    def suits(self, rule: PixelRule) -> bool:
        """Whether the images became pixels as this rule says."""
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request, looked at but not carried out: nothing is decoded."""

    source: Source
    config: DataConfig  # its split is resolved, never auto
    reading: Reading
    identity: dict[str, Any]
    key: str

    def found(self) -> PreparedDataset | None:
        """What an earlier request of this kind came to, told as this one asks for it."""
        prepared = find(self.key)
        if prepared is None:
            return None
        return replace(prepared, manifest=prepared.manifest | {"split": self.config.split})


def plan(config: DataConfig, rule: PixelRule | None = None) -> Plan:
    """Looks at the source; arguments and errors as of `prepare`."""
    source = open_source(
        config.dataset,
        synthetic_count=config.synthetic_count,
        data_seed=config.data_seed,
        class_level=config.class_level,
        on_empty_class=config.on_empty_class,
    )
    reading = source.reading()
    images = ((file.part, file.path) for file in reading.files)
    config = replace(config, split=resolve(config.split, images))
    identity = source.identity()
    key = _source_key(identity, config, reading, rule or PixelRule())
    return Plan(source=source, config=config, reading=reading, identity=identity, key=key)


def prepare(
    config: DataConfig,
    rule: PixelRule | None = None,
    *,
    told: Callable[[Plan], None] = lambda plan: None,
) -> PreparedDataset:
    """Finds the prepared dataset that the configuration asks for, or makes it.

    Args:
        config: which images, and how they are split.
        rule: how they become pixels, for a model that knows; None: as is best for the data.
        told: gets what the source was taken to mean, before anything is decoded.

    Raises:
        UsageError: `dataset` names nothing that can be read.
        DataError: the images do not allow what was asked, or the disk is full.
    """
    rule = rule or PixelRule()
    planned = plan(config, rule)
    told(planned)
    found = planned.found()
    if found is not None:
        return found
    return write(planned.source.read(planned.config, rule), planned)


def find(key: str) -> PreparedDataset | None:
    """What an earlier request with this source key came to, told as that request asked for it."""
    try:
        prepared = _pointed_to(data_home() / "sources" / key)
    except (OSError, ValueError, LookupError, TypeError, DataError):
        return None
    manifest = prepared.manifest
    altered = manifest["skipped"] or manifest["colour_converted"] or manifest["resized"]
    if manifest["format"] == 1 and altered:
        return None  # what older versions altered may come out otherwise now
    return prepared if is_intact(prepared) else None


def _pointed_to(pointer: Path) -> PreparedDataset:
    folder, request = _read_pointer(pointer)
    prepared = open_prepared(data_home() / folder)
    return replace(prepared, manifest=prepared.manifest | request)


def _read_pointer(pointer: Path) -> tuple[str, dict[str, Any]]:
    """Name of the folder, and what the request adds to its manifest."""
    text = pointer.read_text(encoding="utf-8")
    if not text.startswith("{"):  # of an older version: the folder's name is all
        return text.strip(), {}
    told = json.loads(text)
    folder, request = str(told["folder"]), dict(told["request"])
    if not request.keys() >= _DESCRIBED:
        raise ValueError("half a request")
    return folder, request


def by_fingerprint(fingerprint: str, config: DataConfig | None = None) -> PreparedDataset | None:
    """The prepared dataset with exactly this content, whatever it was made from.

    With `config` it is told as that request asked for it, where the request is known.
    """
    for folder in data_home().glob(f"*-{fingerprint[:16]}"):
        try:
            prepared = open_prepared(folder)
        except DataError:
            continue
        if prepared.fingerprint == fingerprint and is_intact(prepared):
            return prepared if config is None else _as_asked(prepared, config)
    return None


def _as_asked(prepared: PreparedDataset, config: DataConfig) -> PreparedDataset:
    for pointer in sorted((data_home() / "sources").glob("*")):
        try:
            folder, request = _read_pointer(pointer)
            same = folder == prepared.folder.name and _asks(request, config)
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if same:
            told = prepared.manifest | request
            return replace(prepared, manifest=told | _resolved(config))
    return prepared


def _resolved(config: DataConfig) -> dict[str, str]:
    return {} if config.split == "auto" else {"split": config.split}


def _asks(request: Mapping[str, Any], config: DataConfig) -> bool:
    """Whether a request is the one of this configuration."""
    asked = _asked(config)
    # Where val is drawn, or given, these two are one request; see `_source_key`.
    alike = ("given", "holdout")
    if config.split == "auto" or (request["split"] in alike and config.split in alike):
        asked["split"] = request["split"]
    return (
        request["source"] == {**request["source"], "dataset": config.dataset}
        and request["val_fraction"] in (None, config.val_fraction)
        and all(request[name] == value for name, value in asked.items())
    )


def is_intact(prepared: PreparedDataset) -> bool:
    """Whether pixels, labels and class names are still those that the fingerprint was made of.

    The images' hashes too, where they are kept. Reads every pixel: 0.1 s for FER-2013.
    """
    found = _fingerprint(prepared.class_names, prepared.images, prepared.labels, prepared.splits)
    if prepared.manifest["format"] > 1 and _digest(prepared.hashes) != prepared.manifest["hashes"]:
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
            and manifest.keys() >= _DESCRIBED
            and prepared.images.shape == (total, size, size)
            and prepared.images.dtype == np.uint8
            and prepared.labels.shape == (total,)
            and prepared.labels.dtype == np.int64
            and prepared.ids.shape == (total,)
            and prepared.ids.dtype.kind == "U"
            and (manifest["format"] == 1 or _are_hashes(prepared.hashes, total))
            and (manifest["format"] == 1 or isinstance(manifest["hashes"], str))
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


def write(data: LabelledImages, planned: Plan) -> PreparedDataset:
    """Splits, audits and writes; the folder appears under its name only when it is whole.

    One of the same content that is there stays, unless it is of an older format.
    """
    config = planned.config
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
        **_asked(config),
        "val_fraction": config.val_fraction if _draws_val(data, config) else None,
        "source": {"dataset": config.dataset, **planned.identity},
        "source_key": planned.key,
        "left_out": planned.reading.not_used(),
        "hashes": _digest(data.hashes[order]),
        "audit": audit(images, labels, splits) | {"dropped_from_train": dropped},
        "skipped": list(data.bad),
        "colour_converted": data.colour_converted,
        "resized": data.resized,
        "not_square": data.not_square,
        # Where all are square either rule gives these pixels, and later requests share the folder.
        "crop": data.rule.crop if data.not_square else CENTRAL_SQUARE,
        "white": dict(data.rule.white),
        "package_version": __version__,
    }
    arrays = {
        "images": images,
        "labels": labels.astype(np.int64),
        "splits": splits.astype("U5"),
        "ids": np.array([data.ids[i] for i in order]),
        "hashes": data.hashes[order],
    }
    folder = data_home() / f"{data.name}-{fingerprint[:16]}"
    write_folder(folder, arrays, manifest, is_whole=_is_whole)
    request = {name: value for name, value in manifest.items() if name not in _CONTENT}
    pointer = data_home() / "sources" / planned.key
    write_text(pointer, json.dumps({"folder": folder.name, "request": request}))
    return _pointed_to(pointer)


def _asked(config: DataConfig) -> dict[str, Any]:
    """What a manifest tells of the configuration."""
    return {
        "split": config.split,
        "limit": config.limit,
        "data_seed": config.data_seed,
        "leaks": config.leaks,
    }


def _draws_val(data: LabelledImages, config: DataConfig) -> bool:
    """Whether val comes out of train."""
    return config.split != "official" and not (data.parts == "val").any()


def _is_whole(folder: Path) -> bool:
    """Whether a folder holds what would be written now, so that it may stay."""
    try:
        prepared = open_prepared(folder)
    except DataError:
        return False
    return prepared.manifest["format"] == FORMAT and is_intact(prepared)


def _digest(hashes: np.ndarray | None) -> str:
    return hashlib.sha256(np.ascontiguousarray(hashes).data).hexdigest()


def _are_hashes(hashes: np.ndarray | None, count: int) -> bool:
    return hashes is not None and hashes.shape == (count, 16) and hashes.dtype == np.uint8


def _source_key(
    identity: dict[str, Any], config: DataConfig, reading: Reading, rule: PixelRule
) -> str:
    # Where val is drawn from train, `given` and `holdout` are the same; where it is given, too.
    drawn = "given" if "val" in reading.counts else "holdout"
    asked = {
        "format": _KEY_FORMAT,
        "source": identity,
        "split": config.split if config.split == "official" else drawn,
        "val_fraction": config.val_fraction,
        "image_size": config.image_size,
        "limit": config.limit,
        "data_seed": config.data_seed,
        "leaks": config.leaks,
        "on_bad_image": config.on_bad_image,
    }
    if rule != PixelRule():
        asked["rule"] = asdict(rule)
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
