"""Everything that training needs to resume from the end of an epoch, in one file.

Weights, the optimizer's state and the state of every random generator (neither `save_weights` nor
a `.keras` file keeps those of Dropout), the best weights so far and each epoch's scores. The order
of the images follows from seed and epoch alone. The file holds plain arrays, without pickles.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments.data.storage import writing_file
from fer_experiments.errors import TrainingError

if TYPE_CHECKING:
    import keras

# One epoch: `epoch`, `train/loss`, `val/macro_f1`, …, `learning_rate`, `seconds`.
EpochRecord = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training has come, without the network itself."""

    history: tuple[EpochRecord, ...] = ()
    best: tuple[int, list[np.ndarray]] | None = None  # epoch, weights


def save(path: Path, model: keras.Model, progress: Progress) -> None:
    """Writes the state of a compiled model, beside and then in place of the one before.

    Raises:
        DiskFullError, DataError: it cannot be written; the one before stays.
    """
    best_epoch, best = progress.best or (0, [])
    arrays = {f"state_{i}": np.asarray(v) for i, v in enumerate(_state(model))}
    arrays |= {f"best_{i}": np.asarray(v) for i, v in enumerate(best)}
    about = {"history": progress.history, "best_epoch": best_epoch}
    with (
        writing_file(path, sum(a.nbytes for a in arrays.values())) as temporary,
        temporary.open("wb") as file,
    ):
        np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
        file.flush()
        os.fsync(file.fileno())  # also a machine that goes down leaves a whole one


def restore(path: Path, model: keras.Model) -> Progress:
    """Gives a compiled model of the same making the state that was saved, if there is one.

    Raises:
        TrainingError: the file is damaged, or of another network.
    """
    if not path.exists():
        return Progress()
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            state = _numbered(arrays, "state")
            best = _numbered(arrays, "best")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path} cannot be read as a checkpoint ({error}); delete it to train from the start"
        ) from None
    variables = _state(model)
    if [v.shape for v in state] != [tuple(v.shape) for v in variables]:
        raise TrainingError(
            f"Expected {path} to be a checkpoint of this network. Received: one of another; "
            "delete it to train from the start"
        )
    for variable, value in zip(variables, state, strict=True):
        variable.assign(value)
    return Progress(
        history=tuple(about["history"]),
        best=(about["best_epoch"], best) if about["best_epoch"] else None,
    )


def _state(model: keras.Model) -> Sequence[keras.Variable]:
    """Weights, random generators, optimizer; in the order in which they were made."""
    model.optimizer.build(model.trainable_variables)
    return [*model.variables, *model.optimizer.variables]


def _numbered(arrays: np.lib.npyio.NpzFile, name: str) -> list[np.ndarray]:
    count = sum(key.startswith(f"{name}_") for key in arrays.files)
    return [arrays[f"{name}_{i}"] for i in range(count)]
