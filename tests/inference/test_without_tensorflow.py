"""An installation that predicts from ONNX files and has neither TensorFlow, Keras nor MLflow."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ..conftest import ROOT, process_environment
from .test_files import PIXELS, needs_extra, tiny, written

FEW = (ROOT / "requirements-onnx.txt").read_text()


def pins(text: str) -> set[str]:
    """`name==version`, with the marker of Python's version where there is one."""
    return {
        line.split(" ;")[0] if "typing-extensions" in line else line
        for line in text.splitlines()
        if line and not line.startswith("#")
    }


def test_the_versions_are_those_of_the_whole_suite() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = set(project["optional-dependencies"]["export"])
    whole = pins((ROOT / "requirements.txt").read_text()) | extra
    assert pins(FEW) <= whole
    assert not re.search(r"^(tensorflow|keras|mlflow|scipy)", FEW, re.MULTILINE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment made as docs/how-to/export.md says."""
    folder = tmp_path_factory.mktemp("few")
    source = folder / "source"  # pip builds within the folder that it installs
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "fer_experiments", source / "fer_experiments")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    for arguments in (["-r", str(ROOT / "requirements-onnx.txt")], ["--no-deps", str(source)]):
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--retries", "0", *arguments],
            capture_output=True, text=True, env=process_environment(PYTHONPATH=""),
        )  # fmt: skip
        if done.returncode and "(from versions: none)" in done.stderr:
            pytest.skip("the package registry cannot be reached")
        assert done.returncode == 0, done.stderr
    return python


@needs_extra
@pytest.mark.slow
def test_it_gives_what_the_model_gives(installed: Path, tmp_path: Path) -> None:
    from fer_experiments.evaluation.predictions import predict

    model = tiny()
    written(model, tmp_path / "model.onnx")
    np.save(tmp_path / "pixels.npy", PIXELS)
    code = """
import sys
import numpy as np
from fer_experiments import load_predictor
predictor = load_predictor("model.onnx")
np.save("found.npy", predictor.predict(list(np.load("pixels.npy"))))
print(*sorted({"tensorflow", "keras", "mlflow"} & set(sys.modules)))
try:
    load_predictor("models:/emotion-faces@champion")
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [installed, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=process_environment(PYTHONPATH=""),
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "",
        "Expected a model file such as champion.onnx, for MLflow is not installed. Received: "
        "models:/emotion-faces@champion",
    ]
    np.testing.assert_allclose(
        np.load(tmp_path / "found.npy"), predict(model, PIXELS), rtol=0, atol=1e-5
    )
    Image.fromarray(PIXELS[0]).save(tmp_path / "face.png")
    done = subprocess.run(
        [installed.parent / "fer", "predict", "face.png", "--model", "model.onnx", "--json"],
        cwd=tmp_path, capture_output=True, text=True, env=process_environment(PYTHONPATH=""),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row, last = map(json.loads, done.stdout.splitlines())
    found = list(row["probabilities"].values())
    np.testing.assert_allclose(found, predict(model, PIXELS[:1])[0], rtol=0, atol=1e-5)
    assert last["summary"]["model"]["file"] == "model.onnx"
    # MTCNN needs TensorFlow, and says so.
    done = subprocess.run(
        [installed.parent / "fer", "predict", "face.png", "--model", "model.onnx",
         "--detector", "mtcnn"],
        cwd=tmp_path, capture_output=True, text=True, env=process_environment(PYTHONPATH=""),
    )  # fmt: skip
    assert done.returncode == 2
    assert "Expected TensorFlow for detector=mtcnn. Received: it is not installed" in done.stderr
