"""A Keras model into one file that other programs read, with its description in it.

Needs TensorFlow as Keras's backend, but for a .keras file, and the extra `export`.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_experiments.inference.files import ENDINGS, MEMBER, PROPERTY, Description

if TYPE_CHECKING:
    import keras

# Packages by format: what writes it, and what reads it for the check.
NEEDS = {
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "keras": (),
}
NEEDS_TENSORFLOW = ("onnx", "litert")
INPUT, OUTPUT, BATCH = "pixels", "probabilities", "batch"  # names in the ONNX graph
_OPSET = 18


def write(model: keras.Model, path: Path, description: Description) -> None:
    """Writes the file, in the format that its ending says.

    Args:
        model: raw pixels (N, S, S, 1) to probabilities (N, C); computes in float32.
        path: a file that is there is replaced.
        description: with `int8`, LiteRT's weights are stored in 8 bits (dynamic-range
            quantization).
    """
    writers = {"onnx": _write_onnx, "litert": _write_litert, "keras": _write_keras}
    [form] = (form for form, ending in ENDINGS.items() if ending == path.suffix)
    with _quiet():
        writers[form](model, path, description)


def _write_onnx(model: keras.Model, path: Path, description: Description) -> None:
    import onnx
    import tensorflow as tf
    import tf2onnx

    signature = _signature(model)
    forward = tf.function(_forward(model), input_signature=signature, autograph=False)
    made, _ = tf2onnx.convert.from_function(forward, input_signature=signature, opset=_OPSET)
    _fill_constants(made.graph, forward.get_concrete_function().graph.captures)
    _name_output(made.graph)
    for tensor in (made.graph.input[0], made.graph.output[0]):
        tensor.type.tensor_type.shape.dim[0].dim_param = BATCH
    del made.graph.value_info[:]  # shapes in between, with the batch under other names
    onnx.helper.set_model_props(made, {PROPERTY: description.to_json()})
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def _forward(model: keras.Model) -> Callable[[Any], Any]:
    def probabilities(pixels: Any) -> Any:
        return model(pixels, training=False)

    return probabilities


def _signature(model: keras.Model) -> list[Any]:
    import tensorflow as tf

    return [tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name=INPUT)]


def _fill_constants(graph: Any, captures: Iterable[tuple[Any, Any]]) -> None:
    """Tensors in the graph, such as the mean pixel of VGG16, which tf2onnx turns into inputs.

    Args:
        graph: of ONNX.
        captures: of TensorFlow's graph: the tensor, and what stands for it within.
    """
    from onnx import numpy_helper

    values = {within.name: tensor for tensor, within in captures}
    for held in [given for given in graph.input if given.name != INPUT]:
        value = values[held.name].numpy()
        graph.initializer.append(numpy_helper.from_array(value, held.name))
        graph.input.remove(held)


def _name_output(graph: Any) -> None:
    """tf2onnx calls it `Identity:0`."""
    [output] = graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == output.name else name for name in names]
    output.name = OUTPUT


def _write_litert(model: keras.Model, path: Path, description: Description) -> None:
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    # Not `model.export`: of a model that trains BatchNorm it exports the training.
    archive.add_endpoint("serve", _forward(model), input_signature=_signature(model))
    with tempfile.TemporaryDirectory() as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if description.int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        path.write_bytes(converter.convert())
    _add_description(path, description)


def _write_keras(model: keras.Model, path: Path, description: Description) -> None:
    import keras

    # A copy of the graph, without what was compiled.
    keras.Model(model.input, model.output, name=model.name).save(path)
    _add_description(path, description)


def _add_description(path: Path, description: Description) -> None:
    """Into the zip that the file is, or as a zip behind what is there."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, description.to_json())


@contextmanager
def _quiet() -> Iterator[None]:
    """The converters warn of their own insides."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
