"""A face's square, and what is cut out of it: against values that are known."""

import math

import numpy as np
import pytest
from PIL import Image

from fer_experiments.faces.alignment import EYES, Face, Square, cut, square_of

from .photos import smooth


def test_fer2013s_eyes_are_where_it_was_measured() -> None:
    assert [(48 * x, 48 * y) for x, y in EYES] == [
        pytest.approx((14.8, 18.3)),
        pytest.approx((32.7, 18.3)),
    ]


def test_eyes_decide_place_scale_and_turn() -> None:
    level = Face(box=(0, 0, 48, 50), score=1.0, eyes=((14.8, 18.3), (32.7, 18.3)))
    square = square_of(level)
    assert square.corner == pytest.approx((0, 0), abs=1e-9)
    assert square.edge == pytest.approx((48, 0))
    # Twice as large, turned by 30° around the origin and moved.
    turn, move = np.exp(1j * math.radians(30)), 100 + 7j
    right, left = (2 * turn * complex(48 * x, 48 * y) + move for x, y in EYES)
    eyes = ((right.real, right.imag), (left.real, left.imag))
    square = square_of(Face(box=(90, 0, 96, 100), score=1.0, eyes=eyes))
    assert square.corner == pytest.approx((100, 7))
    assert complex(*square.edge) == pytest.approx(96 * turn)
    assert square.side == pytest.approx(96)


def test_without_eyes_the_box_decides() -> None:
    square = square_of(Face(box=(20, 10, 81, 104), score=1.0))
    assert square.side == pytest.approx(100)
    assert square.corner == pytest.approx((20 + 40.5 - 50, 10 + 52 - 52))


def test_eyes_on_one_spot_are_none() -> None:
    """A profile: turn and scale would be anything."""
    box = (20.0, 10.0, 81.0, 104.0)
    profile = Face(box=box, score=1.0, eyes=((50, 40), (52, 44)))
    assert square_of(profile) == square_of(Face(box=box, score=1.0))


def test_a_square_along_the_pixels_is_what_lies_there() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 70), dtype=np.uint8)
    square = Square(corner=(9, 4), edge=(48, 0))
    np.testing.assert_array_equal(cut(image, square, 48), image[4:52, 9:57])
    floats = image.astype(np.float32) / 255
    np.testing.assert_allclose(cut(floats, square, 48), floats[4:52, 9:57], atol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_squares_are_turned_back(quarters: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    corner, edge = {1: ((0, 48), (0, -48)), 2: ((48, 48), (-48, 0)), 3: ((48, 0), (0, 48))}[
        quarters
    ]
    square = Square(corner=corner, edge=edge)
    np.testing.assert_array_equal(cut(np.rot90(image, quarters), square, 48), image)


@pytest.mark.parametrize("factor", [2, 3, 7, 40])
def test_a_larger_square_is_averaged(factor: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    large = np.kron(image, np.ones((factor, factor), dtype=np.uint8))
    found = cut(np.pad(large, 5), Square(corner=(5, 5), edge=(16 * factor, 0)), 16)
    assert np.abs(found.astype(int) - image).max() <= 1
    # A pattern finer than a pixel becomes grey, and no coarser pattern.
    stripes = np.zeros((16 * factor, 16 * factor), np.uint8)
    stripes[:, ::2] = 200
    grey = cut(stripes, Square(corner=(0, 0), edge=(16 * factor, 0)), 16)
    assert np.abs(grey.astype(int) - 100).max() <= 100 / factor + 2


def test_any_turn_and_scale_comes_back() -> None:
    image = smooth(96)
    turn = np.exp(1j * math.radians(25))
    rotated = np.asarray(Image.fromarray(image).rotate(-25, Image.Resampling.BICUBIC, expand=True))
    middle = complex(rotated.shape[1], rotated.shape[0]) / 2
    edge = 60 * turn  # of the image's 96 pixels the middle 60
    corner = middle - edge * (0.5 + 0.5j)
    square = Square(corner=(corner.real, corner.imag), edge=(edge.real, edge.imag))
    expected = cut(image, Square(corner=(18, 18), edge=(60, 0)), 48)
    assert np.abs(cut(rotated, square, 48).astype(int) - expected).mean() < 1.5


@pytest.mark.parametrize(
    ("corner", "value"), [((-90, -90), 0), ((90, 90), 99), ((-90, 90), 90), ((90, -90), 9)]
)
def test_outside_the_image_its_edge_is_repeated(corner: tuple[int, int], value: int) -> None:
    image = np.arange(100, dtype=np.uint8).reshape(10, 10)
    assert set(cut(image, Square(corner=corner, edge=(20, 3)), 8).ravel()) == {value}
