"""Crops that are pasted into pictures: where they lie, and that they come back as they were."""

from __future__ import annotations

import numpy as np
import pytest

from fer_experiments.faces.alignment import Face, cut
from fer_experiments.faces.detection import open_detector
from fer_experiments.faces.pasted import found_again, paste

from .photos import grace_hopper, smooth


@pytest.mark.parametrize("seed", range(8))
def test_a_pasted_crop_can_be_cut_out_again(seed: int) -> None:
    crop = smooth(48, seed=seed)
    pasted = paste(crop, np.random.default_rng(seed))
    side = pasted.square.side
    assert 48 <= side <= 4 * 48
    assert pasted.picture.shape == (round(2 * side),) * 2
    angle = np.degrees(np.arctan2(pasted.square.edge[1], pasted.square.edge[0]))
    assert abs(angle) <= 15
    again = cut(pasted.picture, pasted.square, 48).astype(int)
    assert np.abs(again - crop)[2:-2, 2:-2].mean() < 2
    np.testing.assert_array_equal(paste(crop, np.random.default_rng(seed)).picture, pasted.picture)


def test_only_a_face_in_the_middle_of_the_crop_is_the_pasted_one() -> None:
    pasted = paste(smooth(48), np.random.default_rng(0))
    (x, y), (across, along) = pasted.square.corner, pasted.square.edge

    def face(right: float, down: float) -> Face:
        """With its centre at these shares of the square."""
        middle = (x + right * across - down * along, y + right * along + down * across)
        return Face(box=(middle[0] - 20, middle[1] - 25, 40, 50), score=1.0)

    for place in ((0.5, 0.5), (0.3, 0.7), (0.7, 0.3)):
        assert pasted.holds(face(*place))
    for place in ((0.2, 0.5), (0.5, 0.8), (-0.5, 0.5), (1.5, 1.5)):
        assert not pasted.holds(face(*place))


def test_faces_are_found_again_and_nothing_else() -> None:
    left, top, side = 165, 113, 210  # as YuNet's eyes say
    face = np.asarray(grace_hopper().convert("L").crop((left, top, left + side, top + side)))
    crops = np.stack([np.asarray(cut_of(face)), np.full((48, 48), 100, np.uint8)] * 9)
    found = list(found_again(crops, open_detector("mtcnn"), seed=0))
    assert len(found) == 18  # of more than one batch
    assert all(crop is None for crop in found[1::2])
    seen = [crop for crop in found[::2] if crop is not None]
    assert len(seen) >= 7
    for crop in seen:
        assert np.corrcoef(crop.ravel(), crops[0].ravel())[0, 1] > 0.6


def cut_of(face: np.ndarray) -> np.ndarray:
    from fer_experiments.data.images import to_pixels

    return to_pixels(face, size=48)
