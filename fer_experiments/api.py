"""What Python programs use of this suite: `from fer_experiments import load_predictor`."""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike, fspath

from fer_experiments.errors import UsageError, quote
from fer_experiments.inference.files import is_model_file, open_predictor
from fer_experiments.inference.predictor import Predictor


def load_predictor(model: str | PathLike[str]) -> Predictor:
    """A model that judges images: `load_predictor("champion.onnx").predict(images)`.

    An ONNX file needs neither Keras, TensorFlow nor MLflow.

    Args:
        model: a model URI such as `models:/emotion-fer2013@champion`, or a file that `fer export`
            wrote.

    Raises:
        FerError: there is no such model, or it cannot be loaded; the message says what to do.
    """
    named = fspath(model)
    if is_model_file(named):
        return open_predictor(named)
    if find_spec("mlflow") is None:
        raise UsageError(
            "Expected a model file such as champion.onnx, for MLflow is not installed. Received: "
            f"{quote(named, 200)}"
        )
    from fer_experiments.tracking import models, registry

    logged = models.describe(named)
    return models.load_predictor(logged, versions=registry.holding(logged.uri))
