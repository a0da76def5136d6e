"""The scores of a confusion matrix, which training and evaluation take from here alike."""

from __future__ import annotations

import numpy as np


def recall_of(confusion: np.ndarray) -> np.ndarray:
    """Recall by class (…, C) of confusion matrices (…, C, C); nan for a class without images."""
    counts = np.asarray(confusion, dtype=np.float64)
    support = counts.sum(axis=-1)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.asarray(
        np.divide(right, support, out=np.full_like(support, np.nan), where=support > 0)
    )


def scores_of(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Scores, each (…), of confusion matrices (…, C, C) with a row per true class.

    A class without images takes no part in macro-F1 and balanced accuracy. Without any image all
    scores are 0.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    right = np.diagonal(counts, axis1=-2, axis2=-1)  # (…, C)
    support, named = counts.sum(axis=-1), counts.sum(axis=-2)  # (…, C)
    present = support > 0
    images, classes = support.sum(axis=-1), present.sum(axis=-1)
    f1 = 2 * right / np.where(present, support + named, 1)  # right is 0 where support is
    return {
        "accuracy": right.sum(axis=-1) / np.where(images > 0, images, 1),
        "macro_f1": f1.sum(axis=-1) / np.maximum(classes, 1),
        "weighted_f1": (f1 * support).sum(axis=-1) / np.where(images > 0, images, 1),
        "balanced_accuracy": np.nan_to_num(recall_of(counts)).sum(axis=-1) / np.maximum(classes, 1),
    }
