"""FER-2013 experiments: VGG16 and ResNet50 trained, tracked in MLflow, compared and registered."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_experiments.api import load_predictor as load_predictor

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What Python programs use, imported with its first use: the package itself stays quick."""
    if name != "load_predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fer_experiments import api

    return api.load_predictor
