"""What is used of Keras beyond its public interface is there, and means what it is used for."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_experiments.models import keras_private

from ..conftest import ROOT

PACKAGE = ROOT / "fer_experiments"
HOME = "models/keras_private.py"
OF_LAYERS = {"_inbound_nodes"}
OF_MODELS = {"_flatten_layers"}
OF_OPTIMIZERS = {
    "_model_variables_moving_average", "_trainable_variables", "_get_variable_index",
    "_use_weight_decay", "_apply_weight_decay",
}  # fmt: skip


def private_names(path: Path) -> set[str]:
    """Attributes with a leading underscore of anything but `self` and `cls`."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }


@pytest.mark.parametrize("room", ["models", "training", "inference", "evaluation"])
def test_no_other_module_uses_them(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        if path != PACKAGE / HOME:
            assert private_names(path) == set(), path


def test_they_are_there() -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam(use_ema=True)
    optimizer.build(network.trainable_variables)
    owners = ((network.layers[0], OF_LAYERS), (network, OF_MODELS), (optimizer, OF_OPTIMIZERS))
    for owner, names in owners:
        assert [name for name in names if not hasattr(owner, name)] == []
    assert private_names(PACKAGE / HOME) <= OF_LAYERS | OF_MODELS | OF_OPTIMIZERS


def test_layers_of_nested_models_are_among_all() -> None:
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="deep")], name="inner")
    outer = keras.Sequential([keras.Input((2,)), inner, keras.layers.Dense(1, name="last")])
    names = [layer.name for layer in keras_private.all_layers(outer)]
    assert {"inner", "deep", "last"} <= set(names)


def test_weights_and_averages_change_places() -> None:
    layer = keras.layers.Dense(1, use_bias=False)
    layer.build((None, 1))
    layer.kernel.assign([[2.0]])
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75)
    optimizer.build(layer.trainable_variables)
    optimizer.apply([keras.ops.ones((1, 1))])
    assert float(np.asarray(layer.kernel)[0, 0]) == 1.0
    keras_private.swap_moving_averages(optimizer)
    average = float(np.asarray(layer.kernel)[0, 0])
    keras_private.swap_moving_averages(optimizer)
    assert float(np.asarray(layer.kernel)[0, 0]) == 1.0
    assert average in (pytest.approx(1.75), pytest.approx(1.0))  # Keras may begin with the first


def test_a_call_tells_arguments_and_outputs() -> None:
    pixels = keras.Input((2,))
    layer = keras.layers.Dense(3)
    output = layer(pixels)
    call = keras_private.call_of(layer)
    assert call.arguments.args[0] is pixels
    assert call.output_tensors[0] is output
