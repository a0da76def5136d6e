"""Which images of val and test a model has seen: the ones it was fitted on, and selected on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.prepared import by_fingerprint
from fer_experiments.data.seen import HASHES, ImageSet, hashes_of, stands_in
from fer_experiments.tracking.models import LoggedModel
from fer_experiments.tracking.runs import find_arrays


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What is known of it, by split."""

    fitted: dict[str, np.ndarray] = field(default_factory=dict)  # (N,) bool
    selected: dict[str, np.ndarray] = field(default_factory=dict)  # (N,) bool
    chosen: str = ""  # what the latter chose of the model
    unknown: str = ""  # why nothing is known; empty where all is


def overlap(logged: LoggedModel, prepared: PreparedDataset, splits: Sequence[str]) -> Overlap:
    """Holds the pixels of these splits against everything that the model has seen.

    Images are the same where their decoded, upright grey pixels are, whatever they are called and
    whichever size they were prepared at.

    Raises:
        TrackingError: the store, which may keep what the model has seen, cannot be reached.
    """
    hashes = prepared.hashes
    if hashes is None:
        return Overlap(
            unknown="the data was prepared by an older version, which resized or converted images "
            "and kept no hashes of them; fer prepare makes it anew"
        )
    seen, known = logged.seen, {}
    for fingerprint in dict.fromkeys(i.fingerprint for i in (*seen.fitted, *seen.selected)):
        runs = [i.run_id for i in (*seen.fitted, *seen.selected) if i.fingerprint == fingerprint]
        found = _hashes(fingerprint, dict.fromkeys(filter(None, runs)), prepared)
        if found is None:
            return Overlap(
                unknown=f"what it was trained on (data {fingerprint[:8]}) is neither prepared here "
                "nor kept with its run"
            )
        known[fingerprint] = found

    def masks(sets: Sequence[ImageSet]) -> dict[str, np.ndarray]:
        arrays = [known[fingerprint][split] for fingerprint, split in _distinct(sets)]
        return {s: stands_in(hashes[prepared.slice(s)], arrays) for s in splits}

    return Overlap(
        fitted=masks(seen.fitted),
        selected=masks(seen.selected),
        chosen=", ".join(seen.chosen),
    )


def _distinct(sets: Sequence[ImageSet]) -> dict[tuple[str, str], None]:
    return dict.fromkeys((images.fingerprint, images.split) for images in sets)


def _hashes(
    fingerprint: str, runs: Iterable[str], here: PreparedDataset
) -> dict[str, np.ndarray] | None:
    """The hashes of a dataset's train and val: as prepared here, else as a run keeps them."""
    prepared = here if here.fingerprint == fingerprint else by_fingerprint(fingerprint)
    if prepared is not None and (found := hashes_of(prepared)) is not None:
        return found
    for run_id in runs:
        stored = find_arrays(run_id, HASHES)
        if stored is not None and str(stored["fingerprint"]) == fingerprint:
            return stored
    return None
