"""What the options say reaches the training loop; what the loop says reaches MLflow."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from fer_experiments.config import FitConfig
from fer_experiments.recipes import resolve
from fer_experiments.stages import finetune
from fer_experiments.tracking.models import load, model_of
from fer_experiments.tracking.runs import config_of, get_run
from fer_experiments.training import phases

from ..conftest import Fer, Job, Outcome

HEAD = phases.Phase(learning_rate=0.02, epochs=9, first_epoch=1)
TRAIN = ["train", "--recipe", "demo", "--backbone", "tiny", "--synthetic-count", "210"]


def history(run_id: str, name: str) -> dict[int, float]:
    """A metric by epoch."""
    return {point.step: point.value for point in MlflowClient().get_metric_history(run_id, name)}


def run_of(outcome: Outcome) -> str:
    assert outcome.exit_code == 0, outcome.err
    return re.findall(r"^run +(\w+)$", outcome.out, re.MULTILINE)[0]


@pytest.mark.parametrize(
    "field, value",
    [
        ("optimizer", "sgd"),
        ("schedule", "cosine"),
        ("weight_decay", 0.125),
        ("ema", 0.5),
        ("patience", 7),
        ("keep_epoch", "last"),
    ],
)
def test_an_option_of_training_changes_the_plan_and_nothing_else(field: str, value: Any) -> None:
    before = asdict(phases.loop_config_of(HEAD, resolve("demo").fit))
    after = asdict(phases.loop_config_of(HEAD, resolve("demo", {field: value}).fit))
    assert before[field] != value
    assert after == before | {field: value}


def test_the_plan_has_what_the_phase_says() -> None:
    config = resolve("demo", {"schedule": "cosine", "warmup_epochs": 2.5})
    phase = phases.Phase(
        learning_rate=3e-4, epochs=5, first_epoch=8, layer_multipliers={"block1": 0.5}
    )
    plan = phases.loop_config_of(phase, config.fit)
    assert (plan.learning_rate, plan.epochs, plan.layer_multipliers) == (3e-4, 5, {"block1": 0.5})
    assert plan.warmup_epochs == 2.5


@pytest.mark.parametrize(
    "field, value",
    [("label_smoothing", 0.25), ("mixup", 0.5), ("cutmix", 0.75), ("balance", "sampling")],
)
def test_an_option_of_batches_changes_the_mixture_and_nothing_else(field: str, value: Any) -> None:
    before = asdict(phases.batch_augmentation_of(HEAD, resolve("demo").fit, pictures=True))
    after = asdict(
        phases.batch_augmentation_of(HEAD, resolve("demo", {field: value}).fit, pictures=True)
    )
    assert before[field] != value
    assert after == before | {field: value}


def test_plain_epochs_are_the_last_ones_of_a_phase() -> None:
    config = resolve("demo", {"plain_epochs": 2})
    later = phases.Phase(learning_rate=0.1, epochs=5, first_epoch=8)
    assert phases.batch_augmentation_of(HEAD, config.fit, pictures=True).until_epoch == 7
    assert phases.batch_augmentation_of(later, config.fit, pictures=True).until_epoch == 10
    assert phases.batch_augmentation_of(later, resolve("demo").fit, pictures=True).until_epoch == 12


def test_no_rectangle_is_pasted_where_there_are_no_places() -> None:
    config = resolve("demo", {"cutmix": 1.0, "mixup": 0.5})
    augmentation = phases.batch_augmentation_of(HEAD, config.fit, pictures=False)
    assert (augmentation.cutmix, augmentation.mixup) == (0.0, 0.5)


def test_each_phase_trains_at_its_own_rate(job: Job) -> None:
    assert history(job.runs["train"], "learning_rate") == pytest.approx({1: 1e-3, 2: 1e-3})
    assert history(job.runs["finetune"], "learning_rate") == pytest.approx({3: 1e-4})


FINETUNE_TAKES = {
    "optimizer": "sgd", "schedule": "plateau", "weight_decay": 0.125, "ema": 0.5,
    "batch_size": 24, "label_smoothing": 0.25, "mixup": 0.5, "cutmix": 0.75,
    "balance": "weights", "plain_epochs": 1, "patience": 3, "keep_epoch": "last", "seed": 9,
}  # fmt: skip


@pytest.mark.parametrize("field, value", FINETUNE_TAKES.items())
def test_fine_tuning_changes_what_both_phases_share(job: Job, field: str, value: Any) -> None:
    source, config = finetune.plan({field: value}, run_id=job.runs["train"])
    assert source.id == job.runs["train"]
    assert getattr(config.fit, field) == value
    assert config.replace(**{field: source.params[field]}) == config_of(source)


def test_every_field_that_both_phases_share_is_tried() -> None:
    left_out = {f.name for f in fields(FitConfig)} - set(FINETUNE_TAKES)
    assert left_out == {"warmup_epochs"}  # of schedule=cosine alone


@pytest.mark.slow
def test_layer_decay_reaches_the_lower_blocks_alone(job: Job, fer: Fer) -> None:
    """At a millionth of the rate a layer stays as it is, to the last bit; weight decay too."""
    outcome = fer(
        "finetune", "--run-id", job.runs["train"], "--unfreeze-layers", "0",
        "--layer-decay", "1e-6", "--finetune-epochs", "1",
    )  # fmt: skip
    before, after = (
        load(model_of(get_run(run_id, stages=("train", "finetune"))))
        for run_id in (job.runs["train"], run_of(outcome))
    )
    stays = {
        name: np.array_equal(*(model.get_layer(name).get_weights()[0] for model in (before, after)))
        for name in ("block1_conv", "block2_1_conv", "block2_2_conv", "logits")
    }
    assert stays == {
        "block1_conv": True, "block2_1_conv": False, "block2_2_conv": False, "logits": False,
    }  # fmt: skip


def test_the_loop_gets_schedule_and_mixing(fresh_store: Path, fer: Fer) -> None:
    outcome = fer(
        *TRAIN, "--schedule", "cosine", "--learning-rate", "0.01", "--epochs", "4",
        "--mixup", "0.4", "--plain-epochs", "1",
    )  # fmt: skip
    run_id = run_of(outcome)
    # After the last step of each epoch: half a cosine, from the rate to 0.
    halves = {1: 0.8535534, 2: 0.5, 3: 0.1464466, 4: 0.0}
    expected = {epoch: 0.01 * share for epoch, share in halves.items()}
    assert history(run_id, "learning_rate") == pytest.approx(expected, abs=1e-8)
    for score in ("accuracy", "macro_f1"):
        assert set(history(run_id, f"train/{score}")) == {4}
        assert set(history(run_id, f"val/{score}")) == {1, 2, 3, 4}
    lines = [line for line in outcome.out.splitlines() if line.startswith("epoch")]
    assert [("(mixed images)" in line) for line in lines] == [True, True, True, False]
    assert re.match(r"epoch 1/4   train loss \d+\.\d{3} \(mixed images\)   val loss", lines[0])
    assert re.match(
        r"epoch 4/4   train loss .* accuracy +[\d.]+% macro-F1 0\.\d{3}   val", lines[3]
    )


@pytest.mark.slow
def test_the_loop_gets_patience(fresh_store: Path, fer: Fer) -> None:
    outcome = fer(*TRAIN, "--learning-rate", "1e-9", "--patience", "2", "--epochs", "30")
    assert set(history(run_of(outcome), "val/macro_f1")) == {1, 2, 3}
