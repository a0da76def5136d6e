"""Models made from trained ones without training: a temperature, the average of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fer_experiments.errors import RunError
from fer_experiments.models.crops import crop_of

if TYPE_CHECKING:
    import keras

_LOGITS, _TEMPERATURE = "logits", "temperature"


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """The classifier with its logits divided by a temperature before the softmax.

    The order of the classes stays what it was; above 1 the probabilities come closer together.
    After Guo et al. 2017, "On calibration of modern neural networks".

    Args:
        model: a classifier of this suite; shares its layers.
        temperature: above 0.

    Raises:
        RunError: an ensemble, or a model that has a temperature already.
    """
    import keras
    from keras import layers

    names = {layer.name for layer in model.layers}
    if _LOGITS not in names or _TEMPERATURE in names:
        raise RunError(
            "Expected a model of a train or finetune run, which has logits and no temperature yet. "
            f"Received: {model.name}; pass run_id of such a run"
        )
    logits = model.get_layer(_LOGITS).output
    scaled = layers.Rescaling(1 / temperature, dtype="float32", name=_TEMPERATURE)(logits)
    outputs = layers.Softmax(dtype="float32", name="softmax")(scaled)
    return keras.Model(model.input, outputs, name=model.name)


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
