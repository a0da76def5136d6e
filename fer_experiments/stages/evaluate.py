"""`evaluate`: how well a model does on val and test."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.errors import ConfigError, DataError
from fer_experiments.evaluation.metrics import Report, report
from fer_experiments.evaluation.predictions import Views, predict, test_time_views
from fer_experiments.evaluation.split_evaluation import SplitEvaluation
from fer_experiments.reporting import evaluation_notes, figures, image_grids
from fer_experiments.reporting.findings import top_confusions
from fer_experiments.reporting.photo_notes import photo_line
from fer_experiments.run_names import run_name
from fer_experiments.stages import common, contestants
from fer_experiments.stages.datasets import dataset_of
from fer_experiments.stages.overlap import Overlap, overlap
from fer_experiments.stages.photo_score import photo_score
from fer_experiments.stages.selection import MODEL_STAGES, Meant, answered, choose
from fer_experiments.tracking import names
from fer_experiments.tracking.evaluations import FORMAT
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.models import LoggedModel, load
from fer_experiments.tracking.runs import RunRecord, get_run
from fer_experiments.tracking.views import closing_lines
from fer_experiments.tracking.writer import Writer

if TYPE_CHECKING:
    import keras

SPLITS = ("val", "test")
# Of the source run: what the model cost.
_COST = ("weights/parameters", "weights/file_megabytes", "time/train_seconds_total")
# Scores that are also given of the images that the model was not trained on, and of test-time
# augmentation.
_HEADLINE = (
    "accuracy", "interval/accuracy_low", "interval/accuracy_high",
    "macro_f1", "interval/macro_f1_low", "interval/macro_f1_high", "weighted_f1",
    "balanced_accuracy", "log_loss", "calibration/ece", "images",
)  # fmt: skip


def run(
    meant: Meant | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
    tta: str = "none",
    experiment: str | None = None,
    parent: Writer | None = None,
) -> common.StageResult:
    """Judges one model; writes scores, figures, predictions.

    Args:
        meant: the model; None: see `selection.choose`.
        data: fields of DataConfig that differ from the data that the model was trained on.
        fingerprint: of the prepared data, where it is known.
        tta: test-time augmentation, reported beside the plain scores: none, flip, crops, or N
            views.
        experiment: where to write, and the only place to look.
        parent: the run of the job that this is a stage of.

    Raises:
        RunError: there is no such run or model.
        ConfigError: `tta` is none of the ways, or needs a crop that the model does not take.
        DataError: the data has other classes or another image size than the model.
    """
    views = test_time_views(tta)
    logged = choose(meant or Meant(), experiment=experiment)
    check_crops(tta, logged)
    config = with_data(logged.config, data or {})
    if data:
        common.check_source(config)
    source = get_run(logged.source_run_id, stages=MODEL_STAGES)
    name = run_name(config, f"evaluate {source.stage}")
    with open_run(
        "evaluate", name, experiment=experiment, parent=parent, tags=_tags(config, logged, source)
    ) as writer:
        if data and fingerprint is None:
            config, prepared = common.prepare(config, logged.rule)
        else:
            prepared = dataset_of(config.data, fingerprint or logged.dataset_fingerprint)
        check_fit(logged, prepared)
        common.identify(writer, config, prepared)
        seen = overlap(logged, prepared, SPLITS)
        writer.tags(_tags_of_overlap(logged, seen))
        console.load_keras()
        label = run_name(config, source.stage)
        model = load(logged)
        found = judge(writer, model, prepared, logged, label=label, seen=seen, views=views)
        photo = photo_score(partial(predict, model), prepared, data_seed=config.data.data_seed)
        writer.metrics(photo, model_id=logged.model_id, dataset=(prepared, "val"))
        # After the scores: MLflow's comparison opens on the metric that was logged first.
        writer.metrics({n: source.metrics[n] for n in _COST if n in source.metrics})
        _tell(
            writer, config, prepared, found, seen,
            name=name, answered=answered(logged), photo=photo_line(photo),
        )  # fmt: skip
    scores = {split: judged.report.scores() for split, judged in found.items()}
    flat = {f"{split}/{n}": value for split, own in scores.items() for n, value in own.items()}
    return common.result(writer, flat | photo)


def _tags(config: Config, logged: LoggedModel, source: RunRecord) -> dict[str, str]:
    """By which the evaluation of a model is found from its first moment on."""
    return {
        **common.whose(config),
        names.SOURCE_RUN: logged.source_run_id,
        names.SOURCE_STAGE: source.stage,
        names.MODEL_URI: logged.uri,
        names.EVALUATION_FORMAT: str(FORMAT),
        **contestants.tags_of(source),
    }


def _tags_of_overlap(logged: LoggedModel, seen: Overlap) -> dict[str, str]:
    told = {
        names.OVERLAP_UNKNOWN: seen.unknown,
        names.CHOSEN_ON_VAL: ", ".join(logged.seen.chosen),
    }
    return {tag: text for tag, text in told.items() if text}


def _tell(
    writer: Writer,
    config: Config,
    prepared: PreparedDataset,
    found: Mapping[str, SplitEvaluation],
    seen: Overlap,
    *,
    name: str,
    answered: str,
    photo: str | None,
) -> None:
    """The note, and the last lines."""
    told = {"chosen": seen.chosen, "unknown": seen.unknown, "photo": photo or ""}
    writer.note(evaluation_notes.note(config, prepared.name, found, model=answered, **told))
    watched = console.is_terminal()
    lines = evaluation_notes.lines(name, prepared.name, found, whole=watched, **told)
    lines.append(f"model  {answered}")
    if not writer.nested:
        lines += closing_lines(writer.experiment_id)
    common.close(writer, lines, following=common.following(writer, "compare"))


def with_data(config: Config, data: Mapping[str, Any]) -> Config:
    """The configuration with other data; the split of another dataset is its own."""
    if data.get("dataset", config.data.dataset) != config.data.dataset:
        data = {"split": "auto", **data}
    return config.replace(**data)


def check_crops(tta: str, logged: LoggedModel) -> None:
    """That a model whose crops are to be judged takes crops at all.

    Raises:
        ConfigError: it looks at whole images.
    """
    if tta == "crops" and logged.config.model.crop is None:
        raise ConfigError(
            f"Expected a model that was trained with crop for tta=crops. Received: {logged.uri}, "
            "which looks at whole images; train with --crop 44, or pass tta=flip"
        )


def judge(
    writer: Writer,
    model: keras.Model,
    prepared: PreparedDataset,
    logged: LoggedModel,
    *,
    label: str,
    seen: Overlap,
    views: Views | None = None,
) -> dict[str, SplitEvaluation]:
    """Predicts val and test, writes scores, figures and predictions of each."""
    found: dict[str, SplitEvaluation] = {}
    for split in SPLITS:
        images, labels = prepared.split(split)
        if not len(images):
            continue
        writer.dataset(prepared, split=split)
        started = time.perf_counter()
        probabilities = predict(model, images)
        seconds = time.perf_counter() - started

        fitted, names = seen.fitted.get(split), prepared.class_names
        clean = augmented = None
        if fitted is not None and not fitted.all():
            clean = report(probabilities[~fitted], labels[~fitted], names, split=split)
        if views is not None:
            augmented = report(predict(model, images, views=views), labels, names, split=split)
        judged = SplitEvaluation(
            report=report(probabilities, labels, names, split=split),
            clean=clean,
            augmented=augmented,
            probabilities=probabilities,
            fitted=fitted,
            selected=seen.selected.get(split),
        )
        _log_scores(writer, judged, prepared, logged)
        _log_report(writer, judged.report, title=f"{label} on {split}")
        _draw(writer, judged, images, labels, title=f"{label} on {split}")
        _log_predictions(writer, prepared, split, judged)
        writer.metrics({f"time/{split}_images_per_second": len(images) / seconds})
        found[split] = judged
    if found:
        _explain(writer, model, prepared, found, label=label)
    return found


def _log_scores(
    writer: Writer, judged: SplitEvaluation, prepared: PreparedDataset, logged: LoggedModel
) -> None:
    split = judged.report.split
    scores = {f"{split}/{name}": value for name, value in judged.report.scores().items()}
    for name, images in (
        ("images_with_twin", judged.fitted),
        ("images_selected_on", judged.selected),
    ):
        if images is not None:
            scores[f"{split}/{name}"] = float(images.sum())
    for prefix, part in (("clean", judged.clean), ("tta", judged.augmented)):
        if part is not None:
            own = part.scores()
            scores |= {f"{split}/{prefix}/{name}": own[name] for name in _HEADLINE if name in own}
    writer.metrics(scores, model_id=logged.model_id, dataset=(prepared, split))


def _draw(
    writer: Writer, judged: SplitEvaluation, images: np.ndarray, labels: np.ndarray, *, title: str
) -> None:
    """What neither the table nor the confusion matrix shows."""
    r, split = judged.report, judged.report.split
    drawn = {
        "reliability": figures.reliability({split: r.calibration}, title=f"{title}: reliability"),
        "confident_mistakes": image_grids.mistakes(
            images, labels, judged.probabilities, r.class_names, title=f"{title}: surest mistakes"
        ),
        "least_certain": image_grids.uncertain(
            images, labels, judged.probabilities, r.class_names, title=f"{title}: least certain"
        ),
    }
    if (r.support > 0).sum() > 1:
        drawn["roc_and_precision_recall"] = figures.roc_and_precision_recall(
            labels, judged.probabilities, r.class_names, title=title
        )
    for name, figure in drawn.items():
        writer.figure(figure, f"{split}/{name}.png")
    words = top_confusions(r.confusion, r.class_names)
    if words:
        writer.text("\n".join(words) + "\n", f"{split}/top_confusions.txt")


def _explain(
    writer: Writer,
    model: keras.Model,
    prepared: PreparedDataset,
    found: Mapping[str, SplitEvaluation],
    *,
    label: str,
) -> None:
    """Where the model looks, on the last of the splits that were judged."""
    from fer_experiments.evaluation.explanations import examples, has_map, hires_cam

    if not has_map(model):
        return
    split, judged = list(found.items())[-1]
    images, labels = prepared.split(split)
    chosen = examples(labels, judged.probabilities)
    said = judged.probabilities[chosen]
    maps = hires_cam(model, images[chosen], said.argmax(axis=1))
    writer.figure(
        image_grids.heat_maps(
            images[chosen],
            maps,
            labels[chosen],
            said,
            prepared.class_names,
            title=f"{label} on {split}: where the model looks (HiResCAM)",
        ),
        f"{split}/heat_maps.png",
    )


def check_fit(logged: LoggedModel, prepared: PreparedDataset) -> None:
    """Raises DataError if a model cannot be judged on this data."""
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
    if not prepared.suits(logged.rule):
        raise DataError(
            f"Expected images that became pixels as the model's did ({_rule(logged)}). "
            f"Received: {_rule(prepared)}; fer evaluate --dataset prepares them for it, and "
            "between models that differ in this fer promote decides"
        )


def _rule(made: LoggedModel | PreparedDataset) -> str:
    """How images became pixels, in a few words."""
    whites = ", ".join(f"white is {value:g}" for value in made.white.values())
    return f"crop {made.crop}" + (f", {whites}" if whites else "")


def _log_report(writer: Writer, judged: Report, *, title: str) -> None:
    split = judged.split
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
    writer: Writer, prepared: PreparedDataset, split: str, judged: SplitEvaluation
) -> None:
    probabilities = judged.probabilities
    part = prepared.slice(split)
    ids, labels = np.asarray(prepared.ids[part]), np.asarray(prepared.labels[part])
    names = np.array(prepared.class_names)
    predicted = probabilities.argmax(axis=1)
    seen = {
        name: images
        for name, images in (("fitted", judged.fitted), ("selected", judged.selected))
        if images is not None
    }
    writer.table(
        {
            "id": ids.tolist(),
            "label": names[labels].tolist(),
            "predicted": names[predicted].tolist(),
            "correct": (labels == predicted).tolist(),
            "confidence": probabilities.max(axis=1).round(4).tolist(),
            **{f"{name}_on": images.tolist() for name, images in seen.items()},
        },
        f"{split}/predictions.json",
    )
    writer.arrays(
        {
            "ids": ids,
            "labels": labels,
            "probabilities": probabilities,
            **seen,
            "class_names": names,
        },
        f"{split}/probabilities.npz",
    )
