"""Histories, reports and images in, matplotlib Figures out: nothing is shown and nothing saved."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from fer_experiments.evaluation.metrics import Report

WIDTH, DPI = 8.2, 110  # inches; the MLflow UI shows a figure about 900 pixels wide
PLOT_WIDTH = 6.2  # inches that labels and colour bars leave at least
SMALL = 9  # points
CHARACTER = 0.085  # inches, a generous mean for the default 10 point font
# Okabe and Ito's palette, distinct under every common colour blindness; pale yellow comes last.
HUES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442"]
ROUND: dict[str, Any] = {"nbins": 8, "steps": [1, 2, 5, 10], "integer": True, "min_n_ticks": 1}
STYLES: dict[str, dict[str, Any]] = {
    "train": {"color": HUES[5], "linestyle": "--", "marker": "s"},
    "val": {"color": HUES[0], "linestyle": "-", "marker": "o"},
    "accuracy": {"color": HUES[0], "fmt": "o", "capsize": 4, "label": "accuracy, 95 % interval"},
    "macro_f1": {"color": HUES[1], "marker": "D", "linestyle": "", "label": "macro-F1"},
    "majority": {"color": "dimgrey", "linestyles": "--", "label": "always the majority class"},
}
History = Sequence[Mapping[str, float]]
GROUP_COLUMNS = 7
PANELS = {"loss": "loss (nats)", "accuracy": "accuracy (0 to 1)", "macro_f1": "macro-F1 (0 to 1)"}


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """Images that belong together, such as copies of one."""

    heading: str  # one or two lines
    images: np.ndarray  # (M, H, W) uint8
    captions: Sequence[str]  # M, one or two lines each


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
    figure, panels = _figure(title, height=3.3, panels=len(names))
    for name, axes in zip(names, panels, strict=True):
        _curve_panel(axes, history, name, best_epoch)
    if names[-2:] == ["accuracy", "macro_f1"]:
        panels[-1].sharey(panels[-2])
        panels[-1].autoscale(axis="y")
    return _with_legend(figure)


def confusion(report: Report, *, title: str, shares: bool) -> Figure:
    """The confusion matrix (C, C), a row per true and a column per predicted class.

    Cells hold numbers of images or, with `shares`, percent of the true class. A class without
    images has a row of dashes.
    """
    C = len(report.class_names)
    support = report.confusion.sum(axis=1, keepdims=True)
    values = report.confusion / np.maximum(support, 1) * 100 if shares else report.confusion
    figure, [axes] = _figure(title, height=2.4 + 0.45 * C)
    cells = np.ma.masked_array(values, np.broadcast_to(support == 0, values.shape))
    colours = colormaps["Blues"].with_extremes(bad="#E6E6E6")
    highest = 100 if shares else max(1, values.max())
    image = axes.imshow(cells, cmap=colours, vmin=0, vmax=highest, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = (f"{value:.1f}" if shares else f"{value:,}") if support[i, 0] else "–"
        # There black and white contrast equally with the colour map, both above 4.5 to 1.
        colour = "white" if value > 0.715 * highest else "black"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=SMALL)
    axes.set_xticks(range(C), report.class_names, **_turned_if_long(report.class_names))
    axes.set_yticks(range(C), report.class_names)
    axes.set(xlabel="predicted class", ylabel="true class")
    scores = f"accuracy {report.accuracy:.3f} · macro-F1 {report.macro_f1:.3f}"
    axes.set_title(f"{scores} · {report.images:,} images", fontsize=10)
    _frameless(axes)
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
    mosaic = np.ma.masked_all((C, H + gap, per_class, W + gap), dtype=np.uint8)
    for i in range(C):
        for j, image in enumerate(images[labels == i][:per_class]):
            mosaic[i, :H, j, :W] = image
    mosaic = mosaic.reshape(C * (H + gap), per_class * (W + gap))[:-gap, :-gap]
    plot_width = WIDTH - 0.5 - CHARACTER * max(map(len, class_names))
    figure, [axes] = _figure(title, height=0.8 + plot_width * mosaic.shape[0] / mosaic.shape[1])
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_yticks((H - 1) / 2 + (H + gap) * np.arange(C), class_names)
    shown = f"first {per_class} images of each class, {W} × {H} pixels"
    axes.set(xticks=[], xlabel=shown, ylabel="class")
    _frameless(axes)
    return figure


def image_groups(rows: Sequence[ImageRow], *, title: str) -> Figure:
    """The first seven images of each row, captions below them; says how many more there are.

    All images are of one size. Raises ValueError if there is no row.
    """
    if not rows:
        raise ValueError("Expected a row of images. Received: none")
    H, W = rows[0].images.shape[1:]
    gap, below = max(1, W // 16), 0.45 * W  # the captions' two lines, in pixels of the images
    row_height = H + math.ceil(below)
    mosaic = np.ma.masked_all((len(rows), row_height, GROUP_COLUMNS, W + gap), dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row.images[:GROUP_COLUMNS]):
            mosaic[i, :H, j, :W] = image
    mosaic = mosaic.reshape(len(rows) * row_height, GROUP_COLUMNS * (W + gap))[:, :-gap]
    plot_width = WIDTH - 1.8
    figure, [axes] = _figure(title, height=0.5 + plot_width * mosaic.shape[0] / mosaic.shape[1])
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    for i, row in enumerate(rows):
        for j, caption in enumerate(row.captions[:GROUP_COLUMNS]):
            lines = [line if len(line) <= 12 else f"{line[:11]}…" for line in caption.splitlines()]
            place = (W / 2 + j * (W + gap), i * row_height + H + gap / 2)
            axes.text(*place, "\n".join(lines), ha="center", va="top", fontsize=SMALL)
    headings = [
        row.heading + (f"\n{more} more" if (more := len(row.images) - GROUP_COLUMNS) > 0 else "")
        for row in rows
    ]
    axes.set_yticks((H - 1) / 2 + row_height * np.arange(len(rows)), headings)
    axes.set(xticks=[])
    _frameless(axes)
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
    figure, [axes] = _figure(title, height=1.2 + C * max(0.35, 0.2 * len(filled)))
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
    _tidy(axes, grid="x")
    return _with_legend(figure)


def per_class_f1(reports: Mapping[str, Report], *, title: str) -> Figure:
    """F1 (0 to 1) of every class with images and macro-F1, a bar per model label.

    Takes at least one report; colours repeat from the ninth on.
    """
    scores = {label: _f1_by_class(report) for label, report in reports.items()}
    names = list(dict.fromkeys(name for by_class in scores.values() for name in by_class))
    last = len(names) + 0.25
    places = {name: float(place) for place, name in enumerate(names)} | {"macro-F1": last}
    figure, [axes] = _figure(title, height=4.0)
    slots = zip(_bar_slots(len(scores)), scores.items(), strict=True)
    for (offset, size, style), (label, by_class) in slots:
        f1 = by_class | {"macro-F1": reports[label].macro_f1}
        spots = [places[name] + offset for name in f1]
        bars = axes.bar(spots, list(f1.values()), size, label=label, **style)
        if size * PLOT_WIDTH / len(places) > 0.3:  # inches that two decimals take
            axes.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=SMALL)
    axes.axvline(last - 0.625, color="dimgrey", linewidth=1)
    axes.set_xticks(list(places.values()), list(places), **_turned_if_long(places))
    axes.set(xlabel="class", ylabel="F1 (0 to 1)", ylim=(0, 1), xlim=(-0.5, last + 0.5))
    _tidy(axes, grid="y")
    return _with_legend(figure)


def headline_scores(reports: Mapping[str, Report], *, title: str) -> Figure:
    """Accuracy with 95 % interval and macro-F1 (0 to 1), a row per model label (at least one)."""
    figure, [axes] = _figure(title, height=1.3 + 0.45 * len(reports))
    for row, report in enumerate(reports.values()):
        interval = report.intervals["accuracy"]
        low, high = interval.low, interval.high
        accuracy, macro_f1, beside = report.accuracy, report.macro_f1, axes.get_yaxis_transform()
        arms = [[accuracy - low], [high - accuracy]]
        axes.errorbar(accuracy, row - 0.15, xerr=arms, **STYLES["accuracy"])
        axes.plot(macro_f1, row + 0.15, **STYLES["macro_f1"])
        axes.vlines(report.majority_share, row - 0.5, row + 0.5, **STYLES["majority"])
        text = f"accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}]\nmacro-F1 {macro_f1:.3f}"
        axes.text(1.02, row, text, transform=beside, va="center", fontsize=SMALL)
    axes.set_yticks(range(len(reports)), [fill(label, 40) for label in reports])
    axes.set(xlabel="score (0 to 1)", ylabel="model", ylim=(len(reports) - 0.5, -0.5))
    _tidy(axes, grid="x")
    return _with_legend(figure)


def _figure(title: str, *, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    title, layout = fill(title, 75), ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(WIDTH, height + 0.22 * title.count("\n")), dpi=DPI, layout=layout)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _with_legend(figure: Figure) -> Figure:
    """Explains all labelled artists below the axes, for which the figure grows."""
    drawn = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {fill(label, 80): h for pair in drawn for h, label in zip(*pair, strict=True)}
    widest = max(len(line) for label in handles for line in label.splitlines())
    ncols = min(len(handles), max(1, int(WIDTH / (widest * CHARACTER + 0.6))))
    lines = math.ceil(sum(label.count("\n") + 1 for label in handles) / ncols)
    figure.set_figheight(figure.get_figheight() + 0.21 * lines)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=ncols, frameon=False)
    return figure


def _tidy(axes: Axes, *, grid: Literal["x", "y", "both"]) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)


def _frameless(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _turned_if_long(names: Collection[str]) -> dict[str, Any]:
    """Tick label properties for class names along the x axis."""
    fits = max(map(len, names)) * CHARACTER < PLOT_WIDTH / len(names)
    return {} if fits else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}


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
    _tidy(axes, grid="both")


def _bar_slots(bars: int) -> list[tuple[float, float, dict[str, Any]]]:
    """Offset from the group's centre, thickness and style of each bar; groups are 1 apart."""
    size, edge = 0.82 / bars, {"edgecolor": "#333333", "linewidth": 0.4}
    offsets = (np.arange(bars) - (bars - 1) / 2) * size
    return [(x, size, {"color": HUES[k % len(HUES)], **edge}) for k, x in enumerate(offsets)]


def _f1_by_class(report: Report) -> dict[str, float]:
    triples = zip(report.class_names, report.f1, report.support, strict=True)
    return {name: float(f1) for name, f1, support in triples if support}
