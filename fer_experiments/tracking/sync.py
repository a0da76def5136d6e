"""Journals whose process has ended: what they hold is delivered, no run stays RUNNING."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from fer_experiments.errors import FerError, RunError, TrackingError, quote
from fer_experiments.secrets import redact
from fer_experiments.tracking import journal as journals
from fer_experiments.tracking import names, store
from fer_experiments.tracking.delivery import MlflowDelivery
from fer_experiments.tracking.endings import RESUMABLE, early_end_tags, release, resume_command
from fer_experiments.tracking.events import End, Tags
from fer_experiments.tracking.journal import Journal, now

_CUT_SHORT = "its process ended without a word: killed, out of memory, or the machine went down"


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What became of one journal."""

    name: str
    folder: Path
    run_id: str | None
    events: int  # delivered now
    left: int
    problem: str | None = None


def end_orphans() -> None:
    """Ends runs of processes that were killed, and delivers what this store does not have yet.

    What cannot be delivered now is left for later.
    """
    for journal in journals.unfinished():
        offline = not journal.is_empty and journal.start.store is None
        if offline or _belongs_elsewhere(journal):
            journal.close()
            continue
        with suppress(FerError):
            _settle(journal)
        release(journal)


def deliver_all() -> list[Synced]:
    """Delivers every journal that no living process writes, the oldest first.

    Journals of another store are left alone and named; those of `--offline` go to this one.
    """
    found = []
    for journal in journals.unfinished():
        if not journal.pending and journal.ended is not None:
            release(journal)
            continue
        before = journal.delivered
        problem = None
        if _belongs_elsewhere(journal):
            problem = f"belongs to MLFLOW_TRACKING_URI={journal.start.store}"
        else:
            try:
                _settle(journal)
            except FerError as error:
                problem = str(error)
        if not journal.is_empty:
            found.append(
                Synced(
                    name=journal.start.name,
                    folder=journal.folder,
                    run_id=journal.run_id,
                    events=journal.delivered - before,
                    left=len(journal.pending),
                    problem=problem,
                )
            )
        release(journal)
    return found


def check_adoptable(run_id: str) -> None:
    """Raises RunError unless the run is one that `mlflow run` has just made for us."""
    wrong = _wrong_with(run_id)
    if wrong:
        raise RunError(
            "Expected MLFLOW_RUN_ID to be a run that mlflow run has made for this command. "
            f"Received: {quote(run_id)}, {wrong}; it is left over: unset MLFLOW_RUN_ID"
        )


def explain(run_id: str, reason: str) -> None:
    """Writes why a command ended early to the run that `mlflow run` made for it, if it did."""
    if _wrong_with(run_id) is None:
        tags = early_end_tags(redact(reason), None)
        store.client().log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _wrong_with(run_id: str) -> str | None:
    try:
        run = store.client().get_run(run_id)
    except MlflowException as error:
        if not store.is_missing(error):
            raise TrackingError(store.message(error)) from None
        return f"which does not exist in {store.address()}"
    if names.SUITE in run.data.tags:
        return f"the {run.data.tags.get('stage', 'unknown')} run of another command"
    return None if run.info.status == "RUNNING" else f"which is {run.info.status}"


@store.translated()
def point_to(run_id: str, resumed: str) -> None:
    """Says in the run that `mlflow run` made that the work is written to another one."""
    note = f"Resumed run `{resumed}`; everything is written there."
    store.client().log_batch(
        run_id, tags=[RunTag(names.RESUMES, resumed), RunTag(names.NOTE, note)]
    )


def _belongs_elsewhere(journal: Journal) -> bool:
    """Whether it was begun for another store; those of `--offline` belong to none."""
    address = None if journal.is_empty else journal.start.store
    return address is not None and not store.is_here(address)


def _settle(journal: Journal) -> None:
    if journal.events and journal.ended is None:
        if _is_running(journal.run_id):  # else it could still say why, but not write it down here
            can_resume = journal.start.stage in RESUMABLE and not journal.start.parent
            tags = early_end_tags(_CUT_SHORT, resume_command(journal) if can_resume else None)
            journal.append(Tags(time=now(), values=tags))
        journal.append(End(time=now(), status="FAILED"))
    MlflowDelivery(journal).deliver_now()


def _is_running(run_id: str | None) -> bool:
    try:
        return run_id is None or store.client().get_run(run_id).info.status == "RUNNING"
    except MlflowException as error:
        raise TrackingError(store.message(error)) from None
