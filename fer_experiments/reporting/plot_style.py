"""The one style of all figures: sizes, colours, titles and legends."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from textwrap import fill
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH, DPI = 8.2, 110  # inches; the MLflow UI shows a figure about 900 pixels wide
PLOT_WIDTH = 6.2  # inches that labels and colour bars leave at least
SMALL = 9  # points
CHARACTER = 0.085  # inches, a generous mean for the default 10 point font
# Okabe and Ito's palette, distinct under every common colour blindness. Grey stands in for its pale
# yellow, which is lost on white.
HUES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999"]
ROUND: dict[str, Any] = {"nbins": 8, "steps": [1, 2, 5, 10], "integer": True, "min_n_ticks": 1}


def new_figure(title: str, *, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A titled figure, `height` inches below a title of one line, with panels side by side."""
    title, layout = fill(title, 75), ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(WIDTH, height + 0.22 * title.count("\n")), dpi=DPI, layout=layout)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def with_legend(figure: Figure) -> Figure:
    """Explains all labelled artists below the axes, for which the figure grows."""
    drawn = [axes.get_legend_handles_labels() for axes in figure.axes]
    handles = {fill(label, 80): h for pair in drawn for h, label in zip(*pair, strict=True)}
    widest = max(len(line) for label in handles for line in label.splitlines())
    ncols = min(len(handles), max(1, int(WIDTH / (widest * CHARACTER + 0.6))))
    lines = math.ceil(sum(label.count("\n") + 1 for label in handles) / ncols)
    figure.set_figheight(figure.get_figheight() + 0.21 * lines)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=ncols, frameon=False)
    return figure


def tidy(axes: Axes, *, grid: Literal["x", "y", "both"]) -> None:
    """A pale grid behind the data, and no frame where no axis is."""
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color="#DDDDDD")
    axes.spines[["top", "right"]].set_visible(False)


def looks(models: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and dashes of each model's lines, by its label.

    The same models in the same order look the same in every figure. From the ninth on the colours
    repeat, with other dashes.
    """
    return {label: line(k) for k, label in enumerate(models)}


def line(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th line: dashes change where the colours begin again."""
    return {"color": HUES[k % len(HUES)], "linestyle": ("-", "--", ":")[k // len(HUES) % 3]}


def frameless(axes: Axes) -> None:
    """Neither ticks nor frame, for what has edges of its own."""
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def turned_if_long(names: Collection[str]) -> dict[str, Any]:
    """Tick label properties for class names along the x axis."""
    fits = max(map(len, names)) * CHARACTER < PLOT_WIDTH / len(names)
    return {} if fits else {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
