"""`--dry-run`: the resolved configuration, and the time and disk that it will take."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data import prepared as data
from fer_experiments.data.dataset import SPLITS
from fer_experiments.data.splits import expected
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


def show(configs: Sequence[Config], *, stages: Sequence[str]) -> list[dict[str, Any]]:
    """Prints the resolved configuration and the estimate, one column per backbone.

    Returns:
        Both of each backbone.
    """
    for config in configs:
        common.for_backbone(config)
    plan = data.plan(configs[0].data)
    configs = [config.replace(split=plan.config.split) for config in configs]
    flats = [config.flat() for config in configs]
    rows = [[name, *(_shown(flat[name]) for flat in flats)] for name in flats[0]]
    console.table(["field", *["value"] * len(flats)], rows)
    common.say_reading(plan)
    sizes, exact = _sizes(plan)
    counts = ", ".join(f"{sizes[split]} {split}" for split in SPLITS if sizes[split])
    console.say(f"{'' if exact else 'about '}{counts} images")
    found = []
    for config in configs:
        guess = estimate(config, stages=stages, images=sizes, classes=len(plan.reading.class_names))
        console.say(
            f"{config.model.backbone}: about {_duration(guess.seconds)} on this machine "
            f"({os.cpu_count()} cores), {guess.disk_megabytes:.0f} MB of disk"
        )
        found.append({"config": config.flat(), "images": dict(sizes), **asdict(guess)})
    return found


def estimate(
    config: Config, *, stages: Sequence[str], images: Mapping[str, int], classes: int
) -> Estimate:
    """Counts the network's multiplications and measures how fast this machine multiplies.

    Args:
        config: of the job.
        stages: those of train, finetune and evaluate that it has.
        images: by split.
        classes: how many.
    """
    console.load_keras()
    from fer_experiments.models import classifier, truncation
    from fer_experiments.models.features import extraction

    plain = config.replace(weights="none")
    model = classifier.build(
        plain.model, image_size=config.data.image_size, classes=classes, seed=config.fit.seed
    )
    rate = _multiply_rate() * _SHARE_OF_PEAK
    forward = sum(_operations(layer) for layer in model.layers) / rate
    train, val, test = (images[split] for split in SPLITS)
    head = truncation.training_layers(model)
    tuned = head.union(
        classifier.to_unfreeze(model, config.finetune.unfreeze_layers, train_batchnorm=False)
    )
    phases = {
        "train": (head, config.head_training.epochs),
        "finetune": (tuned, config.finetune.finetune_epochs),
    }
    phases = {stage: phase for stage, phase in phases.items() if stage in stages}
    seconds = kept = 0.0
    for trained, epochs in phases.values():
        points = truncation.points(model, trained)
        frozen = (
            sum(_operations(layer) for layer in truncation.feature_extractor(model, points).layers)
            / rate
        )
        again = forward - frozen if config.features.cache else forward
        back = _BACKWARD * (forward - frozen)
        steps = -(-train // config.fit.batch_size)
        parameters = sum(model.get_layer(name).count_params() for name in trained)
        epoch = train * (again + back) + val * again + steps * parameters * _UPDATE
        seconds += epochs * epoch
        if config.features.cache:
            kept += extraction.bytes_per_image(model, points, config)
    if phases and config.features.cache:
        passed = train * (1 + config.features.augmented_copies) + val
        seconds += passed * forward
        kept *= passed / 1e6
    if "evaluate" in stages:
        seconds += (val + test) * forward
    size = config.data.image_size**2 * (train + val + test) / 1e6
    logged = 4 * model.count_params() / 1e6 * len(phases)
    return Estimate(seconds=seconds, disk_megabytes=size + kept + logged)


def _sizes(plan: data.Plan) -> tuple[dict[str, int], bool]:
    """Images by split, and whether that is known for certain before any is decoded.

    Raises:
        DataError, ConfigError: the command would refuse, too.
    """
    found = plan.found()
    if found is not None:
        return {split: found.size(split) for split in SPLITS}, True
    splits = expected(plan.reading, plan.config)
    sizes = {split: int((splits == split).sum()) for split in SPLITS}
    # Copies of an image stay together where val is drawn, and leave train with leaks=drop; what
    # cannot be read is known when it is.
    config = plan.config
    drawn = config.split != "official" and "val" not in plan.reading.counts
    exact = not drawn and config.leaks == "keep" and config.on_bad_image == "refuse"
    return sizes, exact


def _operations(layer: Any) -> float:
    """Floating-point operations of one image through a layer with a kernel."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0.0
    places = math.prod(layer.output.shape[1:-1])
    return float(2.0 * math.prod(kernel.shape) * places)


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
