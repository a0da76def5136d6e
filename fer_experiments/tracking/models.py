"""Log the Keras model with all that is needed to use it again, and load it back."""

from __future__ import annotations

import importlib.metadata
import io
import shutil
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from fer_experiments.config import Config
from fer_experiments.data.prepared import PreparedDataset
from fer_experiments.errors import RunError
from fer_experiments.tracking.writer import Writer

if TYPE_CHECKING:
    import keras

MODEL_URI_TAG = "model_uri"
_REQUIREMENTS = ("keras", "mlflow", "numpy", "tensorflow")


@dataclass(frozen=True, kw_only=True)
class LoggedModel:
    """A model in MLflow: where it is and what it was made from."""

    uri: str  # models:/m-…
    class_names: tuple[str, ...]
    image_size: int
    config: Config
    dataset_name: str
    dataset_fingerprint: str
    source_run_id: str

    @property
    def model_id(self) -> str:
        """m-…"""
        return self.uri.removeprefix("models:/")


def log_model(
    writer: Writer, model: keras.Model, *, config: Config, prepared: PreparedDataset
) -> LoggedModel:
    """Logs the model with signature, input example, pinned requirements and metadata."""
    # A copy of the graph without optimizer state, which would triple the file. MLflow predicts the
    # input example, and Keras draws a bar for it.
    try:
        with redirect_stdout(io.StringIO()):
            info = _log(model, writer, config, prepared)
    except BaseException:
        _remove_half_logged(writer)
        raise
    writer.tags({MODEL_URI_TAG: f"models:/{info.model_id}"})
    return describe(f"models:/{info.model_id}")


def _log(model: keras.Model, writer: Writer, config: Config, prepared: PreparedDataset) -> Any:
    import keras

    size = prepared.image_size
    images, _ = prepared.split("train")
    return mlflow.tensorflow.log_model(
        keras.Model(model.input, model.output, name=model.name),
        name="model",
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("float32"), (-1, size, size, 1), "pixels")]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(prepared.class_names)))]),
        ),
        input_example={"pixels": images[:2].astype(np.float32)[..., np.newaxis]},
        pip_requirements=[f"{p}=={importlib.metadata.version(p)}" for p in _REQUIREMENTS],
        metadata={
            "class_names": list(prepared.class_names),
            "image_size": size,
            "config": config.flat(),
            "dataset_name": prepared.name,
            "dataset_fingerprint": prepared.fingerprint,
            "source_run_id": writer.run_id,
        },
    )


def _remove_half_logged(writer: Writer) -> None:
    """Frees what an incomplete model took: the disk may be full because of it."""
    with suppress(Exception):
        for half in mlflow.search_logged_models(
            [writer.experiment_id],
            filter_string=f"source_run_id = '{writer.run_id}'",
            output_format="list",
        ):
            folder = Path(half.artifact_location.removeprefix("file://"))
            shutil.rmtree(folder, ignore_errors=True)


def file_megabytes(logged: LoggedModel) -> float | None:
    """What the logged model takes on disk, where MLflow knows it; ids and dates round away."""
    size = mlflow.models.Model.load(logged.uri).model_size_bytes
    return None if size is None else round(size / 1e6, 1)


def model_of(run: Run) -> LoggedModel:
    """The model that a train or fine-tune run logged.

    Raises:
        RunError: it logged none.
    """
    uri = run.data.tags.get(MODEL_URI_TAG)
    if uri is None:
        raise RunError(f"Expected a run with a logged model. Received: {run.info.run_id}")
    return describe(uri)


def describe(uri: str) -> LoggedModel:
    """What MLflow knows of a model of this suite.

    Raises:
        RunError: no model there, or one that this suite did not log.
    """
    try:
        info = mlflow.models.get_model_info(uri)
    except (MlflowException, OSError, ValueError) as error:
        raise RunError(
            "Expected model to be a URI such as models:/emotion-fer2013@champion. "
            f"Received: {uri[:200]} ({str(error).splitlines()[0][:160]})"
        ) from None
    metadata: dict[str, Any] = info.metadata or {}
    if "class_names" not in metadata:
        raise RunError(f"Expected a model that this suite logged. Received: {uri[:200]}")
    return LoggedModel(
        uri=f"models:/{info.model_id}",
        class_names=tuple(metadata["class_names"]),
        image_size=int(metadata["image_size"]),
        config=Config.from_flat(metadata["config"]),
        dataset_name=metadata["dataset_name"],
        dataset_fingerprint=metadata["dataset_fingerprint"],
        source_run_id=metadata["source_run_id"],
    )


def load(logged: LoggedModel) -> keras.Model:
    """The Keras model; Keras's safe mode is on, nothing is unpickled."""
    return mlflow.pyfunc.load_model(logged.uri).get_raw_model()
