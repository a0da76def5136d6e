"""Which model is meant, and whether one may become a version of a registered model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fer_experiments.errors import RunError
from fer_experiments.tracking import names, registry, store
from fer_experiments.tracking.models import LoggedModel, describe, model_of
from fer_experiments.tracking.registry import CHAMPION, Version
from fer_experiments.tracking.runs import get_run, search

# Stages whose runs log a model.
MODEL_STAGES = ("train", "finetune", "calibrate", "ensemble")


@dataclass(frozen=True, kw_only=True)
class Meant:
    """How a model was named; at most one of these."""

    run_id: str | None = None  # a finished run that logged a model, see `MODEL_STAGES`
    backbone: str | None = None  # its newest train or finetune run
    model: str | None = None  # a URI such as `models:/emotion-fer2013@champion`
    model_name: str | None = None  # the registered model whose champion is meant


def choose(meant: Meant, *, experiment: str | None) -> LoggedModel:
    """The model that is meant; by itself the champion of the only registered model, else the newest
    fine-tuned one.

    Args:
        meant: how it was named.
        experiment: look nowhere else for runs.

    Raises:
        RunError: there is no such run or model, or it was named in two ways.
    """
    given = [name for name, value in asdict(meant).items() if value]
    if len(given) > 1:
        raise RunError(
            f"Expected one of run_id, backbone, model and model_name. Received: {', '.join(given)}"
        )
    if meant.run_id:
        return model_of(get_run(meant.run_id, stages=MODEL_STAGES))
    if meant.model or meant.model_name:
        return predictor(meant.model, meant.model_name)
    held = None if meant.backbone else champion(None)
    if held is not None:
        return describe(held.model_uri)
    tags = {names.BACKBONE: meant.backbone} if meant.backbone else {}
    tuned = search("finetune", experiment=experiment, tags=tags)
    trained = search("train", experiment=experiment, tags=tags)
    found = tuned + trained
    if meant.backbone:
        found.sort(key=lambda run: run.started, reverse=True)
    if not found:
        of = f" of {meant.backbone}" if meant.backbone else ""
        raise RunError(
            f"Expected a champion or a finished train or finetune run{of}. Found: none in "
            f"{store.looked_in()}; run fer train first, or pass run_id"
        )
    return model_of(found[0])


def champion(model_name: str | None) -> Version | None:
    """The champion of the registered model that is meant; None: there is none.

    Args:
        model_name: the registered model; None: the only one that holds models of this suite.

    Raises:
        RunError: there is no registered model of this name, or more than one and no name.
    """
    if model_name is None and not registry.registered_models():
        return None
    return registry.alias_holder(registry.chosen_name(model_name), CHAMPION)


def predictor(uri: str | None, model_name: str | None) -> LoggedModel:
    """The model that predicts.

    Args:
        uri: a model URI.
        model_name: the registered model whose champion is meant; None: the only one.

    Raises:
        RunError: there is no such model, or no champion.
    """
    if uri is not None and model_name is not None:
        raise RunError("Expected one of model and model_name. Received: both")
    if uri is not None:
        return describe(uri)
    found = champion(model_name)
    if found is None:
        raise RunError(
            f"Expected a champion in the model registry. Found: none in {store.looked_in()}; run "
            "fer register, or fer promote --version N, or pass --model"
        )
    return describe(found.model_uri)


def check_fits(name: str, *, class_names: Sequence[str], image_size: int) -> None:
    """Refuses data whose models the registered model cannot hold: they could not be compared.

    Args:
        name: the registered model, which need not exist.
        class_names: of the data.
        image_size: of the data, pixels.

    Raises:
        RunError: its versions know other classes or another image size, or another tool made them.
    """
    registry.check_name(name)
    if not store.exists():
        return
    found = registry.reference(name).version or registry.newest_version(name)
    if found is None:
        return
    way_out = "pass --model-name with another name, to main or to register"
    try:
        there = describe(found.model_uri)
    except RunError as error:
        raise RunError(f"{name} holds models that cannot be compared: {error}; {way_out}") from None
    if there.class_names != tuple(class_names) or there.image_size != image_size:
        raise RunError(
            f"Expected the data of {name}: {', '.join(there.class_names)} in {there.image_size} "
            f"pixels, as version {found.number} was trained on. Received: "
            f"{', '.join(class_names)} in {image_size} pixels; {way_out}"
        )


def answered(logged: LoggedModel, held: Sequence[Version] | None = None) -> str:
    """Which model it is that answers: its address, its versions and aliases, its run.

    `held` are the registered versions that hold it, where they are known.
    """
    names = [
        f"{v.name} version {v.number}" + "".join(f", {alias}" for alias in v.aliases)
        for v in (registry.holding(logged.uri) if held is None else held)
    ]
    versions = f" ({'; '.join(names)})" if names else ""
    return f"{logged.uri}{versions} of run {logged.source_run_id}"
