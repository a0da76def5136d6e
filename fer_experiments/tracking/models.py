"""Models that runs have logged: what is known of them, and the Keras model itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from fer_experiments.config import Config
from fer_experiments.errors import RunError
from fer_experiments.tracking.delivery import MODEL_URI_TAG

if TYPE_CHECKING:
    import keras


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
