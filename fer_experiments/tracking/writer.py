"""The one door through which params, metrics and artifacts leave.

What comes in is an event: written to the run's journal first, then handed to a delivery, which
brings it to MLflow when it can. Nothing here waits for MLflow, or needs it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.images import PixelRule
from fer_experiments.data.seen import Seen
from fer_experiments.secrets import holds_secret, redact
from fer_experiments.tracking import names
from fer_experiments.tracking.endings import resume_command
from fer_experiments.tracking.events import (
    Artifact,
    Event,
    Metrics,
    Model,
    Params,
    Table,
    Tags,
    UsedDataset,
)
from fer_experiments.tracking.journal import Journal, now

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

# Stands for the address of the model that this run logs, which is known when MLflow has it.
MODEL_URI = "models:/{the model of this run}"
_MOST_PARAM_CHARACTERS = 6000


class Delivery(Protocol):
    """Who brings the events on."""

    def wake(self) -> None:
        """Called after each event.

        Raises:
            TrackingError: an earlier event was refused for good.
        """

    @property
    def link(self) -> str | None:
        """The run's page, if it has one."""


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A run that others belong to, as it can be sent to another process."""

    run_id: str
    experiment_id: str
    resume_with: str  # the command that resumes the whole job


class Writer:
    """Writes for one run."""

    def __init__(
        self,
        journal: Journal,
        delivery: Delivery,
        *,
        parent: Writer | Parent | None = None,
        experiment: str | None = None,
    ) -> None:
        self.journal = journal
        self.experiment = experiment  # as it must be named again; None: it is the usual one
        self._parent = parent
        # Whether an epoch was trained here, or in a stage of this job: what a resume would save.
        self.has_trained = False
        self.files: list[str] = []  # artifacts, by their path in the run
        self._delivery = delivery

    @property
    def nested(self) -> bool:
        """Whether it is one stage of a larger job, which says itself how to resume it."""
        return self._parent is not None

    @property
    def experiment_id(self) -> str:
        """Where the run is, once MLflow has it."""
        return str(self.journal.known("experiment_id"))

    @property
    def resume_with(self) -> str:
        """The command that resumes the job that this run belongs to."""
        return resume_command(self.journal) if self._parent is None else self._parent.resume_with

    @property
    def job_has_trained(self) -> bool:
        """Whether an epoch was trained in this job: here, in a stage of it, or in what holds it."""
        return self.has_trained or (
            isinstance(self._parent, Writer) and self._parent.job_has_trained
        )

    def as_parent(self) -> Parent:
        """What another process needs for a run that belongs to this one."""
        return Parent(
            run_id=self.run_id, experiment_id=self.experiment_id, resume_with=self.resume_with
        )

    @property
    def run_id(self) -> str:
        """The run's id in MLflow; its key in the journal as long as it is not there."""
        return self.journal.run_id or self.journal.key

    @property
    def uri(self) -> str | None:
        """The address of the model that this run logged, once MLflow has it."""
        uri = self.journal.known(names.MODEL_URI)
        return None if uri is None else str(uri)

    @property
    def link(self) -> str | None:
        """A link that opens the run's page, if it has one."""
        return self._delivery.link

    def _tell_trained(self) -> None:
        self.has_trained = True
        if isinstance(self._parent, Writer):
            self._parent._tell_trained()

    def event(self, event: Event) -> None:
        """Writes an event down and sends it on its way, without the secrets in its texts.

        Names are left alone: keys, and the file that an event carries.
        """
        texts = {f.name: getattr(event, f.name) for f in fields(event) if f.name != "file"}
        self.journal.append(replace(event, **_redacted(texts, keys=False)))
        self._delivery.wake()

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs params; keys that the run already has stay as they are."""
        texts = {name: redact(str(v))[:_MOST_PARAM_CHARACTERS] for name, v in values.items()}
        self.event(Params(time=now(), values=texts))

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        self.event(Tags(time=now(), values=dict(values)))

    def note(self, text: str) -> None:
        """The run's description, Markdown; replaces an earlier one."""
        self.tags({names.NOTE: text})

    def metrics(
        self,
        values: Mapping[str, float],
        *,
        step: int = 0,
        model_id: str | None = None,
        dataset: tuple[PreparedDataset, str] | None = None,
    ) -> None:
        """Logs metrics at a step; with `model_id` they belong to that logged model too.

        `dataset` says which split they were measured on, as `dataset` links it. A resumed run
        after it was cut short does not write what it has written before.
        """
        named = {metric_name(name): value for name, value in values.items()}
        new = self.journal.new_points(named, step)
        on = None if dataset is None else _dataset_name(*dataset)
        if "train/loss" in new:
            self._tell_trained()
        if new:
            self.event(Metrics(time=now(), values=new, step=step, model_id=model_id, dataset=on))

    def text(self, content: str, path: str) -> None:
        """A text artifact."""
        with self._artifact(path) as file:
            file.write_text(redact(content), encoding="utf-8")

    def json(self, content: Any, path: str) -> None:
        """A JSON artifact."""
        self.text(json.dumps(_redacted(content), indent=2, default=_plain), path)

    def figure(self, figure: Figure, path: str) -> None:
        """A PNG artifact."""
        with self._artifact(path) as file:
            figure.savefig(file)

    def arrays(self, values: Mapping[str, np.ndarray], path: str) -> None:
        """NumPy arrays as one compressed .npz artifact, without pickles."""
        arrays = {name: _redacted_texts(array) for name, array in values.items()}
        with self._artifact(path) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    def file(self, source: Path, path: str) -> None:
        """A copy of a file, as an artifact."""
        with self._artifact(path) as file:
            shutil.copyfile(source, file)

    def table(self, columns: Mapping[str, list[Any]], path: str) -> None:
        """A table that the UI shows."""
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        content = {"columns": list(columns), "data": rows}  # as pandas' orient="split"
        with self._artifact(path, Table) as file:
            file.write_text(redact(json.dumps(content, default=_plain)), encoding="utf-8")

    def dataset(self, prepared: PreparedDataset, *, split: str) -> None:
        """Links the run to the split of a dataset that it used."""
        images, labels = prepared.split(split)
        name, digest = _dataset_name(prepared, split)
        self.event(
            UsedDataset(
                time=now(),
                name=name,
                digest=digest,
                source=str(prepared.manifest["source"]["dataset"]),
                split=split,
                arrays=[[list(a.shape), str(a.dtype)] for a in (images, labels)],
            )
        )

    def model(
        self,
        model: keras.Model,
        *,
        config: Config,
        prepared: PreparedDataset,
        seen: Seen,
        rule: PixelRule | None = None,
    ) -> None:
        """The trained model, raw pixels in, with all that is needed to use it again.

        `seen` is all that it, or a model that it was made from, was fitted and selected on. `rule`
        says how photos become its pixels, where that is inherited and not told by `prepared`.
        """
        import keras

        if self.journal.has(Model):
            return  # the process was cut short after this
        images, _ = prepared.split("train")
        rule = rule or prepared.rule
        with self.journal.new_file("model.keras") as file:
            # A copy of the graph without optimizer state, which would triple the file.
            keras.Model(model.input, model.output, name=model.name).save(file)
        metadata = {
            "class_names": list(prepared.class_names),
            "image_size": prepared.image_size,
            "crop": rule.crop,
            "detector": rule.detector,
            "white": dict(rule.white),
            "config": config.stored(),
            "dataset_name": prepared.name,
            "dataset_fingerprint": prepared.fingerprint,
            "seen": seen.to_metadata(),
        }
        self.event(
            Model(
                time=now(),
                file=f"{file.parent.name}/{file.name}",
                example=images[:2].tolist(),
                metadata=metadata,
            )
        )

    @contextmanager
    def _artifact(self, path: str, kind: type[Artifact] = Artifact) -> Iterator[Path]:
        """A file to fill; when it is left without an error, it is on its way."""
        with self.journal.new_file(PurePosixPath(path).name) as file:
            yield file
        self.files.append(path)
        folder = str(PurePosixPath(path).parent)
        self.event(
            kind(
                time=now(),
                file=f"{file.parent.name}/{file.name}",
                folder=None if folder == "." else folder,
            )
        )


def _dataset_name(prepared: PreparedDataset, split: str) -> tuple[str, str]:
    """Name and digest by which MLflow knows a split."""
    return f"{prepared.name} {split}", prepared.fingerprint[:36]  # no longer digest fits


def metric_name(name: str) -> str:
    """The name with what MLflow refuses (class names may hold anything) replaced."""
    return re.sub(r"[^\w\-./ :]", "_", name)


def _redacted(value: Any, *, keys: bool = True) -> Any:
    """The value with secrets taken out of every text in it, before JSON escapes them."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            _redacted(key) if keys else key: _redacted(v, keys=keys) for key, v in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_redacted(v, keys=keys) for v in value]
    return value


def _redacted_texts(array: np.ndarray) -> np.ndarray:
    """The array as it is, or, if it holds text with secrets, one without them."""
    if array.dtype.kind != "U":
        return array
    texts = [str(text) for text in array.flat]
    if not holds_secret("\n".join(texts)):  # one look at all: there may be thousands
        return array
    return np.array([redact(text) for text in texts]).reshape(array.shape)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot stand in JSON")
