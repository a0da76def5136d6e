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


def shortfalls(candidate: Mapping[str, float]) -> list[str]:
    """What a model lacks by itself, judged by its scores on val; reported, not enforced."""
    found = []
    # No better than always naming the most frequent class: it has learnt nothing.
    floor = MetricThreshold(threshold=candidate["val/majority_share"], greater_is_better=True)
    if not _passes({"val/accuracy": floor}, candidate):
        found.append(
            f"val/accuracy {candidate['val/accuracy']:.4f} does not reach the majority class's "
            f"share {candidate['val/majority_share']:.4f}"
        )
    never_right = [
        name.removeprefix("val/per_class/recall_")
        for name, value in candidate.items()
        if name.startswith("val/per_class/recall_") and value == 0
    ]
    if never_right:
        found.append(f"never right on {', '.join(never_right)}")
    return found


def gate(
    metric: str,
    *,
    candidate: Mapping[str, float],
    champion: Mapping[str, float],
    min_improvement: float,
) -> str | None:
    """Why the candidate may not replace the champion; None if it may.

    Args:
        metric: the score on val that decides.
        candidate: its scores on val.
        champion: the champion's scores on the same val.
        min_improvement: by how much the candidate must be better.
    """
    threshold = MetricThreshold(
        min_absolute_change=min_improvement,
        greater_is_better=not metric.endswith(_LOWER_IS_BETTER),
    )
    if _passes({metric: threshold}, candidate, champion):
        return None
    return (
        f"{metric} {candidate[metric]:.4f} is not better than the champion's "
        f"{champion[metric]:.4f} by {min_improvement:g}"
    )


def _passes(
    thresholds: Mapping[str, MetricThreshold],
    candidate: Mapping[str, float],
    baseline: Mapping[str, float] | None = None,
) -> bool:
    try:
        mlflow.validate_evaluation_results(
            dict(thresholds),
            EvaluationResult(metrics=dict(candidate), artifacts={}),
            EvaluationResult(metrics=dict(baseline), artifacts={}) if baseline else None,
        )
    except ModelValidationFailedException:
        return False
    return True


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
