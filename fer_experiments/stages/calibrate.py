"""`calibrate`: a temperature fitted on val goes into the model, before its softmax."""

from __future__ import annotations

from fer_experiments import console
from fer_experiments.data.seen import by_temperature
from fer_experiments.evaluation.calibration import at_the_end, calibration, fit_temperature
from fer_experiments.run_names import run_name
from fer_experiments.stages import common
from fer_experiments.stages.datasets import dataset_of
from fer_experiments.stages.selection import MODEL_STAGES, Meant, answered, choose
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.models import load
from fer_experiments.tracking.runs import get_run


def run(meant: Meant | None = None, *, experiment: str | None = None) -> common.StageResult:
    """Logs a model again, with a temperature of its own.

    Args:
        meant: the model; None: see `selection.choose`.
        experiment: where to write, and the only place to look.

    Raises:
        RunError: there is no such run, or its model cannot be given a temperature.
    """
    logged = choose(meant or Meant(), experiment=experiment)
    source = get_run(logged.source_run_id, stages=MODEL_STAGES)
    config = logged.config
    with open_run(
        "calibrate",
        run_name(config, "calibrate"),
        experiment=experiment,
        tags={"source_run_id": logged.source_run_id, **common.whose(config)},
    ) as writer:
        prepared = dataset_of(config.data, logged.dataset_fingerprint)
        common.identify(writer, config, prepared)
        console.load_keras()
        from fer_experiments.evaluation.predictions import predict
        from fer_experiments.models.temperature import with_temperature

        images, labels = prepared.split("val")
        model = load(logged)
        before = predict(model, images)
        temperature = fit_temperature(before, labels)
        scaled = with_temperature(model, temperature)
        after = predict(scaled, images)
        ece = [calibration(p, labels).ece for p in (before, after)]
        same = float((before.argmax(axis=1) == after.argmax(axis=1)).mean())
        found = {
            "val/calibration/ece": ece[1],
            "val/calibration/ece_before": ece[0],
            "temperature": temperature,
            "val/same_prediction": same,
        }
        writer.metrics(found | common.cost_of([source]))
        common.keep_hashes(writer, prepared)
        seen = logged.seen.joined(by_temperature(prepared))
        writer.model(scaled, config=config, prepared=prepared, seen=seen, rule=logged.rule)
        line = (
            f"{run_name(config, 'calibrate')}: temperature {temperature:.3f} fitted on val, "
            f"ECE there {ece[0]:.3f} before and {ece[1]:.3f} after; {same:.2%} of the val images "
            "are named as before"
        )
        extreme = at_the_end(temperature)
        lines = [line, *([extreme] if extreme else []), f"model  {answered(logged)}"]
        writer.note("\n\n".join(lines))
        common.close(
            writer, lines, following=common.following(writer, "evaluate", run_id=writer.run_id)
        )
    return common.result(writer, {"val/calibration/ece": ece[1]})
