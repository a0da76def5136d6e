"""Models whose every prediction is designed: the images say which class each of them names.

Row r of an image is white in the column of the class that model r names, and model r looks at
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.images import FER_CLASSES
from fer_experiments.data.prepared import prepare
from fer_experiments.data.seen import by_training
from fer_experiments.recipes import resolve
from fer_experiments.stages import common
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.runs import RunRecord

from ..data.helpers import write_folder

if TYPE_CHECKING:
    import keras

SIDE, PER_CLASS = 16, 100


def answers(right: Mapping[str, float] | float, *, seed: int) -> np.ndarray:
    """Predictions (C, PER_CLASS): of each class this share is named rightly."""
    rng = np.random.default_rng(seed)
    C = len(FER_CLASSES)
    named = np.empty((C, PER_CLASS), dtype=int)
    for i, name in enumerate(FER_CLASSES):
        share = right if isinstance(right, float) else right.get(name, right["else"])
        wrong = (i + rng.integers(1, C, PER_CLASS)) % C
        hit = rng.permutation(PER_CLASS) < round(share * PER_CLASS)
        named[i] = np.where(hit, i, wrong)
    return named


def write_images(
    root: Path, models: Sequence[np.ndarray | float], *, twins: Mapping[str, int] | int = 0
) -> Path:
    """A dataset in Kaggle's layout on which model r answers as `models[r]` says.

    A number stands for `answers` of that share, drawn by the seed r.

    The first `twins` images of each class of val also stand in train; val's are the same images
    whatever that number is.
    """
    rng = np.random.default_rng(0)
    drawn = [answers(x, seed=r) if isinstance(x, float) else x for r, x in enumerate(models)]
    files = {}
    for i, name in enumerate(FER_CLASSES):
        both = twins if isinstance(twins, int) else twins.get(name, twins["else"])
        for n in range(PER_CLASS + 3):
            image = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
            image[: len(drawn)] = 0
            if n < PER_CLASS:
                for row, named in enumerate(drawn):
                    image[row, named[i, n]] = 255
                files[f"test/{name}/PublicTest_{i * 1000 + n:06d}.png"] = image
            if n < both or n >= PER_CLASS:
                files[f"train/{name}/Training_{i * 1000 + n:06d}.png"] = image
    return write_folder(root, files)


def log_designed(
    dataset: Path,
    row: int,
    *,
    confidence: float,
    source: str | None = None,
    **fields: Any,
) -> str:
    """Logs model `row` in a run of its own; returns the run's id.

    Args:
        dataset: that it is said to be trained on.
        row: of its images, the one that it looks at.
        confidence: probability that it gives to the class that it names.
        source: the run that it is said to be fine-tuned from; None: it is a train run.
        fields: of its configuration.
    """
    console.quieten()  # MLflow warns of its own type hints when it is imported
    import keras
    from keras import layers

    config = resolve(
        "baseline",
        {
            "dataset": str(dataset),
            "split": "official",
            "image_size": SIDE,
            "seed": row,
            "weights": "none",
            **fields,
        },
    )
    prepared = prepare(config.data)
    C = len(FER_CLASSES)
    pixels = keras.Input((SIDE, SIDE, 1), dtype="float32", name="pixels")
    logits = layers.Dense(C, use_bias=False, name="logits")(layers.Flatten()(pixels))
    model = keras.Model(pixels, layers.Softmax(name="softmax")(logits), name="designed")
    kernel = np.zeros((SIDE, SIDE, C), dtype=np.float32)
    kernel[row, range(C), range(C)] = np.log(confidence / (1 - confidence) * (C - 1)) / 255
    model.get_layer("logits").set_weights([kernel.reshape(-1, C)])
    return log_as_trained(model, config, prepared, name=f"designed {row}", source=source)


def log_untrained(config: Config) -> str:
    """Logs a model as it is built, in a train run of made-up epochs; returns the run's id."""
    console.quieten()  # MLflow warns of its own type hints when it is imported
    from fer_experiments.models import classifier

    prepared = prepare(config.data)
    model = classifier.build(
        config.model,
        image_size=prepared.image_size,
        classes=len(prepared.class_names),
        seed=config.fit.seed,
    )
    return log_as_trained(
        model, config, prepared, name="made up", epochs=config.head_training.epochs
    )


def record(
    run_id: str, tags: Mapping[str, str], metrics: Mapping[str, float] | None = None
) -> RunRecord:
    """The record of an evaluation that no store knows."""
    return RunRecord(
        id=run_id,
        name=run_id,
        stage="evaluate",
        status="FINISHED",
        experiment_id="1",
        started=0,
        params={},
        tags=tags,
        metrics=metrics or {},
    )


def log_as_trained(
    model: keras.Model,
    config: Config,
    prepared: PreparedDataset,
    *,
    name: str,
    epochs: int = 0,
    source: str | None = None,
) -> str:
    """Logs a model in a train run that has made up so many epochs; returns the run's id.

    With `source`, in a finetune run that began with the model of that run.
    """
    tags = {"backbone": config.model.backbone, "recipe": config.recipe}
    if source is not None:
        tags["source_run_id"] = source
    stage = "train" if source is None else "finetune"
    with open_run(stage, name, tags=tags) as writer:
        writer.params({**config.flat(), "dataset_fingerprint": prepared.fingerprint})
        writer.tags({"dataset_fingerprint": prepared.fingerprint, "dataset_name": prepared.name})
        writer.json(config.flat(), "config.json")
        for epoch in range(1, epochs + 1):
            writer.metrics({"train/loss": 1.0, "val/loss": 1.0}, step=epoch)
        common.keep_hashes(writer, prepared)
        seen = by_training(prepared, config.fit)
        writer.model(model, config=config, prepared=prepared, seen=seen)
    return writer.run_id
