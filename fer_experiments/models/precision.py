"""A model that computes in mixed precision as the same model in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def is_float32(model: keras.Model) -> bool:
    """Whether every layer computes in float32."""
    from fer_experiments.models.keras_private import all_layers

    return all(layer.compute_dtype == "float32" for layer in all_layers(model))


def in_float32(model: keras.Model) -> keras.Model:
    """The same graph with the same weights, computing in float32; the model itself if it does.

    Mixed precision keeps its weights in float32, so nothing is lost; what the model gives is more
    exact.
    """
    import keras

    if is_float32(model):
        return model

    def rebuilt(operation: keras.Operation) -> keras.Operation:
        about = operation.get_config()
        if isinstance(operation, keras.layers.Layer):  # the steps between layers have no precision
            about["dtype"] = "float32"
        return type(operation).from_config(about)

    copy = keras.models.clone_model(model, clone_function=rebuilt, recursive=True)
    copy.set_weights(model.get_weights())
    return copy
