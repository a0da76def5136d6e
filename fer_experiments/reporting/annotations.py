"""Photos with what was found drawn in: boxes, the likeliest emotions, where the model looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_experiments.faces.alignment import Face, square_of

# A colour for each face in turn: Okabe and Ito's, which people who see no red or green tell apart.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
# Sizes, as shares of the photo's shorter side.
_TEXT, _LINE = 0.028, 0.005
_LEAST_TEXT, _LEAST_SIDE = 11, 256  # pixels; a smaller picture is enlarged, or text would cover it
_MOST_SIDE = 4096  # pixels of the long side of a picture that is enlarged


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is drawn for a face."""

    face: Face | None  # None: the picture as a whole was judged
    likeliest: Sequence[tuple[str, float]]  # class and probability, the likeliest first
    heat: np.ndarray | None = None  # (S, S) from 0 to 1, of the face's square


def annotated(rgb: np.ndarray, marks: Sequence[Mark]) -> Image.Image:
    """The picture with the marks drawn in; a small one is enlarged to 256 pixels or so.

    Args:
        rgb: (H, W, 3) uint8.
        marks: in the order of the faces.
    """
    image = Image.fromarray(rgb)
    factor = max(1.0, min(_LEAST_SIDE / min(image.size), _MOST_SIDE / max(image.size)))
    if factor > 1:
        size = (round(image.width * factor), round(image.height * factor))
        image = image.resize(size, Image.Resampling.BICUBIC)
    for mark in marks:
        if mark.heat is not None:
            image = _heated(image, mark.face, mark.heat, factor)
    draw = ImageDraw.Draw(image)
    short = min(image.size)
    font = ImageFont.load_default(max(_LEAST_TEXT, round(_TEXT * short)))
    line = max(1, round(_LINE * short))
    taken: list[tuple[float, float, float, float]] = []
    for number, mark in enumerate(marks):
        colour = _COLOURS[number % len(_COLOURS)]
        left, top, right, bottom = _edges(mark.face, image, factor)
        if mark.face is not None:
            draw.rectangle((left, top, right, bottom), outline=colour, width=line)
        text = "\n".join(f"{name} {share:.0%}" for name, share in mark.likeliest[:2])
        box = _place(draw, text, font, (left, top, right, bottom), image, taken)
        taken.append(box)
        draw.rectangle(box, fill=colour)
        draw.multiline_text((box[0] + 3, box[1] + 1), text, font=font, fill="black", spacing=2)
    return image


def _edges(
    face: Face | None, image: Image.Image, factor: float
) -> tuple[float, float, float, float]:
    if face is None:
        return 0.0, 0.0, float(image.width), float(image.height)
    left, top, width, height = (factor * value for value in face.box)
    return left, top, left + width, top + height


def _place(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    edges: tuple[float, float, float, float],
    image: Image.Image,
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Where a label stands: below its box, above it, beside it; inside the picture, and where it
    covers no other label, if there is such a place."""
    _, _, *size = draw.multiline_textbbox((0, 0), text, font=font, spacing=2)
    width, height = size[0] + 6, size[1] + 4
    left, top, right, bottom = edges
    places = [(left, bottom), (left, top - height), (right, top), (left - width, top), (left, top)]
    boxes = []
    for x, y in places:
        x = min(max(x, 0), max(0, image.width - width))
        y = min(max(y, 0), max(0, image.height - height))
        boxes.append((x, y, x + width, y + height))
    return next((box for box in boxes if not any(_overlap(box, t) for t in taken)), boxes[0])


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _heated(
    image: Image.Image, face: Face | None, heat_map: np.ndarray, factor: float
) -> Image.Image:
    """The heat, red where it is 1, over the square that the model saw."""
    side = len(heat_map)
    heat = Image.fromarray(np.rint(160 * heat_map).astype(np.uint8))  # 160: the face still shows
    if face is None:
        # As `to_pixels` cuts: the central square.
        short = float(min(image.size))
        corner = ((image.width - short) / 2, (image.height - short) / 2)
        edge = (short, 0.0)
    else:
        square = square_of(face)
        corner = (factor * square.corner[0], factor * square.corner[1])
        edge = (factor * square.edge[0], factor * square.edge[1])
    (x, y), (across, along) = corner, edge
    # From the picture to the heat map: the square's own turn and scale undone.
    length = across**2 + along**2
    a, b = side * across / length, side * along / length
    matrix = (a, b, -(a * x + b * y), -b, a, b * x - a * y)
    mask = heat.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=0
    )
    return Image.composite(Image.new("RGB", image.size, "#D00000"), image, mask)
