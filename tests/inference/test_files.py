"""Models as files: what they give, what stands in them, and which files are refused."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fer_experiments import __version__, console, load_predictor
from fer_experiments.data.images import PixelRule
from fer_experiments.errors import UsageError
from fer_experiments.inference.files import (
    ENDINGS,
    Description,
    check_installed,
    is_model_file,
    open_predictor,
)
from fer_experiments.recipes import resolve

if TYPE_CHECKING:
    import keras

needs_extra = pytest.mark.skipif(
    any(find_spec(m) is None for m in ("onnx", "tf2onnx", "onnxruntime", "ai_edge_litert")),
    reason="the extra `export` is not installed",
)
NAMES = ("angry", "happy", "sad")
ABOUT = Description(
    class_names=NAMES,
    image_size=48,
    rule=PixelRule(crop="squash", white={"integer": 4095.0}),
    model_uri="models:/m-1",
    run_id="a1",
    export_run_id="b2",
    versions=("emotion-faces/3",),
)
PIXELS = np.random.default_rng(0).integers(0, 256, (70, 48, 48), dtype=np.uint8)


def tiny(**fields: Any) -> keras.Model:
    """A classifier with random weights."""
    console.quieten()
    from fer_experiments.models.classifier import build

    config = resolve("demo", {"backbone": "tiny", "weights": "none", **fields}).model
    return build(config, image_size=48, classes=len(NAMES), seed=0)


def written(model: keras.Model, path: Path, **fields: Any) -> Path:
    from dataclasses import replace

    from fer_experiments.inference.export import write

    write(model, path, replace(ABOUT, **fields))
    return path


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("tf2onnx") is None:
        pytest.skip("the extra `export` is not installed")
    return written(tiny(), tmp_path_factory.mktemp("onnx") / "model.onnx")


# Cropped, enlarged, BatchNorm that trains, an input scaling with constants: what converters get
# wrong. LiteRT takes 3 s each.
FORMS: list[dict[str, Any]] = [
    {},
    {"crop": 44, "input_size": 64, "head_batchnorm": True},
    {"precision": "mixed_bfloat16", "input_scaling": "unit"},
]


@needs_extra
@pytest.mark.parametrize("fields", FORMS, ids=lambda f: " ".join(f) or "plain")
@pytest.mark.parametrize("form", ["onnx", pytest.param("litert", marks=pytest.mark.slow), "keras"])
def test_a_file_gives_the_probabilities_of_the_model(
    form: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    from fer_experiments.evaluation.predictions import predict
    from fer_experiments.models.precision import in_float32

    model = in_float32(tiny(**fields))
    path = written(model, tmp_path / f"model{ENDINGS[form]}")
    predictor = open_predictor(path)
    found = predictor.probabilities(PIXELS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, predict(model, PIXELS), rtol=0, atol=1e-5)
    # One image alone, and none, as well as many: the batch is free.
    np.testing.assert_allclose(predictor.probabilities(PIXELS[:1]), found[:1], rtol=0, atol=1e-5)
    assert predictor.probabilities(PIXELS[:0]).shape == (0, 3)


@needs_extra
@pytest.mark.slow
def test_an_int8_file_is_a_third_of_the_size_and_near(tmp_path: Path) -> None:
    from fer_experiments.evaluation.predictions import predict

    model = tiny()
    whole = written(model, tmp_path / "float.tflite")
    small = written(model, tmp_path / "int8.tflite", int8=True)
    assert small.stat().st_size < whole.stat().st_size / 3
    found = open_predictor(small).probabilities(PIXELS)
    own = predict(model, PIXELS)
    assert 1e-4 < np.abs(found - own).max() < 0.1


def test_float32_keeps_weights_and_names_and_leaves_the_model_alone() -> None:
    from fer_experiments.models.precision import in_float32, is_float32

    model = tiny(precision="mixed_bfloat16")
    plain = in_float32(model)
    assert is_float32(plain) and not is_float32(model)
    assert [layer.name for layer in plain.layers] == [layer.name for layer in model.layers]
    for ours, theirs in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert in_float32(plain) is plain


def test_a_predictor_knows_what_the_description_says(onnx_file: Path) -> None:
    predictor = load_predictor(onnx_file)
    assert predictor.class_names == NAMES
    assert predictor.image_size == 48
    assert predictor.rule == ABOUT.rule
    assert str(predictor.identity) == "model.onnx (emotion-faces/3; models:/m-1) of run a1"


def test_any_program_can_read_an_onnx_file(onnx_file: Path) -> None:
    import onnx

    model = onnx.load(onnx_file)
    ends = {
        end.name: [d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim]
        for end in (*model.graph.input, *model.graph.output)
    }
    assert ends == {"pixels": ["batch", 48, 48, 1], "probabilities": ["batch", 3]}
    [about] = (p for p in model.metadata_props if p.key == "fer_experiments")
    assert json.loads(about.value) == {
        "format": 1,
        "class_names": ["angry", "happy", "sad"],
        "image_size": 48,
        "crop": "squash",
        "detector": "none",
        "white": {"integer": 4095.0},
        "model_uri": "models:/m-1",
        "run_id": "a1",
        "export_run_id": "b2",
        "versions": ["emotion-faces/3"],
        "int8": False,
        "suite_version": __version__,
        "input": {
            "shape": ["batch", 48, 48, 1],
            "type": "float32",
            "values": "grey, 0 black to 255 white; the network scales them itself",
        },
        "output": {
            "shape": ["batch", 3],
            "type": "float32",
            "values": "probabilities, in the order of class_names",
        },
    }


@needs_extra
def test_keras_itself_reads_a_keras_file(tmp_path: Path) -> None:
    import keras

    model = tiny()
    path = written(model, tmp_path / "model.keras")
    again = keras.saving.load_model(path, compile=False, safe_mode=True)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("fer_experiments.json"))["class_names"] == list(NAMES)


def test_an_onnx_file_needs_no_large_library(onnx_file: Path) -> None:
    code = """
import sys
sys.modules |= dict.fromkeys(("keras", "tensorflow", "mlflow", "onnx", "sklearn", "scipy"))
import numpy as np
from fer_experiments import load_predictor
print(load_predictor(sys.argv[1]).predict([np.zeros((60, 90), dtype=np.uint8)]).sum())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(onnx_file)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(1, abs=1e-5)


def test_the_package_itself_imports_next_to_nothing() -> None:
    code = "import sys, fer_experiments; print([m for m in ('numpy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- what is refused ---


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as error:
        open_predictor(path)
    return str(error.value)


@needs_extra
def test_a_foreign_onnx_file_is_refused(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "foreign", ends[:1], ends[1:])
    path = tmp_path / "foreign.onnx"
    model = helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)])
    path.write_bytes(model.SerializeToString())
    assert refused(path) == (
        f"Expected a model file that fer export wrote. Received: {path} (no description by "
        "fer export)"
    )


@pytest.mark.parametrize("ending", ENDINGS.values())
@needs_extra
def test_a_file_that_is_no_model_is_refused(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"noise{ending}"
    path.write_bytes(b"noise")
    assert refused(path).startswith(
        f"Expected a model file that fer export wrote. Received: {path} ("
    )


def test_a_name_without_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gone.onnx"
    assert refused(path) == (
        f"Expected a model file that ends in .onnx, .tflite, .keras. Received: {path}, which is "
        "no file"
    )
    assert refused(tmp_path).endswith(f"Received: {tmp_path}")


def test_a_missing_package_is_named() -> None:
    with pytest.raises(UsageError) as error:
        check_installed("numpy", "no_such_package")
    assert str(error.value) == (
        "Expected numpy, no_such_package to be installed. Missing: no_such_package; run pip "
        "install 'fer_experiments[export]'"
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2, "suite_version": "9.0"}, "a description of a newer version, 9.0"),
        ({"white": None}, "no description by fer export"),
        ({"class_names": None}, "no description by fer export"),
        ({"format": None}, "no description by fer export"),
    ],
)
def test_a_description_that_says_something_else_is_refused(
    change: dict[str, Any], why: str
) -> None:
    about = json.loads(ABOUT.to_json())
    assert Description.from_json(json.dumps(about)) == ABOUT
    with pytest.raises(ValueError) as error:
        Description.from_json(json.dumps(about | change))
    assert str(error.value) == why


def test_files_and_addresses_are_told_apart() -> None:
    assert is_model_file("champion.onnx") and is_model_file("C:/models/a.TFLITE")
    assert is_model_file("~/a b.keras")
    assert not is_model_file("models:/emotion-faces@champion")
    assert not is_model_file("runs:/1/model.keras")
    assert not is_model_file("faces.png")
