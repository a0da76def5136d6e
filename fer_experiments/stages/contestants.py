"""One contestant for each trained model: the last of its forms.

Training, fine-tuning and calibration make forms of one model; an ensemble is a model of its own.
An ensemble of one model, which judges mirror images too, is a way of testing that model and no
contestant. Forms that answer alike would otherwise count as so many questions, and every further
question makes it harder to tell an answer from chance.
"""

from __future__ import annotations

from collections.abc import Sequence

from fer_experiments.tracking import names
from fer_experiments.tracking.evaluations import Evaluation
from fer_experiments.tracking.runs import RunRecord, find_run


def tags_of(source: RunRecord) -> dict[str, str]:
    """For the evaluation of the model that this run logged."""
    trained = source.id
    run: RunRecord | None = source
    if source.stage == "calibrate":
        trained = source.tags["source_run_id"]
        run = find_run(trained)
    members = "" if run is None else run.tags.get("member_run_ids", "")
    earlier = []
    while run is not None and (before := run.tags.get("source_run_id")):
        earlier.append(before)
        run = find_run(before)
    return {
        names.TRAINED_RUN: trained,
        **({names.EARLIER_RUNS: ",".join(earlier)} if earlier else {}),
        **({names.VARIANT: members} if members and "," not in members else {}),
    }


def contestants(found: Sequence[Evaluation]) -> list[Evaluation]:
    """Those of the evaluations, newest first, that are of a trained model's last form."""
    of_models = [e for e in found if names.VARIANT not in e.tags]
    earlier = {
        run_id for e in of_models for run_id in e.tags.get(names.EARLIER_RUNS, "").split(",")
    }
    last: dict[str, Evaluation] = {}
    # Stable: the newest calibrated form comes before every other one.
    for e in sorted(of_models, key=lambda e: e.tags["source_stage"] != "calibrate"):
        if e.tags[names.TRAINED_RUN] not in earlier:
            last.setdefault(e.tags[names.TRAINED_RUN], e)
    return [e for e in found if last.get(e.tags[names.TRAINED_RUN]) is e]


def left_out(found: Sequence[Evaluation], kept: Sequence[Evaluation]) -> list[str]:
    """Says which forms are no contestants, and how to see them all the same."""
    others = [e.label for e in found if e not in kept]
    if not others:
        return []
    names = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
    return [f"earlier forms and test-time variants of these models left out (--all): {names}"]
