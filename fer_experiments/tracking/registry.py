"""The model registry: one registered model per dataset, a gate, champion and challenger."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import MetricThreshold
from mlflow.models.evaluation import EvaluationResult
from mlflow.models.evaluation.validation import ModelValidationFailedException
from mlflow.tracking import MlflowClient

CHAMPION, CHALLENGER = "champion", "challenger"
_LOWER_IS_BETTER = ("log_loss",)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version and the logged model behind it."""

    name: str
    number: int
    model_uri: str  # models:/m-…
    tags: Mapping[str, str]


def registered_name(dataset_name: str) -> str:
    """The registered model that holds everything trained on datasets of this name."""
    return f"emotion-{dataset_name}"


def alias_holder(name: str, alias: str) -> Version | None:
    """The version that has the alias, if the registered model and the alias exist."""
    try:
        return _version(MlflowClient().get_model_version_by_alias(name, alias))
    except MlflowException:
        return None


def newest_champion() -> Version | None:
    """The champion that was made last, over all of this suite's registered models."""
    models = MlflowClient().search_registered_models(filter_string="name LIKE 'emotion-%'")
    for model in sorted(models, key=lambda m: m.last_updated_timestamp or 0, reverse=True):
        champion = alias_holder(model.name, CHAMPION)
        if champion is not None:
            return champion
    return None


def version_of(name: str, model_uri: str) -> Version | None:
    """The version that holds this logged model, if it is registered already."""
    versions = MlflowClient().search_model_versions(f"name = '{name}'")
    return next((_version(v) for v in versions if v.source == model_uri), None)


def is_better(metric: str, value: float, other: float) -> bool:
    """Whether `value` is the better score."""
    return value < other if metric.endswith(_LOWER_IS_BETTER) else value > other


def gate(
    metric: str,
    *,
    candidate: Mapping[str, float],
    champion: Mapping[str, float] | None,
    min_improvement: float,
) -> list[str]:
    """What keeps the candidate from being promoted; empty if nothing does.

    Args:
        metric: the score on val that decides.
        candidate: all scores on val.
        champion: its scores on the same val; None if there is no champion yet.
        min_improvement: by how much the candidate must be better.
    """
    thresholds = {
        # A model that is no better than always naming the most frequent class has learnt nothing.
        "val/accuracy": MetricThreshold(
            threshold=candidate["val/majority_share"], greater_is_better=True
        )
    }
    shortfalls = _failures(thresholds, candidate, None)
    recalls = {name: v for name, v in candidate.items() if name.startswith("val/per_class/recall_")}
    shortfalls += [
        f"never right on {name.removeprefix('val/per_class/recall_')}"
        for name, recall in recalls.items()
        if recall == 0
    ]
    if champion is not None:
        greater = not metric.endswith(_LOWER_IS_BETTER)
        threshold = MetricThreshold(min_absolute_change=min_improvement, greater_is_better=greater)
        if _failures({metric: threshold}, candidate, champion):
            shortfalls.append(
                f"{metric} {candidate[metric]:.4f} is not better than the champion's "
                f"{champion[metric]:.4f} by {min_improvement:g}"
            )
    return shortfalls


def _failures(
    thresholds: Mapping[str, MetricThreshold],
    candidate: Mapping[str, float],
    baseline: Mapping[str, float] | None,
) -> list[str]:
    try:
        mlflow.validate_evaluation_results(
            dict(thresholds),
            EvaluationResult(metrics=dict(candidate), artifacts={}),
            EvaluationResult(metrics=dict(baseline), artifacts={}) if baseline else None,
        )
    except ModelValidationFailedException:
        return [
            f"{name} {candidate[name]:.4f} does not reach {threshold.threshold:.4f}"
            if threshold.threshold is not None
            else name
            for name, threshold in thresholds.items()
        ]
    return []


def add_version(name: str, model_uri: str, *, description: str, tags: Mapping[str, str]) -> Version:
    """Registers the logged model as a new version."""
    client = MlflowClient()
    with redirect_stderr(io.StringIO()):  # MLflow says there what we say in our own words
        made = mlflow.register_model(model_uri, name, tags=dict(tags))
    client.update_model_version(name, made.version, description=description)
    return _version(client.get_model_version(name, made.version))


def set_alias(version: Version, alias: str, *, tags: Mapping[str, str]) -> None:
    """Gives the version the alias, taking it from any other, and tags why."""
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(version.name, str(version.number), key, value)
    client.set_registered_model_alias(version.name, alias, str(version.number))
    other = CHALLENGER if alias == CHAMPION else CHAMPION
    held = client.get_registered_model(version.name).aliases.get(other)
    if held is not None and int(held) == version.number:
        client.delete_registered_model_alias(version.name, other)


def _version(found: ModelVersion) -> Version:
    return Version(
        name=found.name, number=int(found.version), model_uri=found.source, tags=dict(found.tags)
    )
