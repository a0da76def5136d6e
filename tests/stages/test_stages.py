"""Stages one by one: which run they start from, what they refuse, what stays behind."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image

from fer_experiments.data.synthetic import draw_faces
from fer_experiments.recipes import resolve

from ..conftest import QUICK, Fer, Job, process_environment
from .designed import log_untrained

TINY = ["--backbone", "tiny", *QUICK[:-2]]


def newest(stage: str) -> Run:
    runs = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.stage = '{stage}'",
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )
    return runs[0]


def weights_of(run: Run) -> list[np.ndarray]:
    return mlflow.pyfunc.load_model(run.data.tags["model_uri"]).get_raw_model().get_weights()


def own_faces(folder: Path, *, classes: tuple[str, ...] = ("cat", "dog"), count: int = 12) -> Path:
    images, _, _ = draw_faces(count=count * len(classes) + 21, seed=9)
    for i in range(count * len(classes)):
        path = folder / classes[i % len(classes)] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(path)
    return folder


@pytest.mark.slow
def test_two_runs_with_the_same_seed_agree(job: Job, fer: Fer, fresh_store: Path) -> None:
    metrics, weights = [], []
    for _ in range(2):
        assert fer("train", *TINY, "--rotation", "10").exit_code == 0
        run = newest("train")
        metrics.append(
            {k: v for k, v in run.data.metrics.items() if not k.startswith(("time/", "system/"))}
        )
        weights.append(weights_of(run))
    assert metrics[0] == metrics[1]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_finetune_starts_from_the_newest_run_that_fits(fresh_store: Path, fer: Fer) -> None:
    plain = {"backbone": "tiny", "synthetic_count": 70, "epochs": 1}
    made = [log_untrained(resolve("demo", {**plain, "dropout": x})) for x in (0.1, 0.1, 0.2)]
    client = MlflowClient()
    like = client.get_run(made[1])
    failed = client.create_run(like.info.experiment_id, tags=like.data.tags)
    client.set_terminated(failed.info.run_id, "FAILED")

    wanted = ("--backbone", "tiny", "--dropout", "0.1")
    outcome = fer("finetune", *wanted, "--finetune-epochs", "1")
    assert outcome.exit_code == 0, outcome.err
    assert newest("finetune").data.tags["source_run_id"] == made[1]
    refused = fer("finetune", *wanted, "--learning-rate", "1e-5").error
    assert "dropout=0.1, learning_rate=1e-05. Found: none" in refused
    assert "finetune_learning_rate" in refused


@pytest.mark.slow
def test_evaluate_takes_the_backbones_newest_run(job: Job, fer: Fer, fresh_store: Path) -> None:
    assert fer("train", *TINY).exit_code == 0
    assert fer("finetune", "--finetune-epochs", "1").exit_code == 0
    assert fer("train", *TINY, "--seed", "1").exit_code == 0
    assert fer("evaluate", "--backbone", "tiny").exit_code == 0
    assert newest("evaluate").data.tags["source_run_id"] == newest("train").info.run_id
    assert fer("evaluate").exit_code == 0
    assert newest("evaluate").data.tags["source_run_id"] == newest("finetune").info.run_id


def test_finetune_changes_the_unfrozen_layers_and_the_head_only(job: Job) -> None:
    client = MlflowClient()
    models = [
        mlflow.pyfunc.load_model(
            client.get_run(job.runs[stage]).data.tags["model_uri"]
        ).get_raw_model()
        for stage in ("train", "finetune")
    ]
    changed = {
        layer.name
        for layer, other in zip(models[0].layers, models[1].layers, strict=True)
        if any(
            not np.array_equal(a, b)
            for a, b in zip(layer.get_weights(), other.get_weights(), strict=True)
        )
    }
    assert changed == {"block2_0_conv", "head_batchnorm", "head_dense", "logits"}


@pytest.mark.slow
def test_finetune_goes_on_from_a_fine_tuned_run_with_more_layers(job: Job, fer: Fer) -> None:
    before = MlflowClient().get_run(job.runs["finetune"])
    options = ["--unfreeze-layers", "8", "--finetune-epochs", "1"]
    outcome = fer("finetune", "--run-id", before.info.run_id, *options)
    assert outcome.exit_code == 0
    run = newest("finetune")
    assert run.data.tags["source_run_id"] == before.info.run_id
    assert run.data.metrics["weights/trainable"] > before.data.metrics["weights/trainable"]
    steps = {
        stage: [p.step for p in MlflowClient().get_metric_history(run_id, "train/loss")]
        for stage, run_id in {**job.runs, "further": run.info.run_id}.items()
    }
    assert (steps["train"], steps["finetune"], steps["further"]) == ([1, 2], [3], [4])


@pytest.mark.parametrize(
    ("command", "stage", "message"),
    [
        ("finetune", "main", "Expected run_id of a train or finetune run."),
        ("finetune", "evaluate", "a run of stage evaluate"),
        (
            "evaluate",
            "main",
            "Expected run_id of a train or finetune or calibrate or ensemble run.",
        ),
    ],
)
def test_a_run_of_the_wrong_stage_is_refused(
    job: Job, fer: Fer, command: str, stage: str, message: str
) -> None:
    outcome = fer(command, "--run-id", job.runs[stage])
    assert outcome.exit_code == 2
    assert message in outcome.error


def test_values_that_the_train_run_was_not_made_with_are_refused(job: Job, fer: Fer) -> None:
    run_id = job.runs["train"]
    refused = fer("finetune", "--run-id", run_id, "--learning-rate", "3e-4")
    assert refused.exit_code == 2
    assert "finetune_learning_rate" in refused.error
    assert "Received: dropout=0.1" in fer("finetune", "--run-id", run_id, "--dropout", ".1").error


def test_an_unfinished_run_is_refused(job: Job, fer: Fer, fresh_store: Path) -> None:
    mlflow.set_experiment("fer2013")
    with mlflow.start_run(tags={"stage": "train", "fer_experiments": "0"}) as run:
        outcome = fer("finetune", "--run-id", run.info.run_id)
    assert outcome.exit_code == 2
    assert "which is RUNNING" in outcome.error


def test_own_faces_with_own_classes(job: Job, fer: Fer, fresh_store: Path) -> None:
    folder = own_faces(fresh_store / "My Pets")
    outcome = fer("train", *TINY[:2], "--recipe", "demo", "--epochs", "1", "--dataset", folder,
                  "--split", "holdout")  # fmt: skip
    assert outcome.exit_code == 0, outcome.err
    assert fer("evaluate").exit_code == 0
    assert fer("compare").exit_code == 0
    assert fer("register").exit_code == 0
    judged = newest("evaluate")
    assert not [name for name in judged.data.metrics if name.startswith("test/")]
    champion = MlflowClient().get_model_version_by_alias("emotion-my-pets", "champion")
    assert champion.tags["source_run_id"] == newest("train").info.run_id


def test_data_with_other_classes_is_refused(job: Job, fer: Fer, tmp_path: Path) -> None:
    folder = own_faces(tmp_path / "pets")
    outcome = fer("evaluate", "--run-id", job.runs["train"], "--dataset", folder,
                  "--split", "holdout")  # fmt: skip
    assert outcome.exit_code == 1
    assert "Expected data with the model's classes angry" in outcome.error
    failed = newest("evaluate")
    assert failed.info.status == "FAILED"
    assert "cat, dog" in failed.data.tags["failure_reason"]


def test_a_failed_run_says_why(fer: Fer, fresh_store: Path) -> None:
    folder = own_faces(fresh_store / "faces")
    (folder / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    outcome = fer("prepare", "--dataset", folder, "--split", "holdout")
    assert outcome.exit_code == 1
    assert "1 of 25 images" in outcome.error
    assert "cat/broken.png" in outcome.error
    run = newest("prepare")
    assert run.info.status == "FAILED"
    assert "cat/broken.png" in run.data.tags["failure_reason"]
    skipped = fer("prepare", "--dataset", folder, "--split", "holdout", "--on-bad-image", "skip")
    assert skipped.exit_code == 0
    assert "1 were skipped" in skipped.out
    assert "cat/broken.png" in newest("prepare").data.tags["mlflow.note.content"]


def test_a_store_that_cannot_be_reached_is_named(
    fer: Fer, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    outcome = fer("prepare", "--recipe", "demo", "--synthetic-count", "70")
    assert outcome.exit_code == 1
    assert "The MLflow store http://127.0.0.1:9 cannot be used" in outcome.error
    assert "secret" not in outcome.error


@pytest.mark.slow
def test_a_full_disk_ends_the_run_as_failed_and_leaves_no_half_model(
    base: Path, small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("size=2m")  # the database fits, the model does not
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{disk}/mlflow.db")
    done = subprocess.run(
        [sys.executable, "-m", "fer_experiments", "train", *TINY, "--epochs", "1"],
        capture_output=True, text=True, cwd=disk, check=False, env=process_environment(),
    )  # fmt: skip
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert "disk" in error
    assert "is full; free some and run again" in error
    run = newest("train")
    assert run.info.status == "FAILED"
    assert "is full" in run.data.tags["failure_reason"]
    assert list(disk.glob("mlruns/*/models/*")) == []


def test_a_database_that_did_not_fit_is_made_when_there_is_room(
    base: Path, small_disk: Callable[[str], Path], fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("size=4m")
    filler = disk / "filler"
    filler.write_bytes(bytes(3_900_000))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{disk}/mlflow.db")
    prepare = ["prepare", "--recipe", "demo", "--synthetic-count", "70"]
    refused = fer(*prepare)
    assert refused.exit_code == 1
    assert "is full; free some and run again" in refused.error
    assert list(disk.iterdir()) == [filler]
    filler.unlink()
    assert fer(*prepare).exit_code == 0
    assert "Expected an evaluated run" in fer("compare").error


@pytest.mark.slow
def test_ctrl_c_ends_the_run_as_killed(base: Path, fresh_store: Path) -> None:
    arguments = ["train", *TINY, "--epochs", "500"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fer_experiments", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(),
        # A background job ignores Ctrl-C, and hands that down to what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch   2/"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "Error: interrupted"
    assert "Traceback" not in err
    run = newest("train")
    assert run.info.status == "KILLED"
    assert "Ctrl-C" in run.data.tags["failure_reason"]


@pytest.mark.slow
def test_no_network_names_the_ways_on(base: Path, fresh_store: Path) -> None:
    offline = process_environment(
        KERAS_HOME=str(fresh_store / "keras"),
        https_proxy="http://127.0.0.1:9",
        HTTPS_PROXY="http://127.0.0.1:9",
    )
    done = subprocess.run(
        [sys.executable, "-m", "fer_experiments", "train", "--backbone", "vgg16", "--recipe",
         "demo", "--synthetic-count", "210", "--weights", "imagenet"],
        capture_output=True, text=True, env=offline, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert "ImageNet weights of vgg16 could not be downloaded" in error
    assert "weights=FILE" in error
    assert "weights=none" in error
    assert newest("train").info.status == "FAILED"
