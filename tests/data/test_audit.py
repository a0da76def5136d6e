"""Planted faults are counted, every one of them; clean data has none."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data.audit import (
    audit,
    exact_groups,
    groups_csv,
    leaks,
    near_counts,
    near_groups,
    pixel_groups,
)
from fer_experiments.data.prepared import prepare
from fer_experiments.data.synthetic import draw_faces
from fer_experiments.errors import DataError

from .helpers import encode, noise, pictures, says, write_folder

CLEAN = {
    "duplicate_groups": 0,
    "duplicate_images": 0,
    "cross_split_groups": 0,
    "val_in_train": 0,
    "test_in_train": 0,
    "conflicting_groups": 0,
    "blank_images": {"train": 0, "val": 0, "test": 0},
    "faint_images": {"train": 0, "val": 0, "test": 0},
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
    counts = {"train": 2, "val": 1, "test": 0}
    assert audited(images) == CLEAN | {"blank_images": counts, "faint_images": counts}


def test_images_that_use_less_than_a_tenth_of_the_range():
    images = noise(40)
    for number, darkest, brightest in ((3, 0, 25), (4, 200, 225), (5, 0, 26), (20, 7, 8)):
        images[number] = darkest
        images[number, 0, 0] = brightest
    assert audited(images) == CLEAN | {"faint_images": {"train": 2, "val": 1, "test": 0}}


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


# Groups of the same pixels


def test_exact_groups_are_in_the_order_of_their_first_members():
    groups = exact_groups(planted((5, 30), (3, 21), (3, 20)))
    assert [group.members.tolist() for group in groups] == [[3, 20, 21], [5, 30]]
    assert {group.kind for group in groups} == {"exact"}
    assert [group.reaches_over(SPLITS) for group in groups] == [True, True]


def test_images_of_train_that_also_stand_in_val_or_test():
    found = leaks(planted((0, 1), (2, 20), (2, 3), (4, 30), (25, 31)), SPLITS)
    assert np.flatnonzero(found).tolist() == [2, 3, 4]


# Near-duplicates


def shifted(face, x=0, y=0):
    """The face moved, its border repeated."""
    return np.pad(face, 1, mode="edge")[1 - y : 49 - y, 1 - x : 49 - x]


def brighter(face, by):
    return np.clip(face.astype(int) + by, 0, 255).astype(np.uint8)


def as_jpeg(face, quality):
    return np.asarray(Image.open(io.BytesIO(encode(face, "JPEG", quality=quality))))


ALTERED = {
    "one pixel to the right": lambda face: shifted(face, x=1),
    "one pixel up": lambda face: shifted(face, y=-1),
    "brighter": lambda face: brighter(face, 5),
    "darker": lambda face: brighter(face, -5),
    "JPEG at 90": lambda face: as_jpeg(face, 90),
    "JPEG at 75": lambda face: as_jpeg(face, 75),
    "mirrored": lambda face: face[:, ::-1],
    "mirrored and brighter": lambda face: brighter(face[:, ::-1], 5),
}


@pytest.fixture(scope="module")
def faces():
    """Drawn faces, which resemble each other more than photos do."""
    return draw_faces(count=300, seed=3)[0]


def test_drawn_faces_are_no_near_duplicates(faces):
    assert near_groups(faces) == []


@pytest.mark.slow
def test_many_drawn_faces_are_no_near_duplicates():
    assert near_groups(draw_faces(count=3000, seed=0)[0]) == []


@pytest.mark.parametrize("how", ALTERED)
def test_altered_copies_are_found_and_nothing_else(how, faces):
    images = faces.copy()
    for i in range(20):
        images[200 + i] = ALTERED[how](faces[i])
    groups = near_groups(images)
    assert [group.members.tolist() for group in groups] == [[i, 200 + i] for i in range(20)]
    assert {group.kind for group in groups} == {"near"}


def test_near_groups_hold_the_exact_copies_of_their_members(faces):
    images = faces.copy()
    images[[10, 20]] = faces[0]
    images[30] = brighter(faces[0], 5)
    images[41] = faces[40]  # exact copies alone are no near group
    [group] = near_groups(images)
    assert group.members.tolist() == [0, 10, 20, 30]


def test_blank_images_are_near_nothing(faces):
    images = faces.copy()
    images[[0, 1, 2]] = np.array([0, 0, 5], np.uint8)[:, None, None]
    assert near_groups(images) == []


def test_counts_of_near_duplicates(faces):
    images, labels = faces[:40].copy(), np.zeros(40, int)
    images[20] = brighter(faces[0], 5)  # train and val
    images[[21, 22]] = faces[1], brighter(faces[1], 5)  # 21 stands in train itself
    images[31] = brighter(faces[30], 5)  # test alone
    labels[31] = 1
    assert near_counts(near_groups(images), images, labels, SPLITS) == {
        "near_groups": 3,
        "near_images": 7,
        "near_cross_split_groups": 2,
        "near_conflicting_groups": 1,
        "near_val_in_train": 2,
        "near_test_in_train": 0,
    }
    assert set(near_counts([], images, labels, SPLITS).values()) == {0}


# Of a prepared data set


@pytest.fixture
def leaky(tmp_path, home):
    """The little data set with two leaks, one of them under another label, as a folder."""
    files = pictures()
    names = sorted(files)
    angry, sad = (
        [n for n in names if n.startswith(f"train/{label}/")] for label in ("angry", "sad")
    )
    public = [n for n in names if "PublicTest" in n and "/angry/" in n]
    files[public[0]] = files[angry[0]]
    files[angry[1]] = files[angry[0]]
    files[public[1]] = files[sad[0]]
    return write_folder(tmp_path / "leaky", files), [angry[0], angry[1], public[0]], public


def prepared(folder, **options):
    return prepare(DataConfig(dataset=str(folder), **options))


def test_the_csv_has_a_line_for_each_image_of_each_group(leaky):
    folder, first, _ = leaky
    data = prepared(folder)
    rows = list(csv.DictReader(io.StringIO(groups_csv(exact_groups(data.images), data))))
    assert [row["group"] for row in rows] == ["1", "1", "1", "2", "2"]
    assert [row["id"] for row in rows[:3]] == first
    assert [row["split"] for row in rows] == ["train", "train", "val", "train", "val"]
    assert [row["label"] for row in rows] == ["angry", "angry", "angry", "sad", "angry"]
    assert {row["kind"] for row in rows} == {"exact"}


def test_leaks_drop_takes_them_out_of_train(leaky):
    folder, _, _ = leaky
    kept, dropped = prepared(folder), prepared(folder, leaks="drop")
    assert (kept.manifest["leaks"], dropped.manifest["leaks"]) == ("keep", "drop")
    assert kept.manifest["audit"]["dropped_from_train"] == 0
    assert kept.manifest["audit"]["val_in_train"] == 2
    assert dropped.manifest["audit"]["dropped_from_train"] == 3
    assert dropped.manifest["audit"]["val_in_train"] == 0
    assert dropped.size("train") == kept.size("train") - 3
    np.testing.assert_array_equal(dropped.split("val")[0], kept.split("val")[0])
    assert prepared(folder, leaks="drop").folder == dropped.folder != kept.folder


def test_leaks_drop_does_not_leave_train_empty(tmp_path, home):
    face = noise(1, size=48)[0]
    names = ("train/cat/Training_1.png", "test/cat/PublicTest_2.png", "train/dog/Training_3.png")
    with pytest.raises(DataError) as caught:
        prepared(write_folder(tmp_path / "all", dict.fromkeys(names, face)), leaks="drop")
    says(caught, "leaks=drop", "pass leaks=keep")


@pytest.mark.slow
def test_the_real_archive(shared, home):
    archive = shared / "fer2013" / "archive.zip"
    data = prepared(archive)
    groups = exact_groups(data.images)
    assert (len(groups), sum(len(group.members) for group in groups)) == (1273, 2805)
    assert sum(group.reaches_over(data.splits) for group in groups) == 270
    assert sum(group.reaches_over(data.labels) for group in groups) == 47
    assert data.manifest["audit"]["val_in_train"] == 280
    assert data.manifest["audit"]["blank_images"] == {"train": 11, "val": 1, "test": 0}
    assert data.manifest["audit"]["faint_images"] == {"train": 12, "val": 1, "test": 0}
    dropped = prepared(archive, leaks="drop")
    assert dropped.manifest["audit"]["dropped_from_train"] == 351
    assert dropped.size("train") == 28_709 - 351
    assert dropped.manifest["audit"]["cross_split_groups"] == 0
    near = near_groups(np.asarray(data.images))
    assert near_counts(near, data.images, data.labels, data.splits) == {
        "near_groups": 509,
        "near_images": 1408,
        "near_cross_split_groups": 128,
        "near_conflicting_groups": 83,
        "near_val_in_train": 99,
        "near_test_in_train": 0,
    }
