"""Ours against a bare loop over tensors in memory, in turns in one process.

`python -m benchmarks.rates '{"backbone": "vgg16", …}'` prints one line of JSON.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fer_experiments.config import Config
from fer_experiments.data.prepared import prepare
from fer_experiments.evaluation.predictions import predict
from fer_experiments.models import classifier
from fer_experiments.models.features import cache, extraction
from fer_experiments.recipes import resolve
from fer_experiments.stages import inputs
from fer_experiments.training.batches import Batches
from fer_experiments.training.loop import fit
from fer_experiments.training.optimizers import LoopConfig


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Runs every pair `rounds` times, bare and ours in turns.

    Args:
        asked: `backbone`, `dataset`, `limit`, `images` for the predictions, `train_images` for
            the training, `rounds`.
    """
    config = resolve(
        "baseline",
        {
            "backbone": asked["backbone"],
            "dataset": asked["dataset"],
            "split": "official",
            "limit": asked["limit"],
            "weights": "none",
        },
    )
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    prepared = prepare(config.data)
    images = prepared.images[: asked["images"]]
    operations = sum(_operations(layer) for layer in model.layers)
    found: dict[str, Any] = {"gflop_per_image": operations / 1e9}
    size, bare = _best_batch(model)
    predict(model, images[:600])  # compiles for a whole batch and for the last, smaller one
    pairs: dict[str, list[tuple[float, float]]] = {"predict": [], "extract": []}
    peaks = []
    for _ in range(asked["rounds"]):
        for name, ours in (
            ("predict", lambda: _predict(model, images)),
            ("extract", lambda: _extract(model, prepared, config)),
        ):
            first = bare(len(images))
            rate = ours()
            pairs[name].append((rate, (first + bare(len(images))) / 2))
        peaks.append(_matrix_product())
    found |= {name: _middle(values) for name, values in pairs.items()}
    found["best_batch"] = size
    found["gflops_of_matrix_product"] = float(np.median(peaks))
    found["whole"] = _whole(config, prepared, asked["train_images"], asked["rounds"])
    return found


def _best_batch(model: keras.Model) -> tuple[int, Callable[[int], float]]:
    """The batch size of 32 to 256 at which the bare compiled forward pass is fastest."""
    run = tf.function(lambda x: model(x, training=False))
    batches = {b: tf.random.uniform((b, 48, 48, 1), maxval=255.0) for b in (32, 64, 128, 256)}

    def rate(size: int, images: int) -> float:
        steps = max(1, images // size)
        started = time.perf_counter()
        for _ in range(steps):
            run(batches[size]).numpy()
        return steps * size / (time.perf_counter() - started)

    for size in batches:
        rate(size, 1)
    best = max(batches, key=lambda size: max(rate(size, 768) for _ in range(2)))
    return best, lambda images: rate(best, images)


def _predict(model: keras.Model, images: np.ndarray) -> float:
    started = time.perf_counter()
    predict(model, images)
    return len(images) / (time.perf_counter() - started)


def _extract(model: keras.Model, prepared: Any, config: Config) -> float:
    """The whole of it: compilation, every tensor that head and fine-tuning need, writing."""
    from fer_experiments.models import truncation

    cache.clear()
    head = truncation.points(model, truncation.training_layers(model))
    later = classifier.to_unfreeze(model, 4, train_batchnorm=False)
    tuned = truncation.points(model, truncation.training_layers(model) | set(later))
    found = extraction.obtain(model, prepared, config, points=head, also=tuned)
    return found.computed / found.seconds


def _whole(config: Config, prepared: Any, images: int, rounds: int) -> tuple[float, float]:
    """Training of all layers with augmentation, against `train_on_batch`; images a second."""
    bare_model = _all_trainable(config)
    bare_model.compile("adam", "categorical_crossentropy")
    pixels = tf.random.uniform((32, 48, 48, 1), maxval=255.0)
    labels = tf.one_hot(np.arange(32) % 7, 7)
    bare_model.train_on_batch(pixels, labels)
    feed = inputs.of_phase(_all_trainable(config), config.replace(cache=False), prepared)
    seconds: list[float] = []

    def batches(split: str, first: int, seed: int | None) -> Batches:
        views = feed.train if split == "train" else feed.val
        return Batches(
            [[array[:first] for array in view] for view in views],
            prepared.split(split)[1][:first],
            classes=7,
            batch_size=32,
            seed=seed,
        )

    def ours() -> float:
        started = time.perf_counter()
        feed.model.fit(batches("train", images, 0), shuffle=False, verbose=0)
        return images / (time.perf_counter() - started)

    fit(
        feed.model,
        batches("train", 288, 0),
        batches("val", 32, None),
        LoopConfig(epochs=1, keep_epoch="last"),
        first_epoch=1,
        log=lambda record: seconds.append(record["seconds"]),
    )
    pairs = []
    for _ in range(rounds):
        first = _bare_training(bare_model, pixels, labels, images)
        rate = ours()
        pairs.append((rate, (first + _bare_training(bare_model, pixels, labels, images)) / 2))
    return _middle(pairs)


def _bare_training(model: keras.Model, pixels: Any, labels: Any, images: int) -> float:
    started = time.perf_counter()
    for _ in range(images // 32):
        model.train_on_batch(pixels, labels)
    return images / (time.perf_counter() - started)


def _all_trainable(config: Config) -> keras.Model:
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    layers = len(classifier.backbone_layers(model))
    classifier.unfreeze(model, layers, train_batchnorm=True)
    return model


def _middle(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """The pair with the middle ratio; of two, the lower one."""
    return sorted(pairs, key=lambda pair: pair[0] / pair[1])[(len(pairs) - 1) // 2]


def _operations(layer: Any) -> float:
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0.0
    return 2.0 * math.prod(kernel.shape) * math.prod(layer.output.shape[1:-1])


def _matrix_product() -> float:
    """GFLOP/s of TensorFlow's matrix product in float32."""
    a = tf.random.normal((2048, 2048))
    tf.linalg.matmul(a, a)
    started = time.perf_counter()
    for _ in range(20):
        tf.linalg.matmul(a, a)
    return 20 * 2 * 2048**3 / (time.perf_counter() - started) / 1e9


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
