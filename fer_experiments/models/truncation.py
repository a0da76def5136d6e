"""Truncation: a frozen feature extractor, and the trainable part that follows it.

The truncation points between the two are tensors. ResNet50's last four layers need two, the
convolution branch and the shortcut; a head needs one. Both sides share the layers of the whole
network, so whatever trains in the trainable part has trained in the whole network too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def training_layers(model: keras.Model) -> set[str]:
    """Names of the layers whose weights train."""
    return {layer.name for layer in model.layers if layer.trainable_weights}


def points(model: keras.Model, trained: Collection[str]) -> tuple[str, ...]:
    """The layers whose outputs, and nothing else, the trained part needs of the frozen part.

    Args:
        model: a flat classifier that has not been truncated yet: that gives its layers second
            outputs.
        trained: names of the layers that train. What follows them changes with them, and a layer
            that draws random numbers gives something else every time: they train too.

    Returns:
        Names in the order of the graph; without weights before it if the whole network trains.
    """
    import keras

    behind: set[str] = set()
    crossing: list[str] = []
    # Operations are the layers and what lies between them, such as the steps of the preprocessing.
    maker = {id(operation.output): operation.name for operation in model.operations}
    for operation in model.operations:  # ordered: what one needs stands before it
        needs = [maker[id(tensor)] for tensor in _inputs(operation)]
        random = any(isinstance(v, keras.random.SeedGenerator) for v in vars(operation).values())
        if operation.name in trained or random or behind.intersection(needs):
            behind.add(operation.name)
            crossing += [name for name in needs if name not in behind]
    return tuple(name for name in maker.values() if name in crossing)


def feature_extractor(model: keras.Model, points: Sequence[str]) -> keras.Model:
    """Pixels to the tensors at the truncation points, a list."""
    import keras

    return keras.Model(model.input, _tensors(model, points), name=f"{model.name}_frozen")


def trainable_part(model: keras.Model, points: Sequence[str]) -> keras.Model:
    """The tensors at the truncation points to probabilities."""
    import keras

    tensors = _tensors(model, points)
    inputs = tensors[0] if len(tensors) == 1 else tensors
    return keras.Model(inputs, model.output, name=f"{model.name}_trained")


def digests(model: keras.Model, names: Sequence[str]) -> list[str]:
    """Of each layer's output, SHA-256 over all that decides its values.

    That is every operation that it depends on: its kind, its settings, its weights and what it
    reads. What operations are called plays no part, nor what only training looks at.
    """
    import keras

    from fer_experiments.models.keras_private import call_of

    tensors = _tensors(model, names)
    known: dict[int, str] = {}  # by tensor
    for operation in keras.Model(model.input, tensors).operations:  # what one needs comes first
        node = call_of(operation)
        about = {
            "kind": f"{type(operation).__module__}.{type(operation).__qualname__}",
            "settings": _settings(operation),
            "reads": [node.arguments.args, _given(node.arguments.kwargs)],
        }
        digest = hashlib.sha256(
            json.dumps(about, sort_keys=True, default=lambda value: _plain(value, known)).encode()
        )
        for weight in getattr(operation, "weights", ()):
            digest.update(json.dumps(_plain(weight, known)).encode())
        for number, output in enumerate(node.output_tensors):
            own = digest.copy()
            own.update(f"{number} {output.shape} {output.dtype}".encode())
            known[id(output)] = own.hexdigest()
    return [known[id(tensor)] for tensor in tensors]


def _settings(operation: keras.Operation) -> dict[str, Any]:
    training = ("_initializer", "_regularizer", "_constraint")
    return {
        name: value
        for name, value in operation.get_config().items()
        if name not in ("name", "trainable") and not name.endswith(training)
    }


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _plain(value: Any, known: Mapping[int, str]) -> Any:
    """What JSON has no form for: tensors of the graph, constants and weights, parts of an index."""
    if id(value) in known:
        return known[id(value)]
    if value is Ellipsis or isinstance(value, slice):
        return repr(value)
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        raise TypeError(f"Expected numbers in the graph. Received: {value!r}")
    return [str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()]


def _tensors(model: keras.Model, points: Sequence[str]) -> list[Any]:
    outputs = {operation.name: operation.output for operation in model.operations}
    return [outputs[name] for name in points]


def _inputs(operation: keras.Operation) -> list[Any]:
    import keras

    if isinstance(operation, keras.layers.InputLayer):
        return []
    return list(keras.tree.flatten(operation.input))
