"""Probabilities and labels in, a Report out: names and values, nothing about logging."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    classification_report,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from fer_experiments.evaluation.calibration import Calibration, brier_scores, calibration
from fer_experiments.evaluation.statistics import Interval, intervals, log_losses, mean_interval

_LONGEST_NAME = 200  # of a class in the name of a metric, of which MLflow takes 250 characters


@dataclass(frozen=True, kw_only=True)
class Report:
    """How well one model did on one split.

    `confusion[i, j]` counts images of class i that were predicted as class j. Scores are shares
    between 0 and 1; `log_loss` is in nats. A class with no image in the split has support 0 and
    takes no part in `balanced_accuracy` and `macro_f1`. `roc_auc` and `average_precision` are of
    one class against the rest, nan for a class that has no image or all of them.
    """

    split: str
    class_names: tuple[str, ...]
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    log_loss: float
    intervals: Mapping[str, Interval]  # 95 %, of the five above and `brier`
    calibration: Calibration
    precision: np.ndarray  # (C,)
    recall: np.ndarray  # (C,)
    f1: np.ndarray  # (C,)
    roc_auc: np.ndarray  # (C,)
    average_precision: np.ndarray  # (C,)
    support: np.ndarray  # (C,)
    confusion: np.ndarray  # (C, C)
    majority_share: float  # accuracy of always naming the most frequent class
    text: str  # scikit-learn's classification report

    @property
    def images(self) -> int:
        """How many images were judged."""
        return int(self.support.sum())

    @property
    def predicted_classes(self) -> int:
        """How many different classes the model named at least once."""
        return int((self.confusion.sum(axis=0) > 0).sum())

    @property
    def macro_roc_auc(self) -> float:
        """Mean of `roc_auc` over the classes that have one; nan without any."""
        known = self.roc_auc[np.isfinite(self.roc_auc)]
        return float(known.mean()) if len(known) else float("nan")

    def scores(self) -> dict[str, float]:
        """Every score under its name, `/` between sections, without the split; all are finite."""
        scores = {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "weighted_f1": self.weighted_f1,
            "log_loss": self.log_loss,
            "macro_roc_auc": self.macro_roc_auc,
            "calibration/ece": self.calibration.ece,
            "calibration/brier": self.calibration.brier,
            "majority_share": self.majority_share,
            "images": float(self.images),
        }
        for name, interval in self.intervals.items():
            scores[f"interval/{name}_low"] = interval.low
            scores[f"interval/{name}_high"] = interval.high
        for name in ("precision", "recall", "f1", "roc_auc", "average_precision"):
            values = getattr(self, name)
            for i, class_name in enumerate(metric_names(self.class_names)):
                if self.support[i]:
                    scores[f"per_class/{name}_{class_name}"] = float(values[i])
        return {name: value for name, value in scores.items() if np.isfinite(value)}


def report(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, split: str
) -> Report:
    """Judges predictions.

    Args:
        probabilities: float, (N, C), rows sum to 1, in the order of `labels`.
        labels: int, (N,), 0 to C-1.
        class_names: C names in label order.
        split: which images these are, `val` or `test`.

    Raises:
        ValueError: the shapes do not agree, or there is no image.
    """
    N, C = probabilities.shape
    if N == 0 or labels.shape != (N,) or len(class_names) != C:
        raise ValueError(
            "Expected probabilities (N, C) with N labels and C class names, N above 0. "
            f"Received: probabilities {probabilities.shape}, labels {labels.shape}, "
            f"{len(class_names)} class names"
        )
    predicted = probabilities.argmax(axis=1)
    every = np.arange(C)
    present = np.unique(labels)
    correct = int((predicted == labels).sum())
    confusion = confusion_matrix(labels, predicted, labels=every)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=every, zero_division=0
    )
    return Report(
        split=split,
        class_names=tuple(class_names),
        accuracy=correct / N,
        balanced_accuracy=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        weighted_f1=float(np.average(f1, weights=support)),
        log_loss=float(log_loss(labels, _normalised(probabilities), labels=every)),
        intervals=intervals(confusion)
        | {
            "log_loss": mean_interval(log_losses(probabilities, labels), labels),
            "brier": mean_interval(brier_scores(probabilities, labels), labels),
        },
        calibration=calibration(probabilities, labels),
        precision=precision,
        recall=recall,
        f1=f1,
        roc_auc=_one_vs_rest(roc_auc_score, probabilities, labels),
        average_precision=_one_vs_rest(average_precision_score, probabilities, labels),
        support=support,
        confusion=confusion,
        majority_share=float(support.max() / N),
        text=classification_report(
            labels,
            predicted,
            labels=every,
            target_names=list(class_names),
            digits=4,
            zero_division=0,
        ),
    )


def metric_names(class_names: Sequence[str]) -> list[str]:
    """What stands for each class in the name of a metric: its own name, as far as MLflow takes it.

    Where two names would become one, `sad(1)` and `sad[1]`, those that had to be changed end in a
    digest of the name, so that every class keeps scores of its own.
    """
    plain = [re.sub(r"[^\w\-. :]", "_", name)[:_LONGEST_NAME] for name in class_names]
    often = Counter(plain)
    return [
        text if often[text] == 1 or text == name else f"{text}-{_digest(name)}"
        for name, text in zip(class_names, plain, strict=True)
    ]


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=4).hexdigest()


def _one_vs_rest(
    score: Callable[[np.ndarray, np.ndarray], float], probabilities: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The score of each class's probability (C,); nan where there is nothing to tell apart."""
    own = labels[:, None] == np.arange(probabilities.shape[1])  # (N, C)
    mixed = own.any(axis=0) & ~own.all(axis=0)
    return np.array(
        [score(own[:, i], probabilities[:, i]) if mixed[i] else np.nan for i in range(len(mixed))]
    )


def _normalised(probabilities: np.ndarray) -> np.ndarray:
    """float64 rows that sum to 1: float32 softmax rows miss it by 1e-7, and scikit-learn warns."""
    wide = probabilities.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))
