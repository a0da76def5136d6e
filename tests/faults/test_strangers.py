"""Models that a stranger changed: nothing of theirs is run, and what can't be loaded says so."""

from __future__ import annotations

import ast
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import files
from tests.faults.bad_cases import Payload

from ..conftest import ROOT, Fer, Job, Outcome

PACKAGE = ROOT / "fer_experiments"


@pytest.fixture
def model(job: Job, tmp_path: Path) -> Iterator[Path]:
    """The folder of a logged model, whole again afterwards."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    uri = client.get_run(job.runs["finetune"]).data.tags["model_uri"]
    folder = Path(client.get_logged_model(uri.removeprefix("models:/")).artifact_location)
    shutil.copytree(folder, tmp_path / "whole")
    yield folder
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "whole", folder)


@pytest.fixture
def predict(job: Job, fer: Fer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """`fer predict` with that model, in a folder where a payload would leave its mark."""
    from mlflow.tracking import MlflowClient

    uri = MlflowClient().get_run(job.runs["finetune"]).data.tags["model_uri"]
    work = tmp_path / "work"
    files.write(work, {"x.png": files.picture()})
    monkeypatch.chdir(work)
    return lambda: fer("predict", "x.png", "--model", uri)


Predict = Callable[[], Outcome]
EVIL = "import os\nos.mkdir('unpickled')\ndef _load_pyfunc(path): raise SystemExit\n"


@pytest.mark.parametrize(
    "name", ["custom_objects.cloudpickle", "global_custom_objects.cloudpickle"]
)
def test_a_pickle_beside_the_model_is_not_opened(name: str, model: Path, predict: Predict) -> None:
    (model / "data" / name).write_bytes(pickle.dumps(Payload()))
    predict()
    assert not Path("unpickled").exists()


def test_a_module_that_comes_with_the_model_is_not_imported(model: Path, predict: Predict) -> None:
    files.write(model, {"code/evil_loader.py": EVIL.encode()})
    description = (model / "MLmodel").read_text()
    changed = re.sub(
        r"loader_module: .*", "loader_module: evil_loader\n    code: code", description
    )
    assert changed != description
    (model / "MLmodel").write_text(changed)
    predict()
    assert not Path("unpickled").exists()


def test_a_module_that_the_model_names_is_not_imported(
    model: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("evil_keras.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    (model / "data" / "keras_module.txt").write_text("evil_keras")
    predict()
    assert not Path("unpickled").exists()


def test_code_in_a_keras_file_is_refused(model: Path, predict: Predict) -> None:
    import keras

    pixels = keras.Input((48, 48, 1), name="pixels")
    flat = keras.layers.Flatten()(pixels)
    outputs = keras.layers.Lambda(lambda x: x[:, :7], output_shape=(7,))(flat)
    keras.Model(pixels, outputs).save(model / "data" / "model.keras")
    outcome = predict()
    assert outcome.exit_code != 0
    assert outcome.error


@pytest.mark.parametrize("content", [b"", b"PK\3\4", files.zipped({"config.json": b"{}"})])
def test_a_model_file_that_is_none_is_one_clear_line(
    content: bytes, model: Path, predict: Predict
) -> None:
    (model / "data" / "model.keras").write_bytes(content)
    outcome = predict()
    assert outcome.exit_code != 0
    assert outcome.error


def calls_of_load(tree: ast.AST) -> list[ast.Call]:
    """Every `np.load(…)`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func) in ("np.load", "numpy.load")]


def test_calls_of_load_are_found() -> None:
    texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    assert sum(len(calls_of_load(ast.parse(text))) for text in texts) >= 3


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_nothing_in_the_package_unpickles(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"^\s*(import|from) (pickle|cloudpickle|joblib|dill|shelve)", text, re.M)
    for call in calls_of_load(ast.parse(text)):
        assert "allow_pickle=False" in [ast.unparse(keyword) for keyword in call.keywords]
    assert "safe_mode=False" not in text
    assert "allow_pickle=True" not in text


def test_servers_listen_to_this_machine_alone() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "HOST := 127.0.0.1" in makefile  # not ?=, which an exported HOST would override
    assert "--host $(HOST)" in makefile
    for path in (ROOT / "Makefile", ROOT / "README.md", ROOT / "MLproject"):
        assert "0.0.0.0" not in path.read_text()
