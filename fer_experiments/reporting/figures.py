"""Histories, reports and images in, matplotlib Figures out: nothing is shown and nothing saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from fer_experiments.evaluation.calibration import Calibration
from fer_experiments.evaluation.metrics import Report
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.reporting.plot_style import (
    CHARACTER,
    HUES,
    PLOT_WIDTH,
    ROUND,
    SMALL,
    WIDTH,
    frameless,
    line,
    looks,
    new_figure,
    tidy,
    turned_if_long,
    with_legend,
)

STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": HUES[5], "linestyle": "--", "marker": "s"},
    "val": {"color": HUES[0], "linestyle": "-", "marker": "o"},
    "majority": {"color": "dimgrey", "linestyles": "--", "label": "always the majority class"},
}
NEUTRAL, UNCLEAR = "#444444", "#8C8C8C"  # of what belongs to no model; where no difference is shown
History = Sequence[Mapping[str, float]]
PANELS = {"loss": "loss (nats)", "accuracy": "accuracy (0 to 1)", "macro_f1": "macro-F1 (0 to 1)"}


def learning_curves(history: History, *, title: str, best_epoch: int | None = None) -> Figure:
    """Loss in nats, accuracy and macro-F1 (0 to 1) over the epochs, one panel each.

    `history` has an entry per epoch with `epoch` and any of `loss`, `accuracy` and `macro_f1` under
    `train/` and `val/`; a score that no entry has gets no panel. `best_epoch` is marked if
    `history` has it. Raises ValueError if no entry has any of the scores.
    """
    present = {key for entry in history for key in entry}
    names = [name for name in PANELS if present & {f"train/{name}", f"val/{name}"}]
    if not names:
        raise ValueError(f"Expected entries with scores of {list(PANELS)}. Received: {history!r}")
    figure, panels = new_figure(title, height=3.3, panels=len(names))
    for name, axes in zip(names, panels, strict=True):
        _curve_panel(axes, history, name, best_epoch)
    if names[-2:] == ["accuracy", "macro_f1"]:
        panels[-1].sharey(panels[-2])
        panels[-1].autoscale(axis="y")
    return with_legend(figure)


def confusion(report: Report, *, title: str, shares: bool) -> Figure:
    """The confusion matrix (C, C), a row per true and a column per predicted class.

    Cells hold numbers of images or, with `shares`, percent of the true class. A class without
    images has a row of dashes.
    """
    C = len(report.class_names)
    support = report.confusion.sum(axis=1, keepdims=True)
    values = report.confusion / np.maximum(support, 1) * 100 if shares else report.confusion
    figure, [axes] = new_figure(title, height=2.4 + 0.45 * C)
    cells = np.ma.masked_array(values, np.broadcast_to(support == 0, values.shape))
    colours = colormaps["Blues"].with_extremes(bad="#E6E6E6")
    highest = 100 if shares else max(1, values.max())
    image = axes.imshow(cells, cmap=colours, vmin=0, vmax=highest, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = (f"{value:.1f}" if shares else f"{value:,}") if support[i, 0] else "–"
        # There black and white contrast equally with the colour map, both above 4.5 to 1.
        colour = "white" if value > 0.715 * highest else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=SMALL)
    axes.set_xticks(range(C), report.class_names, **turned_if_long(report.class_names))
    axes.set_yticks(range(C), report.class_names)
    axes.set(xlabel="predicted class", ylabel="true class")
    scores = f"accuracy {report.accuracy:.3f} · macro-F1 {report.macro_f1:.3f}"
    axes.set_title(f"{scores} · {report.images:,} images", fontsize=10)
    frameless(axes)
    label = "share of the true class (%)" if shares else "images"
    bar = figure.colorbar(image, label=label, ticks=MaxNLocator(**ROUND), format="{x:,.0f}")
    bar.ax.spines[:].set_visible(False)
    return figure


def sample_grid(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    title: str,
    per_class: int = 8,
) -> Figure:
    """The first `per_class` images of each class, a row per class; cells without image are empty.

    `images` are uint8 (N, H, W), `labels` int (N,) from 0 to C-1 in the order of `class_names`.
    """
    H, W = images.shape[1:]
    C, gap = len(class_names), max(1, W // 16)
    # One picture for all cells: an Axes per image would take seconds to lay out.
    mosaic = np.ma.masked_all(  # type: ignore[no-untyped-call]
        (C, H + gap, per_class, W + gap), dtype=np.uint8
    )
    for i in range(C):
        for j, image in enumerate(images[labels == i][:per_class]):
            mosaic[i, :H, j, :W] = image
    mosaic = mosaic.reshape(C * (H + gap), per_class * (W + gap))[:-gap, :-gap]
    plot_width = WIDTH - 0.5 - CHARACTER * max(map(len, class_names))
    figure, [axes] = new_figure(title, height=0.8 + plot_width * mosaic.shape[0] / mosaic.shape[1])
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_yticks((H - 1) / 2 + (H + gap) * np.arange(C), class_names)
    shown = f"first {per_class} images of each class, {W} × {H} pixels"
    axes.set(xticks=[], xlabel=shown, ylabel="class")
    frameless(axes)
    return figure


def class_counts(
    counts: Mapping[str, Sequence[int]], *, class_names: Sequence[str], title: str
) -> Figure:
    """How many images each class has: `counts` gives every split C numbers, a bar per split.

    Splits without images are left out. Raises ValueError if none is left.
    """
    filled = {split: np.asarray(values) for split, values in counts.items() if sum(values)}
    if not filled:
        raise ValueError(f"Expected a split with images. Received: {dict(counts)}")
    C = len(class_names)
    figure, [axes] = new_figure(title, height=1.2 + C * max(0.35, 0.2 * len(filled)))
    slots = zip(_bar_slots(len(filled)), filled.items(), strict=True)
    for (offset, size, style), (split, values) in slots:
        label = f"{split}: {values.sum():,} images"
        bars = axes.barh(np.arange(C) + offset, values, size, label=label, **style)
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=3, fontsize=SMALL)
    axes.set_yticks(range(C), class_names)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(**ROUND))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(xlabel="images", ylabel="class", ylim=(C - 0.5, -0.5))
    tidy(axes, grid="x")
    return with_legend(figure)


def per_class_f1(reports: Mapping[str, Report], *, title: str) -> Figure:
    """F1 (0 to 1) of every class with images and macro-F1, a bar per model label.

    A bar without height has a 0 above it. Takes at least one report; colours repeat from the ninth
    on.
    """
    scores = {label: _f1_by_class(report) for label, report in reports.items()}
    names = list(dict.fromkeys(name for by_class in scores.values() for name in by_class))
    last = len(names) + 0.25
    places = {name: float(place) for place, name in enumerate(names)} | {"macro-F1": last}
    figure, [axes] = new_figure(title, height=4.0)
    slots = zip(_bar_slots(len(scores)), scores.items(), strict=True)
    for (offset, size, style), (label, by_class) in slots:
        f1 = by_class | {"macro-F1": reports[label].macro_f1}
        spots = [places[name] + offset for name in f1]
        bars = axes.bar(spots, list(f1.values()), size, label=label, **style)
        if size * PLOT_WIDTH / len(places) > 0.3:  # inches that two decimals take
            axes.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=SMALL)
        else:
            zeros = ["0" if value == 0 else "" for value in f1.values()]
            axes.bar_label(bars, zeros, padding=2, fontsize=SMALL)
    axes.axvline(last - 0.625, color="dimgrey", linewidth=1)
    axes.set_xticks(list(places.values()), list(places), **turned_if_long(places))
    axes.set(xlabel="class", ylabel="F1 (0 to 1)", ylim=(0, 1), xlim=(-0.5, last + 0.5))
    tidy(axes, grid="y")
    return with_legend(figure)


def headline_scores(reports: Mapping[str, Report], *, title: str) -> Figure:
    """Accuracy and macro-F1 (0 to 1) with 95 % intervals, a row per model label (at least one).

    A model has its colour of the other figures, a score its marker.
    """
    figure, [axes] = new_figure(title, height=1.3 + 0.45 * len(reports))
    scores = (("accuracy", "accuracy", "o", -0.15), ("macro_f1", "macro-F1", "D", 0.15))
    for _, name, marker, _ in scores:
        axes.plot([], [], marker, color=NEUTRAL, label=f"{name}, 95 % interval")
    colours = [look["color"] for look in looks(reports).values()]
    for row, (report, colour) in enumerate(zip(reports.values(), colours, strict=True)):
        lines = []
        for score, name, marker, offset in scores:
            i = report.intervals[score]
            arms = [[i.value - i.low], [i.high - i.value]]
            axes.errorbar(i.value, row + offset, xerr=arms, fmt=marker, color=colour, capsize=4)
            lines.append(f"{name} {i.value:.3f} [{i.low:.3f}, {i.high:.3f}]")
        axes.vlines(report.majority_share, row - 0.5, row + 0.5, **STYLES["majority"])
        beside = axes.get_yaxis_transform()
        axes.text(1.02, row, "\n".join(lines), transform=beside, va="center", fontsize=SMALL)
    axes.set_yticks(range(len(reports)), [fill(label, 40) for label in reports])
    axes.set(xlabel="score (0 to 1)", ylabel="model", ylim=(len(reports) - 0.5, -0.5))
    tidy(axes, grid="x")
    return with_legend(figure)


def reliability(panels: Mapping[str, Calibration], *, title: str) -> Figure:
    """Accuracy against confidence by bin, a panel per entry, such as before and after scaling.

    Grey bars are each bin's share of the images. Takes one to three panels, each with images.
    """
    figure, drawn = new_figure(title, height=4.6 if len(panels) < 3 else 3.6, panels=len(panels))
    for axes, (name, bins) in zip(drawn, panels.items(), strict=True):
        filled = bins.images > 0
        parts = (bins.confidence, bins.accuracy, bins.images)
        confidence, accuracy, count = (part[filled] for part in parts)
        axes.bar(confidence, count / count.sum(), 0.03, color="#D0D0D0", label="share of images")
        axes.axline((0, 0), (1, 1), color="dimgrey", linestyle="--", label="accuracy = confidence")
        axes.vlines(confidence, confidence, accuracy, color=HUES[1], linewidth=1.5)
        axes.plot(confidence, accuracy, "o", color=HUES[0], label="accuracy of a bin")
        head = f"{fill(name, 70 // len(panels))}\n" if len(panels) > 1 else ""
        axes.set_title(f"{head}ECE {bins.ece:.3f} · {count.sum():,} images", fontsize=10)
        axes.set(xlabel="confidence (0 to 1)", ylabel="accuracy, share (0 to 1)", aspect="equal")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        tidy(axes, grid="both")
    return with_legend(figure)


def roc_and_precision_recall(
    labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], *, title: str
) -> Figure:
    """Each class against all others: ROC curve and precision over recall, with their areas.

    `labels` are int (N,), `probabilities` (N, C). The area under precision over recall is the
    average precision. Classes without images are left out, as is a class that has all of them.
    Raises ValueError if no class is left.
    """
    present = [k for k in range(len(class_names)) if 0 < (labels == k).mean() < 1]
    if not present:
        raise ValueError(f"Expected images of two classes. Received: {set(labels.tolist())}")
    figure, (left, right) = new_figure(title, height=4.0, panels=2)
    left.axline((0, 0), (1, 1), color="dimgrey", linestyle=":")
    for k in present:
        own, scores = labels == k, probabilities[:, k]
        areas = roc_auc_score(own, scores), average_precision_score(own, scores)
        style = {
            "label": "{}: ROC area {:.3f}, PR area {:.3f}".format(class_names[k], *areas),
            **line(k),
        }
        false_positives, recall, _ = roc_curve(own, scores)
        left.plot(false_positives, recall, **style)
        precision, recall, _ = precision_recall_curve(own, scores, drop_intermediate=True)
        right.plot(recall, precision, drawstyle="steps-post", **style)
    left.set(title="ROC", xlabel="false positive rate (0 to 1)", ylabel="recall (0 to 1)")
    right.set(title="precision–recall (PR)", xlabel="recall (0 to 1)", ylabel="precision (0 to 1)")
    for axes in (left, right):
        axes.title.set_fontsize(10)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        tidy(axes, grid="both")
    return with_legend(figure)


def learning_curves_overlaid(
    histories: Mapping[str, History],
    *,
    title: str,
    names: Sequence[str] = ("macro_f1", "loss"),
    models: Sequence[str] = (),
) -> Figure:
    """Scores on val over the epochs, a line per model label and a panel per name of a score.

    `histories` are as `learning_curves` takes them; `names` are among `loss`, `accuracy` and
    `macro_f1`. `models` are the labels of all models of the other figures in their order, where
    some have no history: so each keeps its colour. Raises ValueError if no entry has any of the
    scores under `val/`.
    """
    present = {key for history in histories.values() for entry in history for key in entry}
    names = [name for name in names if f"val/{name}" in present]
    if not names:
        raise ValueError(f"Expected entries with scores on val. Received: {dict(histories)!r}")
    figure, panels = new_figure(title, height=3.6, panels=len(names))
    look = looks(models or histories)
    for name, axes in zip(names, panels, strict=True):
        for label, history in histories.items():
            points = [(e["epoch"], e[f"val/{name}"]) for e in history if f"val/{name}" in e]
            if points:
                size = 4 if len(points) <= 15 else 0
                style = look[label] | {"marker": "o", "markersize": size}
                axes.plot(*zip(*points, strict=True), label=label, **style)
        axes.set(xlabel="epoch", ylabel=f"val {PANELS[name]}")
        axes.xaxis.set_major_locator(MaxNLocator(**ROUND))
        tidy(axes, grid="both")
    return with_legend(figure)


def differences(
    rows: Mapping[tuple[str, str], Difference],
    *,
    score: str,
    title: str,
    models: Sequence[str] = (),
) -> Figure:
    """Paired differences of a score (0 to 1) with 95 % intervals, a row per pair of models.

    `rows` are by the labels of the first and the second model. A row has the colour of the model
    that is shown to be better, which `models` give as in `learning_curves_overlaid`; those whose p
    is 0.05 or more, so that their interval reaches 0, are grey and hollow. Takes at least one row.
    """
    labels = [fill(f"{first} − {second}", 40) for first, second in rows]
    figure, [axes] = new_figure(title, height=1.2 + 0.45 * len(rows))
    axes.axvline(0, color="dimgrey", linewidth=1)
    look = looks(models or dict.fromkeys(label for pair in rows for label in pair))
    for text, marker, colour, fill_style in (
        ("adjusted p below 0.05, colour of the better model", "o", NEUTRAL, "full"),
        ("adjusted p 0.05 or more", "D", UNCLEAR, "none"),
    ):
        axes.plot([], [], marker, color=colour, fillstyle=fill_style, label=text)
    for place, (pair, row) in enumerate(rows.items()):
        better = look[pair[0] if row.value > 0 else pair[1]]["color"]
        clear = row.p < 0.05
        fmt, colour, filled = ("o", better, "full") if clear else ("D", UNCLEAR, "none")
        arms = np.maximum([[row.value - row.low], [row.high - row.value]], 0)
        axes.errorbar(
            row.value, place, xerr=arms, fmt=fmt, color=colour, capsize=4, fillstyle=filled
        )
        p = "p < 0.001" if row.p < 0.001 else f"p = {row.p:.3f}"
        text = f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]\n{p}".replace("-", "−")
        beside = axes.get_yaxis_transform()
        axes.text(1.02, place, text, transform=beside, va="center", fontsize=SMALL)
    axes.set_yticks(range(len(rows)), labels)
    axes.set(xlabel=f"difference in {score}, first minus second", ylim=(len(rows) - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    tidy(axes, grid="x")
    return with_legend(figure)


def _curve_panel(axes: Axes, history: History, name: str, best_epoch: int | None) -> None:
    for part in ("train", "val"):
        points = [(e["epoch"], e[f"{part}/{name}"]) for e in history if f"{part}/{name}" in e]
        if points:
            size = 5 if len(points) <= 15 else 0
            axes.plot(*zip(*points, strict=True), markersize=size, label=part, **STYLES[part])
    by_epoch = {entry["epoch"]: entry for entry in history}
    if best_epoch in by_epoch:
        axes.axvline(best_epoch, color="dimgrey", linestyle=":", label=f"best epoch: {best_epoch}")
        if f"val/{name}" in by_epoch[best_epoch]:
            value = by_epoch[best_epoch][f"val/{name}"]
            axes.set_title(f"val {value:.3f} at epoch {best_epoch}", fontsize=10)
    axes.set(xlabel="epoch", ylabel=PANELS[name], xlim=(min(by_epoch) - 0.6, max(by_epoch) + 0.6))
    axes.xaxis.set_major_locator(MaxNLocator(**ROUND))
    tidy(axes, grid="both")


def _bar_slots(bars: int) -> list[tuple[float, float, dict[str, Any]]]:
    """Offset from the group's centre, thickness and style of each bar; groups are 1 apart."""
    size, edge = 0.82 / bars, {"edgecolor": "#333333", "linewidth": 0.4}
    offsets = (np.arange(bars) - (bars - 1) / 2) * size
    return [(x, size, {"color": HUES[k % len(HUES)], **edge}) for k, x in enumerate(offsets)]


def _f1_by_class(report: Report) -> dict[str, float]:
    triples = zip(report.class_names, report.f1, report.support, strict=True)
    return {name: float(f1) for name, f1, support in triples if support}
