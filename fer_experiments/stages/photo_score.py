"""The photo score: how a model does on val's faces when they come out of larger pictures.

Each image is pasted into a picture at a random scale and tilt, searched by MTCNN as `predict` does,
and aligned. What was found is kept in the data home, since it is the same for every model.

<data home>/photos/<key>/   crops, found (.npy) and manifest.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_experiments import console
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.storage import data_home, open_array, write_folder
from fer_experiments.errors import ConfigError, DataError
from fer_experiments.faces.detection import MTCNN, open_detector
from fer_experiments.faces.pasted import found_again
from fer_experiments.scores import scores_of

# Smaller images hold no face that a detector knows.
_SMALLEST = 32  # pixels
# Raised when the same images come to other crops.
_FORMAT = 1


def photo_score(
    predict: Callable[[np.ndarray], np.ndarray], prepared: PreparedDataset, *, data_seed: int
) -> dict[str, float]:
    """Metrics below `val/photo/`; none where faces cannot be searched.

    Args:
        predict: pixels (N, S, S) uint8 to probabilities (N, C).
        prepared: its val images are pasted.
        data_seed: decides scales, tilts and places.

    Returns:
        `images` that were found and their share `found`; `accuracy` and `macro_f1` on them, and
        `plain_accuracy` of the same images as they are.
    """
    images, labels = prepared.split("val")
    if prepared.image_size < _SMALLEST or not len(images):
        return {}
    try:
        crops, found = _crops(images, prepared, data_seed)
    except (ConfigError, DataError) as error:  # no TensorFlow, or a full disk: scores stay
        console.warn(f"{error}. No photo score")
        return {}
    scores = {"images": float(found.sum()), "found": float(found.mean())}
    if found.any():
        labels = np.asarray(labels)[found]
        classes = len(prepared.class_names)
        plain, after = (
            scores_of(_confusion(labels, predict(pixels[found]), classes))
            for pixels in (images, crops)
        )
        scores |= {name: float(after[name]) for name in ("accuracy", "macro_f1")}
        scores["plain_accuracy"] = float(plain["accuracy"])
    return {f"val/photo/{name}": value for name, value in scores.items()}


def _confusion(labels: np.ndarray, probabilities: np.ndarray, classes: int) -> np.ndarray:
    cells = np.bincount(classes * labels + probabilities.argmax(axis=1), minlength=classes**2)
    return cells.reshape(classes, classes)


def _crops(
    images: np.ndarray, prepared: PreparedDataset, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(N, S, S) uint8, zeros where nothing was found; and whether it was, (N,) bool."""
    key = {"format": _FORMAT, "dataset": prepared.fingerprint, "detector": MTCNN, "seed": seed}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = data_home() / "photos" / digest

    def opened(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
        try:
            crops, found = (open_array(folder / f"{name}.npy") for name in ("crops", "found"))
        except (OSError, EOFError, ValueError):
            return None
        whole = crops.shape == images.shape and found.shape == (len(images),)
        return (crops, np.asarray(found)) if whole else None

    known = opened(folder)
    if known is not None:
        return known
    detector = open_detector(MTCNN)
    console.say(f"photo score: {len(images)} val images in larger pictures, searched once")
    crops, found = np.zeros(images.shape, np.uint8), np.zeros(len(images), bool)
    with console.progress(len(images)) as advance:
        for i, crop in enumerate(found_again(images, detector, seed=seed)):
            if crop is not None:
                crops[i], found[i] = crop, True
            advance(1)
    write_folder(
        folder, {"crops": crops, "found": found}, key, is_whole=lambda f: opened(f) is not None
    )
    return crops, found
