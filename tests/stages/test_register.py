"""Promotion: earned on val, never taken for granted, the same when asked twice."""

from pathlib import Path

import mlflow
import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from fer_experiments.tracking import registry

from ..conftest import Fer

NAME = "emotion-synthetic"
DATA = ["--recipe", "demo", "--synthetic-count", "420"]
SCORES = {"val/accuracy": 0.6, "val/macro_f1": 0.5, "val/log_loss": 1.2, "val/majority_share": 0.25}


def trained(fer: Fer, *, epochs: int, data: list[str] = DATA) -> str:
    """Trains and evaluates a tiny model; returns its URI. More epochs make a better one."""
    outcome = fer("train", "--backbone", "tiny", *data, "--epochs", epochs)
    assert outcome.exit_code == 0, outcome.err
    run_id = outcome.out.split("run    ")[1].split()[0]
    assert fer("evaluate", "--run-id", run_id).exit_code == 0
    return str(MlflowClient().get_run(run_id).data.tags["model_uri"])


def holder(alias: str) -> ModelVersion:
    return MlflowClient().get_model_version_by_alias(NAME, alias)


def versions() -> list[tuple[str, dict[str, str]]]:
    found = MlflowClient().search_model_versions(f"name = '{NAME}'")
    return sorted((v.version, dict(v.tags)) for v in found)


def test_a_champion_is_replaced_only_by_a_model_that_is_better_by_enough(
    fer: Fer, fresh_store: Path
) -> None:
    weak = trained(fer, epochs=1)
    assert fer("register").exit_code == 0
    assert holder("champion").source == weak

    strong = trained(fer, epochs=8)
    outcome = fer("register", "--min-improvement", "0.9")
    assert "is not better than the champion's" in outcome.out
    assert holder("champion").source == weak
    assert holder("challenger").source == strong
    assert "not better" in holder("challenger").tags["decision_reason"]

    before = versions()
    assert "stays challenger" in fer("register", "--min-improvement", "0.9").out
    assert versions() == before

    assert "better than version 1" in fer("register").out
    assert holder("champion").source == strong
    assert "challenger" not in MlflowClient().get_registered_model(NAME).aliases
    assert len(versions()) == 2

    before = versions()
    assert "is already champion" in fer("register").out
    assert versions() == before


def test_a_champion_judged_on_other_data_is_judged_again_on_this_val(
    fer: Fer, fresh_store: Path
) -> None:
    champion = trained(fer, epochs=8)
    assert fer("register").exit_code == 0
    other = ["--recipe", "demo", "--synthetic-count", "350"]
    weak = trained(fer, epochs=1, data=other)

    compared = fer("compare")
    assert "not compared, judged on other data: tiny train demo s0" in compared.out
    outcome = fer("register")
    assert outcome.exit_code == 0
    assert holder("champion").source == champion
    assert holder("challenger").source == weak
    judged_again = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.stage = 'evaluate' and tags.model_uri = '{champion}'",
        output_format="list",
    )
    assert {run.data.params["synthetic_count"] for run in judged_again} == {"420", "350"}
    assert len({run.data.params["dataset_fingerprint"] for run in judged_again}) == 2


@pytest.mark.parametrize(
    ("metric", "champion", "passes"),
    [
        ("val/macro_f1", 0.49, True),
        ("val/macro_f1", 0.4999, False),
        ("val/macro_f1", 0.51, False),
        ("val/log_loss", 1.3, True),
        ("val/log_loss", 1.1, False),
    ],
)
def test_the_gate_knows_which_way_a_metric_points(
    metric: str, champion: float, passes: bool
) -> None:
    refusal = registry.gate(
        metric,
        candidate=SCORES,
        champion={**SCORES, metric: champion},
        min_improvement=0.005,
    )
    assert (refusal is None) is passes


def test_what_a_model_falls_short_of_is_named() -> None:
    useless = {**SCORES, "val/accuracy": 0.2, "val/per_class/recall_disgust": 0.0}
    assert registry.shortfalls(SCORES) == []
    assert registry.shortfalls(useless) == [
        "val/accuracy 0.2000 does not reach the majority class's share 0.2500",
        "never right on disgust",
    ]
