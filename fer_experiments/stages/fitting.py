"""What head training and fine-tuning share: fit, write every epoch down, log the model."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
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

    from fer_experiments.training.checkpoints import EpochRecord
    from fer_experiments.training.loop import TrainingResult
    from fer_experiments.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Job:
    """A phase of training as one stage's run."""

    stage: str
    phase: Phase
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
    job: Job,
    *,
    later: Collection[str] = (),
) -> common.StageResult:
    """Trains, logs each epoch as it ends, then the kept epoch's model and the learning curves.

    `later` names the layers that the next phase trains too: the features that it will need are
    computed in the same pass.
    """
    from fer_experiments.training import phases

    feed = inputs.of_phase(model, config, prepared, later=later)
    writer.params({"augmentation": feed.augmentation})
    # Features of a flattened or averaged image have no places that a rectangle could cover.
    if config.fit.cutmix and not phases.takes_pictures(feed.model):
        console.say("cutmix: left out in this phase, whose features have no height and width")
    bar = console.is_terminal()
    result = phases.train(
        feed.model,
        job.phase,
        config.fit,
        feed.data(prepared),
        on_epoch=lambda record: _log_epoch(writer, record, job.phase.last_epoch, told=not bar),
        checkpoint=writer.journal.checkpoint,
        progress_bar=bar,
    )
    writer.metrics(_totals(result, model, prepared, job, feed))
    picked = result.kept_epoch if config.fit.keep_epoch == "best" else None
    title = run_name(config, job.stage)
    writer.figure(
        figures.learning_curves(result.history, title=title, best_epoch=picked),
        "learning_curves.png",
    )
    own_images = by_training(prepared, config.fit)
    writer.model(model, config=config, prepared=prepared, seen=own_images.joined(*job.before))
    scores = {name: value for name, value in result.kept.items() if name.startswith("val/")}
    writer.note(_note(config, prepared, job, result))
    return common.result(writer, scores)


def _log_epoch(writer: Writer, record: EpochRecord, last_epoch: int, *, told: bool) -> None:
    writer.metrics(
        {_logged_name(name): value for name, value in record.items() if name != "epoch"},
        step=int(record["epoch"]),
    )
    if told:
        console.say(_epoch_line(record, last_epoch))


def _totals(
    result: TrainingResult,
    model: keras.Model,
    prepared: PreparedDataset,
    job: Job,
    feed: inputs.Inputs,
) -> dict[str, float]:
    """What is known when the last epoch has ended."""
    images_trained = prepared.size("train") * len(result.history)
    return {
        "best_epoch": result.kept_epoch,
        "time/train_seconds": result.seconds,
        "time/features_seconds": feed.features_seconds,
        "time/train_seconds_total": job.seconds_before + feed.features_seconds + result.seconds,
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


def _note(config: Config, prepared: PreparedDataset, job: Job, result: TrainingResult) -> str:
    model = config.model
    rows = [
        f"**{model.backbone}**"
        + ("" if model.truncate_at == "none" else f" up to `{model.truncate_at}`")
        + f", weights `{model.weights}`, recipe `{config.recipe}`, on {prepared.name} "
        f"({prepared.size('train')} training images).",
        "",
        f"Epochs {job.phase.first_epoch} to {int(result.history[-1]['epoch'])}, learning rate "
        f"{job.phase.learning_rate:g}, {result.seconds:.0f} s. Kept epoch {result.kept_epoch}: "
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
