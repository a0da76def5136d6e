"""The contestants: a row each. A third backbone costs one row.

Keras is imported only when a backbone is built, so that the names cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from fer_experiments.errors import ConfigError, quote

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A convolutional network without its classifier, and the input that it expects.

    `build(input_tensor)` extends the graph from a tensor (N, H, W, 3) and returns a model whose
    layers have the names of the published weights. `preprocess` maps RGB 0–255 to its input.
    """

    name: str
    build: Callable[[Any], keras.Model]
    preprocess: Callable[[Any], Any]
    download: Callable[[], keras.Model] | None  # the same network with ImageNet weights
    smallest_input: int  # pixels
    title: str


def application(name: str, module: str, function: str, smallest_input: int) -> Backbone:
    """A row for a network of `keras.applications`."""

    def build(input_tensor: Any) -> keras.Model:
        return _function()(include_top=False, weights=None, input_tensor=input_tensor)

    def download() -> keras.Model:
        return _function()(include_top=False, weights="imagenet")

    def preprocess(pixels: Any) -> Any:
        import keras

        return getattr(keras.applications, module).preprocess_input(pixels)

    def _function() -> Callable[..., keras.Model]:
        import keras

        application: Callable[..., keras.Model] = getattr(keras.applications, function)
        return application

    return Backbone(
        name=name,
        build=build,
        preprocess=preprocess,
        download=download,
        smallest_input=smallest_input,
        title=function,
    )


def _build_tiny(input_tensor: Any) -> keras.Model:
    """Two convolutions and a residual one, with BatchNorm: everything that ResNet50 has, small."""
    from keras import Model, layers
    from keras.utils import get_source_inputs

    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="block1_conv")(
        input_tensor
    )
    x = layers.BatchNormalization(name="block1_bn")(x)
    x = layers.Activation("relu", name="block1_out")(x)
    x = layers.MaxPooling2D(2, name="block1_pool")(x)
    shortcut = layers.Conv2D(16, 1, strides=2, name="block2_0_conv")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="block2_1_conv")(x)
    x = layers.BatchNormalization(name="block2_1_bn")(x)
    x = layers.Activation("relu", name="block2_1_relu")(x)
    x = layers.Conv2D(16, 3, padding="same", name="block2_2_conv")(x)
    x = layers.BatchNormalization(name="block2_2_bn")(x)
    x = layers.Add(name="block2_add")([shortcut, x])
    x = layers.Activation("relu", name="block2_out")(x)
    return Model(get_source_inputs(input_tensor), x)


BACKBONES: dict[str, Backbone] = {
    row.name: row
    for row in (
        application("vgg16", "vgg16", "VGG16", smallest_input=32),
        application("resnet50", "resnet50", "ResNet50", smallest_input=32),
        # For tests and quick trials: a few thousand parameters, no pre-trained weights.
        Backbone(
            name="tiny",
            build=_build_tiny,
            preprocess=lambda pixels: pixels / 127.5 - 1.0,
            download=None,
            smallest_input=8,
            title="Tiny",
        ),
    )
}


def lookup(name: str) -> Backbone:
    """The backbone's row.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    near = get_close_matches(name[:80].lower(), BACKBONES, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"Expected backbone to be one of {', '.join(BACKBONES)}. "
        f"Received: backbone={quote(name)}{hint}"
    )
