"""The `next` line of a command can be pasted into a shell, and does what was meant."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from fer_experiments.recipes import resolve
from fer_experiments.stages import common

from ..conftest import Fer, Job, Outcome
from .test_stages import own_faces


def next_words(outcome: Outcome) -> list[str]:
    """The words of the next command, as a shell splits them."""
    assert outcome.exit_code == 0, outcome.err
    (line,) = (x for x in outcome.out.splitlines() if x.startswith("next   "))
    words = shlex.split(line.removeprefix("next   "))
    assert words[0] == "fer"
    return words[1:]


def params_of(outcome: Outcome) -> dict[str, str]:
    run_id = outcome.out.split("run    ")[1].split()[0]
    return dict(MlflowClient().get_run(run_id).data.params)


def test_preparing_leads_to_training_on_the_very_same_data(fresh_store: Path, fer: Fer) -> None:
    folder = own_faces(fresh_store / "my faces")
    (folder / "cat" / "broken.png").write_bytes(b"no image")
    options = [
        "--on-bad-image", "skip", "--limit", "10", "--split", "holdout", "--image-size", "32",
        "--val-fraction", "0.25", "--leaks", "drop", "--data-seed", "3",
    ]  # fmt: skip
    prepared = fer("prepare", "--dataset", "my faces", *options, "--experiment", "a trial")
    words = next_words(prepared)
    assert words[0] == "train"
    assert words[words.index("--experiment") + 1] == "a trial"
    again = fer("prepare", *words[1:])  # which takes the same options, and costs no training
    data = params_of(prepared)
    assert params_of(again) == data
    assert data["limit"] == "10"
    assert len(MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name("a trial").experiment_id]
    )) == 2  # fmt: skip


def test_a_recipe_is_named_again(fresh_store: Path, fer: Fer) -> None:
    prepared = fer("prepare", "--recipe", "demo", "--synthetic-count", "70")
    words = next_words(prepared)
    assert words[:3] == ["train", "--recipe", "demo"]
    assert params_of(fer("prepare", *words[1:])) == params_of(prepared)


def test_an_audit_leads_to_training_on_the_same_data(fresh_store: Path, fer: Fer) -> None:
    own_faces(fresh_store / "my faces")
    audited = fer("audit", "--dataset", "my faces", "--split", "holdout", "--image-size", "32")
    again = fer("audit", *next_words(audited)[1:])
    assert params_of(again) == params_of(audited)


@pytest.mark.parametrize("recipe", ["baseline", "quick", "demo", "notebook"])
def test_options_of_the_data_give_the_same_data_again(recipe: str) -> None:
    changes = {"dataset": "x y", "limit": 7, "val_fraction": 0.3, "on_bad_image": "skip"}
    config = resolve(recipe, changes)
    options: dict[str, Any] = common.data_options(config)
    given = {k: v for k, v in options.items() if k != "recipe"}
    assert resolve(options["recipe"], given).data == config.data
    assert set(given) == set(changes)


@pytest.mark.slow
def test_training_and_evaluating_stay_in_the_experiment(
    job: Job, fresh_store: Path, fer: Fer
) -> None:
    options = ["--backbone", "tiny", "--recipe", "demo", "--synthetic-count", "210"]
    trained = fer("train", *options, "--epochs", "1", "--experiment", "it's mine")
    words = next_words(trained)
    assert words[0] == "finetune"
    tuned = fer(*words, "--finetune-epochs", "1")
    judged = fer(*next_words(tuned))
    compared = fer(*next_words(judged))
    registered = fer(*next_words(compared))
    client = MlflowClient()
    mine = client.get_experiment_by_name("it's mine").experiment_id
    stages = [run.data.tags["stage"] for run in client.search_runs([mine])]
    assert sorted(stages) == ["compare", "evaluate", "finetune", "register", "train"]
    words = next_words(registered)
    assert words == ["predict", "--model-name", "emotion-synthetic", "photo.jpg"]
    from tests.faults import files

    files.write(fresh_store, {"photo.jpg": files.picture()})
    assert fer(*words).exit_code == 0


def test_comparing_passes_the_data_on(job: Job, fer: Fer) -> None:
    words = next_words(fer("compare", "--dataset", "synthetic"))
    assert words == ["register", "--dataset", "synthetic"]
    assert next_words(fer("compare")) == ["register"]


def test_the_experiment_of_the_environment_is_not_named(
    fresh_store: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by variable")
    prepared = fer("prepare", "--recipe", "demo", "--synthetic-count", "70")
    assert "--experiment" not in next_words(prepared)


def test_a_job_on_a_server_does_not_ask_for_a_server_to_be_started(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fer_experiments.stages import main

    assert main.where_to_look() == "make ui, then open the link above"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main.where_to_look() == "open the link above"
