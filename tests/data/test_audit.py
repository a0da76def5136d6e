"""Planted faults are counted, every one of them; clean data has none."""

import numpy as np

from fer_experiments.data.audit import audit, pixel_groups

from .helpers import noise

CLEAN = {
    "duplicate_groups": 0,
    "duplicate_images": 0,
    "cross_split_groups": 0,
    "val_in_train": 0,
    "test_in_train": 0,
    "conflicting_groups": 0,
    "blank_images": {"train": 0, "val": 0, "test": 0},
}
SPLITS = np.repeat(["train", "val", "test"], [20, 10, 10])


def audited(images, labels=None):
    return audit(images, np.zeros(len(images), int) if labels is None else labels, SPLITS)


def planted(*copies):
    """Images that all differ, but for these: (from, to)."""
    images = noise(40)
    for source, target in copies:
        images[target] = images[source]
    return images


def test_clean_data():
    assert audited(noise(40)) == CLEAN


def test_duplicates_within_a_split():
    found = audited(planted((0, 1), (0, 2), (5, 6), (21, 22)))
    assert found == CLEAN | {"duplicate_groups": 3, "duplicate_images": 7}


def test_duplicates_across_splits():
    # Two of val and one of test stand in train; one more of test in val only.
    found = audited(planted((0, 20), (0, 21), (1, 30), (25, 31)))
    assert found == CLEAN | {
        "duplicate_groups": 3,
        "duplicate_images": 7,
        "cross_split_groups": 3,
        "val_in_train": 2,
        "test_in_train": 1,
    }


def test_an_image_in_all_three_splits_is_one_group():
    found = audited(planted((0, 20), (0, 30)))
    assert (found["duplicate_groups"], found["cross_split_groups"]) == (1, 1)
    assert (found["val_in_train"], found["test_in_train"]) == (1, 1)


def test_conflicting_labels():
    labels = np.zeros(40, int)
    labels[[1, 22]] = 3
    found = audited(planted((0, 1), (5, 6), (2, 22)), labels)
    assert (found["conflicting_groups"], found["duplicate_groups"]) == (2, 3)


def test_one_group_with_three_labels_conflicts_once():
    labels = np.zeros(40, int)
    labels[:3] = [0, 1, 2]
    assert audited(planted((0, 1), (0, 2)), labels)["conflicting_groups"] == 1


def test_blank_images():
    images = noise(40)
    for number, grey in ((3, 0), (4, 255), (20, 128)):
        images[number] = grey
    assert audited(images) == CLEAN | {"blank_images": {"train": 2, "val": 1, "test": 0}}


def test_almost_the_same_is_not_the_same():
    images = planted((0, 1), (0, 2))
    images[1, -1, -1] ^= 1
    images[2] = images[2].T
    assert audited(images) == CLEAN


def test_no_test_images():
    images = planted((0, 20))
    found = audit(images[:30], np.zeros(30, int), SPLITS[:30])
    assert (found["val_in_train"], found["test_in_train"]) == (1, 0)


def test_groups_do_not_depend_on_how_the_images_lie_in_memory():
    images = planted((0, 1), (5, 30))
    groups = pixel_groups(images)
    assert len(set(groups.tolist())) == 38
    assert groups[0] == groups[1] and groups[5] == groups[30]
    np.testing.assert_array_equal(groups, pixel_groups(np.asfortranarray(images)))
