"""Memory-mapped arrays to batches; what is random follows from seed and epoch alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

# What a network with one or several inputs takes: an array (N, …) for each.
Arrays = Sequence[np.ndarray]
Batch = (
    tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray]
    | tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray, np.ndarray]
)


@dataclass(frozen=True, kw_only=True)
class BatchAugmentation:
    """Augmentation of whole batches (label smoothing, mixup, CutMix) and sampling of classes."""

    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha of the Beta distribution; 0: off (Zhang et al. 2018)
    cutmix: float = 0.0  # likewise (Yun et al. 2019); with both, each batch takes one of them
    balance: str = "none"  # weights: rare classes count more; sampling: they come as often
    until_epoch: int | None = None  # the last one that mixes images


class Batches(keras.utils.PyDataset):
    """Batches of what a network takes, float32 (B, …), and labels (B, C) float32.

    With a `seed`, epoch e (from 1) is a permutation drawn from (seed, e); without one the images
    come as they lie. Every epoch sees every image once, unless classes are balanced by sampling;
    the last batch may be smaller. Of several augmented copies an epoch takes one of each image, and
    as many epochs as there are copies take them all. `set_epoch` says which epoch it is, because
    Keras calls `on_epoch_end` before the first one too.
    """

    def __init__(
        self,
        copies: Sequence[Arrays],
        labels: np.ndarray,
        *,
        classes: int,
        batch_size: int,
        seed: int | None = None,
        first_epoch: int = 1,
        augmentation: BatchAugmentation | None = None,
    ) -> None:
        super().__init__()
        self._copies = copies  # by augmented copy, then by input of the network
        self._mixture = augmentation or BatchAugmentation()
        smoothing = self._mixture.label_smoothing
        self._labels = labels
        self._targets = np.eye(classes, dtype=np.float32)[labels]  # (N, C)
        self._targets = self._targets * (1 - smoothing) + np.float32(smoothing / classes)
        counts = np.bincount(labels, minlength=classes)
        # As scikit-learn's "balanced": the mean over all images is 1.
        by_class = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        self._weights = by_class.astype(np.float32)[labels]  # (N,)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = first_epoch
        self._first_copy = np.zeros(len(labels), dtype=np.int64)  # (N,)
        if len(copies) > 1 and seed is not None:
            draw = np.random.default_rng([seed, 0])  # epochs count from 1
            self._first_copy = draw.integers(len(copies), size=len(labels))
        self._order = self._draw_order()

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self._labels) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        inputs = tuple(self._gather(i, chosen) for i in range(len(self._copies[0])))
        targets = self._targets[chosen]
        if self.mixes:
            inputs, targets = self._mixed(index, inputs, targets)
        given = inputs[0] if len(inputs) == 1 else inputs
        if self._mixture.balance == "weights":
            return given, targets, self._weights[chosen]
        return given, targets

    def set_epoch(self, epoch: int) -> None:
        """Moves to this epoch: its order, its copies, whether it mixes."""
        self._epoch = epoch
        self._order = self._draw_order()

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in this epoch, so that no label is that of one image."""
        augmentation = self._mixture
        last = augmentation.until_epoch
        return bool(augmentation.mixup or augmentation.cutmix) and (
            last is None or self._epoch <= last
        )

    def _mixed(
        self, index: int, inputs: tuple[np.ndarray, ...], targets: np.ndarray
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Each image with a partner from the same batch, at one share for all of the batch."""
        draw = np.random.default_rng([self._seed or 0, self._epoch, index])
        augmentation = self._mixture
        ways = [way for way in ("mixup", "cutmix") if getattr(augmentation, way)]
        way = ways[draw.integers(len(ways))]
        share = float(draw.beta(getattr(augmentation, way), getattr(augmentation, way)))
        partner = draw.permutation(len(targets))
        if way == "mixup":
            mixed = tuple(share * x + (1 - share) * x[partner] for x in inputs)
        else:
            mixed, share = _patched(inputs, partner, share, draw)
        targets = share * targets + (1 - share) * targets[partner]
        return tuple(x.astype(np.float32) for x in mixed), targets.astype(np.float32)

    def _gather(self, number: int, chosen: np.ndarray) -> np.ndarray:
        if len(self._copies) == 1:
            return np.asarray(self._copies[0][number][chosen].astype(np.float32, copy=False))
        copy = (self._first_copy[chosen] + self._epoch) % len(self._copies)
        batch = np.empty((len(chosen), *self._copies[0][number].shape[1:]), dtype=np.float32)
        for c in np.unique(copy):
            batch[copy == c] = self._copies[c][number][chosen[copy == c]]
        return batch

    def _draw_order(self) -> np.ndarray:
        if self._seed is None:
            return np.arange(len(self._labels))
        draw = np.random.default_rng([self._seed, self._epoch])
        if self._mixture.balance == "sampling":
            share = self._weights / self._weights.sum()
            return draw.choice(len(self._labels), size=len(self._labels), p=share)
        return draw.permutation(len(self._labels))


def _patched(
    inputs: tuple[np.ndarray, ...], partner: np.ndarray, share: float, draw: np.random.Generator
) -> tuple[tuple[np.ndarray, ...], float]:
    """A rectangle of the partner in every image; the share of the image that stays.

    Args:
        inputs: (B, H, W, C) each, of one image at several scales.
        partner: (B,) index.
        share: of the area that should stay.
        draw: for the place.
    """
    side = np.sqrt(1 - share)
    centre = draw.random(2)
    low, high = np.clip(centre - side / 2, 0, 1), np.clip(centre + side / 2, 0, 1)
    mixed = []
    kept = []
    for x in inputs:
        sizes = np.array(x.shape[1:3])
        (top, left), (bottom, right) = (np.rint(edge * sizes).astype(int) for edge in (low, high))
        patched = x.copy()
        patched[:, top:bottom, left:right] = x[partner, top:bottom, left:right]
        mixed.append(patched)
        kept.append(1 - (bottom - top) * (right - left) / sizes.prod())
    return tuple(mixed), float(kept[0])
