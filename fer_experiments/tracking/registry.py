"""The model registry: one registered model per dataset, a gate, champion and challenger."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import MetricThreshold
from mlflow.models.evaluation import EvaluationResult
from mlflow.models.evaluation.validation import ModelValidationFailedException

from fer_experiments.config import Thresholds
from fer_experiments.errors import RunError
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.tracking import store
from fer_experiments.tracking.locks import alone

CHAMPION, CHALLENGER = "champion", "challenger"
# Tag of a registered model: the numbers of the versions that were champion, oldest first.
HISTORY_TAG = "champion_history"
_LONGEST_HISTORY = 200
_LOWER_IS_BETTER = ("log_loss",)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version and the logged model behind it."""

    name: str
    number: int
    model_uri: str  # models:/m-…
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    created: str = ""  # UTC


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Two decisions over one registered model, made on one machine, wait for each other."""
    with alone(f"{mlflow.get_tracking_uri()} {name}"):
        yield


def registered_models() -> list[str]:
    """Names of this suite's registered models, the one changed last first."""
    models = store.client().search_registered_models(filter_string="name LIKE 'emotion-%'")
    models = sorted(models, key=lambda m: m.last_updated_timestamp or 0, reverse=True)
    return [model.name for model in models]


def versions(name: str) -> list[Version]:
    """All versions, newest first, with their aliases."""
    client = store.client()
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException:
        known = ", ".join(registered_models()) or "none"
        raise RunError(
            f"Expected model_name to be a registered model: {known}. Received: {name[:80]}"
        ) from None
    found = []
    for version in client.search_model_versions(f"name = '{name}'"):
        held = tuple(a for a, number in aliases.items() if int(number) == int(version.version))
        found.append(_version(version, aliases=held))
    return sorted(found, key=lambda v: v.number, reverse=True)


def version(name: str, number: int) -> Version:
    """One version.

    Raises:
        RunError: there is none with this number.
    """
    every = versions(name)
    for candidate in every:
        if candidate.number == number:
            return candidate
    raise RunError(
        f"Expected version to be one of {', '.join(str(v.number) for v in every)} of {name}. "
        f"Received: {number}"
    )


def history(name: str) -> list[int]:
    """Numbers of the versions that were champion, oldest first; the last one is."""
    text = store.client().get_registered_model(name).tags.get(HISTORY_TAG, "")
    return [int(number) for number in text.split(",") if number]


def registered_name(dataset_name: str) -> str:
    """The registered model that holds everything trained on datasets of this name."""
    return f"emotion-{dataset_name}"


def alias_holder(name: str, alias: str) -> Version | None:
    """The version that has the alias, if the registered model and the alias exist."""
    try:
        return _version(store.client().get_model_version_by_alias(name, alias))
    except MlflowException:
        return None


def newest_champion() -> Version | None:
    """The champion that was made last, over all of this suite's registered models."""
    for name in registered_models():
        champion = alias_holder(name, CHAMPION)
        if champion is not None:
            return champion
    return None


def version_of(name: str, model_uri: str) -> Version | None:
    """The version that holds this logged model, if it is registered already."""
    versions = store.client().search_model_versions(f"name = '{name}'")
    return next((_version(v) for v in versions if v.source == model_uri), None)


def is_better(metric: str, value: float, other: float) -> bool:
    """Whether `value` is the better score."""
    return value < other if metric.endswith(_LOWER_IS_BETTER) else value > other


def shortfalls(candidate: Mapping[str, float], thresholds: Thresholds) -> list[str]:
    """What a model lacks by itself, judged by its scores on val."""
    found = []
    # No better than always naming the most frequent class: it has learnt nothing.
    floor = MetricThreshold(threshold=candidate["val/majority_share"], greater_is_better=True)
    if not _passes({"val/accuracy": floor}, candidate):
        found.append(
            f"val/accuracy {candidate['val/accuracy']:.4f} does not reach the majority class's "
            f"share {candidate['val/majority_share']:.4f}"
        )
    prefix = "val/per_class/recall_"
    recalls = {n.removeprefix(prefix): v for n, v in candidate.items() if n.startswith(prefix)}
    low = {name: v for name, v in recalls.items() if v < thresholds.min_recall}
    never = [name for name, v in low.items() if v == 0]
    if never:
        found.append(f"never right on {', '.join(never)}")
    seldom = [f"{name} {v:.3f}" for name, v in low.items() if v]
    if seldom:
        found.append(f"recall below {thresholds.min_recall:g}: {', '.join(seldom)}")
    ece = candidate["val/calibration/ece"]
    if ece > thresholds.max_ece:
        found.append(f"val/calibration/ece {ece:.4f} is above {thresholds.max_ece:g}")
    return found


def gate(
    metric: str,
    *,
    candidate: Mapping[str, float],
    champion: Mapping[str, float],
    difference: Difference,
    clean: Difference | None,
    thresholds: Thresholds,
) -> list[str]:
    """Why the candidate may not replace the champion; nothing if it may.

    Args:
        metric: the score on val that decides.
        candidate: its scores on val.
        champion: the champion's scores on the same val.
        difference: of that score, candidate less champion, paired over the same images.
        clean: the same of the images without a twin in train; None: every image has one.
        thresholds: what is asked.
    """
    lower = metric.endswith(_LOWER_IS_BETTER)
    margin = MetricThreshold(
        min_absolute_change=thresholds.min_improvement, greater_is_better=not lower
    )
    refusals = []
    if not _passes({metric: margin}, candidate, champion):
        refusals.append(
            f"{metric} {candidate[metric]:.4f} is not better than the champion's "
            f"{champion[metric]:.4f} by {thresholds.min_improvement:g}"
        )
    if not (difference.high < 0 if lower else difference.low > 0):
        refusals.append(
            f"the difference in {metric} may be chance (95 % interval "
            f"{difference.low:+.4f} to {difference.high:+.4f} on the same images)"
        )
    if clean is None:
        refusals.append("every val image also stands in train: nothing shows what it has learnt")
    elif not (clean.value < 0 if lower else clean.value > 0):
        refusals.append(
            f"without the images that also stand in train it is not better ({clean.value:+.4f})"
        )
    return refusals + shortfalls(candidate, thresholds)


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


def add_version(name: str, model_uri: str, *, tags: Mapping[str, str]) -> Version:
    """Registers the logged model as a new version."""
    client = store.client()
    with redirect_stderr(io.StringIO()):  # MLflow says there what we say in our own words
        made = mlflow.register_model(model_uri, name, tags=dict(tags))
    return _version(client.get_model_version(name, made.version))


def describe(version: Version, description: str) -> None:
    """Gives a version its description, Markdown."""
    store.client().update_model_version(version.name, str(version.number), description=description)


def set_alias(version: Version, alias: str, *, tags: Mapping[str, str]) -> None:
    """Gives the version the alias, taking it from any other, and tags why."""
    client = store.client()
    before = alias_holder(version.name, CHAMPION)
    for key, value in tags.items():
        client.set_model_version_tag(version.name, str(version.number), key, value[:5000])
    client.set_registered_model_alias(version.name, alias, str(version.number))
    other = CHALLENGER if alias == CHAMPION else CHAMPION
    held = client.get_registered_model(version.name).aliases.get(other)
    if held is not None and int(held) == version.number:
        client.delete_registered_model_alias(version.name, other)
    if alias == CHAMPION:
        # The alias may have been set elsewhere, in MLflow's UI for one.
        known = [] if before is None else [before.number]
        _remember(version.name, [*history(version.name), *known, version.number])


def step_back(name: str, *, tags: Mapping[str, str]) -> tuple[Version, Version]:
    """Makes the champion before this one champion again; returns the one that leaves and it.

    Raises:
        RunError: there was none before.
    """
    known = {v.number for v in versions(name)}
    numbers = history(name)
    champion = alias_holder(name, CHAMPION)
    before = [n for n in numbers if n in known and champion is not None and n != champion.number]
    if champion is None or not before:
        raise RunError(
            f"Expected {name} to have had another champion before. Received: "
            f"champions {', '.join(map(str, numbers)) or 'none'}"
        )
    earlier = version(name, before[-1])
    set_alias(earlier, CHAMPION, tags=tags)
    _remember(name, numbers[: len(numbers) - numbers[::-1].index(earlier.number)])
    return champion, earlier


def _remember(name: str, numbers: Sequence[int]) -> None:
    kept = [n for i, n in enumerate(numbers) if i == 0 or n != numbers[i - 1]]
    text = ",".join(map(str, kept[-_LONGEST_HISTORY:]))
    store.client().set_registered_model_tag(name, HISTORY_TAG, text)


def _version(found: ModelVersion, *, aliases: tuple[str, ...] = ()) -> Version:
    created = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
    return Version(
        name=found.name,
        number=int(found.version),
        model_uri=found.source,
        tags=dict(found.tags),
        aliases=aliases,
        created=f"{created:%Y-%m-%d %H:%M}",
    )
