"""What a model is shown when it predicts: the images as they are, or several versions of each."""

import keras
import numpy as np
import pytest

from fer_experiments.data.synthetic import draw_faces
from fer_experiments.errors import ConfigError
from fer_experiments.evaluation.predictions import predict, test_time_views

IMAGES = draw_faces(count=21, seed=0)[0]
test_time_views.__test__ = False  # type: ignore[attr-defined]  # no test, for all its name


@pytest.fixture(scope="module")
def seen() -> keras.Model:
    """Gives back the pixels that it is shown, (N, H·W), so that a mean of views can be undone."""
    pixels = keras.Input((48, 48, 1))
    return keras.Model(pixels, keras.layers.Flatten()(pixels))


def quote(seen: keras.Model, tta: str) -> np.ndarray:
    """The mean of what the model is shown of each image, (N, H, W)."""
    return predict(seen, IMAGES, views=test_time_views(tta)).reshape(IMAGES.shape)


def test_without_views_the_images_themselves(seen: keras.Model) -> None:
    assert test_time_views("none") is None
    np.testing.assert_array_equal(quote(seen, "none"), IMAGES)


def test_flip_is_the_mean_with_the_mirror_image(seen: keras.Model) -> None:
    mirrored = IMAGES[:, :, ::-1].astype(np.float32)
    np.testing.assert_allclose(quote(seen, "flip"), (IMAGES + mirrored) / 2, atol=1e-4)
    assert not np.array_equal(mirrored, IMAGES)


def test_views_are_the_image_and_others_all_different(seen: keras.Model) -> None:
    """The k-th view is what the sum over k views has more than that over k - 1."""
    sums = [IMAGES.astype(np.float64), *(k * quote(seen, str(k)) for k in range(2, 6))]
    views = [sums[0], *np.diff(sums, axis=0)]
    for i, one in enumerate(views):
        for other in views[:i]:
            difference = np.abs(one - other).mean(axis=(1, 2))
            assert (difference > 1).mean() > 0.9
    for view in views[1:]:  # a face stays where it is
        assert np.abs(view.mean(axis=(1, 2)) - IMAGES.mean(axis=(1, 2))).max() < 15
        assert view.min() > -0.1 and view.max() < 255.1


def test_views_are_drawn_alike_every_time(seen: keras.Model) -> None:
    np.testing.assert_array_equal(quote(seen, "3"), quote(seen, "3"))


@pytest.mark.parametrize("tta", ["1", "101", "-2", "mirror", "", "2.0"])
def test_other_views_are_refused(tta: str) -> None:
    with pytest.raises(ConfigError, match=f"none, flip, crops, or a number.*Received: tta={tta}"):
        test_time_views(tta)


def test_ten_crops_are_five_places_and_the_same_five_of_the_mirror_image() -> None:
    pixels = keras.Input((48, 48, 1))
    cropped = keras.layers.CenterCrop(44, 44, name="crop")(pixels)
    model = keras.Model(pixels, keras.layers.Flatten()(cropped))
    found = shown_crops(predict(model, IMAGES, views=test_time_views("crops")))
    expected = [
        side[:, top : top + 44, left : left + 44].astype(np.float64)
        for side in (IMAGES, IMAGES[:, :, ::-1])
        for top, left in ((2, 2), (0, 0), (0, 4), (4, 0), (4, 4))
    ]
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-4)


def shown_crops(flat: np.ndarray) -> np.ndarray:
    return flat.reshape(len(IMAGES), 44, 44)


def test_a_model_that_looks_at_whole_images_has_no_crops(seen: keras.Model) -> None:
    with pytest.raises(ConfigError, match="trained with crop for tta=crops"):
        quote(seen, "crops")
