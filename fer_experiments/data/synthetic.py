"""Procedurally drawn faces that stand in for FER-2013.

Faces are drawn from action-unit intensities of the Facial Action Coding System (FACS; Ekman &
Friesen, 1978). The prototypes of the emotions follow EMFACS (Friesen & Ekman, 1983), weakened
by a random intensity and mixed with random activity: weak expressions are hard, no label is wrong.
Face coordinates: origin at the head's centre, x right, y down, unit half the head's height.
"""

from dataclasses import astuple, dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

CLASS_NAMES: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
VERSION: int = 1  # raised whenever the drawing changes: it is part of the data's identity
FloatArray = NDArray[np.float64]
_FER2013_TRAIN_COUNTS = (3995, 436, 4097, 7215, 4965, 4830, 3171)
_PARTS = (("train", "Training"), ("test", "PublicTest"), ("test", "PrivateTest"))
_SUPERSAMPLING = 3
_SIDES = (-1.0, 1.0)
_CURVE = np.linspace(-1.0, 1.0, 13)
_ARCH = np.sqrt(1.0 - _CURVE**2)
_CIRCLE = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)


@dataclass(frozen=True)
class Expression:
    """Action-unit (AU) intensities from 0 to 1; opposed units share one signed field."""

    inner_brow_raise: float = 0.0  # AU1
    outer_brow_raise: float = 0.0  # AU2
    brow_lower: float = 0.0  # AU4
    upper_lid_raise: float = 0.0  # AU5; negative: drooping lid (AU43)
    cheek_raise: float = 0.0  # AU6 and AU7, which both narrow the eye from below
    nose_wrinkle: float = 0.0  # AU9
    upper_lip_raise: float = 0.0  # AU10
    lip_corner_pull: float = 0.0  # AU12; negative: lip corners depressed (AU15)
    lip_stretch: float = 0.0  # AU20; negative: lips puckered or tightened (AU18, AU23)
    jaw_drop: float = 0.0  # AU25 to AU27
    tongue_show: float = 0.0  # AU19
    eyes_turn: float = 0.0  # to the right, AU62; negative: to the left (AU61)


_PROTOTYPES = (  # the variants of one emotion are drawn equally often
    ("angry", Expression(0.0, 0.0, 1.0, 0.2, 0.4, 0.0, 0.0, -0.3, -0.4, 0.0, 0.0)),
    ("angry", Expression(0.0, 0.0, 1.0, 0.3, 0.4, 0.0, 0.3, -0.3, 0.0, 0.5, 0.0)),
    ("disgust", Expression(0.0, 0.0, 0.5, -0.7, 1.0, 1.0, 1.0, -0.5, 0.0, 0.0, 1.0)),
    ("fear", Expression(1.0, 0.3, 0.2, 0.9, 0.0, 0.0, 0.0, -0.3, 0.9, 0.45, 0.0)),
    ("happy", Expression(0.0, 0.0, 0.0, 0.0, 0.6, 0.0, 0.0, 1.0, 0.5, 0.0, 0.0)),
    ("happy", Expression(0.0, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 1.0, 0.6, 0.5, 0.0)),
    ("neutral", Expression()),
    ("sad", Expression(0.8, 0.0, 0.1, -0.5, 0.0, 0.0, 0.0, -0.9, -0.1, 0.0, 0.0)),
    ("surprise", Expression(0.9, 1.0, 0.0, 0.8, 0.0, 0.0, 0.0, 0.0, -0.7, 0.9, 0.0)),
)


class _Person:
    """What does not change with the emotion: face coordinates, and tones from 0 to 255."""

    def __init__(self, rng: Generator) -> None:
        self.head_width = rng.uniform(0.68, 0.84)  # half the head's width
        self.jaw = rng.uniform(0.1, 0.3)  # narrowing of the jaw, as a fraction of the head's width
        self.eye_distance = rng.uniform(0.31, 0.37)  # from the face's midline to an eye's centre
        self.brow_thickness = rng.uniform(0.05, 0.11)
        self.mouth_width = rng.uniform(0.27, 0.34)  # half the relaxed mouth's width
        self.skin = rng.uniform(95.0, 215.0)
        self.hair = self.skin * rng.choice([rng.uniform(0.15, 0.7), 1.15], p=[0.85, 0.15])
        self.hairstyle = rng.choice(["short", "long", "fringe", "bald"], p=[0.4, 0.3, 0.2, 0.1])
        self.parting = rng.normal(0.0, 0.1)  # how much lower the hairline is at the right


class _Canvas:
    """A supersampled grey image that is drawn on in face coordinates."""

    def __init__(self, rng: Generator, image_size: int) -> None:
        side = image_size * _SUPERSAMPLING
        self.image = Image.new("L", (side, side), int(rng.integers(10, 245)))
        self._draw = ImageDraw.Draw(self.image)
        self._scale = side * rng.uniform(0.42, 0.48)
        angle = np.deg2rad(np.clip(rng.normal(0.0, 4.0), -10.0, 10.0))
        cos, sin = self._scale * np.cos(angle), self._scale * np.sin(angle)
        self._matrix = np.array([[cos, sin], [-sin, cos]])
        self._origin = side * (np.array([0.5, 0.52]) + rng.uniform(-0.04, 0.04, 2))

    def polygon(self, x: ArrayLike, y: ArrayLike, tone: float) -> None:
        self._draw.polygon(self._pixels(x, y), fill=round(tone))

    def band(self, x: FloatArray, upper: FloatArray, lower: FloatArray, tone: float) -> None:
        self.polygon(np.append(x, x[::-1]), np.append(upper, lower[::-1]), tone)

    def stroke(self, x: ArrayLike, y: ArrayLike, tone: float, width: float) -> None:
        self._draw.line(self._pixels(x, y), round(tone), round(width * self._scale), "curve")

    def ellipse(self, x: float, y: float, width: float, height: float, tone: float) -> None:
        self.polygon(x + width * np.cos(_CIRCLE), y + height * np.sin(_CIRCLE), tone)

    def _pixels(self, x: ArrayLike, y: ArrayLike) -> list[float]:
        points: FloatArray = np.array((x, y)).T @ self._matrix + self._origin
        return [float(value) for value in points.ravel()]


def draw_faces(
    *, count: int, seed: int, image_size: int = 48
) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Draw labelled faces with the class imbalance of FER-2013's training part.

    The same arguments give the same bytes. Ids look like FER-2013's file paths on Kaggle and
    hold the split, which is stratified by class with every class in every part: 80 %
    ``train/<class>/Training_<8 digits>.png``, 10 % ``test/<class>/PublicTest_...`` and 10 %
    ``test/<class>/PrivateTest_...``.

    Args:
        count: number of images, at least 21.
        seed: non-negative seed of all random choices.
        image_size: height and width of an image in pixels, at least 24.

    Returns:
        Images, uint8 of shape (count, image_size, image_size), from 0 (black) to 255 (white);
        labels, int64 of shape (count,), indices into ``CLASS_NAMES``; and one id per image.

    Raises:
        ValueError: if ``count`` or ``image_size`` is too small, or ``seed`` is negative.
    """
    if image_size < 24:
        raise ValueError(f"Expected image_size to be at least 24. Received: {image_size=}")
    labels, ids = plan_faces(count=count, seed=seed)
    images = np.empty((count, image_size, image_size), dtype=np.uint8)
    for index, label in enumerate(labels):
        rng = np.random.default_rng([seed, index])
        images[index] = _draw_face(rng, CLASS_NAMES[label], image_size)
    return images, labels, ids


def plan_faces(*, count: int, seed: int) -> tuple[NDArray[np.int64], list[str]]:
    """Labels and ids of the faces that `draw_faces` would draw.

    Raises:
        ValueError: if ``count`` is too small, or ``seed`` is negative.
    """
    if count < 21:
        raise ValueError(
            "Expected count to be at least 21, three images for each of seven classes. "
            f"Received: count={count}"
        )
    labels, parts = _plan(count, np.random.default_rng([seed, count]))
    ids = [
        f"{folder}/{CLASS_NAMES[label]}/{prefix}_{index:08d}.png"
        for index, (label, part) in enumerate(zip(labels, parts, strict=True))
        for folder, prefix in [_PARTS[part]]
    ]
    return labels, ids


def _plan(count: int, rng: Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each image's label and its index into ``_PARTS``, in one random order."""
    shares = np.array(_FER2013_TRAIN_COUNTS) / sum(_FER2013_TRAIN_COUNTS)
    class_counts = np.full(len(CLASS_NAMES), 3, dtype=np.int64)
    for _ in range(count - class_counts.sum()):
        class_counts[np.argmax(shares * count - class_counts)] += 1
    held_out = np.maximum(1, np.rint(0.1 * class_counts)).astype(np.int64)
    part_counts = np.stack((class_counts - 2 * held_out, held_out, held_out), axis=1)
    cells = rng.permutation(np.repeat(np.arange(part_counts.size), part_counts.ravel()))
    return cells // len(_PARTS), cells % len(_PARTS)


def _draw_face(rng: Generator, emotion: str, image_size: int) -> NDArray[np.uint8]:
    expression, person = _sample_expression(rng, emotion), _Person(rng)
    canvas = _Canvas(rng, image_size)
    _draw_head(canvas, person)
    _draw_nose(canvas, person, expression)
    for side in _SIDES:
        _draw_eye(canvas, person, expression, side)
        _draw_brow(canvas, person, expression, side)
    _draw_mouth(canvas, person, expression)
    _draw_hair(canvas, person)
    _draw_occlusion(canvas, person, rng)
    return _photograph(canvas.image, rng, image_size)


def _sample_expression(rng: Generator, emotion: str) -> Expression:
    variants = [expression for name, expression in _PROTOTYPES if name == emotion]
    prototype = np.array(astuple(variants[rng.integers(len(variants))]))
    # FER-2013 has so little disgust that weak disgust could not be learnt at all.
    intensity = rng.uniform(0.85 if emotion == "disgust" else 0.4, 1.1)
    # Action units vary independently in real faces, also at rest.
    prototype *= intensity * rng.uniform(0.75, 1.25, prototype.size)
    return Expression(*(prototype + rng.normal(0.0, 0.1, prototype.size)))


def _head_outline(person: _Person, angles: FloatArray) -> tuple[FloatArray, FloatArray]:
    x, y = np.cos(angles), np.sin(angles)
    width = person.head_width * (1.0 - person.jaw * np.clip(y, 0.0, 1.0) ** 2)
    return width * np.sign(x) * np.abs(x) ** 0.85, y


def _draw_head(canvas: _Canvas, person: _Person) -> None:
    if person.hairstyle == "long":
        canvas.ellipse(0.0, 0.1, person.head_width * 1.22, 1.25, person.hair)
    neck = 0.5 * person.head_width * np.array([-1.0, 1.0, 1.3, -1.3])
    canvas.polygon(neck, [0.6, 0.6, 1.6, 1.6], 0.72 * person.skin)
    for side in _SIDES:
        canvas.ellipse(side * person.head_width, 0.0, 0.1, 0.2, 0.85 * person.skin)
    x, y = _head_outline(person, _CIRCLE)
    canvas.polygon(x, y, 0.88 * person.skin)
    canvas.polygon(0.9 * x, 0.93 * y - 0.03, person.skin)


def _draw_hair(canvas: _Canvas, person: _Person) -> None:
    if person.hairstyle == "bald":
        return
    x, y = _head_outline(person, np.linspace(1.05 * np.pi, 1.95 * np.pi, 24))
    height = {"short": 0.3, "long": 0.38, "fringe": 0.5}[person.hairstyle]
    across = x / person.head_width
    hairline = -1.0 + height + 0.35 * np.abs(across) ** 3 + person.parting * across
    canvas.polygon(np.append(1.06 * x, x[::-1]), np.append(1.06 * y, hairline[::-1]), person.hair)


def _draw_brow(canvas: _Canvas, person: _Person, expression: Expression, side: float) -> None:
    t = np.linspace(0.0, 1.0, 7)  # from the inner end to the outer end
    lower = expression.brow_lower + 0.25 * expression.nose_wrinkle
    inner = 0.17 * expression.inner_brow_raise - 0.19 * lower
    outer = 0.15 * expression.outer_brow_raise - 0.02 * expression.brow_lower
    arch = 0.05 + 0.04 * (expression.outer_brow_raise - expression.brow_lower)
    x = person.eye_distance + 0.23 * (2.0 * t - 1.0) - 0.04 * expression.brow_lower * (1.0 - t)
    y = -0.37 - inner * (1.0 - t) - outer * t - arch * np.sin(np.pi * t)
    half = 0.5 * person.brow_thickness * (1.0 - 0.6 * t)
    canvas.band(side * x, y - half, y + half, min(person.hair, 0.6 * person.skin))
    if expression.brow_lower > 0.3:  # the frown line beside the nose's root
        canvas.stroke([0.05 * side, 0.04 * side], [-0.42, -0.25], 0.7 * person.skin, 0.025)


def _draw_eye(canvas: _Canvas, person: _Person, expression: Expression, side: float) -> None:
    center, lid = side * person.eye_distance, expression.upper_lid_raise
    # A drooping lid falls towards the eye's outer corner.
    corner = -0.1 + 0.05 * max(0.0, -lid) * _CURVE * side
    x = center + 0.18 * _CURVE
    upper = corner - _ARCH * max(0.02, 0.09 + 0.075 * lid - 0.03 * expression.cheek_raise)
    lower = corner + _ARCH * max(0.01, 0.065 + 0.02 * lid - 0.05 * expression.cheek_raise)
    canvas.ellipse(center, -0.1, 0.22, 0.17, 0.9 * person.skin)  # the eye's socket
    canvas.band(x, upper, lower, 0.5 * person.skin + 120.0)
    for radius, tone in ((0.085, 60.0), (0.045, 10.0)):
        iris_x = center + 0.4 * expression.eyes_turn + radius * np.cos(_CIRCLE)
        iris_y = -0.11 + radius * np.sin(_CIRCLE)
        visible = np.clip(iris_y, np.interp(iris_x, x, upper), np.interp(iris_x, x, lower))
        canvas.polygon(iris_x, visible, tone)
    canvas.stroke(x, upper, 0.3 * person.skin, 0.04)
    canvas.stroke(x, lower, 0.65 * person.skin, 0.02)


def _draw_nose(canvas: _Canvas, person: _Person, expression: Expression) -> None:
    wrinkle = min(max(0.0, expression.nose_wrinkle), 1.0)
    fold = min(max(wrinkle, expression.lip_corner_pull), 1.0)
    tip, width, crease = 0.35 - 0.06 * wrinkle, 0.13 + 0.03 * wrinkle, 1.0 - 0.5 * wrinkle
    canvas.polygon([0.0, 0.06, width, 0.0], [-0.1, tip - 0.1, tip, tip], 0.9 * person.skin)
    canvas.stroke(width * _CURVE, tip - 0.05 * _CURVE**2, 0.7 * person.skin, 0.03)
    for side in _SIDES:
        canvas.ellipse(side * 0.6 * width, tip - 0.01, 0.035, 0.025, 0.4 * person.skin)
        for y in (-0.12, -0.03, 0.06):
            canvas.stroke([0.02 * side, 0.14 * side], [y, y - 0.06], crease * person.skin, 0.035)
        x, y_fold = side * np.array([0.17, 0.3, 0.4]), tip + np.array([-0.06, 0.06, 0.24])
        canvas.stroke(x, y_fold, person.skin * (1.0 - 0.3 * fold), 0.03)


def _draw_mouth(canvas: _Canvas, person: _Person, expression: Expression) -> None:
    jaw, lift = max(0.0, expression.jaw_drop), max(0.0, expression.upper_lip_raise)
    width = person.mouth_width * (1.0 + 0.35 * expression.lip_stretch)
    x = width * _CURVE
    line = 0.58 + 0.05 * jaw + 0.2 * expression.lip_corner_pull * (0.4 - _CURVE**2)
    upper, lower = line - (0.1 * jaw + 0.13 * lift) * _ARCH, line + 0.27 * jaw * _ARCH
    lips = 0.06 * _ARCH * (1.0 + 0.3 * min(0.0, expression.lip_stretch))
    canvas.band(1.05 * x, upper - lips, lower + 1.3 * lips, 0.68 * person.skin)
    canvas.band(x, upper, lower, 25.0)
    if np.max(lower - upper) > 0.07:
        canvas.band(x, upper, np.minimum(lower, upper + 0.1 + 0.06 * lift), 225.0)
    for lip in (upper, lower):
        canvas.stroke(x, lip, 0.35 * person.skin, 0.03)
    if (tongue := expression.tongue_show) > 0.3:
        y = float(np.max(lower)) + 0.12 * tongue
        canvas.ellipse(0.0, y, 0.65 * width, 0.19 * tongue, 0.4 * person.skin)
        canvas.ellipse(0.0, y, 0.55 * width, 0.16 * tongue, 0.9 * person.skin)


def _draw_occlusion(canvas: _Canvas, person: _Person, rng: Generator) -> None:
    """Put glasses, a hand's fingers or a bar in front of some faces."""
    if rng.random() < 0.15:
        canvas.stroke([-0.1, 0.1], [-0.1, -0.1], 25.0, 0.035)
        for center in (-person.eye_distance, person.eye_distance):
            x, y = 1.06 * center + 0.26 * np.cos(_CIRCLE), -0.08 + 0.22 * np.sin(_CIRCLE)
            canvas.stroke(np.append(x, x[0]), np.append(y, y[0]), 25.0, 0.035)
    kind, start, height = rng.random(), rng.uniform(-0.6, 0.6), rng.uniform(-0.7, 0.9)
    if kind < 0.06:
        for left in start + 0.17 * np.arange(4):
            for tone, width in ((0.6, 0.18), (0.92, 0.14)):
                canvas.stroke([left, left + 0.1], [height, 1.8], tone * person.skin, width)
    elif kind < 0.14:
        ends = height + rng.uniform(-0.5, 0.5, 2)
        canvas.stroke([-1.3, 1.3], ends, rng.uniform(0.0, 255.0), rng.uniform(0.1, 0.2))


def _photograph(image: Image.Image, rng: Generator, image_size: int) -> NDArray[np.uint8]:
    """Downsample, then add blur, a light gradient, contrast, and sensor noise."""
    blur = min(rng.gamma(2.0, 0.17), 1.0) * image_size / 48.0
    small = image.reduce(_SUPERSAMPLING).filter(ImageFilter.GaussianBlur(blur))
    axis = np.linspace(-1.0, 1.0, image_size)
    light = 1.0 + rng.normal(0.0, 0.2) * axis + rng.normal(0.0, 0.2) * axis[:, None]
    pixels: FloatArray = np.asarray(small, dtype=np.float64) * light
    pixels = 128.0 + rng.uniform(0.7, 1.2) * (pixels - 128.0) + rng.normal(0.0, 12.0)
    pixels += rng.uniform(2.0, 10.0) * rng.standard_normal(pixels.shape)
    return np.clip(np.rint(pixels), 0.0, 255.0).astype(np.uint8)
