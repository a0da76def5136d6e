"""What `main` leaves in MLflow, read back with MLflow's own client."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
import sklearn.metrics as reference
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from fer_experiments.data.prepared import by_fingerprint
from fer_experiments.tracking.runs import stored_arrays

from ..conftest import Fer, Job

EPOCH_METRICS = {f"{s}/{m}" for s in ("train", "val") for m in ("loss", "accuracy", "macro_f1")} | {
    "learning_rate",
    "time/epoch_seconds",
}


def run_of(job: Job, stage: str) -> Run:
    return MlflowClient().get_run(job.runs[stage])


def artifacts(run_id: str, path: str | None = None) -> set[str]:
    found: set[str] = set()
    for item in MlflowClient().list_artifacts(run_id, path):
        found |= artifacts(run_id, item.path) if item.is_dir else {item.path}
    return found


def test_one_parent_and_a_child_per_stage_all_finished(job: Job) -> None:
    assert set(job.runs) == {
        "main", "prepare", "train", "finetune", "evaluate", "compare", "register",
    }  # fmt: skip
    for stage in job.runs:
        run = run_of(job, stage)
        assert run.info.status == "FINISHED"
        parent = run.data.tags.get("mlflow.parentRunId")
        assert parent == (None if stage == "main" else job.main)
        assert run.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("stage", ["train", "finetune", "evaluate"])
def test_runs_carry_the_whole_configuration(job: Job, stage: str) -> None:
    run = run_of(job, stage)
    params = run.data.params
    assert params["backbone"] == "tiny"
    assert params["recipe"] == "demo"
    assert params["dataset"] == "synthetic"
    assert params["weights"] == "none"
    assert params["learning_rate"] == "0.001"
    assert params["seed"] == "0"
    assert len(params["dataset_fingerprint"]) == 64
    assert run.data.tags["backbone"] == "tiny"
    assert (
        run.info.run_name
        == {
            "train": "tiny train demo s0",
            "finetune": "tiny finetune demo s0",
            "evaluate": "tiny evaluate finetune demo s0",
        }[stage]
    )


@pytest.mark.parametrize(("stage", "epochs"), [("train", [1, 2]), ("finetune", [3])])
def test_epochs_count_on_from_head_training_to_fine_tuning(
    job: Job, stage: str, epochs: list[int]
) -> None:
    for name in EPOCH_METRICS:
        history = MlflowClient().get_metric_history(job.runs[stage], name)
        assert [m.step for m in history] == epochs, name


def test_artifacts_of_each_stage(job: Job) -> None:
    card = {f"dataset/{n}" for n in ("card.json", "card.md", "samples.png", "class_counts.png")}
    judged = {
        f"{split}/{name}"
        for split in ("val", "test")
        for name in (
            "confusion_counts.png", "confusion_shares.png", "confusion.json",
            "classification_report.txt", "classification_report.json",
            "predictions.json", "probabilities.npz", "top_confusions.txt",
            "reliability.png", "roc_and_precision_recall.png",
            "confident_mistakes.png", "least_certain.png",
        )
    } | {"test/heat_maps.png"}  # fmt: skip
    compared = {f"comparison.{kind}" for kind in ("md", "csv", "json", "html")} | {
        "test_scores.png", "test_per_class_f1.png", "learning_curves.png",
    }  # fmt: skip
    assert artifacts(job.runs["prepare"]) == card
    for stage in ("train", "finetune"):
        assert artifacts(job.runs[stage]) == card | {
            "config.json", "learning_curves.png", "dataset/pixel_hashes.npz",
        }  # fmt: skip
    assert artifacts(job.runs["evaluate"]) == judged | {"config.json"}
    assert artifacts(job.runs["compare"]) == compared


@pytest.mark.parametrize(("split", "selected_on"), [("val", True), ("test", False)])
def test_scores_of_val_and_test(job: Job, split: str, selected_on: bool) -> None:
    run = run_of(job, "evaluate")
    said = stored_arrays(run.info.run_id, f"{split}/probabilities.npz")
    labels, probabilities = said["labels"], said["probabilities"].astype(float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    named = probabilities.argmax(axis=1)
    present = np.unique(labels)
    happy = list(said["class_names"]).index("happy")
    f1 = reference.f1_score(labels, named, labels=present, average=None, zero_division=0)
    expected = {
        "images": len(labels),
        "accuracy": reference.accuracy_score(labels, named),
        "macro_f1": f1.mean(),
        "log_loss": reference.log_loss(labels, probabilities, labels=range(7)),
        "per_class/recall_happy": (named[labels == happy] == happy).mean(),
        "per_class/f1_happy": f1[list(present).index(happy)],
        "clean/accuracy": reference.accuracy_score(labels, named),  # drawn faces all differ
        "images_with_twin": 0,
        "images_selected_on": len(labels) if selected_on else 0,
    }
    found = {name: run.data.metrics[f"{split}/{name}"] for name in expected}
    assert found == pytest.approx(expected, abs=1e-6)


def test_stars_mark_scores_on_val_and_none_on_test(job: Job) -> None:
    assert run_of(job, "evaluate").data.tags["chosen_on_val"] == "epoch"
    text = mlflow.artifacts.load_text(f"runs:/{job.runs['compare']}/comparison.json")
    stored = json.loads(text)
    rows = [dict(zip(stored["columns"], row, strict=True)) for row in stored["data"]]
    assert rows
    scores = ("accuracy", "macro-F1", "leak-free accuracy", "leak-free macro-F1")
    for row in rows:
        starred = {name for name, cell in row.items() if str(cell).endswith("*")}
        assert starred == {f"val {score}" for score in scores}
        assert row["test accuracy"] != "–"


def test_scores_of_the_model_name_the_split_that_they_were_measured_on(job: Job) -> None:
    evaluation = run_of(job, "evaluate")
    model = MlflowClient().get_logged_model(evaluation.data.tags["model_uri"].split("/")[-1])
    assert model.name == "model"
    digest = evaluation.data.params["dataset_fingerprint"][:36]
    named = {metric.key: (metric.dataset_name, metric.dataset_digest) for metric in model.metrics}
    for name in ("accuracy", "clean/macro_f1", "images_with_twin"):
        assert named[f"val/{name}"] == ("synthetic val", digest)
        assert named[f"test/{name}"] == ("synthetic test", digest)
    scores = {key for key in named if key.startswith(("train/", "val/", "test/"))}
    assert [key for key in scores if named[key][0] is None] == []
    linked = {i.dataset.name: i.dataset.digest for i in evaluation.inputs.dataset_inputs}
    assert linked == {"synthetic val": digest, "synthetic test": digest}


def test_the_evaluated_model_is_the_one_that_training_kept(job: Job) -> None:
    trained = run_of(job, "finetune").data.metrics
    judged = run_of(job, "evaluate").data.metrics
    assert judged["val/accuracy"] == pytest.approx(trained["val/accuracy"], abs=1e-6)
    assert judged["val/macro_f1"] == pytest.approx(trained["val/macro_f1"], abs=1e-5)
    assert judged["val/log_loss"] == pytest.approx(trained["val/loss"], rel=1e-4)


def test_probabilities_ids_and_labels_keep_their_order(job: Job) -> None:
    run = run_of(job, "evaluate")
    file = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="test/probabilities.npz"
    )
    stored = np.load(file, allow_pickle=False)
    prepared = by_fingerprint(run.data.params["dataset_fingerprint"])
    assert prepared is not None
    part = prepared.slice("test")
    np.testing.assert_array_equal(stored["ids"], prepared.ids[part])
    np.testing.assert_array_equal(stored["labels"], prepared.labels[part])
    folders = [id_.split("/")[1] for id_ in stored["ids"]]
    assert folders == [stored["class_names"][label] for label in stored["labels"]]
    predicted = stored["probabilities"].argmax(axis=1)
    assert (predicted == stored["labels"]).mean() == pytest.approx(
        run.data.metrics["test/accuracy"]
    )


def test_the_model_has_signature_example_pins_and_class_names(job: Job) -> None:
    uri = run_of(job, "finetune").data.tags["model_uri"]
    info = mlflow.models.get_model_info(uri)
    (pixels,) = info.signature.inputs.inputs
    assert (pixels.name, pixels.type, pixels.shape) == ("pixels", np.float32, (-1, 48, 48, 1))
    assert info.metadata["class_names"][0] == "angry"
    assert info.saved_input_example_info is not None
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    assert all("==" in line for line in (folder / "requirements.txt").read_text().split())


def test_metrics_belong_to_the_logged_model(job: Job) -> None:
    judged = run_of(job, "evaluate").data.metrics["val/accuracy"]
    found = mlflow.search_logged_models(
        experiment_ids=[run_of(job, "train").info.experiment_id],
        filter_string="metrics.`val/accuracy` >= 0",
        output_format="list",
    )
    mine = [m for m in found if m.source_run_id == job.runs["finetune"]]
    assert [m.value for m in mine[0].metrics if m.key == "val/accuracy"] == [judged]


def test_datasets_are_linked_with_our_fingerprint(job: Job) -> None:
    inputs = run_of(job, "evaluate").inputs.dataset_inputs
    assert {i.tags[0].value for i in inputs} == {"val", "test"}
    fingerprint = run_of(job, "evaluate").data.params["dataset_fingerprint"]
    assert {i.dataset.digest for i in inputs} == {fingerprint[:36]}


def test_the_first_version_is_champion(job: Job) -> None:
    client = MlflowClient()
    version = client.get_model_version_by_alias("emotion-synthetic", "champion")
    assert version.source == run_of(job, "finetune").data.tags["model_uri"]
    assert version.tags["decision"] == "champion"
    assert version.tags["decision_reason"].startswith("the first version")
    assert "val/macro_f1" in version.tags
    assert "Not for judging people" in version.description


def test_registering_twice_changes_nothing(job: Job, fer: Fer) -> None:
    before = MlflowClient().search_model_versions("name = 'emotion-synthetic'")
    outcome = fer("register")
    assert outcome.exit_code == 0
    assert "is already champion" in outcome.out
    assert MlflowClient().search_model_versions("name = 'emotion-synthetic'") == before


def test_a_command_ends_with_figures_run_link_and_what_to_type_next(job: Job, fer: Fer) -> None:
    outcome = fer("evaluate", "--backbone", "tiny")
    assert outcome.exit_code == 0
    assert outcome.err == ""
    lines = outcome.out.splitlines()
    assert lines[1].startswith("val   accuracy ")
    assert [line.split()[0] for line in lines[-3:]] == ["run", "open", "next"]
    assert "/#/experiments/1/runs/" in lines[-2]


def test_predict_gives_the_champions_probabilities(job: Job, fer: Fer, tmp_path: Path) -> None:
    from PIL import Image

    run = run_of(job, "evaluate")
    prepared = by_fingerprint(run.data.params["dataset_fingerprint"])
    assert prepared is not None
    images, _ = prepared.split("test")
    folder = tmp_path / "my faces ü"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.asarray(images[i])).save(folder / f"{i}.png")
    Image.fromarray(np.asarray(images[0])).resize((300, 200)).convert("RGB").save(
        folder / "photo.png"
    )
    outcome = fer("predict", folder, "--detector", "none", "--json")
    assert outcome.exit_code == 0
    assert "1 pictures are much larger" in outcome.err
    file = mlflow.artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="test/probabilities.npz"
    )
    expected = np.load(file)["probabilities"][:3]
    found = [
        list(json.loads(line)["probabilities"].values()) for line in outcome.out.splitlines()[:3]
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)

    as_csv = fer("predict", folder / "0.png", "--csv").out.splitlines()
    model = "model_uri,model_version,model_alias,run_id"
    place = "file,time,face,faces,way,left,top,width,height,score"
    assert as_csv[0] == f"{place},predicted,{','.join(prepared.class_names)},error,{model}"
    assert fer("predict", folder / "0.png").out.splitlines()[0].split()[:3] == [
        "file", "predicted", "angry",
    ]  # fmt: skip


def test_the_note_of_main_is_the_verdict_a_table_of_its_models_and_what_was_registered(
    job: Job,
) -> None:
    metrics = run_of(job, "evaluate").data.metrics
    verdict, table, registered = run_of(job, "main").data.tags["mlflow.note.content"].split("\n\n")
    assert verdict == (
        f"tiny finetune demo s0 is the only model: macro-F1 ({metrics['val/macro_f1']:.3f} on "
        f"{metrics['val/images']:.0f} images of val)"
    )
    scores = ("val/accuracy", "val/macro_f1", "test/accuracy", "test/macro_f1")
    assert table.splitlines() == [
        "| model | val accuracy | val macro-F1 | test accuracy | test macro-F1 |",
        "| --- | ---: | ---: | ---: | ---: |",
        f"| tiny | {' | '.join(f'{metrics[score]:.3f}' for score in scores)} |",
    ]
    assert registered.startswith("tiny finetune demo s0 is version 1 of emotion-synthetic")


def test_predict_names_files_that_are_no_images(job: Job, fer: Fer, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not an image")
    outcome = fer("predict", tmp_path / "bad.png")
    assert outcome.exit_code == 1
    assert "bad.png: not an image" in outcome.error


def test_evaluate_and_calibrate_name_the_model_that_answered(job: Job, fer: Fer) -> None:
    uri = run_of(job, "evaluate").data.tags["model_uri"]
    named = f"{uri} (emotion-synthetic version 1, champion) of run {job.runs['finetune']}"
    for command in ("evaluate", "calibrate"):
        outcome = fer(command, "--run-id", job.runs["finetune"])
        assert f"model  {named}" in outcome.out
        run_id = outcome.out.split("run    ")[1].split()[0]
        assert named in MlflowClient().get_run(run_id).data.tags["mlflow.note.content"]
