"""Brings a journal's events to MLflow: in order, each once, without anybody waiting for it.

A store that is away is tried again until it is back. What it refuses for good, and a full disk, end
the delivery with an error that the next event raises.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.mlflow_tags import (
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
)
from mlflow.utils.name_utils import _GENERATOR_NOUNS, _GENERATOR_PREDICATES

from fer_experiments import console
from fer_experiments.errors import FerError, TrackingError
from fer_experiments.tracking import names, pages, store, views
from fer_experiments.tracking.events import (
    Artifact,
    End,
    Event,
    Metrics,
    Params,
    Resume,
    Start,
    Table,
    Tags,
    UsedDataset,
)
from fer_experiments.tracking.events import Model as ModelEvent
from fer_experiments.tracking.journal import Journal
from fer_experiments.tracking.writer import MODEL_URI

# What a logged model needs besides what Keras computes with.
_REQUIREMENTS = ("keras", "mlflow", "numpy")
# What MLflow needs for artifacts at addresses of these schemes, and imports when it writes there.
_ARTIFACT_LIBRARIES = {
    "s3": "boto3",
    "gs": "google.cloud.storage",
    "wasbs": "azure.storage.blob",
    "abfss": "azure.storage.filedatalake",
    "sftp": "pysftp",
}
_LONGEST_PAUSE = 5.0  # seconds between two tries


class MlflowDelivery:
    """Delivers one journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._client = store.client(make=True)
        self._new = threading.Event()
        self._stopped = threading.Event()
        self._error: Exception | None = None
        self._away = False
        self._thread: threading.Thread | None = None

    @property
    def link(self) -> str | None:
        """The run's page."""
        experiment_id, run_id = self._journal.known("experiment_id"), self._journal.run_id
        return pages.run(str(experiment_id), run_id) if run_id else None

    def deliver_now(self) -> None:
        """Delivers everything that waits; the first trouble ends it.

        Raises:
            TrackingError: the store is away, or refuses it.
        """
        try:
            while self._journal.pending:
                self._deliver_next()
        except FerError:
            raise
        except Exception as error:
            raise TrackingError(store.message(error)) from None

    def start(self) -> None:
        """From here on, events are delivered in the background as they come."""
        self._thread = threading.Thread(target=self._run, daemon=True, name="delivery")
        self._thread.start()
        self._new.set()

    def wake(self) -> None:
        """There is a new event.

        Raises:
            TrackingError: an earlier event was refused for good.
        """
        if self._error is not None:
            raise TrackingError(store.message(self._error)) from None
        self._new.set()

    def finish(self, patience: float, waiting: Callable[[int], None]) -> bool:
        """Whether everything is delivered, after waiting at most `patience` seconds for it.

        Args:
            patience: seconds.
            waiting: called once with the number of events, if the store is away.

        Raises:
            TrackingError: an event was refused for good.
        """
        started = time.monotonic()
        told = False
        while self._journal.pending and self._error is None:
            passed = time.monotonic() - started
            if passed > patience:
                break
            if self._away and not told:
                waiting(len(self._journal.pending))
                told = True
            time.sleep(0.02)
        self._stopped.set()
        self._new.set()
        if self._thread is not None and not self._journal.pending:
            self._thread.join()
        if self._error is not None:
            self.wake()
        return not self._journal.pending

    def terminate(self, status: str, tags: Mapping[str, str]) -> None:
        """Ends the run past what cannot be delivered; the journal still delivers all in order."""
        self._client.log_batch(self._run_id, tags=_tags(tags))
        self._client.set_terminated(self._run_id, status)

    def _run(self) -> None:
        pause = 0.5
        while not self._stopped.is_set():
            self._new.wait()
            self._new.clear()
            while self._journal.pending and not self._stopped.is_set():
                try:
                    self._deliver_next()
                except Exception as error:
                    if not store.is_away(error):
                        self._error = error
                        return
                    self._away = True
                    self._stopped.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                else:
                    self._away = False
                    pause = 0.5

    def _deliver_next(self) -> None:
        event = self._journal.pending[0]
        learnt = self._deliver(event) or {}
        self._journal.remember(events=self._journal.delivered + 1, **learnt)
        if isinstance(event, (Artifact, ModelEvent)):
            shutil.rmtree(self._file(event).parent, ignore_errors=True)

    def _deliver(self, event: Event) -> dict[str, Any] | None:
        match event:
            case Start():
                return self._start(event)
            case ModelEvent():
                return self._model(event)
            case Resume():
                self._resume()
            case Params():
                self._params(event)
            case Tags():
                self._tags(event)
            case Metrics():
                self._metrics(event)
            case Table():
                self._table(event)
            case Artifact():
                self._artifact(event)
            case UsedDataset():
                self._dataset(event)
            case End():
                self._end(event)
        return None

    def _start(self, event: Start) -> dict[str, Any]:
        """The run itself: the one that `mlflow run` made, or a new one."""
        tags = {**event.tags, names.JOURNAL: self._journal.key}
        if event.adopt:
            run = self._client.get_run(event.adopt)
            if not _is_made_up(run.info.run_name):  # `mlflow run --run-name`
                tags.pop(MLFLOW_RUN_NAME, None)
            self._client.log_batch(run.info.run_id, tags=_tags(tags))
        else:
            if event.parent:
                tags[MLFLOW_PARENT_RUN_ID], experiment_id = event.parent
            else:
                experiment_id = store.experiment_id(event.experiment, number=event.experiment_id)
                self._check_artifacts(experiment_id)
            run = self._made_before(experiment_id) or self._client.create_run(
                experiment_id, start_time=event.time, tags=tags, run_name=event.name
            )
        return {"run_id": run.info.run_id, "experiment_id": run.info.experiment_id}

    def _check_artifacts(self, experiment_id: str) -> None:
        """Finds before the work is done that what it makes could not be put away.

        Raises:
            ImportError: the library of the place where the experiment keeps artifacts is missing.
        """
        place = self._client.get_experiment(experiment_id).artifact_location
        library = _ARTIFACT_LIBRARIES.get(urlsplit(place).scheme)
        if library is not None:
            importlib.import_module(library)

    def _made_before(self, experiment_id: str) -> Any:
        """The run, if a try to make it got through without our hearing of it."""
        if not self._journal.known("tried"):
            self._journal.remember(tried=True)
            return None
        found = self._client.search_runs(
            [experiment_id],
            f"tags.`{names.JOURNAL}` = '{self._journal.key}'",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        return found[0] if found else None

    def _resume(self) -> None:
        """The run is under way again."""
        self._client.update_run(self._run_id, status="RUNNING")
        self._forget([names.FAILURE, names.NOTE])

    def _forget(self, tags: Sequence[str]) -> None:
        held = self._client.get_run(self._run_id).data.tags
        for tag in tags:
            if tag in held:
                self._client.delete_tag(self._run_id, tag)

    def _params(self, event: Params) -> None:
        # `mlflow run` logs what was typed before our code runs, and a param can't be changed:
        # `1e-4` and `0.0001` would clash.
        held = self._client.get_run(self._run_id).data.params
        new = [Param(name, value) for name, value in event.values.items() if name not in held]
        if new:
            self._client.log_batch(self._run_id, params=new)

    def _tags(self, event: Tags) -> None:
        uri = str(self._journal.known(names.MODEL_URI))
        values = {name: text.replace(MODEL_URI, uri) for name, text in event.values.items()}
        self._client.log_batch(self._run_id, tags=_tags(values))

    def _metrics(self, event: Metrics) -> None:
        # MLflow holds a point that comes twice once: the same time, step and value.
        dataset_name, digest = event.dataset or (None, None)
        self._client.log_batch(
            self._run_id,
            metrics=[
                Metric(
                    name,
                    value,
                    event.time,
                    event.step,
                    model_id=event.model_id,
                    dataset_name=dataset_name,
                    dataset_digest=digest,
                    run_id=self._run_id,
                )
                for name, value in event.values.items()
            ],
        )

    def _artifact(self, event: Artifact) -> None:
        self._client.log_artifact(self._run_id, str(self._file(event)), event.folder)

    def _table(self, event: Table) -> None:
        # MLflow's log_table would append to what an earlier try has left: the file is written
        # whole, and then marked as a table as log_table does.
        self._artifact(event)
        held = self._client.get_run(self._run_id).data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]")
        path = "/".join(filter(None, (event.folder, self._file(event).name)))
        entry = {"path": path, "type": "table"}
        if entry not in (tables := json.loads(held)):
            self._client.set_tag(
                self._run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps([*tables, entry])
            )

    def _dataset(self, event: UsedDataset) -> None:
        # MLflow describes arrays by shape and type alone, given the digest.
        images, labels = (
            np.broadcast_to(np.zeros((), dtype), shape) for shape, dtype in event.arrays
        )
        described = mlflow.data.from_numpy(
            images,
            targets=labels,
            source=event.source,
            name=event.name,
            digest=event.digest,
        ).to_dict()
        used = DatasetInput(
            dataset=Dataset(**described), tags=[InputTag("mlflow.data.context", event.split)]
        )
        try:
            self._client.log_inputs(self._run_id, datasets=[used])
        except MlflowException as error:
            if "unique" not in str(error).lower():
                raise
            # Another run logged the same images for the first time just now: MLflow looks for them
            # and writes them in two steps. This time it finds them.
            self._client.log_inputs(self._run_id, datasets=[used])

    def _model(self, event: ModelEvent) -> dict[str, Any]:
        """Logs the model with signature, input example, pinned requirements and metadata."""
        console.load_keras()
        import keras

        self._remove_half_logged()
        run = self._client.get_run(self._run_id)
        made = self._client.create_logged_model(
            run.info.experiment_id,
            name="model",
            source_run_id=self._run_id,
            params=dict(run.data.params),
        )
        example: Any = {"pixels": np.array(event.example, dtype=np.float32)[..., np.newaxis]}
        if importlib.util.find_spec("tensorflow") is not None:
            flavor: Any = mlflow.tensorflow
            computes_with = "tensorflow"
        else:  # Keras on JAX; this flavor of MLflow's fails on an example
            flavor, example, computes_with = mlflow.keras, None, "jax"
        size = event.metadata["image_size"]
        classes = len(event.metadata["class_names"])
        try:
            # MLflow predicts the input example, and Keras would draw a bar for it.
            with console.keras_is_silent():
                info = Model.log(
                    None,
                    flavor,
                    model=keras.saving.load_model(self._file(event), compile=False),
                    model_id=made.model_id,
                    run_id=self._run_id,
                    signature=ModelSignature(
                        inputs=Schema(
                            [TensorSpec(np.dtype("float32"), (-1, size, size, 1), "pixels")]
                        ),
                        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
                    ),
                    input_example=example,
                    pip_requirements=[
                        f"{p}=={importlib.metadata.version(p)}"
                        for p in (*_REQUIREMENTS, computes_with)
                    ],
                    metadata={**event.metadata, "source_run_id": self._run_id},
                )
        except BaseException:
            self._remove_half_logged()
            raise
        uri = f"models:/{info.model_id}"
        self._client.set_tag(self._run_id, names.MODEL_URI, uri)
        bytes_on_disk = Model.load(uri).model_size_bytes
        if bytes_on_disk is not None:
            # Ids and dates in it round away.
            megabytes = round(bytes_on_disk / 1e6, 1)
            self._client.log_batch(
                self._run_id,
                metrics=[Metric("weights/file_megabytes", megabytes, event.time, 0)],
            )
        return {names.MODEL_URI: uri}

    def _remove_half_logged(self) -> None:
        """Frees what an incomplete model took: the disk may be full because of it."""
        for half in mlflow.search_logged_models(
            [str(self._journal.known("experiment_id"))],
            filter_string=f"source_run_id = '{self._run_id}'",
            output_format="list",
        ):
            with suppress(Exception):
                if urlsplit(half.artifact_location).scheme in ("", "file"):
                    folder = Path(local_file_uri_to_path(half.artifact_location))
                    if folder.parent.name == half.model_id:
                        folder = folder.parent
                    shutil.rmtree(folder, ignore_errors=True)
                self._client.delete_logged_model(half.model_id)

    def _end(self, event: End) -> None:
        if event.status == "FINISHED":
            self._forget([names.FAILURE])
        self._client.set_terminated(self._run_id, event.status, event.time)
        if event.status == "FINISHED" and self._journal.start.stage in views.STAGES:
            with suppress(Exception):  # a help for who looks, and never the reason why a run fails
                views.write(self._client, str(self._journal.known("experiment_id")))

    @property
    def _run_id(self) -> str:
        return str(self._journal.run_id)

    def _file(self, event: Artifact | ModelEvent) -> Path:
        return self._journal.folder / "files" / event.file


def _is_made_up(run_name: str) -> bool:
    """Whether MLflow has drawn the name itself, such as `bold-ape-123`."""
    words = run_name.split("-")
    return (
        len(words) == 3
        and words[0] in _GENERATOR_PREDICATES
        and words[1] in _GENERATOR_NOUNS
        and words[2].isdecimal()
    )


def _tags(values: Mapping[str, str]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in values.items()]
