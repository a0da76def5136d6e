"""Images that tell what a model does, as matplotlib Figures: mistakes, doubts, heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.special import entr

from fer_experiments.reporting.plot_style import CHARACTER, DPI, SMALL, WIDTH

MARGIN, GAP, LINE = 0.15, 0.14, 0.17  # inches: around all, between pictures, a line of text
GROUP_COLUMNS = 6
READ_AS = "Captions: true class → predicted class and its probability."


class Block(NamedTuple):
    """Pictures below one heading."""

    heading: str
    pictures: Sequence[np.ndarray]  # uint8, all (H, W) or all (H, W, 3)
    captions: Sequence[str]  # one for each picture


def mistakes(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
    count: int = 12,
) -> Figure:
    """The `count` mistakes of which the model was surest, the surest first.

    `images` are uint8 (N, H, W), may be memory-mapped; `labels` int (N,); `probabilities` (N, C)
    in the order of `class_names`. Without mistakes the figure says so.
    """
    sure, wrong = probabilities.max(axis=1), probabilities.argmax(axis=1) != labels
    chosen = _largest(sure, wrong, count)
    if len(chosen):
        heading = (
            f"{wrong.sum():,} of {len(labels):,} answers are wrong; below, those of which the "
            f"model was surest. {READ_AS}"
        )
    else:
        heading = f"None of {len(labels):,} answers is wrong."
    captions = [_caption(labels[i], probabilities[i], class_names) for i in chosen]
    return _gallery([Block(heading, [images[i] for i in chosen], captions)], title=title)


def uncertain(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
    count: int = 12,
) -> Figure:
    """The `count` images of which the model was least sure: largest entropy first.

    Takes what `mistakes` takes.
    """
    chosen = _largest(entr(probabilities).sum(axis=1), np.full(len(labels), True), count)
    right = int((probabilities[chosen].argmax(axis=1) == labels[chosen]).sum())
    heading = (
        f"{len(chosen)} of {len(labels):,} images, those with the largest entropy; {right} of the "
        f"answers are right. {READ_AS}"
    )
    captions = [_caption(labels[i], probabilities[i], class_names) for i in chosen]
    return _gallery([Block(heading, [images[i] for i in chosen], captions)], title=title)


def disagreement(
    images: np.ndarray,
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    class_names: Sequence[str],
    *,
    names: tuple[str, str],
    title: str,
    count: int = 6,
) -> Figure:
    """Images that one model names rightly and the other wrongly, up to `count` of each kind.

    Those come first of which both models are surest. `first` and `second` are the probabilities
    (N, C) of the two models in `names`; the rest is as `mistakes` takes it.
    """
    blocks = []
    for good, bad, right, wrong in ((first, second, *names), (second, first, *names[::-1])):
        only = (good.argmax(axis=1) == labels) & (bad.argmax(axis=1) != labels)
        chosen = _largest(good.max(axis=1) + bad.max(axis=1), only, count)
        heading = f"Only {right} is right: {only.sum():,} of {len(labels):,} images."
        if len(chosen):
            heading += f" Captions: its answer, then that of {wrong}."
        captions = [
            f"{_answer(good[i], class_names)}\n→ {_answer(bad[i], class_names)}" for i in chosen
        ]
        blocks.append(Block(heading, [images[i] for i in chosen], captions))
    return _gallery(blocks, title=title)


def heat_maps(
    images: np.ndarray,
    maps: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
) -> Figure:
    """Every image beside itself under its heat map, right answers above, mistakes below.

    `images` are uint8 (N, H, W), `maps` (N, H, W) from 0 to 1 as `explanations.hires_cam` gives
    them for the predicted classes; `labels` int (N,), `probabilities` (N, C). Choose few images,
    such as `explanations.examples`.
    """
    right = probabilities.argmax(axis=1) == labels
    blocks = []
    for kind, of_kind in (("Right answers", right), ("Mistakes", ~right)):
        chosen = np.flatnonzero(of_kind)
        chosen = chosen[np.argsort(labels[chosen], kind="stable")]
        heading = f"{kind}. Red is what spoke for the answer. {READ_AS}"
        if not len(chosen):
            heading = f"{kind}: none."
        pairs = [_beside(images[i], maps[i]) for i in chosen]
        captions = [_caption(labels[i], probabilities[i], class_names) for i in chosen]
        blocks.append(Block(heading, pairs, captions))
    return _gallery(blocks, title=title, columns=4)


def image_groups(groups: Sequence[Block], *, title: str) -> Figure:
    """The first images of each group, such as copies of one; says how many more there are.

    Raises ValueError if there is no group.
    """
    if not groups:
        raise ValueError("Expected a group of images. Received: none")
    blocks = []
    for heading, pictures, captions in groups:
        more = len(pictures) - GROUP_COLUMNS
        said = f"{heading} ({more} more)" if more > 0 else heading
        blocks.append(Block(said, pictures[:GROUP_COLUMNS], captions[:GROUP_COLUMNS]))
    return _gallery(blocks, title=title, columns=GROUP_COLUMNS)


def _largest(values: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest values where `among` is true, largest first."""
    places = np.flatnonzero(among)
    return places[np.argsort(-values[places], kind="stable")[:count]]


def _answer(probabilities: np.ndarray, class_names: Sequence[str]) -> str:
    k = int(probabilities.argmax())
    return f"{class_names[k]} {100 * probabilities[k]:.0f}\N{NO-BREAK SPACE}%"


def _caption(label: int, probabilities: np.ndarray, class_names: Sequence[str]) -> str:
    return f"{class_names[label]}\n→ {_answer(probabilities, class_names)}"


def _beside(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """(H, 2 W + 1, 3) uint8: the image, a white line, and the image under its heat map."""
    grey = np.repeat(image[..., np.newaxis], 3, axis=-1) / 255  # (H, W, 3)
    share = 0.65 * heat[..., np.newaxis]  # cold places stay as they are
    warm = (1 - share) * grey + share * colormaps["YlOrRd"](heat)[..., :3]
    line = np.ones((len(image), 1, 3))
    return (255 * np.concatenate([grey, line, warm], axis=1)).astype(np.uint8)


def _gallery(blocks: Sequence[Block], *, title: str, columns: int = 6) -> Figure:
    """Blocks below each other, each with its heading above rows of captioned pictures.

    Laid out by hand, in inches on one Axes: an Axes per picture would take seconds.
    """
    figure = Figure(dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    lines = [line for block in blocks for text in block.captions for line in text.split("\n")]
    longest = CHARACTER * max(map(len, lines), default=0)  # inches
    # Long names take up to two lines, of pictures as large as that needs.
    columns = next((n for n in range(columns, 2, -1) if longest < 2 * WIDTH / n - 0.5), 2)
    width = (WIDTH - 2 * MARGIN - GAP * (columns - 1)) / columns
    y = MARGIN
    title = fill(title, 75)
    top, y = y, y + 0.22 * (title.count("\n") + 1) + 0.1
    for heading, pictures, captions in blocks:
        heading = fill(heading, int((WIDTH - 2 * MARGIN) / CHARACTER))
        axes.text(MARGIN, y, heading, va="top", fontsize=10, parse_math=False)
        y += LINE * (heading.count("\n") + 1) + 0.1
        wrapped = [_wrapped(caption, int(width / CHARACTER * 10 / SMALL)) for caption in captions]
        for start in range(0, len(pictures), columns):
            row = slice(start, start + columns)
            height = width * pictures[0].shape[0] / pictures[0].shape[1]
            for column, (picture, text) in enumerate(zip(pictures[row], wrapped[row], strict=True)):
                x = MARGIN + column * (width + GAP)
                box = (x, x + width, y + height, y)
                axes.imshow(picture, extent=box, cmap="gray", vmin=0, vmax=255)
                below = (x + width / 2, y + height + 0.04)
                axes.text(*below, text, ha="center", va="top", fontsize=SMALL, parse_math=False)
            y += height + LINE * max(text.count("\n") + 1 for text in wrapped[row]) + GAP
        y += 0.06
    axes.set(xlim=(0, WIDTH), ylim=(y, 0), aspect="auto")
    axes.set_axis_off()
    figure.set_size_inches(WIDTH, y)
    figure.suptitle(title, y=1 - top / y, va="top", fontsize=12, fontweight="bold")
    return figure


def _wrapped(caption: str, characters: int) -> str:
    return "\n".join(fill(line, characters) for line in caption.split("\n"))
