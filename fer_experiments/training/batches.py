"""Memory-mapped arrays to batches; the order of images follows from seed and epoch alone."""

from __future__ import annotations

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Batches of pixels (B, H, W, 1) float32 0–255 and one-hot labels (B, C) float32.

    With a `seed`, epoch e (from 1) is a permutation drawn from (seed, e); without one the images
    come as they lie. Every epoch sees every image once; the last batch may be smaller.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        classes: int,
        batch_size: int,
        seed: int | None = None,
        first_epoch: int = 1,
    ) -> None:
        super().__init__()
        self._images = images  # (N, H, W) uint8
        self._one_hot = np.eye(classes, dtype=np.float32)[labels]  # (N, C)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = first_epoch
        self._order = self._draw_order()

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self._images) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        pixels = self._images[chosen].astype(np.float32)[..., np.newaxis]  # (B, H, W, 1)
        return pixels, self._one_hot[chosen]

    def on_epoch_end(self) -> None:
        """Draws the next epoch's order; Keras calls it."""
        self._epoch += 1
        self._order = self._draw_order()

    def _draw_order(self) -> np.ndarray:
        if self._seed is None:
            return np.arange(len(self._images))
        return np.random.default_rng([self._seed, self._epoch]).permutation(len(self._images))
