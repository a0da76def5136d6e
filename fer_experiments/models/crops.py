"""A square cut out of every image: the middle one to predict, any one in training, five at test
time.

Ten crops (five and their mirror images) after Krizhevsky et al. 2012, "ImageNet classification with
deep convolutional neural networks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

# Of the Keras layer that cuts the middle out.
LAYER = "crop"


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Sides of the images and of what is cut out of them, pixels."""

    image_size: int
    size: int

    @property
    def margin(self) -> int:
        """How far a crop can move, pixels."""
        return self.image_size - self.size

    @property
    def middle(self) -> int:
        """Rows above the crop that Keras's CenterCrop takes, and columns left of it."""
        return self.margin // 2

    @property
    def five(self) -> tuple[tuple[int, int], ...]:
        """First row and column of the middle crop and of those in the corners."""
        ends = (0, self.margin)
        return ((self.middle, self.middle), *((top, left) for top in ends for left in ends))

    def moved(self, pixels: np.ndarray, place: tuple[int, int]) -> np.ndarray:
        """(N, H, W, …): the crop at a place, moved to the middle, where the network looks."""
        (top, left), middle, size = place, self.middle, self.size
        moved = np.zeros_like(pixels)
        moved[:, middle : middle + size, middle : middle + size] = pixels[
            :, top : top + size, left : left + size
        ]
        return moved

    def moved_in_graph(self, pixels: Any, place: tuple[int, int]) -> Any:
        """`moved` as built-in Keras layers."""
        from keras import layers

        top, left = place
        cut = layers.Cropping2D(((top, self.margin - top), (left, self.margin - left)))(pixels)
        around = (self.middle, self.margin - self.middle)
        return layers.ZeroPadding2D((around, around))(cut)


def crop_of(model: keras.Model) -> Crop | None:
    """The crop that a classifier takes, or the first member of an ensemble that takes one."""
    for layer in model.layers:
        if layer.name == LAYER:
            return Crop(image_size=int(model.input_shape[1]), size=int(layer.height))
    for layer in model.layers:
        found = crop_of(layer) if hasattr(layer, "layers") else None
        if found is not None:
            return found
    return None
