"""Promotion: earned on val, never taken for granted, the same when asked twice."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from fer_experiments.config import Thresholds
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.tracking import registry

from ..conftest import Fer, process_environment
from .designed import answers, log_designed, write_images

NAME = "emotion-synthetic"
DATA = ["--recipe", "demo", "--synthetic-count", "420"]
SCORES = {
    "val/accuracy": 0.6,
    "val/macro_f1": 0.5,
    "val/log_loss": 1.2,
    "val/majority_share": 0.25,
    "val/calibration/ece": 0.1,
}


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


@pytest.mark.slow
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
    # It is part of this register run: in its experiment, under its own name, told as one command.
    [told] = re.findall(r"^run +(\w+)$", outcome.out, re.MULTILINE)
    newest = max(judged_again, key=lambda run: run.info.start_time)
    assert newest.data.tags["mlflow.parentRunId"] == told
    assert newest.info.experiment_id == MlflowClient().get_run(told).info.experiment_id
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
    value = SCORES[metric] - champion
    difference = Difference(value=value, low=value - 0.001, high=value + 0.001, p=0.001)

    def refusals(difference: Difference) -> list[str]:
        return registry.promotion_refusals(
            metric,
            candidate=SCORES,
            champion={**SCORES, metric: champion},
            difference=difference,
            thresholds=Thresholds(),
        )

    assert (refusals(difference) == []) is passes
    wide = Difference(value=value, low=value - 1, high=value + 1, p=0.5)
    assert f"the difference in {metric} may be chance" in refusals(wide)[-1]


def test_what_a_model_falls_short_of_is_named() -> None:
    useless = {
        **SCORES,
        "val/accuracy": 0.2,
        "val/per_class/recall_disgust": 0.0,
        "val/per_class/recall_fear": 0.05,
        "val/calibration/ece": 0.3,
    }
    assert registry.shortfalls(SCORES, Thresholds()) == []
    assert registry.shortfalls(useless, Thresholds()) == [
        "val/accuracy 0.2000 is not above the majority class's share 0.2500",
        "never right on disgust",
        "recall below 0.1: fear 0.050",
        "val/calibration/ece 0.3000 is above 0.15",
    ]


def test_what_just_reaches_a_threshold_is_enough() -> None:
    just = {**SCORES, "val/per_class/recall_fear": 0.1, "val/calibration/ece": 0.15}
    assert registry.shortfalls(just, Thresholds()) == []
    assert registry.shortfalls({**just, "val/per_class/recall_fear": 0.099}, Thresholds()) == [
        "recall below 0.1: fear 0.099"
    ]
    assert registry.shortfalls({**just, "val/calibration/ece": 0.1501}, Thresholds()) == [
        "val/calibration/ece 0.1501 is above 0.15"
    ]
    never = {**SCORES, "val/per_class/recall_fear": 0.0}
    assert registry.shortfalls(never, Thresholds(min_recall=0)) == []


@pytest.mark.parametrize(
    ("metric", "gain", "low", "high"),
    [("val/macro_f1", 0.1, 0.0, 0.2), ("val/log_loss", -0.1, -0.2, 0.0)],
)
def test_an_interval_that_touches_0_may_be_chance(
    metric: str, gain: float, low: float, high: float
) -> None:
    assert registry.promotion_refusals(
        metric,
        candidate={**SCORES, metric: SCORES[metric] + gain},
        champion=SCORES,
        difference=Difference(value=gain, low=low, high=high, p=0.05),
        thresholds=Thresholds(),
    ) == [
        f"the difference in {metric} may be chance (95 % interval {low:+.4f} to {high:+.4f} on "
        "the same images)"
    ]


@pytest.fixture
def five(fresh_store: Path, tmp_path: Path) -> Callable[[int, float], str]:
    """Logs, by number: a champion right on 60 %, one on 50 %, another on 60 %, one on 75 %, and
    one on 90 % except for disgust, which it never names rightly."""
    shares: list[Mapping[str, float] | float] = [0.6, 0.5, 0.6, 0.75, {"disgust": 0.0, "else": 0.9}]
    models = [answers(share, seed=i) for i, share in enumerate(shares)]
    dataset = write_images(tmp_path / "faces", models)
    return lambda row, confidence: log_designed(dataset, row, confidence=confidence)


@pytest.mark.slow
def test_only_a_model_that_is_surely_better_and_useful_on_every_class_is_promoted(
    five: Callable[[int, float], str], fer: Fer
) -> None:
    def judged(row: int, confidence: float) -> str:
        assert fer("evaluate", "--run-id", five(row, confidence)).exit_code == 0
        outcome = fer("register", "--model-name", "emotion-designed")
        assert outcome.exit_code == 0, outcome.err
        return outcome.out

    def champion() -> str:
        client = MlflowClient()
        return str(client.get_model_version_by_alias("emotion-designed", "champion").version)

    judged(0, 0.6)
    assert "is already champion" in judged(1, 0.5)  # worse
    out = judged(2, 0.6)  # as good, with other mistakes
    assert "s0 is already champion (version 1, " in out
    assert re.search(r"refused: vgg16 train baseline s2 .* may be chance", out)
    assert champion() == "1"
    assert "never right on disgust" in judged(4, 0.8)  # better elsewhere
    assert champion() == "1"
    # The best on val is now the one that fails on disgust: the others wait behind it.
    outcome = fer("register", "--model-name", "emotion-designed", "--min-recall", "0")
    assert "better than version 1" in outcome.out
    version = MlflowClient().get_model_version_by_alias("emotion-designed", "champion")
    assert MlflowClient().get_run(version.tags["source_run_id"]).data.params["seed"] == "4"


def test_a_champion_is_replaced_only_by_a_model_that_is_better_by_enough(
    five: Callable[[int, float], str], fer: Fer
) -> None:
    register = ("register", "--model-name", NAME)
    assert fer("evaluate", "--run-id", five(0, 0.6)).exit_code == 0
    assert fer(*register).exit_code == 0
    weak = holder("champion").source

    assert fer("evaluate", "--run-id", five(3, 0.75)).exit_code == 0
    outcome = fer(*register, "--min-improvement", "0.9")
    assert "is not better than the champion's" in outcome.out
    assert holder("champion").source == weak
    assert "not better" in holder("challenger").tags["decision_reason"]

    before = versions()
    assert "stays challenger" in fer(*register, "--min-improvement", "0.9").out
    assert versions() == before

    strong = holder("challenger").source
    assert "better than version 1" in fer(*register).out
    assert holder("champion").source == strong
    assert "challenger" not in MlflowClient().get_registered_model(NAME).aliases
    assert len(versions()) == 2

    before = versions()
    assert "is already champion" in fer(*register).out
    assert versions() == before


def test_a_better_model_is_promoted_unless_it_is_badly_calibrated(
    five: Callable[[int, float], str], fer: Fer
) -> None:
    register = ("register", "--model-name", "emotion-designed")
    for row, confidence in ((0, 0.6), (3, 0.99)):
        assert fer("evaluate", "--run-id", five(row, confidence)).exit_code == 0
        outcome = fer(*register)
    assert "val/calibration/ece 0.2400 is above 0.15" in outcome.out
    promoted = fer(*register, "--max-ece", "0.3").out
    assert "better than version 1" in promoted
    assert "is already champion" in fer(*register).out

    version = MlflowClient().get_model_version_by_alias("emotion-designed", "champion")
    numbers = json.loads(version.tags["decision_numbers"])
    assert numbers["max_ece"] == 0.3
    assert 0.08 < numbers["difference/low"] < 0.15 < numbers["difference/high"] < 0.22
    assert "Intended use" in version.description

    assert "in place of version 2" in fer("rollback").out
    assert "had another champion" in fer("rollback").error
    assert "by hand" in fer("promote", "--version", "2").out
    assert "champion already" in fer("promote", "--version", "2").out
    assert "one of 2, 1" in fer("promote", "--version", "7").error
    shown = fer("registry").out
    assert "champions, oldest first: 1, 2" in shown
    assert "by hand, in place of version 1" in shown


@pytest.mark.slow
def test_a_gain_on_images_that_also_stand_in_train_does_not_count(
    fresh_store: Path, tmp_path: Path, fer: Fer
) -> None:
    plain = answers(0.6, seed=0)
    memory = plain.copy()
    memory[:, :40] = np.arange(7)[:, None]  # knows the first 40 of each class
    memory[:, 40:43] = (memory[:, 40:43] + 1) % 7
    dataset = write_images(tmp_path / "faces", [plain, memory], twins=40)
    for row in (0, 1):
        run_id = log_designed(dataset, row, confidence=0.7)
        assert fer("evaluate", "--run-id", run_id).exit_code == 0
        outcome = fer("register", "--model-name", "emotion-memory")
    # On all images it would be better by points, on those that it was not trained on it is worse.
    assert "vgg16 train baseline s0 is already champion" in outcome.out
    assert re.search(
        r"refused: vgg16 train baseline s1 \(val/macro_f1 0\.5\d+\): val/macro_f1 0\.5\d+ is not "
        r"better than the champion's 0\.[56]\d+ by 0\.005",
        outcome.out,
    )
    champion = MlflowClient().get_model_version_by_alias("emotion-memory", "champion")
    assert int(champion.version) == 1


@pytest.mark.slow
def test_two_registrations_at_the_same_moment_leave_one_champion_and_one_version(
    five: Callable[[int, float], str], fer: Fer
) -> None:
    assert fer("evaluate", "--run-id", five(3, 0.75)).exit_code == 0
    command = [sys.executable, "-m", "fer_experiments", "register", "--model-name", "emotion-two"]
    both = [
        subprocess.Popen(command, env=process_environment(), stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert len(MlflowClient().search_model_versions("name = 'emotion-two'")) == 1
    assert fer("registry", "--model-name", "emotion-two").out.count("version 1 is champion") == 1
