"""What head training and fine-tuning share: fit, write every epoch down, log the model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.seen import Seen, by_training
from fer_experiments.errors import DataError
from fer_experiments.reporting import dataset_card, figures
from fer_experiments.reporting.findings import CONSTANT
from fer_experiments.run_names import run_name
from fer_experiments.stages import common, inputs
from fer_experiments.tracking.writer import MODEL_URI, Writer

if TYPE_CHECKING:
    import keras

    from fer_experiments.training.batches import Batches, Mixture
    from fer_experiments.training.checkpoints import EpochRecord
    from fer_experiments.training.loop import TrainingResult
    from fer_experiments.training.optimizers import Plan


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Head training or fine-tuning."""

    stage: str
    learning_rate: float
    epochs: int
    first_epoch: int
    rates: Mapping[str, float] = field(default_factory=dict)  # shares of the rate, by layer
    seconds_before: float = 0.0  # that earlier phases trained
    before: Sequence[Seen] = ()  # what the model that is trained on has seen


def begin(writer: Writer, config: Config, prepared: PreparedDataset) -> None:
    """What a training run holds before its first epoch: configuration and data."""
    before = writer.journal.param("dataset_fingerprint")
    if before not in (None, prepared.fingerprint):
        raise DataError(
            f"Expected dataset={config.data.dataset} to give the data that the run began with "
            f"(fingerprint {before[:16]}). Received: {prepared.fingerprint[:16]}; the source has "
            "changed since"
        )
    common.identify(writer, config, prepared)
    common.describe_data(writer, prepared)
    common.keep_hashes(writer, prepared)
    for split in ("train", "val"):
        writer.dataset(prepared, split=split)
    altered = dataset_card.altered_line(prepared)
    if altered:
        console.say(altered)


def fit_and_log(
    writer: Writer,
    model: keras.Model,
    config: Config,
    prepared: PreparedDataset,
    phase: Phase,
    *,
    later: Collection[str] = (),
) -> common.StageResult:
    """Trains, logs each epoch as it ends, then the kept epoch's model and the learning curves.

    `later` names the layers that the next phase trains too: the features that it will need are
    computed in the same pass.
    """
    from fer_experiments.training import loop

    last_epoch = phase.first_epoch - 1 + phase.epochs
    feed = inputs.of_phase(model, config, prepared, later=later)
    writer.params({"augmentation": feed.augmentation})
    train, val = batches_of(feed, config, prepared, phase)
    bar = console.is_terminal()

    def begin_epoch(epoch: int) -> None:
        if feed.augment is not None:
            feed.augment(epoch <= last_changed(config, phase))

    def log(record: EpochRecord) -> None:
        epoch = int(record["epoch"])
        writer.metrics(
            {_logged_name(name): value for name, value in record.items() if name != "epoch"},
            step=epoch,
        )
        if not bar:
            console.say(_epoch_line(record, last_epoch))

    result = loop.fit(
        feed.model,
        train,
        val,
        plan_of(config, phase),
        first_epoch=phase.first_epoch,
        log=log,
        begin_epoch=begin_epoch,
        checkpoint=writer.journal.checkpoint,
        progress_bar=bar,
    )
    writer.metrics(_totals(result, model, prepared, phase, feed))
    writer.figure(
        figures.learning_curves(
            result.history,
            title=run_name(config, phase.stage),
            best_epoch=result.kept_epoch if config.fit.keep_epoch == "best" else None,
        ),
        "learning_curves.png",
    )
    own_images = by_training(prepared, config.fit)
    writer.model(model, config=config, prepared=prepared, seen=own_images.joined(*phase.before))
    scores = {name: value for name, value in result.kept.items() if name.startswith("val/")}
    writer.note(_note(config, prepared, phase, result))
    return common.result(writer, scores)


def batches_of(
    feed: inputs.Inputs, config: Config, prepared: PreparedDataset, phase: Phase
) -> tuple[Batches, Batches]:
    """What this phase trains on, from its first epoch on, and what it looks at after each."""
    from fer_experiments.training.batches import Batches

    own = config.fit
    # Features of a flattened or averaged image have no places that a rectangle could cover.
    pictures = all(len(tensor.shape) == 4 for tensor in feed.model.inputs)
    if own.cutmix and not pictures:
        console.say("cutmix: left out in this phase, whose features have no height and width")
    classes = len(prepared.class_names)
    train = Batches(
        feed.train,
        prepared.split("train")[1],
        classes=classes,
        batch_size=own.batch_size,
        seed=own.seed,
        first_epoch=phase.first_epoch,
        mixture=mixture_of(config, phase, pictures=pictures),
    )
    val = Batches(feed.val, prepared.split("val")[1], classes=classes, batch_size=own.batch_size)
    return train, val


def plan_of(config: Config, phase: Phase) -> Plan:
    """How the training loop trains this phase."""
    from fer_experiments.training.optimizers import Plan

    own = config.fit
    return Plan(
        optimizer=own.optimizer,
        learning_rate=phase.learning_rate,
        schedule=own.schedule,
        warmup_epochs=own.warmup_epochs,
        weight_decay=own.weight_decay,
        ema=own.ema,
        epochs=phase.epochs,
        patience=own.patience,
        keep_epoch=own.keep_epoch,
        rates=phase.rates,
    )


def mixture_of(config: Config, phase: Phase, *, pictures: bool) -> Mixture:
    """What is done to this phase's batches; `pictures`: images, or features that have places."""
    from fer_experiments.training.batches import Mixture

    own = config.fit
    return Mixture(
        label_smoothing=own.label_smoothing,
        mixup=own.mixup,
        cutmix=own.cutmix if pictures else 0.0,
        balance=own.balance,
        until_epoch=last_changed(config, phase),
    )


def last_changed(config: Config, phase: Phase) -> int:
    """The last epoch of this phase that augments and mixes images."""
    return phase.first_epoch - 1 + phase.epochs - config.fit.plain_epochs


def _totals(
    result: TrainingResult,
    model: keras.Model,
    prepared: PreparedDataset,
    phase: Phase,
    feed: inputs.Inputs,
) -> dict[str, float]:
    """What is known when the last epoch has ended."""
    images_trained = prepared.size("train") * len(result.history)
    return {
        "best_epoch": result.kept_epoch,
        "time/train_seconds": result.seconds,
        "time/features_seconds": feed.features_seconds,
        "time/train_seconds_total": phase.seconds_before + feed.features_seconds + result.seconds,
        "time/images_per_second": images_trained / result.seconds,
        "weights/parameters": model.count_params(),
        "weights/trainable": sum(math.prod(weight.shape) for weight in model.trainable_weights),
    }


def summary(config: Config, result: common.StageResult, stage: str) -> list[str]:
    """The key figures of a finished training."""
    scores = result.scores
    chosen = "epoch picked on val" if config.fit.keep_epoch == "best" else "last epoch"
    return [
        *([f"val: {CONSTANT}"] if scores["val/predicted_classes"] == 1 else []),
        f"{run_name(config, stage)}: val accuracy {scores['val/accuracy']:.1%}, "
        f"macro-F1 {scores['val/macro_f1']:.3f} ({chosen})",
    ]


def _note(config: Config, prepared: PreparedDataset, phase: Phase, result: TrainingResult) -> str:
    model = config.model
    rows = [
        f"**{model.backbone}**"
        + ("" if model.truncate_at == "none" else f" up to `{model.truncate_at}`")
        + f", weights `{model.weights}`, recipe `{config.recipe}`, on {prepared.name} "
        f"({prepared.size('train')} training images).",
        "",
        f"Epochs {phase.first_epoch} to {int(result.history[-1]['epoch'])}, learning rate "
        f"{phase.learning_rate:g}, {result.seconds:.0f} s. Kept epoch {result.kept_epoch}: "
        f"val accuracy {result.kept['val/accuracy']:.1%}, "
        f"macro-F1 {result.kept['val/macro_f1']:.3f}"
        + (", an epoch picked on val." if config.fit.keep_epoch == "best" else ", the last one."),
        "",
        f"Model: `{MODEL_URI}`",
    ]
    if result.kept["val/predicted_classes"] == 1:
        rows += ["", f"**val**: {CONSTANT}."]
    return "\n".join(rows)


def _logged_name(name: str) -> str:
    return {"seconds": "time/epoch_seconds"}.get(name, name)


def _epoch_line(record: EpochRecord, last_epoch: int) -> str:
    width = len(str(last_epoch))
    parts = []
    for split in ("train", "val"):
        scores = " (mixed images)"
        if f"{split}/accuracy" in record:
            scores = (
                f" accuracy {record[f'{split}/accuracy']:6.1%} "
                f"macro-F1 {record[f'{split}/macro_f1']:.3f}"
            )
        parts.append(f"{split} loss {record[f'{split}/loss']:.3f}{scores}")
    epoch = f"epoch {int(record['epoch']):{width}d}/{last_epoch}"
    return "   ".join([epoch, *parts, f"{record['seconds']:.1f} s"])
