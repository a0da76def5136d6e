from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fer_experiments.config import Config
from fer_experiments.errors import ConfigError
from fer_experiments.models import backbones, classifier, ensembles, temperature, truncation
from fer_experiments.recipes import resolve

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1)).astype(np.float32)


def build(seed: int = 0, **changes: object) -> keras.Model:
    config: Config = resolve("baseline", {"weights": "none", **changes})
    return classifier.build(config.model, image_size=48, classes=7, seed=seed)


def test_probabilities_of_raw_pixels() -> None:
    probabilities = build(backbone="tiny").predict(PIXELS, verbose=0)
    assert probabilities.shape == (4, 7)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("backbone", ["vgg16", "resnet50"])
def test_the_backbone_gets_what_its_own_preprocessing_gives(backbone: str) -> None:
    model = build(
        backbone=backbone, truncate_at={"vgg16": "block1_pool", "resnet50": "pool1_pool"}[backbone]
    )
    seen = keras.Model(model.input, model.get_layer("backbone_input").output)
    expected = getattr(keras.applications, backbone).preprocess_input(np.repeat(PIXELS, 3, axis=-1))
    np.testing.assert_array_equal(seen.predict(PIXELS, verbose=0), expected)


def test_recipe_notebook_scales_by_255() -> None:
    model = build(backbone="tiny", input_scaling="unit")
    seen = keras.Model(model.input, model.get_layer("backbone_input").output)
    expected = np.repeat(PIXELS, 3, axis=-1) / 255
    np.testing.assert_allclose(seen.predict(PIXELS, verbose=0), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "truncate_at", "last_four", "trainable"),
    [
        (
            "vgg16",
            "none",
            ["block5_conv1", "block5_conv2", "block5_conv3", "block5_pool"],
            ["block5_conv1", "block5_conv2", "block5_conv3"],
        ),
        (
            "resnet50",
            "none",
            [f"conv5_block3_{name}" for name in ("3_conv", "3_bn", "add", "out")],
            ["conv5_block3_3_conv"],
        ),
        (
            "resnet50",
            "conv4_block6_out",
            [f"conv4_block6_{name}" for name in ("3_conv", "3_bn", "add", "out")],
            ["conv4_block6_3_conv"],
        ),
    ],
)
def test_the_last_four_layers_are_the_notebooks(
    backbone: str, truncate_at: str, last_four: list[str], trainable: list[str]
) -> None:
    model = build(backbone=backbone, truncate_at=truncate_at)
    assert [layer.name for layer in classifier.backbone_layers(model)][-4:] == last_four
    assert classifier.unfreeze(model, 4, train_batchnorm=False) == trainable


def test_each_block_below_the_topmost_one_has_a_share_of_its_rate() -> None:
    model = build(backbone="resnet50", truncate_at="conv3_block4_out")
    assert classifier.learning_rate_multipliers(model, 0.5) == {}
    classifier.unfreeze(model, 0, train_batchnorm=True)
    shares = classifier.learning_rate_multipliers(model, 0.5)
    assert {name.split("_")[0]: share for name, share in shares.items()} == {
        "conv3": 1.0,
        "conv2": 0.5,
        "conv1": 0.25,
    }
    trained = {layer.name for layer in classifier.backbone_layers(model) if layer.weights}
    assert set(shares) == trained
    assert set(classifier.learning_rate_multipliers(model, 1.0).values()) == {1.0}


def test_the_graph_is_flat_and_loads_without_custom_objects(tmp_path: Path) -> None:
    model = build(backbone="tiny")
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(
        loaded.predict(PIXELS, verbose=0), model.predict(PIXELS, verbose=0)
    )
    names = [layer.name for layer in classifier.backbone_layers(model)]
    assert [layer.name for layer in classifier.backbone_layers(loaded)] == names


def test_only_the_head_trains_and_frozen_batchnorm_keeps_its_statistics() -> None:
    model = build(backbone="tiny")
    before = {w.path: np.array(w) for w in model.weights}
    model.compile("sgd", "categorical_crossentropy")
    model.fit(PIXELS, np.eye(7, dtype=np.float32)[:4], epochs=2, verbose=0)
    changed = {w.path for w in model.weights if not np.array_equal(before[w.path], np.array(w))}
    assert changed == {f"{n}/{p}" for n in ("head_dense", "logits") for p in ("kernel", "bias")}


@pytest.mark.parametrize("train_batchnorm", [False, True])
def test_unfrozen_batchnorm_trains_only_if_the_recipe_says_so(train_batchnorm: bool) -> None:
    model = build(backbone="tiny")
    classifier.unfreeze(model, 4, train_batchnorm=train_batchnorm)
    statistics = model.get_layer("block2_2_bn").moving_mean
    before = np.array(statistics)
    model.compile("sgd", "categorical_crossentropy")
    model.fit(PIXELS, np.eye(7, dtype=np.float32)[:4], epochs=1, verbose=0)
    assert np.array_equal(before, np.array(statistics)) is not train_batchnorm


def test_the_seed_decides_every_initial_weight() -> None:
    first, again, other = build(seed=1), build(seed=1), build(seed=2)
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(first.get_weights(), other.get_weights(), strict=True)
    )


def test_up_sampling_happens_inside_the_model() -> None:
    model = build(backbone="tiny", input_size=96)
    assert model.input_shape == (None, 48, 48, 1)
    assert model.get_layer("backbone_input").output.shape == (None, 96, 96, 3)


def test_the_middle_crop_is_all_that_the_backbone_sees() -> None:
    model = build(backbone="tiny", crop=44, input_scaling="unit")
    assert model.input_shape == (None, 48, 48, 1)
    seen = keras.Model(model.input, model.get_layer("backbone_input").output)
    expected = np.repeat(PIXELS[:, 2:46, 2:46], 3, axis=3) / 255
    np.testing.assert_allclose(np.array(seen(PIXELS)), expected, atol=1e-6)


def test_a_crop_is_up_sampled_to_the_input_size() -> None:
    model = build(backbone="tiny", crop=44, input_size=96)
    assert model.get_layer("backbone_input").output.shape == (None, 96, 96, 3)


@pytest.mark.parametrize("crop", [48, 60])
def test_a_crop_is_smaller_than_the_image(crop: int) -> None:
    with pytest.raises(ConfigError, match=f"smaller than the images, of 48 .*crop={crop}"):
        build(backbone="tiny", crop=crop)


def test_up_sampling_is_bilinear() -> None:
    """48 to 96 pixels: each new pixel lies a quarter off an old one, between two of them."""
    model = build(backbone="tiny", input_size=96, input_scaling="unit")
    seen = keras.Model(model.input, model.get_layer("backbone_input").output)
    image = PIXELS[0, :, :, 0]
    padded = np.pad(image, 1, mode="edge")

    def doubled(values: np.ndarray) -> np.ndarray:
        lower = 0.25 * values[:-2] + 0.75 * values[1:-1]
        upper = 0.75 * values[1:-1] + 0.25 * values[2:]
        return np.stack([lower, upper], axis=1).reshape(-1, values.shape[1])

    expected = doubled(doubled(padded).T).T / 255
    found = np.asarray(seen.predict(PIXELS[:1], verbose=0))[0]
    for channel in range(3):
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_in_lower_precision_logits_and_probabilities_are_float32() -> None:
    """Two logits that bfloat16 cannot tell apart still name the higher class."""
    model = build(backbone="tiny", precision="mixed_bfloat16", head_units=0, dropout=0.0)
    assert model.get_layer("block2_out").compute_dtype == "bfloat16"
    logits = model.get_layer("logits")
    kernel, bias = (np.zeros_like(weight) for weight in logits.get_weights())
    bias[[2, 5]] = 8.0, 8.01  # between 8 and 16, bfloat16 has steps of 1/16
    logits.set_weights([kernel, bias])
    probabilities = model.predict(PIXELS, verbose=0)
    assert probabilities.dtype == np.float32
    assert (probabilities.argmax(axis=1) == 5).all()
    scores = np.exp(bias - bias.max())
    np.testing.assert_allclose(probabilities[0], scores / scores.sum(), rtol=1e-5)


def test_models_of_before_whose_logits_are_bfloat16_still_work(tmp_path: Path) -> None:
    """Loaded, taken apart, given a temperature, averaged, trained on."""
    changes: dict[str, Any] = {"backbone": "tiny", "precision": "mixed_bfloat16", "dropout": 0.0}
    config = build(**changes).get_config()
    [logits] = [layer for layer in config["layers"] if layer["name"] == "logits"]
    logits["config"]["dtype"]["config"]["name"] = "mixed_bfloat16"
    keras.Model.from_config(config).save(tmp_path / "older.keras")
    older = keras.models.load_model(tmp_path / "older.keras")
    assert older.get_layer("logits").compute_dtype == "bfloat16"
    expected = older.predict(PIXELS, verbose=0)
    points = truncation.points(older, truncation.training_layers(older))
    features = truncation.feature_extractor(older, points).predict_on_batch(PIXELS)
    behind = truncation.trainable_part(older, points).predict_on_batch(
        keras.tree.flatten(features)[0]
    )
    np.testing.assert_allclose(behind, expected, atol=1e-5)
    warm = temperature.with_temperature(older, 2.0).predict(PIXELS, verbose=0)
    np.testing.assert_array_equal(warm.argmax(axis=1), expected.argmax(axis=1))
    both = ensembles.average([older, build(**changes)], tta="flip").predict(PIXELS, verbose=0)
    np.testing.assert_allclose(both.sum(axis=1), 1, atol=1e-5)
    assert classifier.unfreeze(older, 4, train_batchnorm=False) == ["block2_0_conv"]


@pytest.mark.parametrize("recipe", ["notebook", "baseline"])
def test_of_resnet50_the_notebook_trains_the_last_batchnorm_too(recipe: str) -> None:
    config = resolve(recipe, {"weights": "none", "backbone": "resnet50"})
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    own = config.finetune
    unfrozen = classifier.unfreeze(model, own.unfreeze_layers, train_batchnorm=own.train_batchnorm)
    assert unfrozen == ["conv5_block3_3_conv", "conv5_block3_3_bn"]
    assert len(model.get_layer("conv5_block3_3_bn").trainable_weights) == 2


def test_unknown_cut_names_near_layers() -> None:
    with pytest.raises(ConfigError, match=r"block3_pool.*Received: truncate_at=block3_poll"):
        build(backbone="vgg16", truncate_at="block3_poll")


def test_images_too_small_for_the_backbone_are_refused() -> None:
    config = resolve("baseline", {"weights": "none"})
    with pytest.raises(ConfigError, match="at least 32 pixels for backbone=vgg16"):
        classifier.build(config.model, image_size=24, classes=7, seed=0)


def test_more_layers_than_there_are_cannot_be_unfrozen() -> None:
    with pytest.raises(ConfigError, match="Received: unfreeze_layers=99"):
        classifier.unfreeze(build(backbone="tiny"), 99, train_batchnorm=False)


@pytest.mark.slow
def test_a_third_backbone_costs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = backbones.application("mobilenet_v2", "mobilenet_v2", "MobileNetV2", smallest_input=32)
    monkeypatch.setitem(backbones.BACKBONES, row.name, row)
    model = build(backbone="mobilenet_v2")
    assert model.predict(PIXELS, verbose=0).shape == (4, 7)
    seen = keras.Model(model.input, model.get_layer("backbone_input").output)
    np.testing.assert_allclose(
        seen.predict(PIXELS, verbose=0), np.repeat(PIXELS, 3, axis=-1) / 127.5 - 1, atol=1e-6
    )
