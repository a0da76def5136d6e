"""The photo score in words; see `stages.photo_score`."""

from __future__ import annotations

from collections.abc import Mapping

# A model that loses more on faces found in photos reads FER-2013's framing rather than faces.
MOST_LOST = 0.03


def photo_line(metrics: Mapping[str, float], prefix: str = "val/photo/") -> str | None:
    """What a model loses on faces that are found in pictures; None without a photo score."""
    if f"{prefix}found" not in metrics:
        return None
    found = metrics[f"{prefix}found"]
    if f"{prefix}accuracy" not in metrics:
        return "photo no face of val is found in a larger picture"
    return (
        f"photo accuracy {metrics[f'{prefix}accuracy']:.1%}, macro-F1 "
        f"{metrics[f'{prefix}macro_f1']:.3f} on val's faces pasted into pictures, found and "
        f"aligned ({found:.0%} found); as they are {metrics[f'{prefix}plain_accuracy']:.1%}"
    )


def photo_warning(metrics: Mapping[str, float], prefix: str = "val/photo/") -> str | None:
    """What to say before such a model judges photos; None where it loses little or nobody knows."""
    after, before = (metrics.get(f"{prefix}{name}") for name in ("accuracy", "plain_accuracy"))
    if after is None or before is None or before - after <= MOST_LOST:
        return None
    return (
        f"this model names {before:.1%} of val rightly, but {after:.1%} where the same faces are "
        "found in pictures as these were: it learnt the framing of its training images"
    )
