"""One contestant for each trained model, however many forms of it were evaluated."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from fer_experiments.evaluation.statistics import superiority
from fer_experiments.stages.contestants import contestants, left_out
from fer_experiments.tracking.evaluations import Evaluation
from fer_experiments.tracking.runs import stored_arrays

from ..conftest import Fer
from .designed import log_designed, record, write_images

NAME = "emotion-fer2013"  # what has its file names is called so
Logged = Callable[..., str]


def compared(fer: Fer, *options: str) -> tuple[str, set[str], list[dict[str, str]]]:
    """What compare prints, the evaluations that it ranks by label, and its pairs."""
    outcome = fer("compare", *options)
    folder = f"runs:/{outcome.done()}"
    models, pairs = (
        list(csv.DictReader(io.StringIO(mlflow.artifacts.load_text(f"{folder}/{name}.csv"))))
        for name in ("comparison", "val_pairs")
    )
    return outcome.out, {row["source_run_id"] for row in models}, pairs


def form(
    name: str, of: str, *, earlier: str = "", variant: str = "", stage: str = ""
) -> Evaluation:
    """The evaluation of a form that this run trained, after these earlier ones."""
    tags = {"trained_run_id": of, "source_stage": stage or "train"}
    tags |= {"earlier_run_ids": earlier} if earlier else {}
    tags |= {"test_time_variant": variant} if variant else {}
    return Evaluation(record(name, tags), name)


def test_the_last_form_counts_in_whatever_order_they_were_evaluated() -> None:
    head = form("head", "a")
    tuned = form("tuned", "b", earlier="a", stage="finetune")
    further = form("further", "c", earlier="b,a", stage="finetune")
    calibrated = form("calibrated", "c", earlier="b,a", stage="calibrate")
    of_the_head = form("calibrated head", "a", stage="calibrate")
    mirrored = form("mirrored", "d", variant="c", stage="ensemble")
    joined = form("joined", "e", stage="ensemble")
    other = form("other", "f")
    every = [head, tuned, further, calibrated, of_the_head, mirrored, joined, other]
    for found in (every, every[::-1], every[3:] + every[:3]):
        assert contestants(found) == [e for e in found if e in (calibrated, joined, other)]
    assert contestants([of_the_head, tuned, head]) == [tuned]
    assert contestants([head, of_the_head]) == [of_the_head]
    assert contestants([mirrored, further, tuned]) == [further]
    assert contestants([mirrored]) == []
    # Of two calibrations the one that was judged last.
    again = form("calibrated again", "c", earlier="b,a", stage="calibrate")
    assert contestants([again, further, calibrated]) == [again]


def test_what_is_left_out_is_named_the_first_five() -> None:
    every = [form(f"m{i}", str(i)) for i in range(7)]
    assert left_out(every, every) == []
    named = "earlier forms and test-time variants of these models left out (--all): "
    assert left_out(every[:6], every[:1]) == [f"{named}m1, m2, m3, m4, m5"]
    assert left_out(every, every[:1]) == [f"{named}m1, m2, m3, m4, m5 and 1 more"]


@pytest.mark.slow
def test_forms_of_a_model_do_not_enlarge_the_family(
    fresh_store: Path, tmp_path: Path, fer: Fer
) -> None:
    shares = (0.5, 0.6, 0.75, 0.8)
    dataset = write_images(tmp_path / "faces", shares)
    head = log_designed(dataset, 0, confidence=0.6)
    tuned = log_designed(dataset, 1, confidence=0.95, source=head)
    further = log_designed(dataset, 2, confidence=0.95, source=tuned)
    other = log_designed(dataset, 3, confidence=0.95)
    calibrated = fer("calibrate", "--run-id", further).done()
    of_the_head = fer("calibrate", "--run-id", head).done()
    mirrored = fer("ensemble", "--run-ids", other, "--tta", "flip").done()
    joined = fer("ensemble", "--run-ids", f"{further},{other}").done()
    every = [head, tuned, further, other, calibrated, of_the_head, mirrored, joined]
    for run_id in every:
        fer("evaluate", "--run-id", run_id).done()

    out, models, pairs = compared(fer)
    assert models == {calibrated, other, joined}
    assert len(pairs) == 3
    assert "left out (--all): " in out
    assert out.count("vgg16 train baseline s0") == 1  # among those that are left out
    # The family is what is asked about: its p are those of three pairs, and not of 28.
    few = {frozenset((p["first"], p["second"])): float(p["p"]) for p in pairs}

    out, models, pairs = compared(fer, "--all")
    assert models == set(every)
    assert len(pairs) == 28
    assert "--all" not in out
    same = [p for p in pairs if p["why not compared"]]
    assert {p["why not compared"] for p in same} == {"they name the same class of every image"}
    tested = len(pairs) - len(same)
    many = {frozenset((p["first"], p["second"])): p["p"] for p in pairs}
    for names, p in few.items():
        if 0 < p < 0.01:
            assert float(many[names]) == pytest.approx(p * tested / 3, rel=0.05, abs=2e-4)

    # Without the last form the one before it is the contestant.
    for run in evaluations_of(calibrated):
        MlflowClient().delete_run(run.info.run_id)
    assert compared(fer)[1] == {further, other, joined}

    fer("register").done()
    assert {v.tags["source_run_id"] for v in versions()} <= {further, other, joined}


def evaluations_of(run_id: str | None = None) -> list[Run]:
    """The evaluations of this run's model; of all without one."""
    which = "" if run_id is None else f" and tags.source_run_id = '{run_id}'"
    found: list[Run] = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.stage = 'evaluate'{which}",
        output_format="list",
    )
    return found


def versions() -> list[ModelVersion]:
    return MlflowClient().search_model_versions(f"name = '{NAME}'")


def holder(alias: str) -> str:
    return str(MlflowClient().get_model_version_by_alias(NAME, alias).tags["source_run_id"])


def test_candidates_are_looked_at_in_their_order_until_one_passes(
    fresh_store: Path, tmp_path: Path, fer: Fer
) -> None:
    shares = (0.4, 0.62, 0.6, 0.5)
    dataset = write_images(tmp_path / "faces", shares)
    champion = log_designed(dataset, 0, confidence=0.4)
    fer("evaluate", "--run-id", champion).done()
    fer("register").done()
    sure = log_designed(dataset, 1, confidence=0.99)  # ECE 0.37
    honest = log_designed(dataset, 2, confidence=0.6)
    third = log_designed(dataset, 3, confidence=0.5)
    for run_id in (sure, honest, third):
        fer("evaluate", "--run-id", run_id).done()
    outcome = fer("register")
    assert outcome.exit_code == 0, outcome.err
    assert holder("champion") == honest
    assert {v.tags["source_run_id"] for v in versions()} == {champion, honest}
    assert "vgg16 train baseline s2 is version 2" in outcome.out
    assert "better than version 1" in outcome.out
    refused = [line for line in outcome.out.splitlines() if line.startswith("refused: ")]
    [of_sure] = evaluations_of(sure)
    score = of_sure.data.metrics["val/macro_f1"]
    assert refused == [
        f"refused: vgg16 train baseline s1 (val/macro_f1 {score:.4f}): "
        "val/calibration/ece 0.3700 is above 0.15"
    ]

    # Three were looked at, so the interval is wider than for one.
    assert "corrected for 3 candidates" in outcome.out
    [version] = [v for v in versions() if v.tags["source_run_id"] == honest]
    numbers = json.loads(version.tags["decision_numbers"])
    said = {
        run.data.tags["source_run_id"]: stored_arrays(run.info.run_id, "val/probabilities.npz")
        for run in evaluations_of()
    }
    one, three = (
        superiority(
            said[honest]["labels"],
            said[honest]["probabilities"],
            said[champion]["probabilities"],
            classes=7,
            metric="macro_f1",
            candidates=candidates,
        )
        for candidates in (1, 3)
    )
    assert numbers["difference/low"] == pytest.approx(three.low)
    assert numbers["difference/low"] < one.low
    assert (numbers["candidates"], numbers["images_judged"]) == (3, 700)


@pytest.mark.slow
def test_where_none_passes_the_best_becomes_challenger_and_every_refusal_is_told(
    fresh_store: Path, tmp_path: Path, fer: Fer
) -> None:
    shares = (0.6, 0.62, 0.61)
    dataset = write_images(tmp_path / "faces", shares)
    runs = [log_designed(dataset, row, confidence=0.6) for row in range(3)]
    for run_id in runs:
        fer("evaluate", "--run-id", run_id).done()
        fer("register").done()
    assert holder("champion") == runs[0]
    assert holder("challenger") == runs[1]
    out = fer("register").out
    assert "vgg16 train baseline s1 stays challenger" in out
    assert "the difference in val/macro_f1 may be chance" in out
    assert "refused: vgg16 train baseline s2" in out
    assert f"next   fer promote --version 2 --model-name {NAME}" in out


@pytest.mark.parametrize(
    ("fields", "picked"),
    [
        ({}, "epoch"),
        ({"keep_epoch": "last"}, ""),
        ({"keep_epoch": "last", "patience": 3}, "last epoch"),
        ({"keep_epoch": "last", "schedule": "plateau"}, "learning rate"),
    ],
)
@pytest.mark.slow
def test_a_star_marks_what_val_has_chosen(
    fresh_store: Path, tmp_path: Path, fer: Fer, fields: dict[str, Any], picked: str
) -> None:
    dataset = write_images(tmp_path / "faces", [0.6, 0.6])
    trained = log_designed(dataset, 0, confidence=0.9, **fields)
    other = log_designed(dataset, 1, confidence=0.9, keep_epoch="last")
    calibrated = fer("calibrate", "--run-id", other).done()
    joined = fer("ensemble", "--run-ids", f"{trained},{calibrated}").done()
    for run_id in (trained, calibrated, joined):
        fer("evaluate", "--run-id", run_id).done()
    run_id = fer("compare").done()
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/comparison.csv")
    rows = {row["source_run_id"]: row for row in csv.DictReader(io.StringIO(text))}
    assert {run: row["picked_on_val"] for run, row in rows.items()} == {
        trained: str(bool(picked)),
        calibrated: "True",
        joined: "True",
    }
    chosen = {
        run.data.tags["source_run_id"]: run.data.tags.get("chosen_on_val", "")
        for run in evaluations_of()
    }
    assert chosen == {
        trained: picked,
        calibrated: "temperature",
        joined: ", ".join(filter(None, (picked, "temperature"))),
    }
