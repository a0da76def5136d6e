"""What is done to batches: soft labels, mixed images, balanced classes."""

from typing import Any

import numpy as np
import pytest

from fer_experiments.data.synthetic import draw_faces
from fer_experiments.training.batches import BatchAugmentation, Batches

IMAGES, LABELS, _ = draw_faces(count=140, seed=0)


def batches(
    augmentation: BatchAugmentation, *, labels: np.ndarray = LABELS, epoch: int = 1
) -> Batches:
    return Batches(
        [[IMAGES[: len(labels), :, :, None]]],
        labels,
        classes=7,
        batch_size=32,
        seed=5,
        first_epoch=epoch,
        augmentation=augmentation,
    )


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    _, targets, *_ = batches(BatchAugmentation(label_smoothing=0.1))[0]
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets.max(axis=1), 0.9 + 0.1 / 7, rtol=1e-6)
    np.testing.assert_allclose(targets.min(axis=1), 0.1 / 7, rtol=1e-6)


# Each class has a grey level of its own, so that a mixed pixel tells what it is made of.
LEVELS = np.array([3, 10, 30, 60, 100, 150, 210], dtype=np.uint8)


def one_batch(
    augmentation: BatchAugmentation, *, seed: int, side: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (B, H, W) and targets (B, C) of plain images in the grey of their class."""
    labels = np.arange(28) % 7
    pixels = np.broadcast_to(LEVELS[labels][:, None, None, None], (28, side, side, 1))
    [(given, targets, *_)] = Batches(
        [[pixels]], labels, classes=7, batch_size=28, seed=seed, augmentation=augmentation
    )
    assert isinstance(given, np.ndarray)
    assert given.dtype == targets.dtype == np.float32
    return given[..., 0], targets


@pytest.mark.parametrize(
    "augmentation", [BatchAugmentation(mixup=1.0), BatchAugmentation(cutmix=1.0)], ids=repr
)
def test_labels_are_mixed_as_the_pixels_are(augmentation: BatchAugmentation) -> None:
    """Image by image: the mean grey is that of the classes, each by its share of the label."""
    kept = []
    for seed in range(8):
        pixels, targets = one_batch(augmentation, seed=seed)
        np.testing.assert_allclose(pixels.mean(axis=(1, 2)), targets @ LEVELS, rtol=1e-4)
        np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
        (own,) = np.unique(np.round(targets[(targets > 0).sum(axis=1) == 2], 5).max(axis=1))
        kept.append(own)
    assert len(set(kept)) > 4  # the share is drawn anew for every batch


def test_mixup_blends_all_of_an_image_and_cutmix_a_rectangle() -> None:
    blended, targets = one_batch(BatchAugmentation(mixup=1.0), seed=0)
    mixed = (targets > 0).sum(axis=1) == 2
    assert mixed.sum() > 14
    assert (blended == blended[:, :1, :1]).all()
    assert not np.isin(blended[mixed], LEVELS).any()
    pasted, targets = one_batch(BatchAugmentation(cutmix=1.0), seed=0)
    mixed = (targets > 0).sum(axis=1) == 2
    assert mixed.sum() > 14
    assert np.isin(pasted, LEVELS).all()
    assert [len(np.unique(image)) for image in pasted[mixed]] == [2] * mixed.sum()


def test_with_both_each_batch_takes_one_of_them() -> None:
    both = [one_batch(BatchAugmentation(mixup=1.0, cutmix=1.0), seed=seed)[0] for seed in range(40)]
    pasted = [bool(np.isin(pixels, LEVELS).all()) for pixels in both]
    assert 10 < sum(pasted) < 30


def smaller_shares(augmentation: BatchAugmentation) -> np.ndarray:
    """Of 60 batches, how much each image gets of the other one, or keeps if that is less."""
    soft = [one_batch(augmentation, seed=seed, side=48)[1] for seed in range(60)]
    return np.array([1 - targets.max(axis=1).min() for targets in soft])


def test_alpha_is_that_of_the_beta_distribution() -> None:
    """A large one mixes by halves, a small one hardly at all."""

    def mixing(way: str, alpha: float) -> BatchAugmentation:
        given: dict[str, Any] = {way: alpha}
        return BatchAugmentation(**given)

    for way in ("mixup", "cutmix"):
        assert np.mean(smaller_shares(mixing(way, 0.1)) < 0.1) > 0.4
        assert np.mean(smaller_shares(mixing(way, 8.0)) > 0.15) > 0.8
    # Half the mean absolute difference of two: 1/2 - 1/pi for alpha 1/2.
    assert smaller_shares(BatchAugmentation(mixup=0.5)).mean() == pytest.approx(
        0.5 - 1 / np.pi, abs=0.05
    )


def test_mixing_follows_from_seed_and_epoch_and_ends_where_asked() -> None:
    augmentation = BatchAugmentation(mixup=0.4, cutmix=1.0, until_epoch=2)
    first, again = batches(augmentation), batches(augmentation)
    for i in range(len(first)):
        for a, b in zip(first[i], again[i], strict=True):
            np.testing.assert_array_equal(a, b)
    late = batches(augmentation, epoch=3)
    plain = batches(BatchAugmentation(), epoch=3)
    for i in range(len(late)):
        for a, b in zip(late[i], plain[i], strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_rectangle_at_every_scale() -> None:
    """Where the fine image shows its partner, the coarse one does, and no image stays whole."""
    fine = np.arange(20, dtype=np.float32).reshape(20, 1, 1, 1) * np.ones((1, 48, 48, 2))
    coarse = fine[:, ::4, ::4]
    shown = []
    for seed in range(10):
        data = Batches(
            [[fine, coarse]],
            np.arange(20) % 7,
            classes=7,
            batch_size=20,
            seed=seed,
            augmentation=BatchAugmentation(cutmix=1.0),
        )
        [((a, b), *_)] = data
        plain = Batches([[fine]], np.arange(20) % 7, classes=7, batch_size=20, seed=seed)
        own = plain[0][0][:, 0, 0, 0]  # type: ignore[call-overload]
        foreign_fine, foreign_coarse = (x[..., 0] != own[:, None, None] for x in (a, b))
        partnered = foreign_fine.any(axis=(1, 2))
        for image, small in zip(foreign_fine[partnered], foreign_coarse[partnered], strict=True):
            np.testing.assert_array_equal(image, image.any(1)[:, None] & image.any(0))  # rectangle
            edges = [np.flatnonzero(m.any(axis=i)) for m in (image, small) for i in (1, 0)]
            if all(map(len, edges)):
                for large, little in zip(edges[:2], edges[2:], strict=True):
                    # Each is rounded to whole pixels of its own size.
                    assert abs(large[0] / 4 - little[0]) <= 0.625
                    assert abs((large[-1] + 1) / 4 - (little[-1] + 1)) <= 0.625
        shown.append(foreign_fine[partnered].mean() if partnered.any() else 0.0)
    assert sum(share > 0.05 for share in shown) >= 5


def test_rare_classes_weigh_more() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    data = batches(BatchAugmentation(balance="weights"), labels=labels)
    weights = {}
    total = 0.0
    for i in range(len(data)):
        batch: Any = data[i]
        _, targets, weight = batch
        for row, value in zip(targets, weight, strict=True):
            weights[int(row.argmax())] = float(value)
            total += float(value)
    assert weights[0] == pytest.approx(100 / (2 * 90))
    assert weights[1] == pytest.approx(100 / (2 * 10))
    assert total == pytest.approx(100)


def test_rare_classes_come_as_often() -> None:
    labels = np.array([0] * 130 + [1] * 10)
    data = batches(BatchAugmentation(balance="sampling"), labels=labels)
    seen = np.concatenate([data[i][1].argmax(axis=1) for i in range(len(data))])
    assert len(seen) == 140
    assert 0.35 < (seen == 1).mean() < 0.65
