"""Do a model's probabilities mean what they say? Calibration error, Brier score, temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

# Modern networks need about 1 to 3. Past these bounds nothing changes: colder than 0.05 is as good
# as one-hot, hotter than 20 as good as even. The optimum lies there only for models that never err
# or know nothing.
COLDEST, HOTTEST = 0.05, 20.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far confidence, the probability of the named class, is from accuracy.

    The bins are equally wide over confidence 0 to 1; each holds its upper edge, not its lower one.
    An empty bin has confidence and accuracy nan.
    """

    ece: float  # expected calibration error: mean |accuracy - confidence| of bins, by images
    brier: float  # mean over images of the squared errors summed over classes, 0 to 2
    confidence: np.ndarray  # (bins,), mean
    accuracy: np.ndarray  # (bins,)
    images: np.ndarray  # (bins,)


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Calibration:
    """Compares confidence with accuracy.

    Args:
        probabilities: float, (N, C), rows sum to 1.
        labels: int, (N,), 0 to C-1.
        bins: 15 is what Guo et al. (2017) and most of the field after them report.

    Raises:
        ValueError: the shapes do not agree, there is no image, or `bins` is below 1.
    """
    probabilities = _checked(probabilities, labels)
    if bins < 1:
        raise ValueError(f"Expected bins of at least 1. Received: bins={bins}")
    N = len(labels)
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    at = np.clip(np.searchsorted(edges, top) - 1, 0, bins - 1)  # rounding may pass 1
    images = np.bincount(at, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin is the nan that we promise
        confidence = np.bincount(at, weights=top, minlength=bins) / images
        accuracy = np.bincount(at, weights=right, minlength=bins) / images
    return Calibration(
        ece=float(np.nansum(np.abs(accuracy - confidence) * images) / N),
        brier=float(brier_scores(probabilities, labels).mean()),
        confidence=confidence,
        accuracy=accuracy,
        images=images,
    )


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared errors of each image summed over classes, 0 to 2, (N,)."""
    errors: np.ndarray = probabilities - np.eye(probabilities.shape[1])[labels]
    return np.asarray((errors**2).sum(axis=1))


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, 0.05 to 20, at which the log-loss is lowest (Guo et al., 2017).

    To be fitted on images that the model was not trained on and is not judged on. Above 1: the
    model was too sure of itself. Probabilities do for logits: softmax(logits / T) is
    softmax(log(p) / T), as logits and log p differ by one number per image. Arguments and errors
    are those of `calibration`.
    """
    logs = _logs(_checked(probabilities, labels))
    of_label = logs[np.arange(len(labels)), labels]

    def mean_loss(sharpness: float) -> float:
        # Convex in 1/T, so a search by bounds finds the one minimum.
        scaled = sharpness * logs
        most = scaled.max(axis=1)
        total = np.log(np.exp(scaled - most[:, None]).sum(axis=1)) + most
        return float((total - sharpness * of_label).mean())

    bounds = (1 / HOTTEST, 1 / COLDEST)
    best = minimize_scalar(mean_loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(1 / best.x)


def at_the_end(temperature: float) -> str | None:
    """What a fitted temperature at an end of its range means; None: it is within."""
    if temperature >= 0.99 * HOTTEST:
        return (
            f"the temperature stands at the end of its range ({HOTTEST:g}): on val the model's "
            "probabilities are worth no more than even ones; look at the model before using it"
        )
    if temperature <= 2 * COLDEST:  # the loss may be 0 from there on
        return (
            f"the temperature stands at the end of its range ({COLDEST:g}): the model names every "
            "val image right, so val cannot tell how sure it may be; was it trained on val?"
        )
    return None


def _logs(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms that are finite: softmax in float32 rounds the smallest probabilities to 0."""
    return np.asarray(np.log(np.maximum(probabilities, np.finfo(np.float32).tiny)))


def _checked(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if probabilities.ndim != 2 or not len(labels) or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            "Expected probabilities (N, C) with N labels, N above 0. "
            f"Received: probabilities {probabilities.shape}, labels {labels.shape}"
        )
    return probabilities.astype(np.float64)
