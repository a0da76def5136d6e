"""Random changes to training images as Keras layers; nothing of it is in the saved model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fer_experiments.config import AugmentationConfig

if TYPE_CHECKING:
    import keras

_PIXELS = (0, 255)


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """A network that changes its images at random in training, and the switch for that."""

    model: keras.Model
    switch: keras.Variable | None = None  # 1: on, 0: off; None: there is nothing to switch

    def turn(self, on: bool) -> None:
        """Sets the switch."""
        if self.switch is not None:
            self.switch.assign(float(on))


def with_augmentation(model: keras.Model, config: AugmentationConfig, *, seed: int) -> Augmented:
    """The classifier with random layers in front; both share every weight.

    The layers act in training only. Without any augmentation the classifier itself comes back.
    """
    import keras

    random_layers = build_layers(config, seed=seed)
    if not random_layers:
        return Augmented(model=model)
    pixels = keras.Input(model.input_shape[1:], dtype="float32", name="pixels_to_augment")
    switch = _switch_layer(random_layers)
    changed = keras.Model(pixels, model(switch(pixels)), name=f"augmented_{model.name}")
    return Augmented(model=changed, switch=switch.on)


def _switch_layer(random_layers: list[keras.layers.Layer]) -> Any:
    """The random layers as one that can be switched off without compiling again."""
    import keras

    class Switch(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="augmentation")
            self.steps = random_layers

        def build(self, shape: Any) -> None:
            _build(self.steps, shape)
            self.on = self.add_weight(
                name="on", shape=(), initializer="ones", trainable=False, autocast=False
            )

        def call(self, pixels: Any, training: bool = False) -> Any:
            if not training:
                return pixels
            changed = pixels
            for step in self.steps:
                changed = step(changed, training=True)
            return keras.ops.where(self.on > 0, changed, pixels)

    return Switch()


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
    if config.contrast:
        built.append(layers.RandomContrast(config.contrast, value_range=_PIXELS, seed=seed + 4))
    if config.brightness:
        built.append(layers.RandomBrightness(config.brightness, value_range=_PIXELS, seed=seed + 5))
    if config.erasing:
        built.append(
            layers.RandomErasing(
                (config.erasing, config.erasing), value_range=_PIXELS, seed=seed + 6
            )
        )
    if 0 < config.num_ops < len(built):
        return [_some_of(built, config.num_ops, seed=seed + 7)]
    return built


def _some_of(steps: list[keras.layers.Layer], count: int, *, seed: int) -> Any:
    """The random layers as one that gives each image `count` of them, in their order.

    Cubuk et al. 2020 draw with replacement and in any order; one strength for all of them is left
    to whoever sets the single ones.
    """
    import keras
    from keras import ops

    class SomeOf(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="some_of")
            self.steps = steps
            self.generator = keras.random.SeedGenerator(seed)

        def build(self, shape: Any) -> None:
            _build(self.steps, shape)

        def call(self, pixels: Any, training: bool = False) -> Any:
            if not training:
                return pixels
            drawn = keras.random.uniform((ops.shape(pixels)[0], len(steps)), seed=self.generator)
            rank = ops.argsort(ops.argsort(drawn, axis=1), axis=1)  # (B, K), of each image
            for k, step in enumerate(self.steps):
                chosen = ops.reshape(rank[:, k] < count, (-1, 1, 1, 1))
                pixels = ops.where(chosen, step(pixels, training=True), pixels)
            return pixels

    return SomeOf()


def _build(steps: list[keras.layers.Layer], shape: Any) -> None:
    for step in steps:
        if not step.built:
            step.build(shape)
