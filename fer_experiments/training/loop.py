"""Keras `fit`, one record an epoch handed to a callable; knows nothing of MLflow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from fer_experiments.errors import TrainingError
from fer_experiments.training import memory
from fer_experiments.training.batches import Batches

# One epoch: `epoch`, `train/loss`, `val/macro_f1`, …, `learning_rate`, `seconds`.
EpochRecord = dict[str, float]

# Batches that Keras runs between two looks at the loss. Measured on 2 cores with cached features of
# 512 and 8,192 numbers: an epoch takes 67 and 58 % of the time that it takes with 1; 32 and 128
# came out on either side of that.
_STEPS_PER_EXECUTION = 8

# The score on val that decides which epoch's weights are kept.
SELECTION_METRIC = "val/macro_f1"


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What training leaves besides the weights in the model."""

    history: tuple[EpochRecord, ...]
    kept_epoch: int  # whose weights the model now has
    seconds: float

    @property
    def kept(self) -> EpochRecord:
        """The record of the epoch whose weights were kept."""
        return next(record for record in self.history if record["epoch"] == self.kept_epoch)


def fit(
    model: keras.Model,
    train: Batches,
    val: Batches,
    *,
    optimizer: str,
    learning_rate: float,
    epochs: int,
    first_epoch: int,
    keep_epoch: str,
    log: Callable[[EpochRecord], None],
    progress_bar: bool = False,
) -> TrainingResult:
    """Trains what is trainable in `model` and leaves it with the kept epoch's weights.

    Args:
        model: takes what the batches give: a classifier of pixels, or its part behind a cut;
            frozen layers stay as they are.
        train: shuffled batches.
        val: batches that are only looked at.
        optimizer: `adam`, `adamw` or `sgd` (with Nesterov momentum 0.9).
        learning_rate: constant over all epochs.
        epochs: how many to train.
        first_epoch: number of the first one; fine-tuning counts on from head training.
        keep_epoch: `best` by val/macro_f1, or `last`.
        log: gets each epoch's record when the epoch ends.
        progress_bar: show Keras's bar.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    model.compile(
        optimizer=_optimizer(optimizer, learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy", keras.metrics.F1Score(average="macro", name="macro_f1")],
        steps_per_execution=min(_STEPS_PER_EXECUTION, len(train)),
    )
    recorder = _Recorder(log, keep_best=keep_epoch == "best")
    memory.keep_freed()
    started = time.perf_counter()
    model.fit(
        train,
        validation_data=val,
        initial_epoch=first_epoch - 1,
        epochs=first_epoch - 1 + epochs,
        shuffle=False,  # the batches bring their own order
        callbacks=[recorder],
        verbose=1 if progress_bar else 0,
    )
    return TrainingResult(
        history=tuple(recorder.history),
        kept_epoch=recorder.restore(),
        seconds=time.perf_counter() - started,
    )


def _optimizer(name: str, learning_rate: float) -> keras.optimizers.Optimizer:
    if name == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)
    return {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}[name](learning_rate)


class _Recorder(keras.callbacks.Callback):
    """Watches the loss, hands out a record an epoch, and keeps the best epoch's weights."""

    def __init__(self, log: Callable[[EpochRecord], None], *, keep_best: bool) -> None:
        super().__init__()
        self.history: list[EpochRecord] = []
        self._log = log
        self._keep_best = keep_best
        self._best: tuple[int, list[np.ndarray]] | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1
        self._started = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._first_batch = batch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"Expected a finite train/loss. Received: {loss} in epoch {self._epoch}, "
                f"batches {self._first_batch} to {batch + 1}; try a smaller learning rate"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        record: EpochRecord = {"epoch": self._epoch}
        for name, value in (logs or {}).items():
            split, score = ("val", name[4:]) if name.startswith("val_") else ("train", name)
            record[f"{split}/{score}"] = float(value)
        record["learning_rate"] = float(self.model.optimizer.learning_rate)
        record["seconds"] = time.perf_counter() - self._started
        if not math.isfinite(record["val/loss"]):
            raise TrainingError(
                f"Expected a finite val/loss. Received: {record['val/loss']} in epoch "
                f"{self._epoch}; try a smaller learning rate"
            )
        better = all(record[SELECTION_METRIC] > r[SELECTION_METRIC] for r in self.history)
        self.history.append(record)
        if self._keep_best and better:
            self._best = (self._epoch, self.model.get_weights())
        self._log(record)

    def restore(self) -> int:
        """Gives the classifier the kept epoch's weights; returns that epoch's number."""
        if self._best is None:
            return self._epoch
        epoch, weights = self._best
        self.model.set_weights(weights)
        return epoch
