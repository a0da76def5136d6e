"""Training of a whole network in mixed_bfloat16 against float32, in turns in one process.

    python -m benchmarks.precision vgg16

Random images and weights, no augmentation: what the processor makes of the numbers alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import numpy as np

from fer_experiments.models import classifier
from fer_experiments.recipes import resolve
from fer_experiments.training.optimizers import LoopConfig


@click.command()
@click.argument("backbone")
@click.option("--batches", default=4, help="a turn")
@click.option("--rounds", default=3)
def main(backbone: str, batches: int, rounds: int) -> None:
    """Images a second of each, and the ratio of every round."""
    full, half = (_training(backbone, p, batches) for p in ("float32", "mixed_bfloat16"))
    for _ in range(rounds):
        first, other, last = full(), half(), full()
        between = (first + last) / 2
        click.echo(
            f"float32 {between:.1f}, mixed_bfloat16 {other:.1f} images/s: {other / between:.2f}"
        )


def _training(backbone: str, precision: str, batches: int) -> Callable[[], float]:
    """Trains for so many batches when called; gives images a second."""
    config = resolve("quick", {"backbone": backbone, "weights": "none", "precision": precision})
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    classifier.unfreeze(model, 0, train_batchnorm=True)
    model.compile(LoopConfig(optimizer="adamw").build(1), "categorical_crossentropy")
    draw = np.random.default_rng(0)
    size = config.fit.batch_size
    images = draw.uniform(0, 255, (batches * size, 48, 48, 1)).astype(np.float32)
    labels = np.eye(7, dtype=np.float32)[draw.integers(0, 7, len(images))]

    def turn() -> float:
        started = time.perf_counter()
        model.fit(images, labels, batch_size=size, verbose=0)
        return len(images) / (time.perf_counter() - started)

    turn()  # compiles
    return turn


if __name__ == "__main__":
    main()
