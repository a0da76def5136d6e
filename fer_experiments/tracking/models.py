"""Models that runs have logged: what is known of them, and the Keras model itself."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from fer_experiments.config import Config
from fer_experiments.data import seen
from fer_experiments.data.images import SQUASH, PixelRule
from fer_experiments.data.seen import Seen
from fer_experiments.errors import FerError, RunError, TrackingError, quote, summarize
from fer_experiments.tracking import names, store
from fer_experiments.tracking.registry import Version, registered_models
from fer_experiments.tracking.runs import RunRecord

if TYPE_CHECKING:
    import keras

    from fer_experiments.inference.predictor import Predictor

# Addresses that MLflow looks up in its store: a registered or logged model, or a run's.
_IN_STORE = re.compile(r"models:/(?P<name>[^/@]+)([/@][^/@]+)?|runs:/[^/]+/.+")


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
    seen: Seen
    crop: str = SQUASH  # what becomes of images that are not square
    white: Mapping[str, float] = field(default_factory=dict)  # by kind of number of the images
    detector: str = "none"  # what cut the faces out of the photos that it was trained on

    @property
    def rule(self) -> PixelRule:
        """How grey values become the pixels that it knows."""
        return PixelRule(crop=self.crop, white=self.white, detector=self.detector)

    @property
    def model_id(self) -> str:
        """m-…"""
        return self.uri.removeprefix("models:/")


def model_of(run: RunRecord) -> LoggedModel:
    """The model that a train or fine-tune run logged.

    Raises:
        RunError: it logged none.
    """
    uri = run.tags.get(names.MODEL_URI)
    if uri is None:
        raise RunError(f"Expected a run with a logged model. Received: {run.id}")
    return describe(uri)


def describe(uri: str) -> LoggedModel:
    """What MLflow knows of a model of this suite.

    Raises:
        RunError: no model there, or one that this suite did not log.
        TrackingError: the store did not answer, or its files cannot be read.
    """
    if not store.exists():  # MLflow would make one
        raise RunError(
            "Expected model to be a URI such as models:/emotion-fer2013@champion. "
            f"Received: {quote(uri, 200)}, looked for in {store.looked_in()}"
        )
    try:
        info = mlflow.models.get_model_info(uri)
    # The libraries of the address's scheme may be missing, or raise errors of their own.
    except Exception as error:
        raise _unreadable(uri, error) from None
    metadata: dict[str, Any] = info.metadata or {}
    if "class_names" not in metadata:
        raise RunError(f"Expected a model that this suite logged. Received: {quote(uri, 200)}")
    try:
        run_id, fingerprint = metadata["source_run_id"], metadata["dataset_fingerprint"]
        return LoggedModel(
            uri=f"models:/{info.model_id}",
            class_names=tuple(metadata["class_names"]),
            image_size=int(metadata["image_size"]),
            config=Config.from_stored(metadata["config"]),
            dataset_name=metadata["dataset_name"],
            dataset_fingerprint=fingerprint,
            source_run_id=run_id,
            seen=(
                seen.from_metadata(metadata["seen"], run_id)
                if "seen" in metadata
                else seen.assumed(fingerprint, run_id)
            ),
            crop=str(metadata.get("crop", SQUASH)),  # as all were in older versions
            detector=str(metadata.get("detector", "none")),
            white={str(k): float(v) for k, v in metadata.get("white", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"Expected a model that this suite logged. Received: {quote(uri, 200)}, whose "
            f"description is damaged ({summarize(error)})"
        ) from None


def _unreadable(uri: str, error: Exception) -> FerError:
    """What it means that there is no description: a wrong address, or a store in trouble."""
    in_store = _IN_STORE.fullmatch(uri)
    if in_store and not (isinstance(error, MlflowException) and store.is_missing(error)):
        return TrackingError(
            f"The model {quote(uri, 200)} cannot be read from {store.address()}: {summarize(error)}"
        )
    name = in_store and in_store["name"]
    there = ""
    if name and not name.startswith("m-"):
        there = f"; registered models of this suite: {', '.join(registered_models()) or 'none'}"
    return RunError(
        "Expected model to be a URI such as models:/emotion-fer2013@champion. "
        f"Received: {quote(uri, 200)} ({summarize(error)}){there}"
    )


def metrics_of(logged: LoggedModel) -> dict[str, float]:
    """The newest value of each metric that was logged for the model.

    Raises:
        TrackingError: the store did not answer.
    """
    with store.translated():
        try:
            found = store.client().get_logged_model(logged.model_id).metrics or []
        except MlflowException as error:
            if not store.is_missing(error):
                raise
            return {}  # it lies outside of the store
    return {m.key: float(m.value) for m in sorted(found, key=lambda m: m.timestamp)}


def load(logged: LoggedModel) -> keras.Model:
    """The Keras model, from its .keras file alone and in Keras's safe mode.

    MLflow's own loading imports the module that the model names, and unpickles custom objects that
    lie beside it: a model may come from a stranger.

    Raises:
        TrackingError: the file is damaged, holds code, or cannot be reached.
    """
    import keras

    with tempfile.TemporaryDirectory() as folder:
        try:
            copy = mlflow.artifacts.download_artifacts(logged.uri, dst_path=folder)
            file = Path(copy, "data", "model.keras")  # where both of MLflow's flavors put it
            return keras.saving.load_model(file, compile=False, safe_mode=True)
        # Keras, HDF5 and MLflow raise almost anything on damaged files.
        except Exception as error:
            if store.is_away(error):
                raise TrackingError(store.message(error)) from None
            raise TrackingError(
                f"The model {logged.uri} cannot be loaded: {summarize(error)}"
            ) from None


def load_predictor(logged: LoggedModel, *, versions: Sequence[Version] = ()) -> Predictor:
    """The model with all that it takes to judge images; errors as of `load`.

    `versions` are the registered ones that hold it, where they are known.
    """
    from fer_experiments.evaluation.explanations import has_map, hires_cam
    from fer_experiments.evaluation.predictions import predict
    from fer_experiments.inference.predictor import Identity, Predictor

    network = load(logged)
    return Predictor(
        classify=partial(predict, network),
        heat_map=partial(hires_cam, network) if has_map(network) else None,
        class_names=logged.class_names,
        image_size=logged.image_size,
        rule=logged.rule,
        identity=Identity(
            address=logged.uri,
            uri=logged.uri,
            run_id=logged.source_run_id,
            versions=tuple(f"{v.name}/{v.number}" for v in versions),
        ),
    )
