"""Comparison, calibration, ensembles, test-time augmentation of models that are known exactly."""

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from fer_experiments import console
from fer_experiments.data.images import FER_CLASSES
from fer_experiments.recipes import resolve
from fer_experiments.tracking.runs import stored_arrays

from ..conftest import QUICK, Fer, process_environment
from .designed import answers, log_designed, log_untrained, write_images

Designed = Callable[[int, float], str]


@pytest.fixture
def three(fresh_store: Path, tmp_path: Path) -> Designed:
    """Logs, by number: a model right on 60 %, one on 62 %, and one on 80 %."""
    dataset = write_images(tmp_path / "faces", [0.6, 0.62, 0.8])
    return lambda row, confidence: log_designed(dataset, row, confidence=confidence)


def evaluated(fer: Fer, run_id: str, *options: str) -> str:
    """Evaluates the run's model; returns the id of the evaluation."""
    return fer("evaluate", "--run-id", run_id, *options).done()


@pytest.mark.slow
def test_main_trains_each_backbone_with_each_seed_and_pools_them(
    fresh_store: Path, fer: Fer
) -> None:
    outcome = fer("main", "--backbones", "tiny", *QUICK, "--seeds", "0,1")
    assert outcome.exit_code == 0, outcome.err
    assert re.search(r"tiny finetune demo +0, 1 +test +[\d.]+% ± [\d.]+%", outcome.out)
    [main] = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.stage = 'main'", output_format="list"
    )
    assert main.data.params["seed"] == "0,1"
    assert {"tiny_s0/val_accuracy", "tiny_s1/val_accuracy"} <= set(main.data.metrics)


def test_verdicts_say_what_differs_and_what_does_not(three: Designed, fer: Fer) -> None:
    for row, share in enumerate((0.6, 0.62, 0.8)):
        evaluated(fer, three(row, share))
    outcome = fer("compare")
    assert outcome.exit_code == 0, outcome.err
    assert "vgg16 train baseline s2 is better than vgg16 train baseline s0: macro-F1 by" in (
        outcome.out
    )
    assert (
        "no difference shown between vgg16 train baseline s1 and vgg16 train baseline s0"
        in outcome.out
    )
    accuracies = np.array([0.6, 0.62, 0.8])
    assert f"{accuracies.mean():.1%} ± {accuracies.std(ddof=1):.1%}" in outcome.out  # seeds pooled

    run_id = outcome.done()
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/val_pairs.csv")
    rows = {(r["first"][-2:], r["second"][-2:]): r for r in csv.DictReader(io.StringIO(text))}
    assert len(rows) == 3
    best = rows["s2", "s0"]
    assert float(best["accuracy difference"]) == pytest.approx(0.2, abs=1e-4)
    assert float(best["accuracy p"]) < 1e-6
    assert float(best["accuracy low"]) > 0.1
    assert float(rows["s1", "s0"]["accuracy p"]) > 0.05
    assert float(rows["s1", "s0"]["accuracy low"]) < 0

    page = mlflow.artifacts.load_text(f"runs:/{run_id}/comparison.html")
    assert page.count("data:image/png;base64,") >= 3
    assert 'src="/' not in page and 'src="http' not in page

    assert "equivalent" not in outcome.out
    outcome = fer("compare", "--delta", "0.5")
    assert (
        "vgg16 train baseline s1 and vgg16 train baseline s0 are equivalent within 50 points of "
        "macro-F1" in outcome.out
    )
    better = r"s2 is better than vgg16 train baseline s0: [^;]+, equivalent within 50 points, p "
    assert re.search(better, outcome.out)


def read(run_id: str, name: str) -> str:
    """A text artifact of the run."""
    return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{name}"))


def table(text: str, head: str) -> list[list[str]]:
    """The rows of the Markdown table below a heading that begins so."""
    lines = text.split(f"### {head}")[1].split("\n\n")
    [rows] = [part.splitlines() for part in lines[1:3] if part.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in (rows[0], *rows[2:])]


@pytest.fixture
def two_rates(fresh_store: Path, tmp_path: Path, fer: Fer) -> tuple[list[str], list[str]]:
    """Two models that differ in the learning rate and never name disgust, the better one first.

    Their training runs and their evaluations.
    """
    shares = {"disgust": 0.0, "else": 0.6}, {"disgust": 0.0, "else": 0.62}
    named = [answers(right, seed=number) for number, right in enumerate(shares)]
    disgust, happy = FER_CLASSES.index("disgust"), FER_CLASSES.index("happy")
    dataset = write_images(tmp_path / "faces", [np.where(n == disgust, happy, n) for n in named])
    runs = [
        log_designed(dataset, row, confidence=0.6, seed=0, learning_rate=rate)
        for row, rate in ((1, 3e-4), (0, 1e-4))
    ]
    return runs, [evaluated(fer, run_id) for run_id in runs]


def test_two_settings_of_a_backbone_are_told_apart_and_lead_to_their_runs(
    two_rates: tuple[list[str], list[str]], fer: Fer
) -> None:
    trained, judged = two_rates
    labels = [f"vgg16 train baseline s0 {run_id[:6]}" for run_id in trained]
    outcome = fer("compare")
    text, page = (read(outcome.done(), f"comparison.{form}") for form in ("md", "html"))
    assert table(text, "Settings that differ") == [
        ["setting", *labels], ["learning_rate", "0.0003", "0.0001"],
    ]  # fmt: skip
    assert re.search(
        rf"\nmodel +learning_rate\n{labels[0]} +0.0003\n{labels[1]} +0.0001", outcome.out
    )

    links = {}
    for what, runs in (("train ", trained), ("", judged)):
        for run_id in runs:
            experiment = MlflowClient().get_run(run_id).info.experiment_id
            links[f"{what}{run_id[:8]}"] = (
                f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{run_id}"
                "?workflowType=machine_learning"
            )
    for name, address in links.items():
        assert f"[{name}]({address})" in text
        assert f'<a href="{address}">{name}</a>' in page

    # No overlap: leak-free scores would repeat the others. Nothing was measured on test.
    heads = [row[0] for row in table(text, "Models")]
    assert heads == [
        "score", "val accuracy", "val macro-F1", "val ECE", "images/s", "MB",
        "training run", "evaluation run",
    ]  # fmt: skip
    fingerprint = MlflowClient().get_run(judged[0]).data.tags["dataset_fingerprint"]
    about = rf"{datetime.now(UTC).year}-\d\d-\d\d \d\d:\d\d UTC · data set fer2013, "
    about += f"fingerprint {fingerprint[:8]} · verdicts on val: 700 images"
    for told in (text, page, outcome.out):
        assert re.search(about, told)


def test_no_difference_shown_is_told_and_a_class_that_nobody_finds_has_a_score_of_0(
    two_rates: tuple[list[str], list[str]], fer: Fer
) -> None:
    told = json.loads(fer("compare", "--json").out)
    better, other = (f"vgg16 train baseline s0 {run_id[:6]}" for run_id in two_rates[0])
    start, end = told["told"][0].split("; ")
    assert start.startswith(f"{better} leads by macro-F1 (0.")
    beginning = f"no difference shown between it and the second, {other}, on 700 images of val: +"
    assert end.startswith(beginning)
    run_id = told["run_id"]
    rows = table(read(run_id, "comparison.md"), "Classes of val")
    assert ["disgust", "100", "0.000", "0.000"] in rows
    note = MlflowClient().get_run(run_id).data.tags["mlflow.note.content"]
    counts = ", ".join(f"{name} 100" for name in FER_CLASSES)
    assert f"\nImages of val: {counts}\n" in note


def test_lines_fit_the_terminal(
    two_rates: tuple[list[str], list[str]], fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fer("compare").out
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    # 80 columns hold both models side by side, 50 do not.
    for width, indent in ((80, ""), (50, "  ")):
        monkeypatch.setenv("COLUMNS", str(width))
        outcome = fer("compare")
        lines = [line for line in outcome.out.splitlines() if "http" not in line]
        assert max(map(len, lines)) <= width
        assert " ".join(outcome.out.split()).startswith(whole.splitlines()[0])
        assert re.search(rf"^{indent}val accuracy +\d", outcome.out, re.M)


def test_of_models_with_one_seed_the_newest_is_pooled(
    fresh_store: Path, tmp_path: Path, fer: Fer
) -> None:
    dataset = write_images(tmp_path / "faces", [0.6, 0.62, 0.8])
    for row, seed in ((0, 0), (1, 1), (2, 0)):
        evaluated(fer, log_designed(dataset, row, confidence=0.7, seed=seed))
    outcome = fer("compare")
    assert outcome.exit_code == 0, outcome.err
    accuracies = np.array([0.62, 0.8])
    pooled = f"{accuracies.mean():.1%} ± {accuracies.std(ddof=1):.1%}"
    assert re.search(rf"vgg16 train baseline +0, 1 +val +{pooled}", outcome.out)


@pytest.mark.slow
def test_a_variant_by_itself_is_compared_but_not_registered(three: Designed, fer: Fer) -> None:
    run_id = three(2, 0.8)
    evaluated(fer, fer("ensemble", "--run-ids", run_id, "--tta", "flip").done())
    outcome = fer("compare")
    text = mlflow.artifacts.load_text(f"runs:/{outcome.done()}/comparison.csv")
    [row] = csv.DictReader(io.StringIO(text))
    assert row["source_run_id"] != run_id
    refused = fer("register")
    assert refused.exit_code == 2
    assert refused.error == (
        "Error: Expected an evaluated model that is no test-time variant. Found: "
        f"{row['model']}; evaluate the model itself, or pass --all"
    )
    registered = fer("register", "--all")
    assert registered.exit_code == 0, registered.err
    assert MlflowClient().get_model_version_by_alias("emotion-fer2013", "champion")


@pytest.mark.slow
def test_runs_judged_by_an_older_version_are_set_apart_and_named(three: Designed, fer: Fer) -> None:
    old, new = evaluated(fer, three(0, 0.6)), evaluated(fer, three(1, 0.62))
    MlflowClient().delete_tag(old, "evaluation_format")
    outcome = fer("compare")
    assert (
        "not compared, judged by an older version of the scores (run fer evaluate again): "
        "vgg16 train baseline s0" in outcome.out
    )
    MlflowClient().delete_tag(new, "evaluation_format")
    assert "Found: 2 by an older version" in fer("compare").error


def test_a_temperature_makes_probabilities_honest_and_leaves_the_ranking(
    three: Designed, fer: Fer
) -> None:
    before = evaluated(fer, three(0, 0.99))
    outcome = fer("calibrate")
    assert outcome.exit_code == 0, outcome.err
    calibrated = outcome.done()
    after = evaluated(fer, calibrated)

    client = MlflowClient()
    ece = [client.get_run(run_id).data.metrics["val/calibration/ece"] for run_id in (before, after)]
    assert ece[0] == pytest.approx(0.39, abs=0.01)
    assert ece[1] < 0.01
    first, second = (
        stored_arrays(run_id, "val/probabilities.npz")["probabilities"]
        for run_id in (before, after)
    )
    assert (first.argsort(axis=1)[:, -1] == second.argsort(axis=1)[:, -1]).all()
    model = mlflow.pyfunc.load_model(client.get_run(calibrated).data.tags["model_uri"])
    names = [layer.name for layer in model.get_raw_model().layers]
    assert names[-3:] == ["logits", "temperature", "softmax"]
    assert "no temperature yet" in fer("calibrate", "--run-id", calibrated).error


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_members_and_a_model_like_any_other(
    three: Designed, fer: Fer
) -> None:
    runs = [three(row, share) for row, share in enumerate((0.6, 0.62, 0.8))]
    members = [evaluated(fer, run_id) for run_id in runs]
    outcome = fer("ensemble", "--run-ids", ",".join(runs))
    assert outcome.exit_code == 0, outcome.err
    judged = evaluated(fer, outcome.done())
    said = [stored_arrays(r, "val/probabilities.npz")["probabilities"] for r in (*members, judged)]
    np.testing.assert_allclose(said[-1], np.mean(said[:-1], axis=0), atol=1e-6)
    assert fer("compare").exit_code == 0
    # The ensemble is best, and its probabilities say too little: the next one is champion.
    outcome = fer("register")
    scores = [MlflowClient().get_run(r).data.metrics["val/macro_f1"] for r in (*members, judged)]
    assert scores[3] == max(scores)
    assert re.search(
        rf"refused: \S* ?ensemble .*\(val/macro_f1 {scores[3]:.4f}\): val/calibration/ece",
        outcome.out,
    )
    champion = MlflowClient().get_model_version_by_alias("emotion-fer2013", "champion")
    assert champion.tags["evaluation_run_id"] == members[2]
    assert re.search(rf"^1 +champion +0\.\d+ +{scores[2]:.4f} ", fer("registry").out, re.M)

    assert "2 or more runs" in fer("ensemble", "--run-ids", runs[0]).error
    assert "2 or more runs" in fer("ensemble", "--run-ids", f"{runs[0]},{runs[0]}").error
    assert "does not exist" in fer("ensemble", "--run-ids", f"{runs[0]},nonsense").error


@pytest.mark.slow
def test_flipping_at_test_time_stands_beside_the_plain_score_and_can_be_a_model(
    three: Designed, fer: Fer
) -> None:
    run_id = three(2, 0.8)
    plain = evaluated(fer, run_id, "--tta", "flip")
    metrics = MlflowClient().get_run(plain).data.metrics
    assert metrics["val/accuracy"] == pytest.approx(0.8)
    # The mirrored column lies among those that the model does not look at: it says nothing.
    assert metrics["val/tta/accuracy"] == pytest.approx(0.8)
    assert metrics["val/tta/log_loss"] > metrics["val/log_loss"]

    outcome = fer("ensemble", "--run-ids", run_id, "--tta", "flip")
    flipped = evaluated(fer, outcome.done())
    metrics_of_model = MlflowClient().get_run(flipped).data.metrics
    assert metrics_of_model["val/log_loss"] == pytest.approx(metrics["val/tta/log_loss"], abs=1e-5)

    first = evaluated(fer, run_id, "--tta", "3")
    again = evaluated(fer, run_id, "--tta", "3")
    runs = [MlflowClient().get_run(r).data.metrics["val/tta/log_loss"] for r in (first, again)]
    assert runs[0] == runs[1]
    assert "tta to be none, flip" in fer("evaluate", "--run-id", run_id, "--tta", "1").error


@pytest.mark.slow
def test_models_whose_training_run_is_gone_are_still_compared(
    three: Designed, fer: Fer, fresh_store: Path
) -> None:
    gone = three(0, 0.6)
    for run_id in (gone, three(2, 0.8)):
        evaluated(fer, run_id)
    MlflowClient().delete_run(gone)
    database = f"sqlite:///{fresh_store}/mlflow.db"
    collected = subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", database],
        env=process_environment(MLFLOW_TRACKING_URI=database),
        capture_output=True,
        text=True,
    )
    assert collected.returncode == 0, collected.stderr
    outcome = fer("compare")
    assert outcome.exit_code == 0, outcome.err
    assert "vgg16 train baseline s2 is better than vgg16 train baseline s0" in outcome.out
    text = mlflow.artifacts.load_text(f"runs:/{outcome.done()}/comparison.md")
    assert f" | train {gone[:8]} (deleted) |" in text


@pytest.mark.slow
def test_ten_crops_stand_beside_the_plain_score_and_can_be_a_model(
    three: Designed, fer: Fer
) -> None:
    model = log_untrained(resolve("demo", {"backbone": "tiny", "synthetic_count": 70, "crop": 44}))
    cropped = evaluated(fer, model, "--tta", "crops")
    beside = MlflowClient().get_run(cropped).data.metrics
    assert beside["val/tta/log_loss"] != beside["val/log_loss"]

    joined_run = fer("ensemble", "--run-ids", model, "--tta", "crops").done()
    joined = MlflowClient().get_run(evaluated(fer, joined_run)).data.metrics
    assert joined["val/log_loss"] == pytest.approx(beside["val/tta/log_loss"], abs=1e-5)

    whole = three(0, 0.8)
    for command in (("evaluate", "--run-id"), ("ensemble", "--run-ids")):
        refused = fer(*command, whole, "--tta", "crops")
        assert refused.exit_code == 2
        assert "trained with crop for tta=crops" in refused.error
