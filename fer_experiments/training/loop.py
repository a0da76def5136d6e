"""Keras `fit`, one record an epoch handed to a callable; knows nothing of MLflow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fer_experiments.errors import TrainingError
from fer_experiments.scores import scores_of
from fer_experiments.training import checkpoints, malloc
from fer_experiments.training.batches import Batches
from fer_experiments.training.checkpoints import EpochRecord, Progress
from fer_experiments.training.ema import WeightAverage
from fer_experiments.training.optimizers import LoopConfig

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
    seconds: float  # of all epochs

    @property
    def kept(self) -> EpochRecord:
        """The record of the epoch whose weights were kept."""
        return next(record for record in self.history if record["epoch"] == self.kept_epoch)


def fit(
    model: keras.Model,
    train: Batches,
    val: Batches,
    config: LoopConfig,
    *,
    first_epoch: int,
    log: Callable[[EpochRecord], None],
    begin_epoch: Callable[[int], None] | None = None,
    checkpoint: Path | None = None,
    progress_bar: bool = False,
) -> TrainingResult:
    """Trains what is trainable in `model` and leaves it with the kept epoch's weights.

    With a checkpoint that holds earlier epochs it resumes after them, to the same result.

    Args:
        model: takes what the batches give: a classifier of pixels, or its trainable part;
            frozen layers stay as they are.
        train: shuffled batches, at the order of `first_epoch`.
        val: batches that are only looked at.
        config: optimizer, rate, epochs, which epoch is kept.
        first_epoch: number of the first one; fine-tuning counts on from head training.
        log: gets each epoch's record when the epoch ends; those of the checkpoint again.
        begin_epoch: is told the number of each epoch before it begins.
        checkpoint: the file that holds the state after the last epoch; None: nothing is kept.
        progress_bar: show Keras's bar.

    Raises:
        See `phases.train`.
    """
    confusion = _Confusion(model.output_shape[-1])
    model.compile(
        optimizer=config.build(len(train)),
        loss="categorical_crossentropy",
        metrics=[confusion],
        steps_per_execution=min(_STEPS_PER_EXECUTION, len(train)),
    )
    before = Progress() if checkpoint is None else checkpoints.restore(checkpoint, model)
    average = WeightAverage(model, train) if config.ema else None
    recorder = _Recorder(before, log, confusion, train, config, begin_epoch, checkpoint, average)
    for record in before.history:
        log(record)
    done = len(before.history)
    if not config.is_finished(recorder.scores):
        malloc.keep_freed()
        model.fit(
            train,
            validation_data=val,
            initial_epoch=first_epoch - 1 + done,
            epochs=first_epoch - 1 + config.epochs,
            shuffle=False,  # the batches bring their own order
            callbacks=[recorder],
            verbose=1 if progress_bar else 0,
        )
    return TrainingResult(
        history=tuple(recorder.history),
        kept_epoch=recorder.restore(model),
        seconds=sum(record["seconds"] for record in recorder.history),
    )


class _Confusion(keras.metrics.Metric):
    """Counts images by true and by predicted class; Keras is told the share on the diagonal.

    The true class is that of the largest target, so soft labels count as the hard ones behind them.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(name="accuracy", dtype="float32")
        self._classes = classes
        # Whole numbers up to 16 million are exact in float32.
        self.counts = self.add_variable((classes, classes), initializer="zeros", name="counts")

    def update_state(self, targets: Any, probabilities: Any, sample_weight: Any = None) -> None:
        true, predicted = (
            keras.ops.one_hot(keras.ops.argmax(scores, axis=-1), self._classes)
            for scores in (targets, probabilities)
        )
        self.counts.assign_add(keras.ops.matmul(keras.ops.transpose(true), predicted))

    def result(self) -> Any:
        right = keras.ops.sum(keras.ops.diagonal(self.counts))
        return keras.ops.divide_no_nan(right, keras.ops.sum(self.counts))


class _Recorder(keras.callbacks.Callback):
    """Watches the loss, hands out a record an epoch, and keeps the best epoch's weights."""

    def __init__(
        self,
        before: Progress,
        log: Callable[[EpochRecord], None],
        confusion: _Confusion,
        train: Batches,
        config: LoopConfig,
        begin_epoch: Callable[[int], None] | None,
        checkpoint: Path | None,
        average: WeightAverage | None,
    ) -> None:
        super().__init__()
        self.history: list[EpochRecord] = [*before.history]
        self._log = log
        self._confusion = confusion
        self._train = train
        self._config = config
        self._begin_epoch = begin_epoch
        self._best: tuple[int, list[np.ndarray]] | None = before.best
        self._checkpoint = checkpoint
        self._average = average
        self._swapped = ExitStack()  # while val is evaluated

    @property
    def scores(self) -> list[float]:
        """Of each epoch so far, the one that decides."""
        return [record[SELECTION_METRIC] for record in self.history]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1
        self._train.set_epoch(self._epoch)
        if self._begin_epoch is not None:
            self._begin_epoch(self._epoch)
        self._started = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._first_batch = batch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        if self._train.mixes:
            logs.pop("accuracy", None)  # the bar shows what is left
        loss = logs.get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"Expected a finite train/loss. Received: {loss} in epoch {self._epoch}, "
                f"batches {self._first_batch} to {batch + 1}; try a smaller learning rate"
            )

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        # Of a mixed image neither label is the true one.
        self._train_scores = {} if self._train.mixes else self._scores("train")
        if self._average is not None:
            self._swapped.enter_context(self._average.swap_ema_weights())

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        predicted = np.asarray(self._confusion.counts).sum(axis=0)
        record: EpochRecord = {
            "epoch": self._epoch,
            "train/loss": float(logs["loss"]),
            **self._train_scores,
            "val/loss": float(logs["val_loss"]),
            **self._scores("val"),
            "val/predicted_classes": float((predicted > 0).sum()),
        }
        if "train/macro_f1" in record:
            logs["macro_f1"] = record["train/macro_f1"]
        else:
            logs.pop("accuracy", None)
        logs["val_macro_f1"] = record["val/macro_f1"]
        record["learning_rate"] = float(self.model.optimizer.learning_rate)
        record["seconds"] = time.perf_counter() - self._started
        if not math.isfinite(record["val/loss"]):
            raise TrainingError(
                f"Expected a finite val/loss. Received: {record['val/loss']} in epoch "
                f"{self._epoch}; try a smaller learning rate"
            )
        better = all(record[SELECTION_METRIC] > score for score in self.scores)
        self.history.append(record)
        if better if self._config.keep_epoch == "best" else self._config.ema:
            self._best = (self._epoch, self.model.get_weights())
        self._swapped.close()
        rate = self._config.plateau_learning_rate(self.scores)
        if rate is not None:
            self.model.optimizer.learning_rate = rate
        # Before the record leaves: what stands in MLflow need never be trained again.
        if self._checkpoint is not None:
            progress = Progress(history=tuple(self.history), best=self._best)
            checkpoints.save(self._checkpoint, self.model, progress)
        self._log(record)
        if self._config.is_finished(self.scores):
            self.model.stop_training = True

    def _scores(self, split: str) -> EpochRecord:
        """What has been counted since the split's first batch."""
        scores = scores_of(np.asarray(self._confusion.counts))
        return {f"{split}/{name}": float(scores[name]) for name in ("accuracy", "macro_f1")}

    def restore(self, model: keras.Model) -> int:
        """Gives the classifier the kept epoch's weights; returns that epoch's number."""
        if self._best is None:
            return int(self.history[-1]["epoch"])
        epoch, weights = self._best
        model.set_weights(weights)
        return epoch
