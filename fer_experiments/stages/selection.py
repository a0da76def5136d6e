"""Which registered model is meant, and whether a model may become a version of it."""

from __future__ import annotations

from collections.abc import Sequence

from fer_experiments.errors import RunError
from fer_experiments.tracking import registry, store
from fer_experiments.tracking.models import LoggedModel, describe
from fer_experiments.tracking.registry import CHAMPION, Version


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
