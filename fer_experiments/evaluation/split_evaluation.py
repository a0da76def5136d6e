"""What was found of one split: scores of all its images, and of those that may be trusted more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_experiments.evaluation.metrics import Report


@dataclass(frozen=True, kw_only=True)
class SplitEvaluation:
    """What was found of one split."""

    report: Report
    clean: Report | None  # of the images that the model was not trained on; None: none, or unknown
    augmented: Report | None  # with test-time augmentation
    probabilities: np.ndarray  # (N, C)
    fitted: np.ndarray | None  # (N,) bool: which images it was trained on; None: unknown
    selected: np.ndarray | None  # (N,) bool: which of them chose its epoch, temperature or the like
