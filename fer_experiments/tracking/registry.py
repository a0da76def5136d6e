"""The model registry: a registered model per dataset, promotion rule, champion, challenger."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import UTC, datetime

import mlflow
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from fer_experiments import __version__
from fer_experiments.config import Thresholds
from fer_experiments.errors import ConfigError, RunError, quote
from fer_experiments.evaluation.statistics import Difference
from fer_experiments.tracking import names, store
from fer_experiments.tracking.locks import lock

CHAMPION, CHALLENGER = "champion", "challenger"
# They go when the alias does.
_DECISION_TAGS = (
    names.DECISION,
    names.DECISION_REASON,
    names.DECISION_NUMBERS,
    names.DECISION_RUN,
)
# Tags by which a version is known that was registered before registered models were marked.
_VERSION_TAGS = {"source_run_id", "dataset_fingerprint", "evaluation_run_id"}
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

    @property
    def reason(self) -> str | None:
        """Why it holds its alias; None if it holds none, or got it in MLflow, not by fer."""
        decided = self.tags.get(names.DECISION)
        return self.tags.get(names.DECISION_REASON) if decided in self.aliases else None


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a newcomer has to beat."""

    # The champion; without one, the newest version that was champion and still exists.
    version: Version | None
    is_champion: bool
    by_fer: bool  # whether its alias, or that there is none, is fer's doing
    found: str  # in words: what was found, and why it is this version


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Two decisions over one registered model, made on one machine, wait for each other."""
    with lock(f"{store.identity(mlflow.get_registry_uri())} {name}"):
        yield


@store.translated()
def registered_models() -> list[str]:
    """Names of the registered models that hold models of this suite, the one changed last first."""
    if not store.exists():
        return []
    ours = [model for model in _all_registered_models() if _is_ours(model)]
    ours.sort(key=lambda m: m.last_updated_timestamp or 0, reverse=True)
    return [model.name for model in ours]


def chosen_name(name: str | None) -> str:
    """The registered model that is meant: the one that was named, else the only one there is.

    Raises:
        RunError: there is none of this name, none at all, or more than one and no name.
    """
    if name is not None:
        _registered_model(name)
        return name
    names = registered_models()
    if not names:
        raise RunError(
            f"Expected a registered model in {store.looked_in()}. Found: none; run fer register "
            "first"
        )
    if len(names) > 1:
        raise RunError(
            "Expected model_name where there is more than one registered model. Received: none, "
            f"there are {', '.join(names)}; pass --model-name"
        )
    return names[0]


def check_name(name: str) -> str:
    """The name, if a registered model can have it.

    Raises:
        ConfigError: it cannot.
        RunError: it can, and could not be looked for.
    """
    if not name.strip() or set("/:") & set(name) or name == "." or name.startswith(".."):
        raise ConfigError(
            "Expected model_name to be a name without / and :, that is not '.' and does not begin "
            f"with '..'. Received: {quote(name) or 'none'}"
        )
    store.quoted(name)
    return name


@store.translated()
def versions(name: str) -> list[Version]:
    """All versions, newest first, with their aliases.

    Raises:
        RunError: there is no registered model of this name.
    """
    aliases = _registered_model(name).aliases
    found = []
    for version in _all_versions(name):
        held = tuple(a for a, number in aliases.items() if int(number) == int(version.version))
        found.append(_version(version, aliases=held))
    return sorted(found, key=lambda v: v.number, reverse=True)


def newest_version(name: str) -> Version | None:
    """The version that was registered last; None if there is none, or no such registered model."""
    return next(iter(versions(name)), None) if _find(name) is not None else None


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


@store.translated()
def history(name: str) -> list[int]:
    """Numbers of the versions that were champion, oldest first, deleted ones among them.

    The last one is champion, unless somebody changed that in MLflow.
    """
    numbers = _registered_model(name).tags.get(names.CHAMPION_HISTORY, "").split(",")
    return [int(number) for number in numbers if number.strip().isdecimal()]


def registered_name(dataset_name: str) -> str:
    """The registered model that holds everything trained on datasets of this name."""
    return f"emotion-{dataset_name}"


@store.translated()
def alias_holder(name: str, alias: str) -> Version | None:
    """The version that has the alias; None if there is no such registered model, or no such alias.

    Raises:
        TrackingError: the store did not answer that.
    """
    model = _find(name)
    number = None if model is None else model.aliases.get(alias)
    if number is None:
        return None
    try:
        found = store.client().get_model_version(name, number)
    except MlflowException as error:
        if store.is_missing(error):
            return None
        raise
    return _version(found, aliases=tuple(found.aliases) or (alias,))


def reference(name: str) -> Reference:
    """What a newcomer to this registered model has to beat.

    Raises:
        TrackingError: the store did not answer.
    """
    champion = alias_holder(name, CHAMPION)
    if champion is None and _find(name) is None:
        return Reference(
            version=None,
            is_champion=False,
            by_fer=True,
            found=f"there is no registered model {name} yet",
        )
    numbers = history(name)
    if champion is not None:
        by_fer = _made_by_fer(champion, numbers)
        found = f"version {champion.number} is champion"
        if not by_fer:
            found = f"version {champion.number} was made champion in MLflow, not by fer"
        return Reference(version=champion, is_champion=True, by_fer=by_fer, found=found)
    there = {v.number: v for v in versions(name)}
    was = list(dict.fromkeys(reversed(numbers)))  # each once, newest first
    newest = next((there[number] for number in was if number in there), None)
    gone = [number for number in was if number not in there]
    if newest is None:
        found = "no version was champion yet"
        if gone:
            found = f"no version that was champion is left: {_numbered(gone)} deleted"
        return Reference(version=None, is_champion=False, by_fer=not gone, found=found)
    gone = [number for number in gone if was.index(number) < was.index(newest.number)]
    why = f"{_numbered(gone)} deleted" if gone else "the alias was removed in MLflow"
    return Reference(
        version=newest,
        is_champion=False,
        by_fer=False,
        found=f"there is no champion ({why}); version {newest.number} is the newest that was "
        "champion and still exists",
    )


@store.translated()
def version_of(name: str, model_uri: str) -> Version | None:
    """The version that holds this logged model, if it is registered already."""
    return next((_version(v) for v in _all_versions(name) if v.source == model_uri), None)


@store.translated()
def holding(model_uri: str) -> list[Version]:
    """The versions of all registered models that hold this logged model, with their aliases."""
    found = store.client().search_model_versions(f"source_path = '{model_uri}'")
    numbers = {(v.name, int(v.version)) for v in found}
    names = sorted({v.name for v in found})
    return [v for name in names for v in versions(name) if (name, v.number) in numbers]


def shortfalls(candidate: Mapping[str, float], thresholds: Thresholds) -> list[str]:
    """What a model lacks by itself, judged by its scores on val."""
    found = []
    # No better than always naming the most frequent class: it has learnt nothing.
    if candidate["val/accuracy"] <= candidate["val/majority_share"]:
        found.append(
            f"val/accuracy {candidate['val/accuracy']:.4f} is not above the majority class's "
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


def promotion_refusals(
    metric: str,
    *,
    candidate: Mapping[str, float],
    champion: Mapping[str, float],
    difference: Difference,
    thresholds: Thresholds,
) -> list[str]:
    """Why the candidate may not replace the champion; nothing if it may.

    Args:
        metric: the score on val that decides.
        candidate: its scores on the images of val that neither model was trained on.
        champion: the champion's scores on the same images.
        difference: of that score, candidate less champion, paired over these images; its interval
            is corrected for the number of candidates.
        thresholds: what is asked.
    """
    lower = metric.endswith(_LOWER_IS_BETTER)
    gain = (candidate[metric] - champion[metric]) * (-1 if lower else 1)
    refusals = []
    # Rounded, or 0.3 - 0.2 would be less than 0.1.
    if gain <= 0 or round(gain, 12) < thresholds.min_improvement:
        refusals.append(
            f"{metric} {candidate[metric]:.4f} is not better than the champion's "
            f"{champion[metric]:.4f} by {thresholds.min_improvement:g}"
        )
    if not (difference.high < 0 if lower else difference.low > 0):
        refusals.append(
            f"the difference in {metric} may be chance (95 % interval "
            f"{difference.low:+.4f} to {difference.high:+.4f} on the same images)"
        )
    return refusals + shortfalls(candidate, thresholds)


@store.translated()
def add_version(name: str, model_uri: str, *, tags: Mapping[str, str]) -> Version:
    """Registers the logged model as a new version."""
    client = store.client()
    with redirect_stderr(io.StringIO()):  # MLflow says there what we say in our own words
        made = mlflow.register_model(model_uri, name, tags=dict(tags))
    if names.SUITE not in _registered_model(name).tags:
        client.set_registered_model_tag(name, names.SUITE, __version__)
    return _version(client.get_model_version(name, made.version))


@store.translated()
def describe(version: Version, description: str) -> None:
    """Gives a version its description, Markdown."""
    store.client().update_model_version(version.name, str(version.number), description=description)


@store.translated()
def set_tags(version: Version, tags: Mapping[str, str]) -> None:
    """Sets tags of a version."""
    for key, value in tags.items():
        store.client().set_model_version_tag(version.name, str(version.number), key, value[:5000])


def set_alias(version: Version, alias: str, *, tags: Mapping[str, str]) -> None:
    """Gives the version the alias, taking it from any other, and tags why."""
    past: list[int] = []
    if alias == CHAMPION:
        # The alias may have been set elsewhere, in MLflow's UI for one.
        before = alias_holder(version.name, CHAMPION)
        past = history(version.name) + ([] if before is None else [before.number])
    _give(version, alias, tags=tags, past=past)


def step_back(name: str, *, tags: Mapping[str, str]) -> tuple[int | None, Version]:
    """Makes the newest earlier champion that still exists champion again.

    Returns:
        The number of the version that was champion last, which may be deleted, and the version
        that is champion now.

    Raises:
        RunError: there is no earlier champion.
    """
    there = {v.number: v for v in versions(name)}
    numbers = history(name)
    champion = alias_holder(name, CHAMPION)
    last = champion.number if champion is not None else (numbers[-1] if numbers else None)
    for i in reversed(range(len(numbers))):
        earlier = there.get(numbers[i])
        if earlier is not None and (champion is None or earlier.number != champion.number):
            _give(earlier, CHAMPION, tags=tags, past=numbers[:i])
            return last, earlier
    deleted = [number for number in numbers if number not in there]
    raise RunError(
        f"Expected {name} to have had another champion before that still exists. Received: "
        f"champions {', '.join(map(str, numbers)) or 'none'}"
        + (f", of which {_numbered(deleted)} deleted" if deleted else "")
    )


@store.translated()
def _give(version: Version, alias: str, *, tags: Mapping[str, str], past: Sequence[int]) -> None:
    """Moves an alias; `past` are the champions before this one, oldest first."""
    client, number = store.client(), str(version.number)
    for key, value in tags.items():
        client.set_model_version_tag(version.name, number, key, value[:5000])
    client.set_registered_model_alias(version.name, alias, number)
    other = CHALLENGER if alias == CHAMPION else CHAMPION
    held = client.get_registered_model(version.name).aliases.get(other)
    if held is not None and int(held) == version.number:
        client.delete_registered_model_alias(version.name, other)
    if alias == CHAMPION:
        _remember(version.name, [*past, version.number])
    _clear_reasons(version.name, keep={version.number: set(tags)})


def _clear_reasons(name: str, *, keep: Mapping[int, set[str]]) -> None:
    """Removes what was said of an alias that a version no longer holds, or of an older decision."""
    client = store.client()
    for version in versions(name):
        kept: Iterable[str] = ()
        if version.number in keep:
            kept = keep[version.number]
        elif version.reason is not None:
            continue
        for tag in _DECISION_TAGS:
            if tag in version.tags and tag not in kept:
                client.delete_model_version_tag(name, str(version.number), tag)


def _remember(name: str, numbers: Sequence[int]) -> None:
    kept = [n for i, n in enumerate(numbers) if i == 0 or n != numbers[i - 1]]
    text = ",".join(map(str, kept[-_LONGEST_HISTORY:]))
    store.client().set_registered_model_tag(name, names.CHAMPION_HISTORY, text)


def _made_by_fer(champion: Version, numbers: Sequence[int]) -> bool:
    if numbers and numbers[-1] == champion.number:
        return True
    # The command may have been cut short before it wrote the history.
    return champion.number not in numbers and champion.reason is not None


@store.translated()
def _find(name: str) -> RegisteredModel | None:
    try:
        return store.client().get_registered_model(name)
    except MlflowException as error:
        if store.is_missing(error):
            return None
        raise


def _registered_model(name: str) -> RegisteredModel:
    found = _find(name)
    if found is not None:
        return found
    known = ", ".join(registered_models()) or "none"
    raise RunError(
        f"Expected model_name to be a registered model: {known}. Received: {quote(name)}"
    )


def _all_registered_models() -> list[RegisteredModel]:
    client, found, token = store.client(), [], None
    while True:
        page = client.search_registered_models(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _all_versions(name: str) -> list[ModelVersion]:
    client, found, token = store.client(), [], None
    while True:
        page = client.search_model_versions(f"name = {store.quoted(name)}", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _is_ours(model: RegisteredModel) -> bool:
    """Whether this suite made it: another tool's may be called `emotion-…` too."""
    if {names.SUITE, names.CHAMPION_HISTORY} & set(model.tags):
        return True
    newest = model.latest_versions or []
    if any(set(version.tags) >= _VERSION_TAGS for version in newest):
        return True
    # A model of ours may have been registered in MLflow, under the name that fer would take.
    return model.name.startswith(registered_name("")) and any(map(_is_of_our_run, newest))


def _is_of_our_run(version: ModelVersion) -> bool:
    if not version.run_id:
        return False
    try:
        return names.SUITE in store.client().get_run(version.run_id).data.tags
    except MlflowException as error:
        if store.is_missing(error):
            return False
        raise


def _numbered(numbers: Sequence[int]) -> str:
    """`version 3 was`, `versions 1, 3 were`."""
    if len(numbers) == 1:
        return f"version {numbers[0]} was"
    return f"versions {', '.join(map(str, sorted(numbers)))} were"


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
