"""The exponential moving average (EMA) of the weights: swapped in while val is evaluated.

Keras averages trainable weights alone. BatchNorm's statistics stay those of the weights that
train, which is another network while these move fast: a VGG16 that names 42 % of val rightly was
seen at 24 % (docs/results/accuracy.md). So the statistics are taken anew, with the averaged
weights, from training images, as Izmailov et al. do (2018, "Averaging Weights Leads to Wider Optima
and Better Generalization").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from fer_experiments.models.keras_private import all_layers, swap_moving_averages
from fer_experiments.training.batches import Batches

# Images that the statistics are taken from: a mean is then within a fortieth of the spread.
_IMAGES = 2048


class WeightAverage:
    """The EMA of a compiled network's weights; nothing else of its state is touched."""

    def __init__(self, model: keras.Model, train: Batches) -> None:
        self._model = model
        self._train = train
        self._forward = _InTraining(model)

    @contextmanager
    def swap_ema_weights(self) -> Iterator[None]:
        """Inside, the average is in the weights' place, with BatchNorm statistics of its own.

        Afterwards the weights that train are back, as they were, and so is what is random.
        """
        state = self._model.non_trainable_variables
        before = [np.array(variable) for variable in state]
        swap_moving_averages(self._model.optimizer)
        self._take_statistics()
        try:
            yield
        finally:
            swap_moving_averages(self._model.optimizer)
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)

    def _take_statistics(self) -> None:
        statistics = [
            (statistic, layer.momentum)
            for layer in all_layers(self._model)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
            for statistic in (layer.moving_mean, layer.moving_variance)
        ]
        if not statistics:
            return
        for statistic, _ in statistics:
            statistic.assign(keras.ops.zeros(statistic.shape))
        images = batches = 0
        while images < _IMAGES and batches < len(self._train):
            given, targets, *_ = self._train[batches]
            self._forward.predict_on_batch(given)
            images += len(targets)
            batches += 1
        for statistic, momentum in statistics:
            # Begun at 0, it is short by this share.
            statistic.assign(statistic / (1 - momentum**batches))


class _InTraining(keras.Model):
    """The network as training sees it, behind Keras's compiled `predict`: BatchNorm takes notes."""

    def __init__(self, model: keras.Model) -> None:
        # Pixels must not be cast to the lower precision that the network may compute in.
        super().__init__(name="statistics", dtype="float32")
        self._network = model

    def call(self, given: Any) -> Any:
        return self._network(given, training=True)
