"""oneDNN's kernels against TensorFlow's own, in processes that take turns.

    python -m benchmarks.kernels resnet50

Random images and weights, float32: the forward pass of `quick`'s network, a step of the layers that
it trains, a step of the whole network. TensorFlow decides by the processor which kernels it uses;
`fer` asks for oneDNN's.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

_KERNELS = {"TensorFlow's": "0", "oneDNN's": "1"}
_BATCHES = 5


@click.command()
@click.argument("backbone")
@click.option("--rounds", default=2)
@click.option("--here", is_flag=True, help="one turn in this process; prints JSON")
def main(backbone: str, rounds: int, here: bool) -> None:
    """Images a second of each, and the ratio of every round."""
    if here:
        click.echo(json.dumps(_rates(backbone)))
        return
    from benchmarks.processes import run

    for _ in range(rounds):
        found = {}
        for whose, setting in _KERNELS.items():
            os.environ["TF_ENABLE_ONEDNN_OPTS"] = setting
            with tempfile.TemporaryDirectory() as folder:
                done = run("-m", "benchmarks.kernels", backbone, "--here", folder=Path(folder))
            found[whose] = json.loads(done.output.splitlines()[-1])
        own, other = found.values()
        for work, rate in other.items():
            click.echo(f"{work}: {own[work]:.1f}, {rate:.1f} images/s: {rate / own[work]:.2f}")


def _rates(backbone: str) -> dict[str, float]:
    """Images a second, by what is done with them."""
    from fer_experiments.models import classifier
    from fer_experiments.recipes import resolve
    from fer_experiments.training import malloc
    from fer_experiments.training.optimizers import LoopConfig

    malloc.keep_freed()
    config = resolve("quick", {"backbone": backbone, "weights": "none"})
    top = config.finetune.unfreeze_layers
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    size = config.fit.batch_size
    images = np.random.default_rng(0).uniform(0, 255, (size, 48, 48, 1)).astype(np.float32)
    labels = np.eye(7, dtype=np.float32)[np.arange(size) % 7]

    def rate(step: Callable[[], object]) -> float:
        step()  # compiles
        started = time.perf_counter()
        for _ in range(_BATCHES):
            step()
        return _BATCHES * size / (time.perf_counter() - started)

    found = {"forward": rate(lambda: model.predict_on_batch(images))}
    for what, layers in (("topmost layers", top), ("whole network", 0)):
        classifier.unfreeze(model, layers, train_batchnorm=True)
        model.compile(LoopConfig(optimizer="adamw").build(1), "categorical_crossentropy")
        found[what] = rate(lambda: model.train_on_batch(images, labels))
    return found


if __name__ == "__main__":
    main()
