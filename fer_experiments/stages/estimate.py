"""`--dry-run`: the resolved configuration, and the time and disk that it will take."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data import prepared as data
from fer_experiments.stages import common

# Of the matrix-product rate, what a convolutional network reaches: a cautious guess, for on 2 cores
# VGG16's forward pass came to all of it and ResNet50's to three quarters.
_SHARE_OF_PEAK = 0.7
# A step back costs twice a step forward, for the layers that it goes through.
_BACKWARD = 2.0
# Adam's work, seconds a step for each parameter, between 2 and 4e-9 with 2 million parameters.
_UPDATE = 3e-9


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the stages will take, nothing cached yet: the order of magnitude, not a promise."""

    seconds: float
    disk_megabytes: float


def show(configs: Sequence[Config], *, stages: Sequence[str]) -> None:
    """Prints the resolved configuration and the estimate, one column per backbone."""
    for config in configs:
        common.for_backbone(config)
    flats = [config.flat() for config in configs]
    rows = [[name, *(_shown(flat[name]) for flat in flats)] for name in flats[0]]
    console.table(["field", *["value"] * len(flats)], rows)
    images, val, test = _images(configs[0])
    console.say(f"about {images} training, {val} val and {test} test images")
    for config in configs:
        guess = estimate(config, stages=stages, images=(images, val, test))
        console.say(
            f"{config.model.backbone}: about {_duration(guess.seconds)} on this machine "
            f"({os.cpu_count()} cores), {guess.disk_megabytes:.0f} MB of disk"
        )


def estimate(config: Config, *, stages: Sequence[str], images: tuple[int, int, int]) -> Estimate:
    """Counts the network's multiplications and measures how fast this machine multiplies."""
    console.load_keras()
    from fer_experiments.models import classifier, cuts, features

    plain = config.replace(weights="none")
    model = classifier.build(
        plain.model, image_size=config.data.image_size, classes=7, seed=config.train.seed
    )
    rate = _multiply_rate() * _SHARE_OF_PEAK
    forward = sum(_operations(layer) for layer in model.layers) / rate
    train, val, test = images
    head = cuts.training_layers(model)
    tuned = head.union(
        classifier.to_unfreeze(model, config.finetune.unfreeze_layers, train_batchnorm=False)
    )
    phases = {
        "train": (head, config.train.epochs),
        "finetune": (tuned, config.finetune.finetune_epochs),
    }
    phases = {stage: phase for stage, phase in phases.items() if stage in stages}
    seconds = kept = 0.0
    for trained, epochs in phases.values():
        cut = cuts.find(model, trained)
        frozen = sum(_operations(layer) for layer in cuts.before(model, cut).layers) / rate
        again = forward - frozen if config.features.cache else forward
        back = _BACKWARD * (forward - frozen)
        steps = -(-train // config.train.batch_size)
        parameters = sum(model.get_layer(name).count_params() for name in trained)
        epoch = train * (again + back) + val * again + steps * parameters * _UPDATE
        seconds += epochs * epoch
        if config.features.cache:
            kept += features.bytes_per_image(model, cut, config)
    if phases and config.features.cache:
        passed = train * config.features.views + val
        seconds += passed * forward
        kept *= passed / 1e6
    if "evaluate" in stages:
        seconds += (val + test) * forward
    size = config.data.image_size**2 * (train + val + test) / 1e6
    logged = 4 * model.count_params() / 1e6 * len(phases)
    return Estimate(seconds=seconds, disk_megabytes=size + kept + logged)


def _images(config: Config) -> tuple[int, int, int]:
    found = data.lookup(config.data)
    if found is not None:
        return found.size("train"), found.size("val"), found.size("test")
    total = data.image_count(config.data) or 35_887
    train, val, test = round(total * 0.8), round(total * 0.1), round(total * 0.1)
    if config.data.split == "holdout":
        val, test = round(train * config.data.val_fraction), val + test
        train -= val
    if config.data.limit is None:
        return train, val, test
    limit = config.data.limit
    return min(train, limit), min(val, limit), min(test, limit)


def _operations(layer: Any) -> float:
    """Floating-point operations of one image through a layer with a kernel."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0.0
    places = math.prod(layer.output.shape[1:-1])
    return 2.0 * math.prod(kernel.shape) * places


def _multiply_rate() -> float:
    """Floating-point operations a second of this machine's matrix product."""
    a = np.random.default_rng(0).random((1024, 1024), dtype=np.float32)
    a @ a
    started = time.perf_counter()
    for _ in range(5):
        a @ a
    return 5 * 2 * 1024**3 / (time.perf_counter() - started)


def _shown(value: object) -> str:
    return "–" if value is None else str(value)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
