"""What is done to batches: soft labels, mixed images, balanced classes."""

import numpy as np
import pytest

from fer_experiments.data.synthetic import draw_faces
from fer_experiments.training.batches import Batches, Mixture

IMAGES, LABELS, _ = draw_faces(count=140, seed=0)


def batches(mixture: Mixture, *, labels: np.ndarray = LABELS, epoch: int = 1) -> Batches:
    return Batches(
        [[IMAGES[: len(labels), :, :, None]]],
        labels,
        classes=7,
        batch_size=32,
        seed=5,
        first_epoch=epoch,
        mixture=mixture,
    )


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    _, targets, *_ = batches(Mixture(label_smoothing=0.1))[0]
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets.max(axis=1), 0.9 + 0.1 / 7, rtol=1e-6)
    np.testing.assert_allclose(targets.min(axis=1), 0.1 / 7, rtol=1e-6)


@pytest.mark.parametrize("mixture", [Mixture(mixup=0.4), Mixture(cutmix=1.0)])
def test_labels_are_mixed_as_the_pixels_are(mixture: Mixture) -> None:
    plain, labels, *_ = batches(Mixture())[1]
    mixed, targets, *_ = batches(mixture)[1]
    assert isinstance(mixed, np.ndarray)
    assert isinstance(plain, np.ndarray)
    assert mixed.dtype == targets.dtype == np.float32
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
    if mixture.mixup:
        assert mixed.min() >= plain.min() - 1e-3
        assert mixed.max() <= plain.max() + 1e-3
    else:
        kept = (mixed == plain).reshape(len(plain), -1).mean(axis=1)
        two = (targets > 0).sum(axis=1) == 2  # its partner is of another class
        own = (targets * labels).sum(axis=1)[two]
        assert len(own) > 0
        assert (kept[two] >= own - 1e-5).all()  # equal pixels of the partner look kept, too


def test_mixing_follows_from_seed_and_epoch_and_ends_where_asked() -> None:
    mixture = Mixture(mixup=0.4, cutmix=1.0, until_epoch=2)
    first, again = batches(mixture), batches(mixture)
    for i in range(len(first)):
        for a, b in zip(first[i], again[i], strict=True):
            np.testing.assert_array_equal(a, b)
    late = batches(mixture, epoch=3)
    plain = batches(Mixture(), epoch=3)
    for i in range(len(late)):
        for a, b in zip(late[i], plain[i], strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_rectangle_at_every_scale() -> None:
    fine = np.arange(20, dtype=np.float32).reshape(20, 1, 1, 1) * np.ones((1, 12, 12, 2))
    coarse = fine[:, ::4, ::4]
    data = Batches(
        [[fine, coarse]],
        np.arange(20) % 7,
        classes=7,
        batch_size=20,
        seed=1,
        mixture=Mixture(cutmix=1.0),
    )
    (a, b), _, *_ = data[0]
    owners_fine = {float(v) for v in np.unique(a[0])}
    owners_coarse = {float(v) for v in np.unique(b[0])}
    assert len(owners_fine) <= 2
    assert owners_coarse <= owners_fine


def test_rare_classes_weigh_more() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    data = batches(Mixture(balance="weights"), labels=labels)
    weights = {}
    total = 0.0
    for i in range(len(data)):
        _, targets, weight = data[i]
        for row, value in zip(targets, weight, strict=True):
            weights[int(row.argmax())] = float(value)
            total += float(value)
    assert weights[0] == pytest.approx(100 / (2 * 90))
    assert weights[1] == pytest.approx(100 / (2 * 10))
    assert total == pytest.approx(100)


def test_rare_classes_come_as_often() -> None:
    labels = np.array([0] * 130 + [1] * 10)
    data = batches(Mixture(balance="sampling"), labels=labels)
    seen = np.concatenate([data[i][1].argmax(axis=1) for i in range(len(data))])
    assert len(seen) == 140
    assert 0.35 < (seen == 1).mean() < 0.65
