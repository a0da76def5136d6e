from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from fer_experiments.errors import ConfigError, UsageError, WeightsError
from fer_experiments.models import backbones, classifier, weights
from fer_experiments.recipes import resolve


def build(file: Path | str, cut: str = "none", backbone: str = "tiny") -> keras.Model:
    config = resolve("baseline", {"weights": str(file), "truncate_at": cut, "backbone": backbone})
    return classifier.build(config.model, image_size=48, classes=7, seed=0)


def donor() -> keras.Model:
    keras.utils.set_random_seed(5)
    return backbones.lookup("tiny").build(keras.Input((48, 48, 3)))


def save_by_name(model: keras.Model, path: Path, *, without: tuple[str, ...] = ()) -> None:
    """The layout of keras.applications' published files."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if layer.name not in without]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{i}:0" for i in range(len(layer.weights))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, layer.get_weights(), strict=True):
                group[name] = value


def assert_backbone_is(model: keras.Model, expected: keras.Model) -> None:
    for layer in classifier.backbone_layers(model):
        for a, b in zip(
            layer.get_weights(), expected.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_a_file_by_layer_name_reaches_every_layer(tmp_path: Path) -> None:
    save_by_name(donor(), tmp_path / "tiny.h5")
    assert_backbone_is(build(tmp_path / "tiny.h5"), donor())


def test_keras_3_weights_of_a_whole_backbone_reach_every_layer(tmp_path: Path) -> None:
    donor().save_weights(tmp_path / "tiny.weights.h5")
    assert_backbone_is(build(tmp_path / "tiny.weights.h5"), donor())


def whole(*, nested: bool) -> keras.Model:
    """A classifier on the donor: its layers among the model's own, or as one model inside it."""
    base = donor()
    if nested:
        pixels = keras.Input((48, 48, 3))
        inner = keras.Model(base.input, base.output, name="base")
        return keras.Sequential([pixels, inner, keras.layers.Flatten(), keras.layers.Dense(7)])
    flat = keras.layers.Flatten()(base.output)
    return keras.Model(base.input, keras.layers.Dense(7)(flat))


@pytest.mark.parametrize("nested", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_whole_model_gives_its_backbones_layers(
    tmp_path: Path, suffix: str, nested: bool
) -> None:
    whole(nested=nested).save(tmp_path / f"tiny{suffix}")
    assert_backbone_is(build(tmp_path), donor())  # found in the folder, and read


def test_weights_without_names_of_a_larger_model_say_how_to_save_them(tmp_path: Path) -> None:
    whole(nested=True).save_weights(tmp_path / "tiny.weights.h5")
    with pytest.raises(WeightsError, match=r"does not fit tiny: .*model\.save\('NAME\.keras'\)"):
        build(tmp_path / "tiny.weights.h5")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_another_networks_file_is_not_said_to_lack_a_cut(tmp_path: Path, suffix: str) -> None:
    pixels = keras.Input((8,))
    outputs = keras.layers.Dense(2, name="other")(pixels)
    keras.Model(pixels, outputs).save(tmp_path / f"x{suffix}")
    with pytest.raises(WeightsError, match=r"by name: block1_conv.*Received: .*other") as raised:
        build(tmp_path / f"x{suffix}")
    assert "truncate_at=" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x80\x04K\x01."])
def test_files_that_are_no_keras_model_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.keras").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as a Keras model"):
        build(tmp_path / "bad.keras")


def test_a_folder_gives_each_backbone_its_own_file(tmp_path: Path) -> None:
    save_by_name(donor(), tmp_path / "tiny_lower.h5")
    (tmp_path / "vgg16_lower.h5").write_bytes(b"not read")
    assert_backbone_is(build(tmp_path), donor())


def test_a_folder_without_the_backbones_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vgg16.h5").touch()
    with pytest.raises(UsageError, match=r"begins with tiny.*Received: none"):
        build(tmp_path)


def test_last_layers_that_the_file_lacks_can_be_drawn(tmp_path: Path) -> None:
    save_by_name(donor(), tmp_path / "lower.h5", without=("block2_0_conv", "block2_2_bn"))
    changes = {"weights": str(tmp_path / "lower.h5"), "backbone": "tiny", "truncate_at": "none"}
    config = resolve("baseline", {**changes, "missing_weights": "draw"})
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    for name in ("block1_conv", "block1_bn", "block2_1_conv", "block2_2_conv"):
        expected = donor().get_layer(name).get_weights()
        for a, b in zip(model.get_layer(name).get_weights(), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    drawn = model.get_layer("block2_0_conv").get_weights()[0]
    assert np.abs(drawn).max() > 0
    assert (drawn != donor().get_layer("block2_0_conv").get_weights()[0]).all()


def test_only_last_layers_are_drawn(tmp_path: Path) -> None:
    save_by_name(donor(), tmp_path / "part.h5", without=("block1_bn",))
    config = resolve(
        "baseline",
        {"weights": str(tmp_path / "part.h5"), "backbone": "tiny", "missing_weights": "draw"},
    )
    with pytest.raises(WeightsError, match=r"lacks 1 of the 7 layers.*if only the last ones"):
        classifier.build(config.model, image_size=48, classes=7, seed=0)


def test_layers_that_the_file_lacks_are_named(tmp_path: Path) -> None:
    save_by_name(donor(), tmp_path / "part.h5", without=("block2_1_conv", "block2_2_bn"))
    with pytest.raises(WeightsError, match=r"lacks 2 of the 7 layers.*block2_1_conv, block2_2_bn"):
        build(tmp_path / "part.h5")


def test_only_layers_up_to_the_cut_are_needed(tmp_path: Path) -> None:
    save_by_name(donor(), tmp_path / "part.h5", without=("block2_1_conv", "block2_2_bn"))
    model = build(tmp_path / "part.h5", cut="block1_pool")
    assert classifier.backbone_layers(model)[-1].name == "block1_pool"
    assert_backbone_is(model, donor())


def test_other_shapes_are_named(tmp_path: Path) -> None:
    wrong = donor()
    save_by_name(wrong, tmp_path / "wrong.h5")
    with h5py.File(tmp_path / "wrong.h5", "a") as file:
        del file["block1_conv/block1_conv/0:0"]
        file["block1_conv/block1_conv/0:0"] = np.zeros((3, 3, 3, 9))
    with pytest.raises(WeightsError, match="other shapes than the backbone in: block1_conv"):
        build(tmp_path / "wrong.h5")


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04 no zip"])
def test_files_that_are_no_hdf5_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.h5").write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read as an HDF5 weights file"):
        build(tmp_path / "bad.h5")


def test_a_missing_file_is_named_with_its_absolute_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"looked for {tmp_path}/nothing.h5"):
        build(tmp_path / "nothing.h5")


def test_a_backbone_that_never_saw_imagenet_says_so() -> None:
    with pytest.raises(ConfigError, match="never trained on ImageNet"):
        weights.check("imagenet", backbones.lookup("tiny"))


def test_he_initialisation_changes_the_spread_of_every_kernel() -> None:
    config = resolve("demo", {"backbone": "tiny"})
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    kernel = model.get_layer("block2_2_conv").kernel
    assert np.std(np.array(kernel)) == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "file", "cut"),
    [
        ("vgg16", "vgg16_imagenet_block1-block3.h5", "block3_pool"),
        ("resnet50", "resnet50_imagenet_conv1-conv4.h5", "conv4_block6_out"),
    ],
)
def test_real_weights_reach_the_cut_and_not_further(
    shared: Path, backbone: str, file: str, cut: str
) -> None:
    model = build(shared / "weights", cut=cut, backbone=backbone)
    with h5py.File(shared / "weights" / file) as stored:
        for layer in classifier.backbone_layers(model):
            if layer.weights:
                group = stored[layer.name]
                for value, name in zip(
                    layer.get_weights(), group.attrs["weight_names"], strict=True
                ):
                    np.testing.assert_array_equal(value, group[name])
    with pytest.raises(WeightsError, match="lacks"):
        build(shared / "weights", backbone=backbone)
