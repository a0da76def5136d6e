"""What a run tells, as events: each is a line of JSON in the run's journal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from fer_experiments.errors import quote

# Raised when older versions could not read what is written; this one reads all before it.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened."""

    time: int  # ms since 1970


@dataclass(frozen=True, kw_only=True)
class Start(Event):
    """The run itself."""

    stage: str
    name: str
    tags: Mapping[str, str]
    experiment: str | None = None  # by name, or
    experiment_id: str | None = None
    parent: tuple[str, str] | None = None  # run and experiment
    adopt: str | None = None  # the run that `mlflow run` made
    store: str | None = None  # its address; None: offline
    request: Any = None  # what was asked for
    format: int = FORMAT


@dataclass(frozen=True, kw_only=True)
class Resume(Event):
    """The run is under way again."""


@dataclass(frozen=True, kw_only=True)
class Params(Event):
    """Params by name."""

    values: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Tags(Event):
    """Tags by name."""

    values: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Metrics(Event):
    """Metrics by name, at a step."""

    values: Mapping[str, float]
    step: int
    model_id: str | None = None
    dataset: tuple[str, str] | None = None  # name and digest


@dataclass(frozen=True, kw_only=True)
class Artifact(Event):
    """A file, and the folder of artifacts that it belongs in."""

    file: str  # below the journal's files/
    folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table(Artifact):
    """A file that the UI shows as a table."""


@dataclass(frozen=True, kw_only=True)
class UsedDataset(Event):
    """A split that the run used."""

    name: str
    digest: str
    source: str
    split: str
    arrays: list[list[Any]]  # shape and type of images and labels


@dataclass(frozen=True, kw_only=True)
class Model(Event):
    """A trained model."""

    file: str
    example: list[Any]  # images, nested
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class End(Event):
    """How it ended: FINISHED, FAILED, KILLED."""

    status: str
    resumable: bool = field(default=True)


KINDS: dict[str, type[Event]] = {
    "start": Start,
    "resume": Resume,
    "params": Params,
    "tags": Tags,
    "metrics": Metrics,
    "artifact": Artifact,
    "table": Table,
    "dataset": UsedDataset,
    "model": Model,
    "end": End,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


def to_line(event: Event) -> bytes:
    """The event as JSON that ends its line."""
    return json.dumps({"kind": _NAMES[type(event)], **asdict(event)}).encode() + b"\n"


def from_line(line: bytes) -> Event:
    """The inverse of `to_line`.

    Raises:
        ValueError: it is damaged, or of a newer version of this suite.
    """
    content = json.loads(line)
    if not isinstance(content, dict):
        raise ValueError("an event that is no object")
    written = content.get("format", FORMAT)
    if written != FORMAT:
        raise ValueError(f"format {quote(written)}, of another fer_experiments, which can read it")
    kind = KINDS.get(str(content.pop("kind", None)))
    known = {} if kind is None else {f.name: f for f in fields(kind)}
    needed = {n for n, f in known.items() if f.default is MISSING}
    if kind is None or not content.keys() <= known.keys() or not needed <= content.keys():
        raise ValueError("an event that this version does not know")
    for name in ("parent", "dataset"):
        if isinstance(content.get(name), list):
            content[name] = tuple(content[name])
    return kind(**content)
