"""Truncation: what must be trainable, and that both parts together are the whole network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from fer_experiments.models import classifier, truncation
from fer_experiments.recipes import resolve

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1)).astype(np.float32)
# The tensors that head training needs, and those that training the last four layers needs.
HEAD = ("head_flatten",)
LAST_FOUR = {
    "tiny": ("block1_pool", "block2_2_bn"),
    "vgg16": ("block4_pool",),
    "resnet50": ("conv5_block2_out", "conv5_block3_2_relu"),
}
# Keras takes seconds to run and to copy the largest; tiny has branches and batchnorm, too.
COMPUTED = ["tiny", "vgg16", pytest.param("resnet50", marks=pytest.mark.slow)]


def build(backbone: str = "tiny", **changes: Any) -> keras.Model:
    config = resolve("demo", {"backbone": backbone, "truncate_at": "none", **changes})
    return classifier.build(config.model, image_size=48, classes=7, seed=0)


def calmed(model: keras.Model) -> keras.Model:
    """Random weights make logits so large that one class has all of the probability: not here."""
    logits = model.get_layer("logits")
    largest = np.abs(keras.Model(model.input, logits.output).predict_on_batch(PIXELS)).max()
    logits.set_weights([weight / float(largest) for weight in logits.get_weights()])
    return model


@pytest.fixture(scope="module")
def whole() -> Callable[[str], keras.Model]:
    """A classifier by its backbone, built once and only looked at."""
    built: dict[str, keras.Model] = {}
    return lambda backbone: (
        built.get(backbone) or built.setdefault(backbone, calmed(build(backbone)))
    )


def last_four(model: keras.Model) -> tuple[str, ...]:
    unfrozen = classifier.to_unfreeze(model, 4, train_batchnorm=False)
    return truncation.points(model, truncation.training_layers(model).union(unfrozen))


def features_at(model: keras.Model, points: tuple[str, ...]) -> list[np.ndarray]:
    features = keras.tree.flatten(
        truncation.feature_extractor(model, points).predict_on_batch(PIXELS)
    )
    assert len(features) == len(points)
    return features


def composed(model: keras.Model, points: tuple[str, ...]) -> np.ndarray:
    features = features_at(model, points)
    return truncation.trainable_part(model, points).predict_on_batch(
        features if len(points) > 1 else features[0]
    )


def changed(layer: layers.Layer) -> None:
    layer.set_weights([weight + 1 for weight in layer.get_weights()])


@pytest.mark.parametrize("backbone", LAST_FOUR)
def test_head_training_needs_the_flat_features_only(
    whole: Callable[[str], keras.Model], backbone: str
) -> None:
    model = whole(backbone)
    assert truncation.points(model, truncation.training_layers(model)) == HEAD


@pytest.mark.parametrize("backbone", LAST_FOUR)
def test_the_last_four_layers_need_every_branch_that_enters_them(
    whole: Callable[[str], keras.Model], backbone: str
) -> None:
    assert last_four(whole(backbone)) == LAST_FOUR[backbone]


def test_a_low_cut_of_the_backbone_is_cut_lower_still() -> None:
    model = build("resnet50", truncate_at="conv2_block3_out")
    assert truncation.points(model, truncation.training_layers(model)) == HEAD
    assert last_four(model) == ("conv2_block2_out", "conv2_block3_2_relu")


@pytest.mark.parametrize("train_batchnorm", [False, True])
def test_nothing_with_weights_lies_before_the_first_layer_that_trains(
    train_batchnorm: bool,
) -> None:
    model = build()
    classifier.unfreeze(
        model, len(classifier.backbone_layers(model)), train_batchnorm=train_batchnorm
    )
    points = truncation.points(model, truncation.training_layers(model))
    assert truncation.feature_extractor(model, points).weights == []
    assert truncation.trainable_part(model, points).count_params() == model.count_params()


def test_all_that_trains_lies_behind_and_what_lies_before_is_frozen() -> None:
    model = build()
    unfrozen = classifier.unfreeze(model, 4, train_batchnorm=False)
    points = truncation.points(model, truncation.training_layers(model))
    frozen, trained = (
        truncation.feature_extractor(model, points),
        truncation.trainable_part(model, points),
    )
    assert frozen.trainable_weights == []
    assert {w.path for w in trained.trainable_weights} == {w.path for w in model.trainable_weights}
    assert {"head_dense", "logits", *unfrozen} <= {layer.name for layer in trained.layers}


@pytest.mark.parametrize("backbone", COMPUTED)
def test_both_sides_together_are_the_whole_network(
    whole: Callable[[str], keras.Model], backbone: str
) -> None:
    model = whole(backbone)
    expected = model.predict_on_batch(PIXELS)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the images can be told apart
    for points in (HEAD, LAST_FOUR[backbone]):
        np.testing.assert_allclose(composed(model, points), expected, atol=1e-5)


def test_both_sides_together_are_the_whole_network_in_lower_precision() -> None:
    model = calmed(build(precision="mixed_bfloat16"))
    expected = model.predict_on_batch(PIXELS)
    for points in (HEAD, LAST_FOUR["tiny"]):
        probabilities = composed(model, points)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_what_trains_behind_the_cut_has_trained_in_the_whole_network() -> None:
    model = calmed(build(dropout=0.0))
    trained = truncation.trainable_part(model, HEAD)
    [features] = features_at(model, HEAD)
    weights = model.get_weights()
    trained.compile("sgd", "categorical_crossentropy")
    trained.train_on_batch(features, np.eye(7, dtype=np.float32)[:4])
    assert any(not np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    np.testing.assert_allclose(
        model.predict_on_batch(PIXELS), trained.predict_on_batch(features), atol=1e-5
    )


def test_the_hash_follows_the_weights_below_and_no_others() -> None:
    model = build()
    tensors = ("block1_pool", "block2_2_bn", "head_flatten")

    def hashes() -> list[str]:
        return truncation.digests(model, tensors)

    first = hashes()
    for name in ("head_batchnorm", "head_dense", "logits"):
        changed(model.get_layer(name))
    assert hashes() == first
    changed(model.get_layer("block2_0_conv"))  # the shortcut, beside block2_2_bn
    assert [a == b for a, b in zip(hashes(), first, strict=True)] == [True, True, False]
    changed(model.get_layer("block2_2_bn"))
    assert [a == b for a, b in zip(hashes(), first, strict=True)] == [True, False, False]
    changed(model.get_layer("block1_conv"))
    assert [a == b for a, b in zip(hashes(), first, strict=True)] == [False, False, False]


def test_the_hash_covers_the_statistics_of_batchnorm() -> None:
    model = build()
    first = truncation.digests(model, ["block1_pool"])
    layer = model.get_layer("block1_bn")
    layer.moving_mean.assign(layer.moving_mean + 1)
    assert truncation.digests(model, ["block1_pool"]) != first


@pytest.mark.parametrize("backbone", COMPUTED)
def test_the_digest_is_the_same_after_saving_and_loading(backbone: str, tmp_path: Path) -> None:
    """And in another process or after other models, where Keras counts its names on."""
    end = {"vgg16": "block2_pool", "resnet50": "conv2_block3_out", "tiny": "none"}[backbone]
    model = build(backbone, truncate_at=end)
    names = [*HEAD, *last_four(model)]
    first = truncation.digests(model, names)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = build(backbone, truncate_at=end)
    assert truncation.digests(loaded, names) == truncation.digests(again, names) == first
    classifier.unfreeze(again, 4, train_batchnorm=True)  # what trains later plays no part
    truncation.trainable_part(again, truncation.points(again, truncation.training_layers(again)))
    assert truncation.digests(again, names) == first
    assert len(set(first)) == len(first)


def test_each_tensor_has_the_digest_that_it_has_alone() -> None:
    model = build()
    names = ["block1_pool", "block2_2_bn", "head_flatten"]
    assert truncation.digests(model, names) == [
        truncation.digests(model, [name])[0] for name in names
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {
            "truncate_at": "block2_add"
        },  # the same weights below, the same shape, without the last ReLU
        {"truncate_at": "block2_2_bn"},
        {"head": "global_average_pooling"},
        {"input_scaling": "unit"},
        {"input_size": 64},
        {"precision": "mixed_bfloat16"},
        {"initializer": "glorot_uniform"},
    ],
    ids=str,
)
def test_what_decides_the_values_decides_the_digest(changes: dict[str, Any]) -> None:
    def digest(model: keras.Model) -> str:
        name = truncation.points(model, truncation.training_layers(model))[0]
        return truncation.digests(model, [name])[0]

    model, other = build(), build(**changes)
    assert digest(model) != digest(other)
    assert digest(build(**changes)) == digest(other)


def small_graph(
    *,
    negative_slope: float = 0.0,
    strides: int = 1,
    epsilon: float = 1e-3,
    interpolation: str = "bilinear",
    divisor: float = 2.0,
    channel: int = 0,
    mean: float = 1.0,
    swapped: bool = False,
    name: str = "convolution",
    initializer: str = "ones",
    trainable: bool = True,
) -> keras.Model:
    """One of each kind of setting that a value can depend on, and some that play no part."""
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = layers.Resizing(12, 12, interpolation=interpolation)(pixels)
    x = x[..., channel : channel + 1] / divisor + np.full((1, 1, 1, 1), mean, np.float32)
    convolution = layers.Conv2D(
        2, 3, strides=strides, padding="same", name=name, kernel_initializer=initializer
    )
    convolution.trainable = trainable
    x = convolution(x)
    convolution.set_weights([np.ones(w.shape, np.float32) for w in convolution.weights])
    x = layers.BatchNormalization(epsilon=epsilon)(x)
    y = layers.LeakyReLU(negative_slope=negative_slope)(x)
    return keras.Model(pixels, layers.Subtract(name="end")([y, x] if swapped else [x, y]))


@pytest.mark.parametrize(
    "changes",
    [
        {"negative_slope": 0.5},
        {"strides": 2},
        {"epsilon": 1e-5},
        {"interpolation": "bicubic"},
        {"divisor": 2.5},
        {"channel": 1},
        {"mean": 1.5},
        {"swapped": True},
    ],
    ids=str,
)
def test_every_setting_below_the_tensor_decides_the_digest(changes: dict[str, Any]) -> None:
    first, other = small_graph(), small_graph(**changes)
    assert truncation.digests(first, ["end"]) != truncation.digests(other, ["end"])


@pytest.mark.parametrize(
    "changes", [{"name": "renamed"}, {"initializer": "zeros"}, {"trainable": False}], ids=str
)
def test_names_and_what_only_training_looks_at_do_not(changes: dict[str, Any]) -> None:
    first, other = small_graph(), small_graph(**changes)
    assert truncation.digests(first, ["end"]) == truncation.digests(other, ["end"])


@pytest.mark.parametrize(
    "random",
    [
        layers.Dropout(0.5),
        layers.GaussianNoise(1.0),
        layers.SpatialDropout2D(0.5),
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomContrast(0.1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_layer_that_draws_is_never_before_the_truncation_points(random: layers.Layer) -> None:
    pixels = keras.Input((8, 8, 1))
    x = layers.Conv2D(2, 3, name="first")(pixels)
    x = layers.Conv2D(2, 3, name="second")(random(x))
    outputs = layers.Dense(3, name="logits")(layers.Flatten(name="flat")(x))
    model = keras.Model(pixels, outputs)
    assert truncation.points(model, {"logits"}) == ("first",)
    plain = keras.Model(pixels, layers.Dense(3, name="other")(layers.Flatten(name="even")(pixels)))
    assert truncation.points(plain, {"other"}) == ("even",)


def test_a_branch_around_the_trained_layer_is_needed_too() -> None:
    pixels = keras.Input((8, 8, 1), name="pixels")
    stem = layers.Conv2D(2, 3, padding="same", name="stem")(pixels)
    side = layers.Conv2D(2, 3, padding="same", name="side")(stem)
    trained = layers.Conv2D(2, 3, padding="same", name="trained")(stem)
    outputs = layers.Flatten(name="flat")(layers.Add(name="sum")([side, trained]))
    model = keras.Model(pixels, outputs)
    assert truncation.points(model, {"trained"}) == ("stem", "side")
    assert truncation.points(model, {"stem"}) == ("pixels",)
