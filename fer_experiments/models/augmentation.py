"""Random changes to training images as Keras layers; nothing of it is in the saved model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_experiments.config import AugmentationConfig

if TYPE_CHECKING:
    import keras


def with_augmentation(model: keras.Model, config: AugmentationConfig, *, seed: int) -> keras.Model:
    """The classifier with random layers in front; both share every weight.

    The layers act in training only. Without any augmentation the classifier itself comes back.
    """
    import keras

    random_layers = build_layers(config, seed=seed)
    if not random_layers:
        return model
    pixels = keras.Input(model.input_shape[1:], dtype="float32", name="pixels_to_augment")
    x = pixels
    for layer in random_layers:
        x = layer(x)
    return keras.Model(pixels, model(x), name=f"augmented_{model.name}")


def build_layers(config: AugmentationConfig, *, seed: int) -> list[keras.layers.Layer]:
    """The configured random layers, pixels at the border repeated as ImageDataGenerator does."""
    from keras import layers

    built: list[keras.layers.Layer] = []
    if config.flip:
        built.append(layers.RandomFlip("horizontal", seed=seed))
    if config.rotation:
        turn = config.rotation / 360  # Keras counts in full turns
        built.append(layers.RandomRotation(turn, fill_mode="nearest", seed=seed + 1))
    if config.shift:
        built.append(
            layers.RandomTranslation(config.shift, config.shift, fill_mode="nearest", seed=seed + 2)
        )
    if config.zoom:
        built.append(layers.RandomZoom(config.zoom, fill_mode="nearest", seed=seed + 3))
    return built
