"""Where a model looks, on networks that are known to look somewhere."""

import keras
import numpy as np
import pytest
from keras import layers

from fer_experiments.evaluation.explanations import examples, hires_cam
from fer_experiments.models import classifier
from fer_experiments.recipes import resolve

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)


def corner_watcher(size: int = 32) -> keras.Model:
    """Class 0 is what is bright in the upper left of 4×4 cells, class 1 in the lower right."""
    pixels = keras.Input((size, size, 1))
    means = layers.AveragePooling2D(size // 4)(pixels)
    x = layers.Flatten()(means)
    logits = layers.Dense(2, use_bias=False, name="logits")(x)
    model = keras.Model(pixels, layers.Softmax()(logits))
    kernel = np.zeros((16, 2), np.float32)
    kernel[0, 0] = kernel[15, 1] = 1.0
    model.get_layer("logits").set_weights([kernel])
    return model


def build(backbone: str, **changes: object) -> keras.Model:
    config = resolve("baseline", {"weights": "none", "backbone": backbone, **changes})
    return classifier.build(config.model, image_size=48, classes=7, seed=0)


@pytest.mark.parametrize(("k", "corner", "other"), [(0, 0, 31), (1, 31, 0)])
def test_a_network_that_looks_at_one_corner_lights_that_corner_only(
    k: int, corner: int, other: int
) -> None:
    image = np.full((1, 32, 32), 50, np.uint8)
    image[0, :8, :8], image[0, -8:, -8:] = (100, 250) if k == 0 else (250, 100)
    [heat] = hires_cam(corner_watcher(), image, np.array([k]))
    assert heat[corner, corner] == heat.max() == 1
    assert heat[other, other] == heat[12:20, 12:20].max() == 0
    assert heat.dtype == np.float32


def test_each_image_is_explained_for_its_own_class_however_many_there_are() -> None:
    model, classes = corner_watcher(), np.arange(70) % 2
    images = np.random.default_rng(0).integers(0, 256, (70, 32, 32), dtype=np.uint8)
    together = hires_cam(model, images, classes)
    for i in (0, 33, 69):
        np.testing.assert_allclose(
            together[i], hires_cam(model, images[[i]], classes[[i]])[0], atol=1e-5
        )


def test_where_nothing_speaks_for_the_class_the_map_is_0() -> None:
    assert not hires_cam(corner_watcher(), np.zeros((2, 32, 32), np.uint8), np.array([0, 1])).any()


def test_no_images_give_no_maps() -> None:
    maps = hires_cam(corner_watcher(), np.zeros((0, 32, 32), np.uint8), np.zeros(0, int))
    assert maps.shape == (0, 32, 32)


@pytest.mark.parametrize(
    "backbone", ["tiny", "vgg16", pytest.param("resnet50", marks=pytest.mark.slow)]
)
def test_maps_of_a_backbone_are_from_0_to_1_and_the_same_again(backbone: str) -> None:
    model, classes = build(backbone), np.array([0, 1, 2, 3, 4])
    weights = [weight.copy() for weight in model.get_weights()]
    before = model.predict_on_batch(IMAGES[..., np.newaxis].astype(np.float32))
    maps = hires_cam(model, IMAGES, classes)
    assert maps.shape == IMAGES.shape
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() == 1
    assert (maps.std(axis=(1, 2)) > 0).any()  # more than one cell
    np.testing.assert_array_equal(hires_cam(model, IMAGES, classes), maps)
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    after = model.predict_on_batch(IMAGES[..., np.newaxis].astype(np.float32))
    np.testing.assert_array_equal(after, before)


def test_maps_of_a_loaded_model_are_the_same(tmp_path) -> None:
    model, classes = build("tiny"), np.arange(5)
    maps = hires_cam(model, IMAGES, classes)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(hires_cam(loaded, IMAGES, classes), maps, atol=1e-5)


def test_a_network_without_a_map_is_refused() -> None:
    pixels = keras.Input((48, 48, 1))
    logits = layers.Dense(2, name="logits")(layers.Flatten()(pixels))
    with pytest.raises(ValueError, match="Expected a feature map"):
        hires_cam(keras.Model(pixels, layers.Softmax()(logits)), IMAGES, np.arange(5) % 2)


def test_examples_are_the_surest_of_each_class_and_kind() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    sure = np.array([0.6, 0.9, 0.7, 0.8, 0.75, 0.85])
    right = np.array([True, True, True, False, False, False])
    of_0 = np.where(right == (labels == 0), sure, 1 - sure)
    probabilities = np.stack([of_0, 1 - of_0], axis=1)
    assert examples(labels, probabilities, each=2).tolist() == [1, 2, 3, 5, 4]
    assert examples(labels, probabilities, each=1).tolist() == [1, 3, 5]


def test_lower_precision_gives_float32_maps() -> None:
    maps = hires_cam(build("tiny", precision="mixed_bfloat16"), IMAGES, np.arange(5))
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()


def test_other_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = corner_watcher()
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(NotImplementedError, match="KERAS_BACKEND=torch"):
        hires_cam(model, np.zeros((1, 32, 32), np.uint8), np.array([0]))
