"""`export`: what comes out is the champion and says what it says, or nothing comes out."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from fer_experiments import __version__, console, load_predictor
from fer_experiments.data.images import FER_CLASSES
from fer_experiments.data.prepared import prepare
from fer_experiments.recipes import resolve

from ..conftest import Fer, Job, Outcome
from .designed import SIDE, log_as_trained, log_designed, write_images

if TYPE_CHECKING:
    import keras

pytestmark = pytest.mark.skipif(
    any(find_spec(m) is None for m in ("onnx", "tf2onnx", "onnxruntime", "ai_edge_litert")),
    reason="the extra `export` is not installed",
)
CHAMPION = "models:/emotion-synthetic@champion"


@pytest.fixture
def champion(job: Job, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of the store of a whole job, whose champion is version 1."""
    with (
        closing(sqlite3.connect(base / "mlflow.db")) as store,
        closing(sqlite3.connect(tmp_path / "mlflow.db")) as copy,
    ):
        store.backup(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def newest_run(stage: str = "export") -> Any:
    client = MlflowClient()
    every = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(every, f"tags.stage = '{stage}'")[0]


@pytest.mark.slow
def test_the_champion_becomes_a_file_that_says_the_same(champion: Path, fer: Fer) -> None:
    outcome = fer("export", "--json")
    assert outcome.exit_code == 0, outcome.err
    told = json.loads(outcome.out)
    path = champion / "emotion-synthetic-1.onnx"
    assert told["file"] == str(path)
    assert told["files"] == ["config.json", path.name]
    assert not list(champion.glob(".writing-*"))

    # The file, the model behind it, and `fer predict` give the same.
    noise = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    Image.fromarray(noise).save("photo.png")
    photo = Path("photo.png").read_bytes()
    from_file, from_store = load_predictor(path), load_predictor(CHAMPION)
    assert from_file.class_names == from_store.class_names
    assert from_file.identity.uri == from_store.identity.uri
    assert from_file.identity.versions == ("emotion-synthetic/1",)
    assert from_file.identity.address == path.name
    [found] = from_file.predict([photo])
    np.testing.assert_allclose(found, from_store.predict([photo])[0], rtol=0, atol=1e-5)
    said = json.loads(
        fer("predict", "photo.png", "--detector", "none", "--json").out.splitlines()[0]
    )
    np.testing.assert_allclose(found, list(said["probabilities"].values()), rtol=0, atol=1e-5)

    # The run has it all, and the version names the run.
    client, run = MlflowClient(), newest_run()
    assert run.info.status == "FINISHED"
    assert run.data.params["format"] == "onnx" and run.data.params["int8"] == "False"
    metrics = run.data.metrics
    assert metrics["parity/largest_difference"] <= 1e-4
    assert metrics["parity/same_class"] == 1.0
    assert metrics["parity/accuracy"] == metrics["parity/accuracy_of_model"]
    assert metrics["file/megabytes"] == path.stat().st_size / 1e6
    assert told["scores"] == metrics
    kept = client.download_artifacts(run.info.run_id, path.name, str(champion))
    assert Path(kept).read_bytes() == path.read_bytes()
    version = client.get_model_version_by_alias("emotion-synthetic", "champion")
    assert version.tags["exported_onnx"] == f"{path.name} of run {run.info.run_id}"
    assert run.data.tags["fer_experiments"] == __version__
    assert run.data.tags["model_uri"] == version.source


# --- models whose every answer is known ---


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """700 val images, of which the model names 90 % rightly."""
    return write_images(tmp_path_factory.mktemp("faces") / "faces", [0.9])


def export(fer: Fer, run_id: str, *options: str) -> Outcome:
    return fer("export", "--model", MlflowClient().get_run(run_id).data.tags["model_uri"], *options)


@pytest.mark.slow
def test_int8_is_judged_by_its_accuracy(fresh_store: Path, faces: Path, fer: Fer) -> None:
    run_id = log_designed(faces, 0, confidence=0.8)
    outcome = export(fer, run_id, "--format", "litert", "--int8", "--out", "small.tflite")
    assert outcome.exit_code == 0, outcome.err
    assert (
        "accuracy 90.00%, the model's own 90.00%; not tested: they name the same class of every "
        "image" in outcome.out
    )
    assert Path("small.tflite").is_file()
    metrics = newest_run().data.metrics
    assert metrics["parity/accuracy"] == metrics["parity/accuracy_of_model"] == 0.9


def with_weights_for_black(model: keras.Model, factor: float) -> keras.Model:
    """The designed model with weights for pixels that are black in every image.

    They change no answer, but 8 bits that hold them hold nothing else.
    """
    [kernel] = model.get_layer("logits").get_weights()
    rows = kernel.reshape(SIDE, SIDE, -1)
    rows[0, 10:] = factor
    model.get_layer("logits").set_weights([kernel])
    return model


def log_again(model: keras.Model, dataset: Path) -> str:
    fields = {"dataset": str(dataset), "split": "official", "image_size": SIDE, "weights": "none"}
    config = resolve("baseline", fields)
    return log_as_trained(model, config, prepare(config.data), name="again")


def designed(faces: Path) -> keras.Model:
    from fer_experiments.tracking.models import load, model_of
    from fer_experiments.tracking.runs import get_run

    return load(model_of(get_run(log_designed(faces, 0, confidence=0.8), stages=("train",))))


@pytest.mark.slow
def test_an_int8_file_that_is_worse_does_not_stay(fresh_store: Path, faces: Path, fer: Fer) -> None:
    run_id = log_again(with_weights_for_black(designed(faces), 1e4), faces)
    outcome = export(fer, run_id, "--format", "litert", "--int8", "--out", "small.tflite")
    assert outcome.exit_code == 1
    assert outcome.err.endswith(
        "Expected the litert file to say what the model says on the 700 val images of fer2013. "
        "Found: accuracy is 14.29% where the model's own is 90.00%, more than 0.5 points apart; "
        "the file was removed\n"
    )
    run = newest_run()
    assert run.info.status == "FAILED"
    assert run.data.metrics["parity/difference_high"] < -0.7
    assert "accuracy is 14.29%" in run.data.tags["failure_reason"]
    kept = [file.path for file in MlflowClient().list_artifacts(run.info.run_id)]
    assert kept == ["config.json"]
    assert not [p for p in fresh_store.rglob("*.tflite") if "runs" not in p.parts]


def sensitive(model: keras.Model) -> keras.Model:
    """The designed model, plus the rounding of a tangent that is computed in two ways.

    Engines round in ways of their own, so each gives probabilities of its own.
    """
    import keras
    from keras import layers

    C = len(FER_CLASSES)
    pick = np.zeros((SIDE * SIDE, C))
    pick[-C:] = np.eye(C) / 255  # pixels of the last row, which are noise
    pixels = keras.Input((SIDE, SIDE, 1), dtype="float32", name="pixels")
    dense = layers.Dense(C, use_bias=False, name="pick")
    noise = dense(layers.Flatten()(pixels))
    dense.set_weights([pick])
    tangent, same = keras.ops.tanh(noise), 2 * keras.ops.sigmoid(2 * noise) - 1
    logits = keras.Model(model.input, model.get_layer("logits").output)(pixels)
    outputs = layers.Softmax(name="softmax")(logits + 1e6 * (tangent - same))
    return keras.Model(pixels, outputs, name="sensitive")


@pytest.mark.slow
def test_a_file_with_other_probabilities_does_not_stay(
    fresh_store: Path, faces: Path, fer: Fer
) -> None:
    run_id = log_again(sensitive(designed(faces)), faces)
    Path("older.onnx").write_bytes(b"an older file")
    outcome = export(fer, run_id, "--out", "older.onnx")
    assert outcome.exit_code == 1
    assert "Found: a probability differs by" in outcome.err
    assert Path("older.onnx").read_bytes() == b"an older file"
    assert not list(fresh_store.glob(".writing-*"))
    assert newest_run().data.metrics["parity/largest_difference"] > 1e-4
    # The same engine gives the same.
    assert export(fer, run_id, "--format", "keras", "--out", "same.keras").exit_code == 0


@pytest.mark.slow
def test_mixed_precision_is_held_against_float32_and_against_itself(
    fresh_store: Path, faces: Path, fer: Fer
) -> None:
    import keras

    before = keras.config.dtype_policy()
    plain = designed(faces)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        pixels = keras.Input((SIDE, SIDE, 1), dtype="float32", name="pixels")
        dense = keras.layers.Dense(len(FER_CLASSES), use_bias=False, name="logits")
        logits = dense(keras.layers.Flatten()(pixels))
    finally:
        keras.config.set_dtype_policy(before)
    outputs = keras.layers.Softmax(dtype="float32", name="softmax")(logits)
    mixed = keras.Model(pixels, outputs, name="mixed")
    mixed.set_weights(plain.get_weights())
    outcome = export(fer, log_again(mixed, faces), "--out", "mixed.onnx")
    assert outcome.exit_code == 0, outcome.err
    assert "from those of the model in float32, 100.00% of the images are named" in outcome.out
    assert "accuracy 90.00%, the model's own 90.00%" in outcome.out
    # float32's probabilities, not those of bfloat16, which differ by more than a thousandth.
    images = np.zeros((1, SIDE, SIDE), dtype=np.uint8)
    images[0, 0, 3] = 255
    [found] = load_predictor("mixed.onnx").probabilities(images)
    assert found[3] == pytest.approx(0.8, abs=1e-6)


@pytest.mark.slow
def test_without_the_data_it_is_checked_on_other_data_or_not_written(
    fresh_store: Path, home: Path, tmp_path: Path, fer: Fer
) -> None:
    data = write_images(tmp_path / "mine", [0.9])
    run_id = log_designed(data, 0, confidence=0.8)
    shutil.rmtree(data)
    for folder in home.glob("fer2013-*"):
        shutil.rmtree(folder)
    outcome = export(fer, run_id, "--out", "a.onnx")
    assert outcome.exit_code == 1
    assert "The file is checked on the val images of the model's data. Expected dataset" in (
        outcome.err
    )
    assert "or pass --dataset with other data of these classes" in outcome.err
    assert not Path("a.onnx").exists()
    other = write_images(tmp_path / "other", [0.5])
    outcome = export(fer, run_id, "--out", "a.onnx", "--dataset", str(other))
    assert outcome.exit_code == 0, outcome.err
    assert newest_run().data.metrics["parity/accuracy"] == 0.5


# --- what is refused before anything is done ---


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["--format", "pickle"],
            "Error: Expected format to be one of onnx, litert, keras. Received: format=pickle",
        ),
        (["--int8"], "Error: Expected int8 with format=litert alone. Received: format=onnx"),
        (
            ["--out", "a.tflite"],
            "Error: Expected out to be a file that ends in .onnx, in a folder that exists. "
            "Received: out=a.tflite",
        ),
        (
            ["--out", "nowhere/a.onnx"],
            "Error: Expected out to be a file that ends in .onnx, in a folder that exists. "
            "Received: out=nowhere/a.onnx",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_a_line_and_no_run(
    options: list[str], error: str, champion: Path, fer: Fer
) -> None:
    outcome = fer("export", *options)
    assert outcome.exit_code == 2
    assert outcome.error == error
    assert list(champion.iterdir()) == [champion / "mlflow.db"]


def test_another_backend_than_tensorflow_is_refused(
    champion: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.load_keras()
    import keras

    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    outcome = fer("export")
    assert outcome.exit_code == 2
    assert outcome.error == (
        "Error: Expected KERAS_BACKEND=tensorflow to export as onnx. Received: jax; export with "
        "that, or pass --format keras"
    )


def test_a_missing_extra_is_a_line(
    champion: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fer_experiments.inference import files

    monkeypatch.setattr(files, "find_spec", lambda name: None if name == "tf2onnx" else object())
    outcome = fer("export")
    assert outcome.exit_code == 2
    assert outcome.error == (
        "Error: Expected onnx, tf2onnx, onnxruntime to be installed. Missing: tf2onnx; run pip "
        "install 'fer_experiments[export]'"
    )
