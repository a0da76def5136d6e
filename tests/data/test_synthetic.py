"""The procedurally drawn faces: identity, composition, and how hard they are."""

import numpy as np
import pytest

from fer_experiments.data.synthetic import CLASS_NAMES, VERSION, draw_faces

PREFIXES = {"Training": "train", "PublicTest": "test", "PrivateTest": "test"}
FER2013_TRAIN_COUNTS = np.array([3995, 436, 4097, 7215, 4965, 4830, 3171])


@pytest.fixture(scope="module")
def faces():
    return draw_faces(count=300, seed=5)


def prefixes_of(ids):
    return np.array([name.rsplit("/", 1)[1].split("_")[0] for name in ids])


def test_class_names_are_alphabetical():
    assert list(CLASS_NAMES) == sorted(CLASS_NAMES)
    assert len(CLASS_NAMES) == 7
    assert isinstance(VERSION, int)


def test_dtypes_and_shapes(faces):
    images, labels, ids = faces
    assert (images.dtype, images.shape) == (np.uint8, (300, 48, 48))
    assert (labels.dtype, labels.shape) == (np.int64, (300,))
    assert len(ids) == len(set(ids)) == 300


def test_same_arguments_give_the_same_bytes(faces):
    images, labels, ids = draw_faces(count=300, seed=5)
    assert images.tobytes() == faces[0].tobytes()
    assert labels.tobytes() == faces[1].tobytes()
    assert ids == faces[2]


def test_global_random_state_is_neither_read_nor_changed(faces):
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    images, _, _ = draw_faces(count=21, seed=5)
    assert np.random.random() == expected
    np.random.seed(1)
    np.testing.assert_array_equal(draw_faces(count=21, seed=5)[0], images)


def test_different_seeds_give_different_images(faces):
    other, _, _ = draw_faces(count=300, seed=6)
    drawn = {image.tobytes() for image in faces[0]}
    assert not drawn & {image.tobytes() for image in other}


@pytest.mark.parametrize("image_size", [24, 64])
def test_other_image_sizes(image_size):
    images, _, _ = draw_faces(count=21, seed=0, image_size=image_size)
    assert images.shape == (21, image_size, image_size)
    assert np.all(images.std(axis=(1, 2)) > 3.0)


@pytest.mark.parametrize("count", [21, 70, 300])
def test_every_class_is_in_every_part(count):
    _, labels, ids = draw_faces(count=count, seed=1)
    prefixes = prefixes_of(ids)
    assert set(prefixes) == set(PREFIXES)
    for prefix in PREFIXES:
        assert set(labels[prefixes == prefix]) == set(range(7))


def test_ids_look_like_fer2013_paths(faces):
    _, labels, ids = faces
    for index, (label, name) in enumerate(zip(labels, ids, strict=True)):
        prefix = prefixes_of([name])[0]
        assert name == f"{PREFIXES[prefix]}/{CLASS_NAMES[label]}/{prefix}_{index:08d}.png"


def test_parts_are_80_10_10_within_every_class():
    _, labels, ids = draw_faces(count=1000, seed=2)
    prefixes = prefixes_of(ids)
    for label in range(7):
        of_class = prefixes[labels == label]
        public, private = np.sum(of_class == "PublicTest"), np.sum(of_class == "PrivateTest")
        assert public == private
        assert abs(public - 0.1 * of_class.size) <= 0.5


def test_class_imbalance_is_that_of_fer2013():
    _, labels, _ = draw_faces(count=1000, seed=2)
    expected = 1000 * FER2013_TRAIN_COUNTS / FER2013_TRAIN_COUNTS.sum()
    assert np.all(np.abs(np.bincount(labels, minlength=7) - expected) < 1.0)


def test_no_image_is_blank_or_drawn_twice(faces):
    images, _, _ = faces
    assert len({image.tobytes() for image in images}) == len(images)
    assert images.std(axis=(1, 2)).min() > 5.0


def test_too_few_images_are_refused():
    with pytest.raises(ValueError) as caught:
        draw_faces(count=20, seed=0)
    assert str(caught.value) == (
        "Expected count to be at least 21, three images for each of seven classes. "
        "Received: count=20"
    )


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match=r"image_size to be at least 24\. Received: image_size=23"):
        draw_faces(count=21, seed=0, image_size=23)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        draw_faces(count=21, seed=-1)


@pytest.mark.slow
def test_a_small_cnn_learns_the_expressions_but_not_all():
    keras = pytest.importorskip("keras")
    images, labels, ids = draw_faces(count=3000, seed=0)
    inputs, prefixes = images[..., None].astype("float32") / 255.0, prefixes_of(ids)
    train, val = prefixes == "Training", prefixes == "PublicTest"

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((48, 48, 1))])
    for filters in (16, 32, 64):
        model.add(keras.layers.Conv2D(filters, 3, padding="same", use_bias=False))
        model.add(keras.layers.BatchNormalization(momentum=0.9))
        model.add(keras.layers.ReLU())
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dropout(0.4))
    model.add(keras.layers.Dense(7, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(inputs[train], labels[train], batch_size=32, epochs=10, verbose=0)

    _, accuracy = model.evaluate(inputs[val], labels[val], verbose=0)
    majority = np.bincount(labels[val]).max() / val.sum()
    assert majority < 0.3
    assert 0.8 <= accuracy < 1.0
