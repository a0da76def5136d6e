"""What an evaluation found, in words: its note in MLflow, its lines in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from fer_experiments.config import Config
from fer_experiments.evaluation.metrics import Report
from fer_experiments.evaluation.split_evaluation import SplitEvaluation
from fer_experiments.reporting.findings import CONSTANT, top_confusions
from fer_experiments.reporting.tables import interval, markdown


def note(
    config: Config,
    dataset_name: str,
    found: Mapping[str, SplitEvaluation],
    *,
    chosen: str,
    unknown: str,
    model: str,
    photo: str | None = None,
) -> str:
    """The note of an evaluation, as Markdown.

    Args:
        config: that the model was made with.
        dataset_name: of the data that it was judged on.
        found: by split.
        chosen: what images of these splits chose of the model.
        unknown: why it is not known which of the images the model was trained on; empty if it is.
        model: which model it is, in words.
        photo: its photo score, in words.
    """
    rows = [
        f"**{config.model.backbone}**, recipe `{config.recipe}`, judged on {dataset_name}.",
        "",
        *markdown(
            ["images", "number", "accuracy (95 % interval)", "macro-F1 (95 % interval)", "ECE"],
            [
                [
                    name,
                    str(r.images),
                    _interval(r, "accuracy", ".1%"),
                    _interval(r, "macro_f1", ".3f"),
                    f"{r.calibration.ece:.3f}",
                ]
                for name, r in _parts(found)
            ],
        ),
    ]
    rows += ["", *(f"- {line}" for line in _seen_lines(found, chosen, unknown))]
    for split, judged in found.items():
        r = judged.report
        if r.predicted_classes == 1:
            rows += ["", f"**{split}**: {CONSTANT}."]
        elif r.predicted_classes < len(r.class_names):
            rows.append(
                f"{split}: only {r.predicted_classes} of {len(r.class_names)} classes are ever "
                "predicted."
            )
        rows += ["", *(f"- {split}: {line}" for line in top_confusions(r.confusion, r.class_names))]
    if photo:
        rows += ["", f"**Photos**: {photo.removeprefix('photo ')}."]
    rows += ["", f"Model: {model}"]
    return "\n".join(rows)


def _parts(found: Mapping[str, SplitEvaluation]) -> list[tuple[str, Report]]:
    """Every report under its name; `clean` only where it judges other images than the whole."""
    parts = []
    for split, judged in found.items():
        parts.append((split, judged.report))
        if judged.clean is not None and judged.clean.images < judged.report.images:
            parts.append((f"{split} clean", judged.clean))
        if judged.augmented is not None:
            parts.append((f"{split} with TTA", judged.augmented))
    return parts


def _interval(r: Report, score: str, form: str) -> str:
    i = r.intervals[score]
    return interval(i.value, i.low, i.high, form)


def _seen_lines(found: Mapping[str, SplitEvaluation], chosen: str, unknown: str) -> list[str]:
    """What the model has seen of the images that judge it, in words."""
    if unknown:
        return [f"overlap unknown, so no score is called clean: {unknown}"]
    lines = []
    for split, judged in found.items():
        N = judged.report.images
        for images, what in (
            (judged.fitted, "are images that the model was trained on; clean leaves them out"),
            (judged.selected, f"have chosen the model's {chosen}, which flatters a little"),
        ):
            if images is not None and images.any():
                lines.append(f"{split}: {images.sum():,} of {N:,} images {what}")
        if judged.clean is None:
            lines.append(f"{split}: no image is left that would show what the model has learnt")
    return lines


def lines(
    name: str,
    dataset_name: str,
    found: Mapping[str, SplitEvaluation],
    *,
    chosen: str,
    unknown: str,
    whole: bool = False,
    photo: str | None = None,
) -> list[str]:
    """The last lines of an evaluation: key figures; `whole`: the scores of each class, too."""
    lines = [f"{name} on {dataset_name} (95 % intervals)"]
    lines += [
        f"{part:5} accuracy {_interval(r, 'accuracy', '.1%')}, macro-F1 "
        f"{_interval(r, 'macro_f1', '.3f')}, log-loss {r.log_loss:.3f}, "
        f"ECE {r.calibration.ece:.3f}, {r.images} images"
        for part, r in _parts(found)
    ]
    lines += [photo] if photo else []
    lines += _seen_lines(found, chosen, unknown)
    if "test" not in found:
        lines.append("there are no test images: only val was scored")
    if whole and "val" in found:
        lines.append(found["val"].report.text.rstrip())
    return lines
