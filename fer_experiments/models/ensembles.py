"""Ensembles: one model whose probabilities are the mean of several trained ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fer_experiments.errors import RunError
from fer_experiments.models.crops import crop_of

if TYPE_CHECKING:
    import keras


def average(models: Sequence[keras.Model], *, tta: str = "none") -> keras.Model:
    """One model whose probabilities are the mean of those of its members.

    Args:
        models: classifiers of pixels of one size with the same classes in the same order.
        tta: flip: each member also judges the mirror image; crops: each judges five crops and
            their mirror images.

    Raises:
        RunError: crops are wanted of a model that looks at whole images.
    """
    import keras
    from keras import layers

    pixels = keras.Input(models[0].input_shape[1:], dtype="float32", name="pixels")
    sides = [pixels] if tta == "none" else [pixels, keras.ops.flip(pixels, axis=2)]
    outputs = []
    for number, model in enumerate(models, start=1):
        member = keras.Model(model.input, model.output, name=f"member_{number}")
        views = sides
        if tta == "crops":
            crop = crop_of(model)
            if crop is None:
                raise RunError(
                    "Expected models that were trained with crop for tta=crops. "
                    f"Received: {model.name}, which looks at whole images"
                )
            views = [crop.moved_in_graph(side, place) for side in sides for place in crop.five]
        outputs += [member(view) for view in views]
    if len(outputs) > 1:
        mean = layers.Average(dtype="float32", name="average")(outputs)
    else:
        mean = outputs[0]
    return keras.Model(pixels, mean, name="ensemble")
