"""Parity of two forms of a model: exact values, and the limits that decide."""

import numpy as np
import pytest

from fer_experiments.evaluation.parity import Parity, accuracy_shortfalls, parity


def test_what_is_measured() -> None:
    first = np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    second = np.array([[0.5, 0.5], [0.625, 0.375], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    found = parity(first, second)
    assert found == Parity(images=4, largest_difference=0.375, same_class=0.75)
    assert found.shortfalls == [
        "a probability differs by 0.38, more than 0.0001",
        "75.00% of the images are named alike, less than 99.9%",
    ]
    assert parity(first, first).shortfalls == []


@pytest.mark.parametrize(
    ("difference", "same", "wrong"),
    [(1e-4, 0.999, 0), (1.1e-4, 1.0, 1), (0.0, 0.9989, 1), (float("nan"), 0.5, 2)],
)
def test_the_limits(difference: float, same: float, wrong: int) -> None:
    found = Parity(images=10_000, largest_difference=difference, same_class=same)
    assert len(found.shortfalls) == wrong


def test_accuracy_may_move_by_half_a_point_either_way() -> None:
    assert accuracy_shortfalls(0.605, 0.6) == []
    assert accuracy_shortfalls(0.595, 0.6) == []
    assert accuracy_shortfalls(0.606, 0.6) == [
        "accuracy is 60.60% where the model's own is 60.00%, more than 0.5 points apart"
    ]
