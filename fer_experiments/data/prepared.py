"""Prepare a dataset once: decode, split, audit, write; or find it prepared.

<data home>/<name>-<fingerprint>/   see data/dataset.py
<data home>/sources/<source key>    the folder that holds what this request came to, and the request

Requests that come to the same pixels, labels and splits share a folder, whose manifest tells of the
first of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments import __version__
from fer_experiments.config import DataConfig
from fer_experiments.data.audit import audit
from fer_experiments.data.dataset import (
    DESCRIBED,
    FORMAT,
    SPLITS,
    PreparedDataset,
    counts_of,
    digest,
    fingerprint_of,
    is_intact,
    open_prepared,
)
from fer_experiments.data.images import (
    CENTRAL_SQUARE,
    Cut,
    LabelledImages,
    PixelRule,
)
from fer_experiments.data.layout import Reading
from fer_experiments.data.sources import Source, open_source
from fer_experiments.data.splits import assign, resolve, without_leaks
from fer_experiments.data.storage import data_home, write_folder, write_text
from fer_experiments.errors import DataError

# Of the key of a request: data that older versions prepared are found as long as it stays.
_KEY_FORMAT = 1
# What the content decides, and not the request that came to it.
_CONTENT = {"format", "name", "fingerprint", "class_names", "image_size", "counts", "hashes"}


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
    cut: Cut | None = None,
) -> PreparedDataset:
    """Finds the prepared dataset that the configuration asks for, or makes it.

    Args:
        config: which images, and how they are split.
        rule: how they become pixels, for a model that knows; None: as is best for the data.
        told: gets what the source was taken to mean, before anything is decoded.
        cut: cuts faces out of photos; see `faces.preparing`, which everybody but tests calls.

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
    return write(planned.source.read(planned.config, rule, cut), planned)


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
    if not request.keys() >= DESCRIBED:
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
    fingerprint = fingerprint_of(data.class_names, images, labels, splits)
    manifest = {
        "format": FORMAT,
        "name": data.name,
        "fingerprint": fingerprint,
        "class_names": list(data.class_names),
        "image_size": config.image_size,
        "counts": counts_of(labels, splits, data.class_names),
        **_asked(config),
        "val_fraction": config.val_fraction if _draws_val(data, config) else None,
        "source": {"dataset": config.dataset, **planned.identity},
        "source_key": planned.key,
        "left_out": planned.reading.not_used(),
        "hashes": digest(data.hashes[order]),
        "audit": audit(images, labels, splits) | {"dropped_from_train": dropped},
        "skipped": list(data.bad),
        "colour_converted": data.colour_converted,
        "resized": data.resized,
        "not_square": data.not_square,
        # Where all are square either rule gives these pixels, and later requests share the folder.
        "crop": data.rule.crop if data.not_square else CENTRAL_SQUARE,
        "detector": detector_of(config),
        "no_face": data.no_face,
        "white": dict(data.rule.white),
        "package_version": __version__,
    }
    arrays = {
        "images": images,
        "labels": labels.astype(np.int64),
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


def detector_of(config: DataConfig) -> str:
    """The detector's name, without its file."""
    return config.detector.partition(":")[0]


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
    if replace(rule, detector="none") != PixelRule():
        asked["rule"] = {"crop": rule.crop, "white": dict(rule.white)}
    if detector_of(config) != "none":  # not where its file lies
        asked |= {"detector": detector_of(config), "on_no_face": config.on_no_face}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
