"""Memory-mapped arrays to batches; the order of images follows from seed and epoch alone."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

# What a network with one or several inputs takes: an array (N, …) for each.
Arrays = Sequence[np.ndarray]


class Batches(keras.utils.PyDataset):
    """Batches of what a network takes, float32 (B, …), and one-hot labels (B, C) float32.

    With a `seed`, epoch e (from 1) is a permutation drawn from (seed, e); without one the images
    come as they lie. Every epoch sees every image once; the last batch may be smaller. Where there
    are several views of the images, an epoch takes one of each image, and as many epochs as there
    are views take them all.
    """

    def __init__(
        self,
        views: Sequence[Arrays],
        labels: np.ndarray,
        *,
        classes: int,
        batch_size: int,
        seed: int | None = None,
        first_epoch: int = 1,
    ) -> None:
        super().__init__()
        self._views = views  # by view, then by input of the network
        self._one_hot = np.eye(classes, dtype=np.float32)[labels]  # (N, C)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = first_epoch
        self._first_view = np.zeros(len(labels), dtype=np.int64)  # (N,)
        if len(views) > 1 and seed is not None:
            draw = np.random.default_rng([seed, 0])  # epochs count from 1
            self._first_view = draw.integers(len(views), size=len(labels))
        self._order = self._draw_order()

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self._one_hot) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray | tuple[np.ndarray, ...], np.ndarray]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        inputs = tuple(self._gather(i, chosen) for i in range(len(self._views[0])))
        return inputs[0] if len(inputs) == 1 else inputs, self._one_hot[chosen]

    def go_to(self, epoch: int) -> None:
        """Moves to the order of this epoch."""
        self._epoch = epoch
        self._order = self._draw_order()

    def on_epoch_end(self) -> None:
        """Draws the next epoch's order; Keras calls it."""
        self.go_to(self._epoch + 1)

    def _gather(self, number: int, chosen: np.ndarray) -> np.ndarray:
        if len(self._views) == 1:
            return self._views[0][number][chosen].astype(np.float32, copy=False)
        view = (self._first_view[chosen] + self._epoch) % len(self._views)
        batch = np.empty((len(chosen), *self._views[0][number].shape[1:]), dtype=np.float32)
        for v in np.unique(view):
            batch[view == v] = self._views[v][number][chosen[view == v]]
        return batch

    def _draw_order(self) -> np.ndarray:
        if self._seed is None:
            return np.arange(len(self._one_hot))
        return np.random.default_rng([self._seed, self._epoch]).permutation(len(self._one_hot))
