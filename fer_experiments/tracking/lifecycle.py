"""Begin a run, end it true to what happened, resume one that was cut short.

Needs no MLflow by itself: a run that is `offline` stays in its journal.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Protocol

from fer_experiments import __version__, console, environment
from fer_experiments.data.storage import disk_is_full
from fer_experiments.errors import (
    FULL_DISK,
    DataError,
    DiskFullError,
    FerError,
    RunError,
    Terminated,
    TrackingError,
    TrainingError,
    UsageError,
    WeightsError,
)
from fer_experiments.secrets import redact
from fer_experiments.tracking import journal as journals
from fer_experiments.tracking import names
from fer_experiments.tracking.endings import RESUMABLE, early_end_tags, release, resume_command
from fer_experiments.tracking.events import End, Resume, Tags
from fer_experiments.tracking.journal import Journal, now
from fer_experiments.tracking.writer import Parent, Writer

DEFAULT_EXPERIMENT = "fer2013"
# Those whose load on the machine is worth a chart. MLflow's comparison of evaluations opens on the
# metric that was logged first, and that should be a score.
_LONG_STAGES = ("main", "train", "finetune")
# Seconds that the end of a run waits for a store that is away; a scheduler that has sent SIGTERM
# is about to kill.
_PATIENCE, _PATIENCE_WHEN_ENDED_EARLY = 120.0, 5.0
_SAMPLING = 10.0  # seconds from one look at the machine's load to the next


class _Delivery(Protocol):
    @property
    def link(self) -> str | None: ...
    def deliver_now(self) -> None: ...
    def start(self) -> None: ...
    def wake(self) -> None: ...
    def finish(self, patience: float, waiting: Callable[[int], None]) -> bool: ...
    def terminate(self, status: str, tags: Mapping[str, str]) -> None: ...


@contextmanager
def open_run(
    stage: str,
    name: str,
    *,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    request: Any = None,
    parent: Writer | Parent | None = None,
    resume: Journal | None = None,
    offline: bool = False,
) -> Iterator[Writer]:
    """A run for one stage; nested below its parent, adopted if `mlflow run` made one.

    Ends FINISHED, FAILED with the reason as tag and note, or KILLED after Ctrl-C or SIGTERM (which
    `mlflow run` overwrites with FAILED).

    Args:
        stage: the command.
        name: of the run, unless MLFLOW_RUN_NAME or `mlflow run --run-name` gives another.
        experiment: where to write; None: see `_chosen_experiment`.
        tags: to set from the start.
        request: what was asked for, as JSON, for who resumes the run.
        parent: the run of the job that this stage belongs to, also as another process sent it.
        resume: the journal of the run to resume.
        offline: `fer sync` delivers it later.

    Raises:
        TrackingError, DataError: the store cannot be reached, or the journal not be written.
        RunError: MLFLOW_RUN_ID is left over from another run.
        UsageError: a variable of the environment is no number.
    """
    patience = environment.seconds("FER_TRACKING_PATIENCE", _PATIENCE)
    sampling = environment.seconds("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", _SAMPLING, zero=False)
    adopt = None if parent or offline else _made_by_mlflow()
    if resume is None:
        name = ("" if parent else os.environ.get("MLFLOW_RUN_NAME", "").strip()) or name
        journal = Journal.create(
            **_said(stage, name, tags or {}, request, asks_mlflow=not (offline or adopt)),
            **_chosen_experiment(experiment),
            parent=None if parent is None else (parent.run_id, parent.experiment_id),
            adopt=adopt,
            store=None if offline else _address(),
        )
    else:
        journal = resume
        journal.append(Resume(time=now()))
    delivery: _Delivery = Later() if offline else _to_mlflow(journal)
    writer = _begin(journal, delivery, parent, resumed=resume is not None, adopt=adopt)
    try:
        with _load_on_the_machine(writer, sampling, offline=offline):
            yield writer
        writer.event(End(time=now(), status="FINISHED"))
        _deliver_rest(writer, delivery, patience, offline=offline)
    except BaseException as error:
        _end_with(error, writer, delivery)
        if disk_is_full(error) and not isinstance(error, FerError):
            raise TrackingError(FULL_DISK) from None
        raise
    finally:
        release(journal)


def _said(
    stage: str, name: str, tags: Mapping[str, str], request: Any, *, asks_mlflow: bool
) -> dict[str, Any]:
    """What a run is, without secrets; who runs it from where is known to MLflow."""
    own = {names.SUITE: __version__, names.STAGE: stage, names.RUN_NAME: redact(name)}
    context = _context() if asks_mlflow else {}
    return {
        "stage": stage,
        "name": redact(name),
        "tags": own | context | {key: redact(value) for key, value in tags.items()},
        "request": json.loads(redact(json.dumps(request))),
    }


def _begin(
    journal: Journal,
    delivery: _Delivery,
    parent: Writer | Parent | None,
    *,
    resumed: bool,
    adopt: str | None,
) -> Writer:
    """Makes the run in MLflow; from here on events are delivered as they come."""
    _deliver_first(journal, delivery)
    writer = Writer(journal, delivery, parent=parent, experiment=_unusual_experiment(journal))
    writer.has_trained = resumed
    if resumed and adopt is not None:
        _sync().point_to(adopt, writer.run_id)
    delivery.start()
    return writer


def _made_by_mlflow() -> str | None:
    """The run that `mlflow run` made for this command; ends what other processes left first."""
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    _sync().end_orphans()
    if run_id:
        _sync().check_adoptable(run_id)
    return run_id


def _deliver_first(journal: Journal, delivery: _Delivery) -> None:
    """Makes the run; where that fails, nothing of it stays that nobody needs."""
    try:
        delivery.deliver_now()
    except BaseException:
        if journal.run_id is not None:
            journal.append(End(time=now(), status="FAILED"))
            journal.close()
        elif journal.known("tried"):
            journal.close()  # the run may have been made all the same: the next command looks
        else:
            journal.remove()
        raise


def _unusual_experiment(journal: Journal) -> str | None:
    """The experiment, where it has to be named again to be found."""
    own = journal.start.experiment
    usual = _chosen_experiment(None)["experiment"]
    return None if own == usual or journal.start.adopt else own


def _end_with(error: BaseException, writer: Writer, delivery: _Delivery) -> None:
    """Ends the run true to the error, unless its work was done before."""
    journal = writer.journal
    if journal.ended != "FINISHED":
        _end_early(writer, delivery, error)
        return
    # Only the delivery was cut short or refused: fer sync, and each command that comes next, tries
    # again.
    with suppress(Exception):
        if isinstance(error, (KeyboardInterrupt, Terminated)):
            delivery.finish(_PATIENCE_WHEN_ENDED_EARLY, _say_waiting)
        elif journal.pending:
            delivery.terminate("FAILED", {names.FAILURE: redact(str(error))[:5000]})


def _chosen_experiment(asked: str | None) -> dict[str, str | None]:
    """Where to write, by name or, as MLFLOW_EXPERIMENT_ID has it, by id; fer2013 by itself.

    A run that `mlflow run` made stays where it is.
    """
    name = asked or os.environ.get("MLFLOW_EXPERIMENT_NAME") or None
    number = None if asked else os.environ.get("MLFLOW_EXPERIMENT_ID") or None
    if name is None and number is None:
        name = DEFAULT_EXPERIMENT
    return {"experiment": name, "experiment_id": number}


def resumable(run_id: str, stage: str, *, nested: bool = False) -> Journal:
    """The journal of a run of this stage that did not finish; `nested` in a job that is open.

    Raises:
        RunError: there is none here, it is of another stage or store, finished, or still running.
    """
    if not nested:
        with suppress(TrackingError):  # an offline run continues without MLflow
            _sync().end_orphans()
    journal = journals.find(run_id)
    found = "unknown" if journal.is_empty else journal.start.stage
    wrong = None
    if found != stage:
        wrong = f"a run of stage {found}"
    elif journal.ended == "FINISHED":
        wrong = "which is finished; fer sync delivers what MLflow does not have of it"
    elif journal.start.store is not None and not _is_here(journal.start.store):
        wrong = f"which was started with MLFLOW_TRACKING_URI={journal.start.store}"
    if wrong:
        journal.close()
        raise RunError(
            f"Expected resume to name an unfinished {stage} run. Received: {run_id[:80]}, {wrong}"
        )
    return journal


class Later:
    """Delivers nothing: the journal waits for `fer sync`."""

    link = None

    def deliver_now(self) -> None:
        """Nothing."""

    def start(self) -> None:
        """Nothing."""

    def wake(self) -> None:
        """Nothing."""

    def finish(self, patience: float, waiting: Callable[[int], None]) -> bool:
        """Nothing is delivered."""
        return False

    def terminate(self, status: str, tags: Mapping[str, str]) -> None:
        """There is nobody to say it to."""


def _deliver_rest(writer: Writer, delivery: _Delivery, patience: float, *, offline: bool) -> None:
    if delivery.finish(patience, _say_waiting):
        return
    journal = writer.journal
    if offline:
        console.say(f"kept   {journal.folder}")
        console.say("next   fer sync, where MLflow can be reached")
        return
    text = (
        f"{len(journal.pending)} events of {journal.start.name} could not be delivered to "
        f"{journal.start.store}; they wait in {journal.folder}, fer sync delivers them"
    )
    if writer.nested:  # what comes next reads them from MLflow
        raise TrackingError(text)
    console.warn(text)


def _end_early(writer: Writer, delivery: _Delivery, error: BaseException) -> None:
    """Writes down why, and how to resume; the store may be unreachable for the very reason."""
    journal = writer.journal
    status = "FAILED"
    if isinstance(error, KeyboardInterrupt):
        status, reason = "KILLED", "interrupted by Ctrl-C"
    elif isinstance(error, Terminated):
        status, reason = "KILLED", "terminated by SIGTERM"
    elif disk_is_full(error) and not isinstance(error, FerError):
        reason = FULL_DISK
    else:
        reason = str(error) if isinstance(error, FerError) else f"{type(error).__name__}: {error}"
    reason = redact(reason)[:5000]
    can_resume = journal.start.stage in RESUMABLE and _may_end_otherwise(error, writer)
    tags = early_end_tags(reason, writer.resume_with if can_resume else None)
    done = False
    with suppress(FerError):
        journal.append(Tags(time=now(), values=tags))
        journal.append(End(time=now(), status=status, resumable=can_resume))
        delivery.wake()
        done = delivery.finish(_PATIENCE_WHEN_ENDED_EARLY, _say_waiting)
    if not done:
        with suppress(Exception):
            delivery.terminate(status, tags)
    if can_resume and not writer.nested:
        console.say(f"next   {resume_command(journal)}")


def _may_end_otherwise(error: BaseException, writer: Writer) -> bool:
    """Whether resuming the run makes sense: it is exact, and takes no other option.

    Training that diverges does so again. A request, images or weights that are wrong may be mended
    meanwhile, and main takes another --model-name; but where nothing was trained yet, resuming is
    no more than the same command again, without the options that might help.
    """
    if isinstance(error, TrainingError):
        return False
    wrong = isinstance(error, (UsageError, DataError, WeightsError))
    if wrong and not isinstance(error, DiskFullError):
        return writer.job_has_trained
    return True


def _say_waiting(events: int) -> None:
    console.warn(f"MLflow cannot be reached; waiting to deliver {events} events")


# MLflow takes two seconds to import, and is not on every machine that trains.


def _to_mlflow(journal: Journal) -> _Delivery:
    from fer_experiments.tracking.delivery import MlflowDelivery

    return MlflowDelivery(journal)


def _sync() -> Any:
    try:
        from fer_experiments.tracking import sync
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "mlflow":
            raise
        raise TrackingError(
            "MLflow is not installed here; pass --offline to train all the same, and deliver the "
            "run elsewhere with fer sync"
        ) from None
    return sync


def _address() -> str:
    from fer_experiments.tracking import store

    return store.address()


def _is_here(address: str) -> bool:
    from fer_experiments.tracking import store

    return store.is_here(address)


def _context() -> dict[str, str]:
    """Who runs what from where, as MLflow notes it for every run."""
    from mlflow.tracking.context.registry import resolve_tags

    return {name: redact(str(value)) for name, value in resolve_tags().items()}


def _load_on_the_machine(
    writer: Writer, sampling: float, *, offline: bool
) -> AbstractContextManager[None]:
    if offline or writer.journal.start.stage not in _LONG_STAGES:
        return nullcontext()
    from fer_experiments.tracking.system import watching

    return watching(writer, sampling)
