"""All that this suite uses of Keras beyond its public interface, in one place.

Keras has no public way to read a graph's arguments, to walk the layers of nested models, to swap
the weights' moving average in and out, or to scale the learning rate by layer. A new version of
Keras may rename any of these: tests/models/test_keras_private.py names what must be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras


def call_of(operation: keras.Operation) -> Any:
    """The node of the graph that calls the operation first: `arguments`, `output_tensors`."""
    return operation._inbound_nodes[0]


def all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Every layer, those of nested models too."""
    return iter(model._flatten_layers())


def swap_moving_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Each trainable weight and its moving average change places (`use_ema=True`).

    As in Keras's own SwapEMAWeights, which cannot resume from a checkpoint.
    """
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(optimizer._trainable_variables, averages, strict=True):
        value = keras.ops.copy(variable)
        variable.assign(average)
        average.assign(value)


def with_layer_multipliers(
    kind: type[keras.optimizers.Optimizer], multipliers: Mapping[str, float]
) -> type[keras.optimizers.Optimizer]:
    """The same optimizer with a factor of the learning rate for some layers, decay included.

    Args:
        kind: Adam, AdamW, SGD.
        multipliers: by name of layer; 1 where none is given.
    """

    def multiplier(variable: keras.Variable) -> float:
        return multipliers.get(variable.path.split("/")[0], 1.0)

    class ByLayer(kind):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            # The backend's own variable comes in; its path stands in Keras's.
            known = self._trainable_variables[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * multiplier(known))

        def _apply_weight_decay(self, variables: Sequence[keras.Variable]) -> None:
            """As Keras's own, which takes the whole rate for every variable."""
            if self.weight_decay is None:
                return
            for variable in variables:
                if self._use_weight_decay(variable):
                    rate = self.learning_rate * multiplier(variable)
                    rate = keras.ops.cast(rate, variable.dtype)
                    variable.assign(variable - variable * rate * self.weight_decay)

    return ByLayer
