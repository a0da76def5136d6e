"""`sync`: what could not be delivered to MLflow goes there now."""

from __future__ import annotations

from fer_experiments import console
from fer_experiments.errors import TrackingError
from fer_experiments.tracking.sync import Synced, deliver_all


def run() -> list[Synced]:
    """Delivers every journal that no running process writes; says what became of each.

    Raises:
        TrackingError: some of it could not be delivered.
    """
    found = deliver_all()
    for one in found:
        where = f"run {one.run_id}" if one.run_id else str(one.folder)
        console.say(f"{one.name}: {one.events} events delivered, {one.left} left ({where})")
    if not found:
        console.say("nothing waits to be delivered")
    problems = [one for one in found if one.problem]
    if problems:
        raise TrackingError(
            f"{len(problems)} of {len(found)} runs were not delivered whole: {problems[0].problem}"
        )
    return found
