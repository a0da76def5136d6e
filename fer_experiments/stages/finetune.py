"""`finetune`: the last layers of the backbone are unfrozen and trained on at a smaller rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fer_experiments import console
from fer_experiments.config import (
    AugmentationConfig,
    Config,
    FeatureConfig,
    FinetuneConfig,
    FitConfig,
    per_backbone,
)
from fer_experiments.errors import RunError
from fer_experiments.run_names import run_name
from fer_experiments.stages import common
from fer_experiments.stages.datasets import dataset_of
from fer_experiments.stages.fitting import Job, begin, fit_and_log, summary
from fer_experiments.tracking import store
from fer_experiments.tracking.journal import Journal
from fer_experiments.tracking.lifecycle import open_run, resumable
from fer_experiments.tracking.models import LoggedModel, load, model_of
from fer_experiments.tracking.runs import RunRecord, config_of, get_run, histories, search
from fer_experiments.tracking.writer import Writer

if TYPE_CHECKING:
    import keras

# What may differ from the train run; everything else says which train run is meant.
_OWN_FIELDS = {
    f.name
    for cls in (FinetuneConfig, FitConfig, FeatureConfig, AugmentationConfig)
    for f in fields(cls)
}


def run(
    overrides: Mapping[str, Any],
    *,
    run_id: str | None = None,
    recipe: str | None = None,
    experiment: str | None = None,
    parent: Writer | None = None,
    resumed: Journal | None = None,
) -> common.StageResult:
    """Fine-tunes the model of another run and logs the result as a model of its own.

    Args:
        overrides: fields of fine-tuning to change; other fields choose the train run.
        run_id: a finished train run, or a finetune run to fine-tune more layers of; None: the
            newest train run that fits the overrides.
        recipe: the recipe of the train run to look for.
        experiment: where to write, and the only place to look.
        parent: the run of the job that this is a stage of.
        resumed: the journal of the run to resume; see `resume`.

    Raises:
        RunError: no such run, or it was made with other values than the overrides say.
    """
    source, config = plan(overrides, run_id=run_id, recipe=recipe, experiment=experiment)
    logged = model_of(source)
    with open_run(
        "finetune",
        run_name(config, "finetune"),
        experiment=experiment,
        parent=parent,
        tags={"source_run_id": source.id, **common.whose(config)},
        request={"overrides": dict(overrides), "run_id": source.id},
        resume=resumed,
    ) as writer:
        prepared = dataset_of(config.data, source.tags["dataset_fingerprint"])
        begin(writer, config, prepared)
        console.load_keras()
        from fer_experiments.models import classifier

        model = load(logged)
        own = config.finetune
        unfrozen = classifier.unfreeze(
            model, own.unfreeze_layers, train_batchnorm=own.train_batchnorm
        )
        console.say(
            f"{run_name(config, 'finetune')}: from {source.name}, unfrozen: " + _listed(unfrozen)
        )
        result = fit_and_log(writer, model, config, prepared, _job(source, logged, config, model))
        following = common.following(writer, "evaluate", run_id=result.run_id)
        common.close(writer, summary(config, result, "finetune"), following=following)
    return common.result(writer, result.scores)


def _job(source: RunRecord, logged: LoggedModel, config: Config, model: keras.Model) -> Job:
    """The phase that continues where the other run ended."""
    from fer_experiments.models import classifier
    from fer_experiments.training.phases import Phase

    own = config.finetune
    phase = Phase(
        learning_rate=own.finetune_learning_rate,
        epochs=own.finetune_epochs,
        first_epoch=int(histories(source.id)[-1]["epoch"]) + 1,
        layer_multipliers=classifier.learning_rate_multipliers(model, own.layer_decay),
    )
    return Job(
        stage="finetune",
        phase=phase,
        seconds_before=source.metrics.get("time/train_seconds_total", 0.0),
        before=[logged.seen],
    )


def _listed(names: Sequence[str]) -> str:
    if not names:
        return "no layer with weights, so the head alone trains on"
    if len(names) > 8:
        return f"{len(names)} layers, {names[0]} to {names[-1]}"
    return ", ".join(names)


def resume(run_id: str, *, parent: Writer | None = None) -> common.StageResult:
    """Resumes a run that did not finish, in the same run, to the same result.

    Raises:
        RunError: there is no such run on this machine, or the one that it started from is gone.
    """
    journal = resumable(run_id, "finetune", nested=parent is not None)
    asked = journal.start.request
    return run(asked["overrides"], run_id=asked["run_id"], parent=parent, resumed=journal)


def plan(
    overrides: Mapping[str, Any],
    *,
    run_id: str | None = None,
    recipe: str | None = None,
    experiment: str | None = None,
) -> tuple[RunRecord, Config]:
    """The run to start from and the configuration of the fine-tuning; see `run`."""
    wanted = {k: v for k, v in overrides.items() if k not in _OWN_FIELDS}
    if "seed" in overrides and run_id is None:
        wanted["seed"] = overrides["seed"]
    if recipe is not None:
        wanted["recipe"] = recipe
    source = _newest(wanted, experiment) if run_id is None else _named(run_id, wanted)
    own = {k: v for k, v in overrides.items() if k in _OWN_FIELDS}
    return source, config_of(source).replace(**own)


def _newest(wanted: Mapping[str, Any], experiment: str | None) -> RunRecord:
    tags = {key: str(wanted[key]) for key in ("backbone", "recipe") if key in wanted}
    # Params are compared as numbers, not as the text that was typed: 1e-4 is 0.0001.
    for found in search("train", experiment=experiment, tags=tags):
        if not _differences(wanted, config_of(found)):
            return found
    asked = ", ".join(f"{k}={v}" for k, v in wanted.items()) or "any configuration"
    raise RunError(
        f"Expected a finished train run with {asked}. Found: none in {store.looked_in()}; run fer "
        "train first, "
        f"or pass run_id{_hint(wanted)}"
    )


def _differences(wanted: Mapping[str, Any], trained: Config) -> list[str]:
    """The names of wanted values that the train run was not made with."""
    flat = trained.flat()
    meant = {**wanted}
    if "truncate_at" in meant:
        meant["truncate_at"] = per_backbone(meant["truncate_at"], trained.model.backbone)
    return [name for name, value in meant.items() if flat[name] != value]


def _named(run_id: str, wanted: Mapping[str, Any]) -> RunRecord:
    found = get_run(run_id, stages=("train", "finetune"))
    trained = config_of(found)
    for name in _differences(wanted, trained):
        raise RunError(
            f"Expected {name}={trained.flat()[name]}, as run {run_id} was made. "
            f"Received: {name}={wanted[name]}{_hint(wanted)}"
        )
    return found


def _hint(wanted: Mapping[str, Any]) -> str:
    """For those who mean the rate and epochs of fine-tuning, not of the train run."""
    if not {"learning_rate", "epochs"} & set(wanted):
        return ""
    return "; fine-tuning has finetune_learning_rate and finetune_epochs of its own"
