"""Which images a model has seen: those it was fitted on, and those that chose something of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fer_experiments.config import FitConfig
from fer_experiments.data.dataset import PreparedDataset

# The artifact of a training run that holds the hashes of its images; see `PreparedDataset.hashes`.
HASHES = "dataset/pixel_hashes.npz"
# What val can choose.
EPOCH, STOP, RATE, TEMPERATURE = "epoch", "last epoch", "learning rate", "temperature"
UNTOLD = "epoch, perhaps"  # of models without a record


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A split of a prepared dataset, and the run that keeps the hashes of its images."""

    fingerprint: str
    split: str
    run_id: str | None = None  # None: the run that logs the model
    chose: str = ""  # what was chosen by it; nothing where the model was fitted on it


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a model, or any model that it was made from, was fitted and selected on."""

    fitted: tuple[ImageSet, ...]
    selected: tuple[ImageSet, ...]

    @property
    def chosen(self) -> tuple[str, ...]:
        """What images chose: epoch, temperature, …; each once."""
        return tuple(dict.fromkeys(images.chose for images in self.selected))

    def joined(self, *others: Seen) -> Seen:
        """What these together have seen."""
        every = (self, *others)
        return Seen(
            fitted=tuple(dict.fromkeys(i for seen in every for i in seen.fitted)),
            selected=tuple(dict.fromkeys(i for seen in every for i in seen.selected)),
        )

    def to_metadata(self) -> dict[str, list[dict[str, Any]]]:
        """As it stands in the model's metadata."""
        return {
            "fitted": [asdict(images) for images in self.fitted],
            "selected": [asdict(images) for images in self.selected],
        }


def from_metadata(stored: Mapping[str, Iterable[Mapping[str, Any]]], run_id: str) -> Seen:
    """The record in the metadata of the model that this run logged.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """

    def sets(kind: str) -> tuple[ImageSet, ...]:
        read = (ImageSet(**images) for images in stored[kind])
        return tuple(replace(images, run_id=images.run_id or run_id) for images in read)

    return Seen(fitted=sets("fitted"), selected=sets("selected"))


def by_training(prepared: PreparedDataset, config: FitConfig) -> Seen:
    """What a phase of training sees of its data."""
    chose = {
        EPOCH: config.keep_epoch == "best",
        STOP: config.patience > 0,
        RATE: config.schedule == "plateau",
    }
    fingerprint = prepared.fingerprint
    return Seen(
        fitted=(ImageSet(fingerprint=fingerprint, split="train"),),
        selected=tuple(
            ImageSet(fingerprint=fingerprint, split="val", chose=what)
            for what, does in chose.items()
            if does
        ),
    )


def by_temperature(prepared: PreparedDataset) -> Seen:
    """What a temperature sees that is fitted on val."""
    images = ImageSet(fingerprint=prepared.fingerprint, split="val", chose=TEMPERATURE)
    return Seen(fitted=(), selected=(images,))


def assumed(fingerprint: str, run_id: str) -> Seen:
    """For models without a record: fitted on train, and val may have chosen something."""
    train, val = (
        ImageSet(fingerprint=fingerprint, split=split, run_id=run_id, chose=chose)
        for split, chose in (("train", ""), ("val", UNTOLD))
    )
    return Seen(fitted=(train,), selected=(val,))


def hashes_of(prepared: PreparedDataset) -> dict[str, np.ndarray] | None:
    """The arrays of `HASHES`; None where the prepared data does not know them."""
    if prepared.hashes is None:
        return None
    splits = {split: prepared.hashes[prepared.slice(split)] for split in ("train", "val")}
    return splits | {"fingerprint": np.array(prepared.fingerprint)}


def stands_in(hashes: np.ndarray, known: Iterable[np.ndarray]) -> np.ndarray:
    """(N,) bool: which of the hashes, a row each, stand in any of the known arrays of hashes."""
    every = {row.tobytes() for array in known for row in array}
    return np.fromiter((row.tobytes() in every for row in hashes), dtype=bool, count=len(hashes))
