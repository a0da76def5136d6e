"""The moving average of the weights: in their place while val looks, and kept where it is best.

Keras averages trainable weights alone. BatchNorm's statistics stay those of the weights that
train, which is another network while these move fast: a VGG16 that names 42 % of val rightly was
seen at 24 % (docs/results/accuracy.md). So the statistics are taken anew, with the averaged
weights, from training images, as Izmailov et al. do (2018, "Averaging Weights Leads to Wider Optima
and Better Generalization").
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from fer_experiments.training.batches import Batches

# Images that the statistics are taken from: a mean is then within a fortieth of the spread.
_IMAGES = 2048


class Average:
    """Changes places with a compiled network's weights; nothing else of its state is touched."""

    def __init__(self, model: keras.Model, train: Batches) -> None:
        self._model = model
        self._train = train
        self._forward = _InTraining(model)
        self._before: list[np.ndarray] | None = None

    def put_in(self) -> None:
        """The average takes the weights' place, with BatchNorm's statistics of its own."""
        state = self._model.non_trainable_variables
        self._before = [np.array(variable) for variable in state]
        _swap(self._model.optimizer)
        self._take_statistics()

    def take_out(self) -> None:
        """The weights that train are back, as they were, and so is what is random."""
        _swap(self._model.optimizer)
        state = self._model.non_trainable_variables
        for variable, value in zip(state, self._before or [], strict=True):
            variable.assign(value)

    def _take_statistics(self) -> None:
        statistics = [
            (statistic, layer.momentum)
            for layer in self._model._flatten_layers()
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


def _swap(optimizer: keras.optimizers.Optimizer) -> None:
    """As in Keras's own SwapEMAWeights, which cannot go on from a checkpoint."""
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(optimizer._trainable_variables, averages, strict=True):
        value = keras.ops.copy(variable)
        variable.assign(average)
        average.assign(value)
