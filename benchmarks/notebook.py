"""The notebook's own way: `ImageDataGenerator` and `fit` with Keras's defaults, nothing of ours.

A process of its own: `python -m benchmarks.notebook '{"backbone": "vgg16", …}'` prints one line of
JSON. Its known faults that would only make it look worse are mended: every epoch sees every image,
and val is predicted in order.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import keras
import numpy as np
from keras import layers
from tensorflow.keras.preprocessing.image import ImageDataGenerator

BATCH = 32
CLASSES = 7


def main(asked: dict[str, Any]) -> dict[str, Any]:
    """Times a number of steps, or trains for the accuracy.

    Args:
        asked: `backbone`; `pictures` with train/ and val/, a folder of images per class each;
            `steps` to time after `warm_up` steps; or `epochs` to train whole, with `cut` and
            `weights` (a file by layer name).

    Returns:
        Images a second of head training, of fine-tuning, of validation and of prediction; or
        the val accuracy and the seconds of the training.
    """
    train, val = generators(asked["pictures"])
    backbone = _backbone(asked)
    model = keras.Sequential(
        [
            backbone,
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    backbone.trainable = False
    _compile(model, 1e-4)
    if "epochs" in asked:
        return _train(model, train, val, asked["epochs"])
    steps, warm_up = asked["steps"], asked["warm_up"]
    rates = {"head": _rate(model, train, steps, warm_up)}
    model.evaluate(val, steps=2, verbose=0)
    started = time.perf_counter()
    model.evaluate(val, steps=steps // 2, verbose=0)
    rates["val"] = steps // 2 * BATCH / (time.perf_counter() - started)
    backbone.trainable = True
    for layer in backbone.layers[:-4]:
        layer.trainable = False
    _compile(model, 1e-5)
    rates["finetune"] = _rate(model, train, steps, warm_up)
    return rates


def generators(folder: str) -> tuple[Any, Any]:
    """Augmented training batches and plain val batches, as the notebook flows them."""
    augmented = ImageDataGenerator(
        rescale=1 / 255,
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        horizontal_flip=True,
    )
    flow = {"target_size": (48, 48), "batch_size": BATCH, "class_mode": "categorical"}
    train = augmented.flow_from_directory(f"{folder}/train", seed=0, **flow)
    plain = ImageDataGenerator(rescale=1 / 255)
    return train, plain.flow_from_directory(f"{folder}/val", shuffle=False, **flow)


def _backbone(asked: dict[str, Any]) -> keras.Model:
    function = {"vgg16": keras.applications.VGG16, "resnet50": keras.applications.ResNet50}
    whole = function[asked["backbone"]](include_top=False, weights=None, input_shape=(48, 48, 3))
    if "truncate_at" not in asked:
        return whole
    part = keras.Model(whole.input, whole.get_layer(asked["truncate_at"]).output)
    part.load_weights(asked["weights"], by_name=True, skip_mismatch=False)
    return part


def _compile(model: keras.Model, learning_rate: float) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )


def _rate(model: keras.Model, train: Any, steps: int, warm_up: int) -> float:
    """Training images a second."""
    model.fit(train, steps_per_epoch=warm_up, epochs=1, verbose=0)
    started = time.perf_counter()
    model.fit(train, steps_per_epoch=steps, epochs=1, verbose=0)
    return steps * BATCH / (time.perf_counter() - started)


def _train(model: keras.Model, train: Any, val: Any, epochs: int) -> dict[str, Any]:
    started = time.perf_counter()
    model.fit(train, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - started
    predicted = model.predict(val, verbose=0).argmax(axis=1)
    return {"val_accuracy": float(np.mean(predicted == val.classes)), "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
