"""Whether a model in another form still says the same: numbers in, what is wrong out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The most that a probability may differ, and the least share of images with the same class.
LARGEST_DIFFERENCE, SAME_CLASS = 1e-4, 0.999
# The most that accuracy may differ where numbers were rounded on purpose.
ACCURACY = 0.005


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Two forms of a model on the same images."""

    images: int
    largest_difference: float  # of any probability
    same_class: float  # share of images whose named class is the same

    @property
    def shortfalls(self) -> list[str]:
        """What keeps them from being the same model; nothing if they are."""
        found = []
        if not self.largest_difference <= LARGEST_DIFFERENCE:  # nan neither
            found.append(
                f"a probability differs by {self.largest_difference:.2g}, more than "
                f"{LARGEST_DIFFERENCE:g}"
            )
        if self.same_class < SAME_CLASS:
            found.append(
                f"{self.same_class:.2%} of the images are named alike, less than {SAME_CLASS:.1%}"
            )
        return found


def parity(first: np.ndarray, second: np.ndarray) -> Parity:
    """Compares probabilities (N, C) of the same images, N above 0."""
    return Parity(
        images=len(first),
        largest_difference=float(np.abs(first - second).max()),
        same_class=float((first.argmax(axis=1) == second.argmax(axis=1)).mean()),
    )


def accuracy_shortfalls(found: float, before: float) -> list[str]:
    """What is wrong with an accuracy, 0 to 1, where it was `before`; nothing if it stayed."""
    # Rounded, or 0.605 - 0.6 would be more than 0.005.
    if round(abs(found - before), 12) <= ACCURACY:
        return []
    return [
        f"accuracy is {found:.2%} where the model's own is {before:.2%}, more than "
        f"{100 * ACCURACY:g} points apart"
    ]
