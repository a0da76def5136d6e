"""Raw pixels to probabilities: one flat Keras graph of built-in layers.

    pixels (N, H, W, 1) float32 0–255 -> [middle crop] -> three channels -> [up-sampling]
           -> input scaling -> backbone up to the cut -> head -> logits -> softmax (N, C) float32

Flat means that the backbone's layers stand in the graph under their own names, so that any inner
tensor can be reached, and that a saved model loads without custom objects or pickles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fer_experiments.config import ModelConfig, per_backbone
from fer_experiments.errors import ConfigError, quote
from fer_experiments.models import crops
from fer_experiments.models import weights as pretrained
from fer_experiments.models.backbones import Backbone, lookup

if TYPE_CHECKING:
    import keras

# The head's first layer, by what it reads: what stands before it is the backbone and its input.
HEAD_STARTS = {"flatten": "head_flatten", "global_average_pooling": "head_average"}
INPUT_END = "backbone_input"


def build(config: ModelConfig, *, image_size: int, classes: int, seed: int) -> keras.Model:
    """A classifier with a frozen backbone and an untrained head.

    Args:
        config: backbone, weights, cut and head.
        image_size: height and width of the images, pixels.
        classes: length of the softmax.
        seed: governs every initial weight.

    Raises:
        ConfigError: unknown backbone or cut, or images too small for the backbone.
        WeightsError: pre-trained weights cannot be had or do not fit.
    """
    import keras

    keras.utils.set_random_seed(seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        return _build(config, image_size=image_size, classes=classes, seed=seed)
    finally:
        keras.config.set_dtype_policy(before)


def _build(config: ModelConfig, *, image_size: int, classes: int, seed: int) -> keras.Model:
    import keras
    from keras import layers

    row = lookup(config.backbone)
    pixels = keras.Input((image_size, image_size, 1), dtype="float32", name="pixels")
    whole = row.build(_scaled(pixels, config, row, image_size))
    cut = per_backbone(config.truncate_at, row.name)
    end = whole.output if cut == "none" else _cut_tensor(whole, cut, row)
    below_cut = _after(INPUT_END, keras.Model(pixels, end).layers)
    pretrained.fill(
        below_cut,
        row,
        config.weights,
        missing=config.missing_weights,
        initializer=config.initializer,
    )
    for layer in below_cut:
        layer.trainable = False

    starts = {"flatten": layers.Flatten, "global_average_pooling": layers.GlobalAveragePooling2D}
    x = starts[config.head](name=HEAD_STARTS[config.head])(end)
    if config.head_batchnorm:
        x = layers.BatchNormalization(name="head_batchnorm")(x)
    if config.head_units:
        x = layers.Dense(config.head_units, activation="relu", name="head_dense")(x)
    if config.dropout:
        x = layers.Dropout(config.dropout, seed=seed, name="head_dropout")(x)
    # float32 also where the rest runs in lower precision: probabilities are what is judged, and of
    # two logits that round to the same number the lower class would be named.
    x = layers.Dense(classes, dtype="float32", name="logits")(x)
    outputs = layers.Softmax(dtype="float32", name="softmax")(x)
    return keras.Model(pixels, outputs, name=config.backbone)


def unfreeze(model: keras.Model, last: int, *, train_batchnorm: bool) -> list[str]:
    """Lets the last layers of the backbone train; returns the names of those with weights to train.

    A BatchNorm layer that stays frozen also stays in inference mode: Keras runs `trainable=False`
    ones so. Compile again afterwards.

    Raises:
        ConfigError: the backbone has fewer layers.
    """
    names = to_unfreeze(model, last, train_batchnorm=train_batchnorm)
    for name in names:
        model.get_layer(name).trainable = True
    return names


def to_unfreeze(model: keras.Model, last: int, *, train_batchnorm: bool) -> list[str]:
    """Names of the layers that `unfreeze` would let train; changes nothing."""
    import keras

    layers = backbone_layers(model)
    if last > len(layers):
        raise ConfigError(
            f"Expected unfreeze_layers to be at most {len(layers)}, all layers of the backbone "
            f"up to its cut. Received: unfreeze_layers={last}; pass fewer, or 0 for all"
        )
    return [
        layer.name
        for layer in layers[-last:]  # of 0: all
        if layer.weights
        and (train_batchnorm or not isinstance(layer, keras.layers.BatchNormalization))
    ]


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The backbone's layers of a classifier, in order, also after saving and loading."""
    names = [layer.name for layer in model.layers]
    [start] = (i for i, name in enumerate(names) if name in HEAD_STARTS.values())
    return _after(INPUT_END, model.layers[:start])


def learning_rate_multipliers(model: keras.Model, decay: float) -> dict[str, float]:
    """By layer of the backbone, its share of the learning rate: `decay` for each block below the
    topmost one that trains. A block is what shares the first part of its name: block3, conv4."""
    trained = [layer.name for layer in backbone_layers(model) if layer.trainable_weights]
    blocks = list(dict.fromkeys(name.split("_")[0] for name in reversed(trained)))
    return {name: decay ** blocks.index(name.split("_")[0]) for name in trained}


def _scaled(pixels: Any, config: ModelConfig, row: Backbone, image_size: int) -> Any:
    """Grey to three channels, cropped, up-sampled, in the scale that the backbone or recipe wants.

    In float32 also where the rest runs in lower precision: pixels keep all their grey levels.
    """
    from keras import layers

    x, shown_size = pixels, image_size
    if config.crop is not None:
        if config.crop >= image_size:
            raise ConfigError(
                f"Expected crop to be smaller than the images, of {image_size} pixels. "
                f"Received: crop={config.crop}"
            )
        shown_size = config.crop
        x = layers.CenterCrop(shown_size, shown_size, dtype="float32", name=crops.LAYER)(x)
    x = layers.Concatenate(dtype="float32", name="three_channels")([x, x, x])
    size = config.input_size or shown_size
    if size < row.smallest_input:
        raise ConfigError(
            f"Expected images of at least {row.smallest_input} pixels for backbone={row.name}. "
            f"Received: {size}; pass input_size={row.smallest_input} or more"
        )
    if size != shown_size:
        x = layers.Resizing(
            size, size, interpolation="bilinear", dtype="float32", name="upsampling"
        )(x)
    if config.input_scaling == "unit":
        x = layers.Rescaling(1 / 255, dtype="float32", name="unit_scaling")(x)
    else:
        x = row.preprocess(x)
    # Marks where the backbone begins, whatever the layers of the preprocessing are called.
    return layers.Identity(name=INPUT_END)(x)


def _cut_tensor(whole: keras.Model, cut: str, row: Backbone) -> Any:
    from difflib import get_close_matches

    own = [layer.name for layer in _after(INPUT_END, whole.layers)]
    if cut not in own:
        near = get_close_matches(cut[:80], own, n=3, cutoff=0.3) or own[-3:]
        raise ConfigError(
            f"Expected truncate_at to be a layer of {row.name}, such as {', '.join(near)}. "
            f"Received: truncate_at={quote(cut)}"
        )
    return whole.get_layer(cut).output


def _after(name: str, layers: list[keras.layers.Layer]) -> list[keras.layers.Layer]:
    names = [layer.name for layer in layers]
    return list(layers[names.index(name) + 1 :])
