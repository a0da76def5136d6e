"""`ensemble`: the average of several runs' probabilities as one Keras model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.errors import ConfigError, RunError, quote
from fer_experiments.run_names import run_name
from fer_experiments.stages import common
from fer_experiments.stages.datasets import dataset_of
from fer_experiments.stages.evaluate import check_crops
from fer_experiments.stages.selection import MODEL_STAGES
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.models import LoggedModel, load, model_of
from fer_experiments.tracking.runs import get_run

TTA = ("none", "flip", "crops")
_SAID = {
    "none": "",
    "flip": ", each on image and mirror image",
    "crops": ", each on five crops and their mirror images",
}


def run(
    run_ids: Sequence[str], *, tta: str = "none", experiment: str | None = None
) -> common.StageResult:
    """Logs one model made of the models of these runs; evaluated and registered like any other.

    Args:
        run_ids: finished train, finetune, calibrate or ensemble runs, trained on the same data.
        tta: `flip`: every member also judges the mirror image; `crops`: five crops and their mirror
            images. With either one run is enough.
        experiment: where to write.

    Raises:
        ConfigError: fewer than two runs without `tta`, one given twice, another `tta`, crops of a
            model that looks at whole images.
        RunError: a run has no model, or the models were trained on different data.
    """
    if tta not in TTA:
        raise ConfigError(f"Expected tta to be none, flip or crops. Received: tta={quote(tta)}")
    least = 2 if tta == "none" else 1
    runs = [get_run(name, stages=MODEL_STAGES) for name in run_ids] if len(run_ids) >= least else []
    ids = [run.id for run in runs]
    if not ids or len(set(ids)) < len(ids):
        raise ConfigError(
            f"Expected run_ids to name {least} or more runs, each once, separated by commas. "
            f"Received: {quote(','.join(run_ids), 120) or 'none'}"
        )
    members = [model_of(found) for found in runs]
    _check_alike(members)
    for member in members:
        check_crops(tta, member)
    config = _config(members, tta)
    with open_run(
        "ensemble",
        run_name(config, "ensemble"),
        experiment=experiment,
        tags={"member_run_ids": ",".join(ids)},
    ) as writer:
        prepared = dataset_of(config.data, members[0].dataset_fingerprint)
        common.identify(writer, config, prepared)
        writer.params({"run_ids": ",".join(ids), "tta": tta})
        console.load_keras()
        from fer_experiments.models.ensembles import average

        model = average([load(member) for member in members], tta=tta)
        writer.metrics(common.cost_of(runs))
        common.keep_hashes(writer, prepared)
        seen = members[0].seen.joined(*(member.seen for member in members[1:]))
        # Members that see photos differently were trained on images that are all square.
        rule = members[0].rule if all(m.rule == members[0].rule for m in members) else None
        writer.model(model, config=config, prepared=prepared, seen=seen, rule=rule)
        names = ", ".join(f"{r.name} ({r.id[:8]})" for r in runs)
        line = f"average of {names}{_SAID[tta]}"
        writer.note(line)
        following = common.following(writer, "evaluate", run_id=writer.run_id)
        common.close(writer, [line], following=following)
    return common.result(writer, {})


def _check_alike(members: Sequence[LoggedModel]) -> None:
    for other in members[1:]:
        if other.dataset_fingerprint != members[0].dataset_fingerprint:
            raise RunError(
                "Expected runs that were trained on the same data: what one has seen would judge "
                f"the other. Received: {members[0].dataset_fingerprint[:16]} and "
                f"{other.dataset_fingerprint[:16]}"
            )


def _config(members: Sequence[LoggedModel], tta: str) -> Config:
    """The first member's, with what names the parts taken from all of them."""
    configs = [member.config for member in members]
    joined = {
        name: "+".join(dict.fromkeys(str(config.flat()[name]) for config in configs))
        for name in ("backbone", "weights", "truncate_at")
    }
    recipe = "+".join(dict.fromkeys(config.recipe for config in configs))
    views = "" if tta == "none" else f" {tta}"
    return dataclasses.replace(configs[0].replace(**joined), recipe=recipe + views)
