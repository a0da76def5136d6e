"""Random changes to training images as Keras layers; nothing of it is in the saved model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments.config import AugmentationConfig
from fer_experiments.models.crops import Crop, crop_of

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

    random_layers = build_layers(config, seed=seed, crop=crop_of(model))
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


def build_layers(
    config: AugmentationConfig, *, seed: int, crop: Crop | None = None
) -> list[keras.layers.Layer]:
    """The configured random layers, pixels at the border repeated as ImageDataGenerator does.

    For a network that looks at a crop the last one moves another crop to its place.
    """
    from keras import layers

    built: list[keras.layers.Layer] = []
    if config.flip:
        built.append(layers.RandomFlip("horizontal", seed=seed))
    moves = {
        name: getattr(config, name)
        for name in ("rotation", "shift", "zoom")
        if getattr(config, name)
    }
    if config.num_ops:  # each is a change by itself
        for number, (name, most) in enumerate(moves.items()):
            built.append(_random_affine({name: most}, seed=seed + 1 + number))
    elif moves:
        built.append(_random_affine(moves, seed=seed + 1))
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
        built = [_some_of(built, config.num_ops, seed=seed + 7)]
    if crop is not None:
        built.append(_random_crop(crop, seed=seed + 8))
    return built


def _random_affine(most: Mapping[str, float], *, seed: int) -> Any:
    """Rotation, shift and zoom of each image in one step, so that it is blurred once.

    Keras's own RandomRotation, RandomTranslation and RandomZoom sample an image three times. With
    them VGG16 under JAX on a GPU was not through three epochs in four minutes; without, in five
    seconds. ImageDataGenerator also moves once.
    """
    import keras
    from keras import ops

    class RandomAffine(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name=f"random_{'_'.join(most)}")
            self.generator = keras.random.SeedGenerator(seed)

        def call(self, pixels: Any, training: bool = False) -> Any:
            if not training:
                return pixels
            count, (height, width) = ops.shape(pixels)[0], pixels.shape[1:3]

            def draw(name: str) -> Any:
                bound = most.get(name.split("_")[0], 0.0)
                return keras.random.uniform((count, 1, 1), -bound, bound, seed=self.generator)

            turn = draw("rotation") * (np.pi / 180)
            scale = 1 + draw("zoom")
            down, right = draw("shift_down") * height, draw("shift_right") * width
            # Where each pixel of the new image (B, H, W) comes from, about the middle.
            rows = ops.reshape(ops.arange(height, dtype="float32"), (1, -1, 1)) - (height - 1) / 2
            columns = ops.reshape(ops.arange(width, dtype="float32"), (1, 1, -1)) - (width - 1) / 2
            y = (rows * ops.cos(turn) + columns * ops.sin(turn)) * scale + down + (height - 1) / 2
            x = (columns * ops.cos(turn) - rows * ops.sin(turn)) * scale + right + (width - 1) / 2
            return _sampled(pixels, y, x)

    return RandomAffine()


def _random_crop(crop: Crop, *, seed: int) -> Any:
    """Any crop of each image, all equally often, moved to where the network looks."""
    import keras
    from keras import ops

    class RandomCrop(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="random_crop")
            self.generator = keras.random.SeedGenerator(seed)

        def call(self, pixels: Any, training: bool = False) -> Any:
            if not training:
                return pixels
            count, side = ops.shape(pixels)[0], crop.image_size

            def moved() -> Any:  # (B, S) rows or columns that come to stand at 0 … S - 1
                first = keras.random.randint(
                    (count, 1), 0, crop.margin + 1, dtype="int32", seed=self.generator
                )
                places = ops.expand_dims(ops.arange(side, dtype="int32"), 0)
                return ops.clip(places + first - crop.middle, 0, side - 1)

            rows, columns = moved(), moved()
            pixels = ops.take_along_axis(pixels, rows[:, :, None, None], axis=1)
            return ops.take_along_axis(pixels, columns[:, None, :, None], axis=2)

    return RandomCrop()


def _sampled(pixels: Any, y: Any, x: Any) -> Any:
    """Grey images (B, H, W, 1) read bilinearly at places (B, H, W); the border goes on outside."""
    from keras import ops

    height, width = pixels.shape[1:3]
    y, x = ops.clip(y, 0, height - 1), ops.clip(x, 0, width - 1)
    top, left = ops.floor(y), ops.floor(x)
    below, beside = y - top, x - left
    flat = ops.reshape(pixels, (-1, height * width))

    def at(row: Any, column: Any) -> Any:
        row, column = ops.minimum(row, height - 1), ops.minimum(column, width - 1)
        place = ops.reshape(ops.cast(row * width + column, "int32"), (-1, height * width))
        return ops.reshape(ops.take_along_axis(flat, place, axis=1), (-1, height, width))

    upper = at(top, left) * (1 - beside) + at(top, left + 1) * beside
    lower = at(top + 1, left) * (1 - beside) + at(top + 1, left + 1) * beside
    return ops.expand_dims(upper * (1 - below) + lower * below, -1)


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
