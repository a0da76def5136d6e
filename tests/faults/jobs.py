"""The jobs that are disturbed, and how far one has come, as seen from outside."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.faults.comparison import State, look
from tests.faults.processes import Place, Running, working

# In the order of a job. "start-up" is imports and opening the store; "log" follows training and
# fine-tuning: curves, the model, notes.
STAGES = (
    "start-up", "prepare", "cache", "train", "fine-tune", "log", "evaluate", "compare", "register",
    "between stages",
)  # fmt: skip
_LOOK_EVERY = 0.01  # seconds


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that takes long enough to be disturbed."""

    name: str
    arguments: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()  # commands that it builds on

    @property
    def stage(self) -> str:
        """The tag of its run."""
        return self.arguments[0]

    def going_on(self, run_id: str) -> tuple[str, ...]:
        """The command that goes on with a run of it."""
        return (self.arguments[0], "--resume", run_id)


def _faces(count: int) -> tuple[str, ...]:
    return ("--recipe", "demo", "--synthetic-count", str(count), "--seed", "3")


def _epochs(head: int, tuning: int) -> tuple[str, ...]:
    return ("--epochs", str(head), "--finetune-epochs", str(tuning))


# Dropout is in all of them; what augments anew every epoch draws random numbers throughout.
_AUGMENT = ("--cache", "off", "--rotation", "10", "--shift", "0.1")
# Nothing is augmented: without room for the cache the same images are seen.
_CLEAN = ("--augmented-copies", "0", "--flip", "false")


def cached(*, quick: bool) -> Job:
    """All of it, on cached features."""
    size = (*_faces(700), *_epochs(6, 4)) if quick else (*_faces(2100), *_epochs(14, 10))
    return Job(name="cached", arguments=("main", "--backbones", "tiny", *size))


def augmented(*, quick: bool) -> Job:
    """All of it, with images augmented anew every epoch."""
    size = (*_faces(420), *_epochs(4, 3)) if quick else (*_faces(1050), *_epochs(10, 8))
    return Job(name="augmented", arguments=("main", "--backbones", "tiny", *size, *_AUGMENT))


def clean(*, quick: bool) -> Job:
    """All of it, on cached features of images as they are."""
    size = (*_faces(700), *_epochs(4, 3)) if quick else (*_faces(2100), *_epochs(10, 8))
    return Job(name="clean", arguments=("main", "--backbones", "tiny", *size, *_CLEAN))


def train(*, quick: bool, experiment: str | None = None) -> Job:
    """Head training alone, with images augmented anew every epoch."""
    size = (*_faces(420), "--epochs", "8") if quick else (*_faces(2100), "--epochs", "20")
    where = () if experiment is None else ("--experiment", experiment)
    arguments = ("train", "--backbone", "tiny", *size, *_AUGMENT, *where)
    return Job(name="train", arguments=arguments)


def finetune(*, quick: bool) -> Job:
    """Fine-tuning alone, after a training that nothing disturbs."""
    head = ("train", "--backbone", "tiny", *_faces(420 if quick else 1050), "--epochs", "2")
    return Job(
        name="finetune",
        arguments=("finetune", "--finetune-epochs", "5" if quick else "15"),
        before=((*head, *_AUGMENT),),
    )


_EPOCH = re.compile(r"^epoch +(\d+)/(\d+) ", re.MULTILINE)
_SECTION = re.compile(
    r"^\S+ (train|finetune) \S+ s\d+: (?:\d+ training images|from )", re.MULTILINE
)
_SUMMARY = re.compile(r"^\S+ (?:train|finetune) \S+ s\d+: val accuracy", re.MULTILINE)


def epochs(text: str) -> list[int]:
    """The numbers of the epochs that a command says it has ended in its latest stage."""
    *_, since = _SECTION.split(text)
    return [int(number) for number, _ in _EPOCH.findall(since)]


def under_way(place: Place, text: str) -> str:
    """The stage that a job is in, from what it has printed and what stands in its store."""
    sections = list(_SECTION.finditer(text))
    if not sections:
        begun = any(run.status == "RUNNING" and run.stage for run in place.runs())
        return "prepare" if begun else "start-up"
    section = sections[-1]
    since = text[section.end() :]
    if _SUMMARY.search(since):
        running = [run.stage for run in place.runs() if run.status == "RUNNING"]
        known = [stage for stage in running if stage in ("evaluate", "compare", "register")]
        if known:
            return known[0]
        return "log" if section[1] in running or "main" not in running else "between stages"
    ended = _EPOCH.findall(since)
    if ended:
        number, last = ended[-1]
        if number == last:
            return "log"
    elif "\nfeatures of " in since and "\nfeatures: " not in since:
        return "cache"
    elif section[1] == "train" and "\nfeatures: " not in since:
        return "start-up"  # Keras is being imported, the network built
    return {"train": "train", "finetune": "fine-tune"}[section[1]]


def spread(hit: Counter[str]) -> str:
    """How often each stage was hit, in words."""
    return ", ".join(f"{stage} {hit[stage]}×" for stage in STAGES if hit[stage])


def changes(job: Running, place: Place) -> Iterator[tuple[float, str]]:
    """Each stage that the job enters, with the seconds since its start, until it ends."""
    before = None
    while not job.is_over:
        now = under_way(place, job.text())
        if now != before:
            yield job.seconds, now
            before = now
        time.sleep(_LOOK_EVERY)


@dataclass(frozen=True, kw_only=True)
class Span:
    """From when to when a job was in a stage."""

    stage: str
    begin: float  # seconds since its start
    end: float


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """A job that ran to its end in peace."""

    job: Job
    seconds: float
    spans: tuple[Span, ...]
    state: State

    def spans_of(self, stage: str) -> Sequence[Span]:
        """When it was in this stage; none if it never was for long enough to be seen."""
        return [span for span in self.spans if span.stage == stage and span.end > span.begin]

    def describe(self) -> str:
        """Its stages with their seconds."""
        parts = []
        for stage in STAGES:
            if spans := self.spans_of(stage):
                parts.append(f"{stage} {sum(s.end - s.begin for s in spans):.1f}")
        return f"{self.job.name}: {self.seconds:.1f} s ({', '.join(parts)})"


@cache
def undisturbed(folder: Path, job: Job) -> Undisturbed:
    """Runs the job in a place of its own in `folder`; once in the life of this process.

    Raises:
        RuntimeError: it fails by itself.
    """
    place = Place.make(folder / f"undisturbed-{job.name}")
    prepare(place, job)
    with working(place.start(*job.arguments)) as running:
        entered = list(changes(running, place))
        ended = running.wait()
    if ended.code:
        raise RuntimeError(f"Expected an undisturbed job to end with 0: {ended.last_words}")
    ends = [*(seconds for seconds, _ in entered[1:]), ended.seconds]
    spans = tuple(
        Span(stage=stage, begin=begin, end=end)
        for (begin, stage), end in zip(entered, ends, strict=True)
    )
    found = Undisturbed(job=job, seconds=ended.seconds, spans=spans, state=look(place))
    print(f"  undisturbed {found.describe()}", flush=True)
    return found


def prepare(place: Place, job: Job) -> None:
    """Runs what the job builds on.

    Raises:
        RuntimeError: it fails.
    """
    for arguments in job.before:
        ended = place.fer(*arguments)
        if ended.code:
            raise RuntimeError(f"Expected what comes before to end with 0: {ended.last_words}")
