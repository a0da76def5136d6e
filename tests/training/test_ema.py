"""What val sees of a moving average of the weights: its own network, BatchNorm included."""

import keras
import numpy as np

from fer_experiments.training.batches import Batches
from fer_experiments.training.ema import WeightAverage

DRAW = np.random.default_rng(0)
IMAGES = DRAW.uniform(0, 255, (96, 8, 8, 1)).astype(np.float32)
LABELS = DRAW.integers(0, 3, 96)


def compiled(*, frozen: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, name="convolution"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.get_layer("norm").trainable = not frozen
    model.compile(
        keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.8), "categorical_crossentropy"
    )
    model.optimizer.build(model.trainable_variables)
    return model


def trained(model: keras.Model, data: Batches) -> WeightAverage:
    """A few steps, outside of `fit`, which would leave the average in the weights' place."""
    average = WeightAverage(model, data)
    for i in range(len(data)):
        model.train_on_batch(*data[i])
    return average


def data() -> Batches:
    return Batches([[IMAGES]], LABELS, classes=3, batch_size=32, seed=0)


def test_statistics_are_those_of_the_averaged_weights() -> None:
    model = compiled()
    average = trained(model, data())
    norm = model.get_layer("norm")
    own = np.asarray(norm.moving_mean).copy()
    with average.swap_ema_weights():
        convolved = np.asarray(model.get_layer("convolution")(IMAGES))
        mean, variance = (np.asarray(v).copy() for v in (norm.moving_mean, norm.moving_variance))
    np.testing.assert_allclose(mean, convolved.mean((0, 1, 2)), rtol=0.01)
    np.testing.assert_allclose(variance, convolved.var((0, 1, 2)), rtol=0.05)
    assert not np.allclose(mean, own, rtol=0.1)


def test_swapping_back_restores_all_that_was() -> None:
    model = compiled()
    average = trained(model, data())
    state = [*model.variables, *model.optimizer.variables]
    before = [np.array(v) for v in state]
    with average.swap_ema_weights():
        assert not np.allclose(np.asarray(model.get_layer("convolution").kernel), before[0])
    for variable, value in zip(state, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), value, err_msg=variable.path)


def test_frozen_statistics_stay() -> None:
    model = compiled(frozen=True)
    average = trained(model, data())
    norm = model.get_layer("norm")
    with average.swap_ema_weights():
        np.testing.assert_array_equal(np.asarray(norm.moving_mean), np.zeros(4))
        np.testing.assert_array_equal(np.asarray(norm.moving_variance), np.ones(4))


def test_statistics_are_taken_from_2048_images_at_most() -> None:
    model = compiled()
    bright = np.concatenate([np.zeros((2048, 8, 8, 1)), np.full((512, 8, 8, 1), 255)])
    labels = np.arange(len(bright)) % 3
    images = Batches([[bright.astype(np.float32)]], labels, classes=3, batch_size=512)
    average = WeightAverage(model, images)
    model.train_on_batch(*images[0])
    with average.swap_ema_weights():
        bias = np.asarray(model.get_layer("convolution").bias)
        mean = np.asarray(model.get_layer("norm").moving_mean)
        np.testing.assert_allclose(mean, bias, rtol=1e-3)  # of black images alone
