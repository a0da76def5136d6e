"""Pre-trained weights into a backbone, every layer checked.

Keras's own loading by name skips layers that the file lacks without a word; here that is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from fer_experiments.errors import ConfigError, UsageError, WeightsError
from fer_experiments.models.backbones import Backbone

if TYPE_CHECKING:
    import keras

LayerWeights = Mapping[str, list[np.ndarray]]


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
    path = Path(weights).expanduser().absolute()
    if path.is_dir():
        return _file_in_folder(path, backbone)
    if not path.is_file():
        raise UsageError(
            "Expected weights to be imagenet, none, a Keras weights file, or a folder of such. "
            f"Received: {weights[:200]} (looked for {str(path)[:300]})"
        )
    return path


def fill(
    layers: list[keras.layers.Layer], backbone: Backbone, weights: str, *, initializer: str
) -> None:
    """Gives each of the backbone's layers its weights.

    Args:
        layers: the backbone's layers up to the cut.
        backbone: their row in the table.
        weights: `imagenet`, `none`, a file or a folder.
        initializer: for `none`: how convolution kernels are drawn.

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
        _copy(needing, _read_file(path, backbone), str(path))


def _file_in_folder(folder: Path, backbone: Backbone) -> Path:
    files = sorted(
        p for p in folder.glob(f"{backbone.name}*") if p.suffix in (".h5", ".hdf5", ".keras")
    )
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
    assert backbone.download is not None  # `check` has refused this
    try:
        donor = backbone.download()
    # keras.utils.get_file wraps whatever urllib raised in a bare Exception.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise WeightsError(
            f"ImageNet weights of {backbone.name} could not be downloaded ({reason}). Go on with "
            "a network, or pass weights=FILE of a copy that you have, or weights=none"
        ) from None
    return {layer.name: layer.get_weights() for layer in donor.layers}


def _read_file(path: Path, backbone: Backbone) -> LayerWeights:
    """Weights by layer name, from the layout of keras.applications or Keras 3's own."""
    try:
        with h5py.File(path) as file:
            if "layer_names" in file.attrs:
                return _legacy_layers(file)
            if "model_weights" in file:
                return _legacy_layers(file["model_weights"])
    except (OSError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise WeightsError(f"{path} cannot be read as an HDF5 weights file: {reason}") from None
    if not path.name.endswith(".weights.h5"):
        raise WeightsError(
            f"Expected {path} to hold weights by layer name, as keras.applications saves them, "
            "or to be a whole backbone's NAME.weights.h5. Received: neither"
        )
    import keras

    donor = backbone.build(keras.Input((backbone.smallest_input, backbone.smallest_input, 3)))
    try:
        donor.load_weights(path)
    except Exception as error:
        reason = str(error).splitlines()[0][:160]
        raise WeightsError(f"{path} does not fit {backbone.name}: {reason}") from None
    return {layer.name: layer.get_weights() for layer in donor.layers}


def _legacy_layers(group: h5py.Group) -> LayerWeights:
    return {
        _text(name): [np.asarray(group[name][w]) for w in group[name].attrs["weight_names"]]
        for name in group.attrs["layer_names"]
    }


def _copy(layers: list[keras.layers.Layer], values: LayerWeights, source: str) -> None:
    missing = [layer.name for layer in layers if not values.get(layer.name)]
    if missing:
        raise WeightsError(
            f"{source} lacks {len(missing)} of the {len(layers)} layers that are needed: "
            f"{_some(missing)}. Pass cut=LAYER to use the backbone only up to a layer that it has"
        )
    wrong = [
        layer.name
        for layer in layers
        if [v.shape for v in values[layer.name]] != [tuple(w.shape) for w in layer.weights]
    ]
    if wrong:
        raise WeightsError(f"{source} has other shapes than the backbone in: {_some(wrong)}")
    for layer in layers:
        layer.set_weights(values[layer.name])


def _some(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
