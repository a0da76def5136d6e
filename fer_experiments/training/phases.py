"""A phase of training: head training, or fine-tuning. Needs neither MLflow nor a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_experiments.config import FitConfig
from fer_experiments.training import loop
from fer_experiments.training.batches import Arrays, BatchAugmentation, Batches
from fer_experiments.training.checkpoints import EpochRecord
from fer_experiments.training.loop import TrainingResult
from fer_experiments.training.optimizers import LoopConfig

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What a phase has of its own; both share the rest, `FitConfig`."""

    learning_rate: float
    epochs: int
    first_epoch: int  # fine-tuning counts on from head training
    layer_multipliers: Mapping[str, float] = field(
        default_factory=dict
    )  # layer-wise learning-rate decay: factors by layer

    @property
    def last_epoch(self) -> int:
        """The number of its last epoch, if it is not stopped before."""
        return self.first_epoch - 1 + self.epochs

    def last_augmented_epoch(self, fit: FitConfig) -> int:
        """The last epoch that augments and mixes images."""
        return self.last_epoch - fit.plain_epochs


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a network takes, and what it shall say to it."""

    train: Sequence[Arrays]  # by augmented copy, then by input of the network
    val: Sequence[Arrays]
    train_labels: np.ndarray  # (N,)
    val_labels: np.ndarray
    classes: int
    augment: Callable[[bool], None] | None = None  # switches random changes on and off


def train(
    network: keras.Model,
    phase: Phase,
    fit: FitConfig,
    data: TrainingData,
    *,
    on_epoch: Callable[[EpochRecord], None],
    checkpoint: Path | None = None,
    progress_bar: bool = False,
) -> TrainingResult:
    """Trains what is trainable and leaves the network with the kept epoch's weights.

    With a checkpoint that holds earlier epochs it resumes after them, to the same result.

    Args:
        network: takes what `data` holds: a classifier of pixels, or its trainable part.
        phase: rate, epochs, where they begin.
        fit: how both phases train.
        data: images or features, and their labels.
        on_epoch: gets each epoch's record when the epoch ends; those of the checkpoint again.
        checkpoint: the file that holds the state after the last epoch; None: nothing is kept.
        progress_bar: show Keras's bar.

    Raises:
        TrainingError: the loss is no longer a finite number, or the checkpoint does not fit.
        DiskFullError, DataError: the checkpoint cannot be written.
    """
    batches, val = batches_of(network, phase, fit, data)

    def begin_epoch(epoch: int) -> None:
        if data.augment is not None:
            data.augment(epoch <= phase.last_augmented_epoch(fit))

    return loop.fit(
        network,
        batches,
        val,
        loop_config_of(phase, fit),
        first_epoch=phase.first_epoch,
        log=on_epoch,
        begin_epoch=begin_epoch,
        checkpoint=checkpoint,
        progress_bar=progress_bar,
    )


def takes_pictures(network: keras.Model) -> bool:
    """Whether it takes images, or features that have height and width, which CutMix needs."""
    return all(len(tensor.shape) == 4 for tensor in network.inputs)


def batches_of(
    network: keras.Model, phase: Phase, fit: FitConfig, data: TrainingData
) -> tuple[Batches, Batches]:
    """What the phase trains on, from its first epoch on, and what it looks at after each."""
    batches = Batches(
        data.train,
        data.train_labels,
        classes=data.classes,
        batch_size=fit.batch_size,
        seed=fit.seed,
        first_epoch=phase.first_epoch,
        augmentation=batch_augmentation_of(phase, fit, pictures=takes_pictures(network)),
    )
    val = Batches(data.val, data.val_labels, classes=data.classes, batch_size=fit.batch_size)
    return batches, val


def loop_config_of(phase: Phase, fit: FitConfig) -> LoopConfig:
    """How the training loop trains this phase."""
    return LoopConfig(
        optimizer=fit.optimizer,
        learning_rate=phase.learning_rate,
        schedule=fit.schedule,
        warmup_epochs=fit.warmup_epochs,
        weight_decay=fit.weight_decay,
        ema=fit.ema,
        epochs=phase.epochs,
        patience=fit.patience,
        keep_epoch=fit.keep_epoch,
        layer_multipliers=phase.layer_multipliers,
    )


def batch_augmentation_of(phase: Phase, fit: FitConfig, *, pictures: bool) -> BatchAugmentation:
    """What is done to this phase's batches; `pictures`: see `takes_pictures`."""
    return BatchAugmentation(
        label_smoothing=fit.label_smoothing,
        mixup=fit.mixup,
        cutmix=fit.cutmix if pictures else 0.0,
        balance=fit.balance,
        until_epoch=phase.last_augmented_epoch(fit),
    )
