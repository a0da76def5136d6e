"""`evaluate`: how well a model does on val and test."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data.prepared import PreparedDataset, prepare
from fer_experiments.errors import DataError, RunError
from fer_experiments.evaluation import figures
from fer_experiments.evaluation.metrics import Report, report
from fer_experiments.stages import common
from fer_experiments.stages.datasets import dataset_of
from fer_experiments.tracking import registry
from fer_experiments.tracking.models import LoggedModel, describe, load, model_of
from fer_experiments.tracking.runs import get_run, open_run, search
from fer_experiments.tracking.writer import Writer

if TYPE_CHECKING:
    import keras

SPLITS = ("val", "test")


def run(
    *,
    run_id: str | None = None,
    backbone: str | None = None,
    model: str | None = None,
    data: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
    experiment: str | None = None,
) -> common.StageResult:
    """Judges one model; writes scores, figures, predictions.

    Args:
        run_id: a finished train or fine-tune run.
        backbone: its newest train or fine-tune run.
        model: a model URI such as `models:/emotion-fer2013@champion`.
        data: fields of DataConfig that differ from the data that the model was trained on.
        fingerprint: of the prepared data, where it is known.
        experiment: where to write, and the only place to look.

    Without any of the first three: the champion, else the newest fine-tuned run.

    Raises:
        RunError: there is no such run or model.
        DataError: the data has other classes or another image size than the model.
    """
    logged = choose(run_id=run_id, backbone=backbone, model=model, experiment=experiment)
    config = logged.config.replace(**(data or {}))
    if data:
        common.check_source(config)
    source = get_run(logged.source_run_id, stages=("train", "finetune"))
    name = common.run_name(config, f"evaluate {source.data.tags['stage']}")
    with open_run(
        "evaluate",
        name,
        experiment=experiment,
        tags={
            "source_run_id": logged.source_run_id,
            "source_stage": source.data.tags["stage"],
            "model_uri": logged.uri,
        },
    ) as writer:
        prepared = (
            prepare(config.data)
            if data and fingerprint is None
            else dataset_of(config.data, fingerprint or logged.dataset_fingerprint)
        )
        _check_fit(logged, prepared)
        common.identify(writer, config, prepared)
        console.load_keras()
        label = common.run_name(config, source.data.tags["stage"])
        reports = judge(writer, load(logged), prepared, logged, label=label)
        # After the scores: MLflow's comparison opens on the metric that was logged first.
        cost = ("weights/parameters", "time/train_seconds_total")
        trained = source.data.metrics
        writer.metrics({name: trained[name] for name in cost if name in trained})
        _describe(writer, config, prepared, reports, logged)
        common.close(writer, _lines(name, prepared, reports), following="fer compare")
    return common.StageResult(
        run_id=writer.run_id,
        scores={
            f"{split}/{score}": value
            for split, r in reports.items()
            for score, value in r.scores().items()
        },
    )


def choose(
    *, run_id: str | None, backbone: str | None, model: str | None, experiment: str | None
) -> LoggedModel:
    """The model that these options mean."""
    given = [n for n, v in (("run_id", run_id), ("backbone", backbone), ("model", model)) if v]
    if len(given) > 1:
        raise RunError(f"Expected one of run_id, backbone and model. Received: {', '.join(given)}")
    if run_id:
        return model_of(get_run(run_id, stages=("train", "finetune")))
    if model:
        return describe(model)
    champion = None if backbone else registry.newest_champion()
    if champion is not None:
        return describe(champion.model_uri)
    tags = {"backbone": backbone} if backbone else {}
    tuned = search("finetune", experiment=experiment, tags=tags)
    trained = search("train", experiment=experiment, tags=tags)
    found = tuned + trained
    if backbone:
        found.sort(key=lambda run: run.info.start_time, reverse=True)
    if not found:
        of = f" of {backbone}" if backbone else ""
        raise RunError(
            f"Expected a champion or a finished train or finetune run{of}. Found: none; "
            "run fer train first, or pass run_id"
        )
    return model_of(found[0])


def judge(
    writer: Writer,
    model: keras.Model,
    prepared: PreparedDataset,
    logged: LoggedModel,
    *,
    label: str,
) -> dict[str, Report]:
    """Predicts val and test, writes scores, figures and predictions of each."""
    from fer_experiments.evaluation.predictions import predict

    reports: dict[str, Report] = {}
    for split in SPLITS:
        images, labels = prepared.split(split)
        if not len(images):
            continue
        writer.dataset(prepared, split=split)
        started = time.perf_counter()
        probabilities = predict(model, images)
        seconds = time.perf_counter() - started
        reports[split] = report(probabilities, labels, prepared.class_names, split=split)
        _log_report(writer, reports[split], logged, title=f"{label} on {split}")
        writer.metrics({f"time/{split}_images_per_second": len(images) / seconds})
        _log_predictions(writer, prepared, split, probabilities)
    return reports


def _check_fit(logged: LoggedModel, prepared: PreparedDataset) -> None:
    if logged.class_names != prepared.class_names:
        raise DataError(
            f"Expected data with the model's classes {', '.join(logged.class_names)}. "
            f"Received: {', '.join(prepared.class_names)}"
        )
    if logged.image_size != prepared.image_size:
        raise DataError(
            f"Expected data of the model's image_size={logged.image_size}. "
            f"Received: {prepared.image_size}"
        )


def _log_report(writer: Writer, judged: Report, logged: LoggedModel, *, title: str) -> None:
    split = judged.split
    scores = {f"{split}/{name}": value for name, value in judged.scores().items()}
    writer.metrics(scores, model_id=logged.model_id)
    for shares, name in ((False, "confusion_counts"), (True, "confusion_shares")):
        writer.figure(figures.confusion(judged, title=title, shares=shares), f"{split}/{name}.png")
    writer.json(
        {"class_names": judged.class_names, "counts_true_by_predicted": judged.confusion},
        f"{split}/confusion.json",
    )
    writer.text(judged.text, f"{split}/classification_report.txt")
    writer.json(
        {
            **judged.scores(),
            "per_class": {
                name: {
                    "precision": judged.precision[i],
                    "recall": judged.recall[i],
                    "f1": judged.f1[i],
                    "support": judged.support[i],
                }
                for i, name in enumerate(judged.class_names)
            },
        },
        f"{split}/classification_report.json",
    )


def _log_predictions(
    writer: Writer, prepared: PreparedDataset, split: str, probabilities: np.ndarray
) -> None:
    part = prepared.slice(split)
    ids, labels = np.asarray(prepared.ids[part]), np.asarray(prepared.labels[part])
    names = np.array(prepared.class_names)
    predicted = probabilities.argmax(axis=1)
    writer.table(
        {
            "id": ids.tolist(),
            "label": names[labels].tolist(),
            "predicted": names[predicted].tolist(),
            "correct": (labels == predicted).tolist(),
            "confidence": probabilities.max(axis=1).round(4).tolist(),
        },
        f"{split}/predictions.json",
    )
    writer.arrays(
        {"ids": ids, "labels": labels, "probabilities": probabilities, "class_names": names},
        f"{split}/probabilities.npz",
    )


def _describe(
    writer: Writer,
    config: Config,
    prepared: PreparedDataset,
    reports: Mapping[str, Report],
    logged: LoggedModel,
) -> None:
    rows = [
        f"**{config.model.backbone}**, recipe `{config.recipe}`, judged on {prepared.name}.",
        "",
        "| split | images | accuracy (95 % interval) | macro-F1 (95 % interval) |",
        "|---|---:|---:|---:|",
    ]
    for split, r in reports.items():
        accuracy, f1 = r.intervals["accuracy"], r.intervals["macro_f1"]
        rows.append(
            f"| {split} | {r.images} "
            f"| {r.accuracy:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%}) "
            f"| {r.macro_f1:.3f} ({f1.low:.3f} to {f1.high:.3f}) |"
        )
    if config.train.keep_epoch == "best":
        rows += ["", "The model's epoch was picked on val: val is a little flattering."]
    rows += [
        f"{split}: only {r.predicted_classes} of {len(r.class_names)} classes are ever predicted."
        for split, r in reports.items()
        if r.predicted_classes < len(r.class_names)
    ]
    rows += ["", f"Model `{logged.uri}` of run `{logged.source_run_id}`"]
    writer.note("\n".join(rows))


def _lines(name: str, prepared: PreparedDataset, reports: Mapping[str, Report]) -> list[str]:
    lines = [f"{name} on {prepared.name}"]
    for split, r in reports.items():
        low, high = r.intervals["accuracy"].low, r.intervals["accuracy"].high
        lines.append(
            f"{split:5} accuracy {r.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}), "
            f"macro-F1 {r.macro_f1:.3f}, log-loss {r.log_loss:.3f}, {r.images} images"
        )
    if "test" not in reports:
        lines.append("there are no test images: only val was scored")
    if console.is_terminal() and "val" in reports:
        lines.append(reports["val"].text.rstrip())
    return lines
