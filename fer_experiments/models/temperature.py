"""Temperature scaling: probabilities of a trained classifier made honest, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_experiments.errors import RunError

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
