"""Pre-trained weights into a backbone, every layer checked.

Keras's own loading by name skips layers that the file lacks without a word; here that is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from fer_experiments.data.files import is_file, is_folder, located
from fer_experiments.errors import ConfigError, UsageError, WeightsError, quote, summarize
from fer_experiments.models.backbones import Backbone
from fer_experiments.secrets import redact

if TYPE_CHECKING:
    import keras

# Arrays, or what can be read as such.
LayerWeights = Mapping[str, Sequence[np.ndarray | h5py.Dataset]]


def check(weights: str, backbone: Backbone) -> Path | None:
    """The file that `weights` means for this backbone; None for `imagenet` and `none`.

    Raises:
        UsageError: no such file, or no single file in the folder is this backbone's.
        ConfigError: this backbone has no ImageNet weights.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        if backbone.download is None:
            raise ConfigError(
                f"Expected weights=none or a file for backbone={backbone.name}, which was never "
                "trained on ImageNet. Received: weights=imagenet"
            )
        return None
    path = located(weights)
    if is_folder(path):
        return _file_in_folder(path, backbone)
    if not is_file(path):
        raise UsageError(
            "Expected weights to be imagenet, none, a Keras weights file, or a folder of such. "
            f"Received: {quote(weights, 200)} (looked for {quote(located(redact(weights)), 300)})"
        )
    return path


def fill(
    layers: list[keras.layers.Layer],
    backbone: Backbone,
    weights: str,
    *,
    missing: str = "refuse",
    initializer: str = "glorot_uniform",
) -> None:
    """Gives each of the backbone's layers its weights.

    Args:
        layers: the backbone's layers up to the cut.
        backbone: their row in the table.
        weights: `imagenet`, `none`, a file or a folder.
        missing: of the last layers, if a file ends below them: `refuse` or `draw`.
        initializer: how convolution kernels are drawn.

    Raises:
        WeightsError: the download failed, or the file lacks layers or has other shapes.
    """
    path = check(weights, backbone)
    needing = [layer for layer in layers if layer.weights]
    if weights == "none":
        _initialise(needing, initializer)
    elif path is None:
        _copy(needing, _downloaded(backbone), "the downloaded ImageNet weights")
    else:
        held = _copy_file(needing, path, backbone, may_end=missing == "draw")
        _initialise(needing[held:], initializer)


def _file_in_folder(folder: Path, backbone: Backbone) -> Path:
    try:
        names = sorted(folder.glob(f"{backbone.name}*"))
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}") from None
    files = [p for p in names if p.suffix in (".h5", ".hdf5", ".keras") and is_file(p)]
    if len(files) != 1:
        raise UsageError(
            f"Expected one weights file whose name begins with {backbone.name} in {folder}. "
            f"Received: {', '.join(p.name for p in files) or 'none'}"
        )
    return files[0]


def _initialise(layers: list[keras.layers.Layer], initializer: str) -> None:
    import keras

    if initializer == "glorot_uniform":
        return  # what Keras's layers draw by themselves
    for layer in layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(keras.initializers.get(initializer)(layer.kernel.shape))


def _downloaded(backbone: Backbone) -> LayerWeights:
    if backbone.download is None:  # `check` refuses this before any work is done
        raise WeightsError(f"There are no ImageNet weights of {backbone.name}")
    try:
        donor = backbone.download()
    # keras.utils.get_file wraps whatever urllib raised in a bare Exception.
    except Exception as error:
        raise WeightsError(
            f"ImageNet weights of {backbone.name} could not be downloaded ({summarize(error)}). "
            "Try again with a network, or pass weights=FILE of a copy that you have, or "
            "weights=none"
        ) from None
    return {layer.name: layer.get_weights() for layer in donor.layers}


def _copy_file(
    layers: list[keras.layers.Layer], path: Path, backbone: Backbone, *, may_end: bool
) -> int:
    """Weights by layer name, or as Keras 3 saves them; for how many layers."""
    if path.suffix == ".keras":
        return _copy(layers, _whole_model(path, layers), str(path), may_end=may_end)
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if "layer_names" in group.attrs:
                needed = [layer.name for layer in layers]
                values = _named_layers(group, needed, str(path))
                return _copy(layers, values, str(path), may_end=may_end)
    except WeightsError:
        raise
    # HDF5 and h5py raise almost anything on a damaged file.
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as an HDF5 weights file: {summarize(error, 120)}"
        ) from None
    if not path.name.endswith(".weights.h5"):
        raise WeightsError(
            f"Expected {path} to hold weights by layer name, as keras.applications saves them, "
            "or to be a whole model's NAME.keras or a whole backbone's NAME.weights.h5. "
            "Received: none of these"
        )
    return _copy(layers, _whole_backbone(path, backbone), str(path))


def _whole_backbone(path: Path, backbone: Backbone) -> LayerWeights:
    """Weights as Keras 3 saves those of a whole model."""
    import keras

    donor = backbone.build(keras.Input((backbone.smallest_input, backbone.smallest_input, 3)))
    try:
        donor.load_weights(path)
    except Exception as error:
        raise WeightsError(
            f"{path} does not fit {backbone.name}: {summarize(error)}. A NAME.weights.h5 has no "
            "names of layers, so it must be the backbone's alone; of a model that holds more, save "
            "the whole: model.save('NAME.keras')"
        ) from None
    return {layer.name: layer.get_weights() for layer in donor.layers}


def _whole_model(path: Path, needed: Sequence[keras.layers.Layer]) -> LayerWeights:
    """Weights of a model that Keras 3 saved whole, from the models inside it, too."""
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras, HDF5 and zipfile raise almost anything on a damaged file, or on layers of one's own.
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be read as a Keras model: {summarize(error, 120)}"
        ) from None
    held = {layer.name: layer.get_weights() for layer in _all_layers(model)}
    _check_some(held, [layer.name for layer in needed], str(path))
    return held


def _all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers, and instead of a model among them its own ones."""
    for layer in model.layers:
        if getattr(layer, "layers", None):
            yield from _all_layers(layer)
        else:
            yield layer


def _check_some(held: Collection[str], needed: Sequence[str], source: str) -> None:
    """Raises WeightsError if a file holds other layers altogether: no cut would help."""
    if needed and not set(held).intersection(needed):
        raise WeightsError(
            f"Expected {source} to hold layers of the backbone by name: {_some(needed, 3)}. "
            f"Received: {_some(list(held), 3) or 'no layer'}; is it another backbone's, or were "
            "its layers renamed?"
        )


def _named_layers(group: h5py.Group, needed: Sequence[str], source: str) -> LayerWeights:
    """Weights by layer name, not yet read: a file may promise more than fits in memory.

    A model inside the model, as Sequential([backbone, …]) has, lies there as one layer, whose
    weights are named `<its layer>/<weight>`.
    """
    layers: dict[str, list[h5py.Dataset]] = {}
    outer = [_text(name) for name in group.attrs["layer_names"]]
    for name in outer:
        for weight in map(_text, group[name].attrs["weight_names"]):
            owner = name if name in needed else weight.split("/")[-2:][0]
            if owner in needed:
                layers.setdefault(owner, []).append(group[name][weight])
    _check_some(layers or outer, needed, source)
    for array in chain.from_iterable(layers.values()):
        if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "fiu":
            raise WeightsError(f"{source} holds no numbers at {array.name}")
        # HDF5 can point into any file of this machine.
        if array.file.filename != group.file.filename or array.external or array.is_virtual:
            raise WeightsError(f"{source} takes {array.name} from another file")
    return layers


def _copy(
    layers: list[keras.layers.Layer], values: LayerWeights, source: str, *, may_end: bool = False
) -> int:
    """Fills the layers and returns how many; all, unless the values may end below the last."""
    held = [layer for layer in layers if values.get(layer.name)]
    missing = [layer.name for layer in layers if layer not in held]
    if missing and not (may_end and held and held == layers[: len(held)]):
        raise WeightsError(
            f"{source} lacks {len(missing)} of the {len(layers)} layers that are needed: "
            f"{_some(missing)}. Pass truncate_at=LAYER to use the backbone only up to a "
            "layer that it has, or missing_weights=draw if only the last ones are missing"
        )
    layers = held
    wrong = [
        layer.name
        for layer in layers
        if [v.shape for v in values[layer.name]] != [tuple(w.shape) for w in layer.weights]
    ]
    if wrong:
        raise WeightsError(f"{source} has other shapes than the backbone in: {_some(wrong)}")
    for layer in layers:
        arrays = [np.asarray(array) for array in values[layer.name]]
        if not all(np.isfinite(array).all() for array in arrays):
            raise WeightsError(f"{source} holds values that are not finite in: {layer.name}")
        layer.set_weights(arrays)
    return len(layers)


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _text(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
