"""The whole job as a user of MLflow runs it, against a real tracking server."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from ..conftest import QUICK, ROOT, process_environment

pytestmark = pytest.mark.slow

# Started by its path, so that `python` in MLproject is this environment's as well.
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def server(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
         "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
         "--artifacts-destination", str(folder / "artifacts"), "--workers", "1"],
        cwd=folder, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    for _ in range(240):
        assert process.poll() is None, (folder / "server.log").read_text()
        try:
            with urlopen(f"{uri}/health", timeout=1):
                break
        except OSError:
            time.sleep(0.5)
    yield uri
    process.terminate()
    process.wait(timeout=30)
    log.close()


@pytest.fixture
def client(server: str, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return MlflowClient(server)


def mlflow_run(
    server: str, entry_point: str, *, run_name: str | None = None, **parameters: object
) -> subprocess.CompletedProcess[str]:
    given = [text for k, v in parameters.items() for text in ("-P", f"{k}={v}")]
    given += ["--run-name", run_name] if run_name else []
    return subprocess.run(
        [str(BIN / "mlflow"), "run", str(ROOT), "-e", entry_point, "--env-manager", "local",
         "--experiment-name", "through mlflow run", *given],
        capture_output=True, text=True, check=False, timeout=600,
        env=process_environment(
            MLFLOW_TRACKING_URI=server, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}"
        ),
    )  # fmt: skip


def quick() -> dict[str, str]:
    return dict(zip([name.lstrip("-") for name in QUICK[::2]], QUICK[1::2], strict=True))


def head_only() -> dict[str, str]:
    return {name: value for name, value in quick().items() if name != "finetune-epochs"}


def test_mlflow_run_main_leaves_a_champion_that_serves(
    server: str, client: MlflowClient, tmp_path: Path
) -> None:
    done = mlflow_run(server, "main", backbones="tiny", **quick())
    assert done.returncode == 0, done.stderr[-3000:]

    experiment = client.get_experiment_by_name("through mlflow run")
    runs = {run.data.tags["stage"]: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    main = runs["main"]
    assert main.info.run_name == "main tiny demo s0"  # in place of the name that MLflow draws
    assert main.data.tags["mlflow.project.entryPoint"] == "main"
    assert main.data.params["recipe"] == "demo"
    assert main.data.params["dataset"] == "synthetic"
    for stage in ("prepare", "train", "finetune", "evaluate", "compare", "register"):
        assert runs[stage].data.tags["mlflow.parentRunId"] == main.info.run_id

    history = client.get_metric_history(runs["train"].info.run_id, "val/macro_f1")
    assert [m.step for m in history] == [1, 2]
    names = {a.path for a in client.list_artifacts(runs["evaluate"].info.run_id, "val")}
    assert {"val/confusion_counts.png", "val/predictions.json"} <= names

    champion = client.get_model_version_by_alias("emotion-synthetic", "champion")
    assert champion.source == runs["finetune"].data.tags["model_uri"]
    inputs = mlflow.models.get_model_info(champion.source).signature.inputs
    assert inputs.input_names() == ["pixels"]

    file = client.download_artifacts(
        runs["evaluate"].info.run_id, "test/probabilities.npz", str(tmp_path)
    )
    stored = np.load(file, allow_pickle=False)
    served = served_elsewhere(server, tmp_path, runs["evaluate"].data.params["dataset_fingerprint"])
    np.testing.assert_allclose(served, stored["probabilities"], atol=1e-5)


def served_elsewhere(server: str, folder: Path, fingerprint: str) -> np.ndarray:
    """The champion's probabilities from a process that knows MLflow's pyfunc and nothing of us."""
    from fer_experiments.data.prepared import by_fingerprint

    prepared = by_fingerprint(fingerprint)
    assert prepared is not None
    images, _ = prepared.split("test")
    np.save(folder / "pixels.npy", images.astype(np.float32)[..., np.newaxis])
    code = (
        "import mlflow, numpy as np, sys\n"
        "model = mlflow.pyfunc.load_model('models:/emotion-synthetic@champion')\n"
        "np.save('served.npy', model.predict({'pixels': np.load('pixels.npy')}))\n"
        "assert 'fer_experiments' not in sys.modules\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=True, capture_output=True,
        env=process_environment(MLFLOW_TRACKING_URI=server),
    )  # fmt: skip
    served: np.ndarray = np.load(folder / "served.npy")
    return served


def test_a_value_typed_in_another_form_does_not_clash(server: str, client: MlflowClient) -> None:
    done = mlflow_run(
        server,
        "train",
        backbone="tiny",
        learning_rate="3e-4",
        **{**head_only(), "epochs": "01"},
        run_name="tiny-first-1",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    experiment = client.get_experiment_by_name("through mlflow run")
    run = client.search_runs([experiment.experiment_id])[0]
    assert run.info.run_name == "tiny-first-1"  # as the user named it
    params = run.data.params
    assert float(params["learning_rate"]) == 3e-4
    assert params["epochs"] == "01"
    assert params["head_units"] == "256"


def test_a_run_that_mlflow_opened_ends_failed_with_the_reason(
    server: str, client: MlflowClient
) -> None:
    done = mlflow_run(server, "train", backbone="vgg17")
    assert done.returncode != 0
    assert "Received: backbone=vgg17" in done.stderr
    experiment = client.get_experiment_by_name("through mlflow run")
    newest = client.search_runs([experiment.experiment_id])[0]
    assert newest.info.status == "FAILED"
    assert "Received: backbone=vgg17" in newest.data.tags["failure_reason"]


def test_a_run_that_was_cut_short_goes_on_through_mlflow_run(
    server: str, client: MlflowClient
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fer_experiments", "train", "--backbone", "tiny", *QUICK[:4],
         "--epochs", "30"],
        stdout=subprocess.PIPE, text=True, env=process_environment(MLFLOW_TRACKING_URI=server),
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch  3/30"):
            break
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    run_id = out.split("fer train --resume ")[1].split()[0]

    done = mlflow_run(server, "train", resume=run_id)
    assert done.returncode == 0, done.stderr
    resumed = client.get_run(run_id)
    assert resumed.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run_id, "train/loss")]
    assert sorted(steps) == list(range(1, 31))
    experiment = client.get_experiment_by_name("through mlflow run")
    pointer = client.search_runs([experiment.experiment_id], max_results=1)[0]
    assert pointer.info.status == "FINISHED"
    assert pointer.data.tags["resumes"] == run_id
    assert run_id in pointer.data.tags["mlflow.note.content"]
    assert set(pointer.data.params) == {"resume"}  # which MLflow logs of itself
    assert pointer.data.metrics == {}
