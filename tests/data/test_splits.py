"""Which image becomes train, val or test."""

import numpy as np
import pytest

from fer_experiments.config import DataConfig
from fer_experiments.data.splits import assign
from fer_experiments.errors import ConfigError, DataError

from .helpers import csv_rows, labelled, noise, pictures, read, says, write_csv, write_folder

HOLDOUT = DataConfig(split="holdout", val_fraction=0.2)
OFFICIAL = DataConfig(split="official")


def many(per_class=(60, 30, 10), *, parts=None):
    """Different images, so many of each class, mixed."""
    labels = np.random.default_rng(0).permutation(np.repeat(range(len(per_class)), per_class))
    return labelled(noise(len(labels)), labels, parts)


def count(splits, name, labels=None):
    chosen = splits == name
    return int(chosen.sum()) if labels is None else np.bincount(labels[chosen]).tolist()


# official


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_official_goes_by_names(kind, tmp_path):
    files = pictures({"Training": 3, "PublicTest": 2, "PrivateTest": 1})
    if kind == "folder":
        data = read(write_folder(tmp_path / "faces", files))
    else:
        data = read(write_csv(tmp_path / "faces.csv", csv_rows(files)))
    splits = assign(data, OFFICIAL)
    wanted = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    usages = [name.rsplit("/", 1)[-1].split("_")[0] for name in data.ids]
    assert splits.tolist() == [wanted[usage] for usage in usages]
    assert [count(splits, name) for name in ("train", "val", "test")] == [21, 14, 7]


def test_official_without_private_test_has_no_test(tmp_path):
    files = pictures({"Training": 3, "PublicTest": 2})
    splits = assign(read(write_folder(tmp_path / "faces", files)), OFFICIAL)
    assert [count(splits, name) for name in ("train", "val", "test")] == [21, 14, 0]


def test_official_without_public_test_is_refused(tmp_path):
    files = pictures({"Training": 3, "PrivateTest": 2})
    with pytest.raises(DataError) as caught:
        assign(read(write_folder(tmp_path / "faces", files)), OFFICIAL)
    says(caught, "Expected images in val with split=official", "split=holdout")


def test_official_refuses_test_files_of_other_names():
    data = labelled(noise(2), [0, 1], ["train", "test"], ["train/a/1.png", "test/b/me.png"])
    with pytest.raises(DataError) as caught:
        assign(data, OFFICIAL)
    says(caught, "Expected test files named PublicTest_", "test/b/me.png", "pass split=given")


def test_official_refuses_data_without_a_test_folder():
    with pytest.raises(DataError) as caught:
        assign(many(), OFFICIAL)
    says(caught, "Expected a test folder", "split=official", "Found: none; pass split=holdout")


# holdout


def test_holdout_is_stratified():
    data = many()
    splits = assign(data, HOLDOUT)
    assert count(splits, "val", data.labels) == [12, 6, 2]
    assert count(splits, "train", data.labels) == [48, 24, 8]


def test_holdout_takes_the_share_asked_for():
    assert count(assign(many(), DataConfig(split="holdout", val_fraction=0.5)), "val") == 50


def test_holdout_leaves_test_alone():
    parts = ["train"] * 70 + ["test"] * 30
    splits = assign(many(parts=parts), HOLDOUT)
    np.testing.assert_array_equal(splits == "test", np.array(parts) == "test")
    assert count(splits, "val") == 14


def test_holdout_depends_on_the_seed_alone():
    first, again, other = (
        assign(many(), DataConfig(split="holdout", data_seed=seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert count(first, "val") == count(other, "val")


@pytest.mark.parametrize("seed", range(5))
def test_holdout_keeps_images_with_the_same_pixels_together(seed):
    data = labelled(np.tile(noise(40), (3, 1, 1)), np.tile([0, 1] * 20, 3))
    splits = assign(data, DataConfig(split="holdout", data_seed=seed))
    copies = splits.reshape(3, 40)
    assert (copies == copies[0]).all()
    assert count(copies[0], "val") == 8


def test_holdout_needs_two_different_images_of_each_class():
    images = noise(22)
    images[21] = images[20]
    with pytest.raises(DataError) as caught:
        assign(labelled(images, [0] * 20 + [1] * 2), HOLDOUT)
    says(caught, "Expected enough different images of each class", "val_fraction=0.2")
    says(caught, "Received: 21 in all, fewest of b")


def test_holdout_needs_a_val_image_for_each_class():
    with pytest.raises(DataError) as caught:
        assign(many((4, 4, 4)), DataConfig(split="holdout", val_fraction=0.1))
    says(caught, "val_fraction=0.1", "Received: 12 in all")


@pytest.mark.parametrize("split", ["auto", "given", "holdout"])
def test_a_val_that_is_given_is_val_and_nothing_is_cut_out_of_train(split):
    parts = ["train"] * 60 + ["val"] * 30 + ["test"] * 10
    splits = assign(many(parts=parts), DataConfig(split=split))
    assert splits.tolist() == parts


# limit


@pytest.mark.parametrize(
    ("per_class", "limit", "kept"),
    [
        ((60, 30, 10), 50, [30, 15, 5]),
        ((60, 30, 10), 10, [6, 3, 1]),
        ((60, 30, 10), 3, [1, 1, 1]),
        ((97, 2, 1), 10, [8, 1, 1]),
        ((1, 58, 41), 97, [1, 56, 40]),
        ((1, 1, 1), 100, [1, 1, 1]),
        ((5, 5, 5), 7, None),
    ],
)
def test_limit_keeps_proportions_and_every_class(per_class, limit, kept):
    labels = np.repeat(range(3), per_class)
    data = labelled(
        noise(2 * len(labels)),
        np.tile(labels, 2),
        ["train"] * len(labels) + ["test"] * len(labels),
        [f"Training_{i}" for i in range(len(labels))]
        + [f"PublicTest_{i}" for i in range(len(labels))],
    )
    splits = assign(data, DataConfig(split="official", limit=limit))
    for split in ("train", "val"):
        counts = count(splits, split, data.labels)
        assert sum(counts) == min(limit, len(labels))
        assert counts == kept if kept else max(counts) - min(counts) == 1
    assert count(splits, "") == max(0, 2 * (len(labels) - limit))


def test_limit_depends_on_the_seed_alone():
    first, again, other = (
        assign(many(), DataConfig(split="holdout", limit=9, data_seed=seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_limit_cuts_what_holdout_made():
    data = many()
    whole = assign(data, HOLDOUT)
    some = assign(data, DataConfig(split="holdout", limit=10))
    assert (some[some != ""] == whole[some != ""]).all()


def test_limit_below_the_number_of_classes_is_refused():
    with pytest.raises(ConfigError) as caught:
        assign(many(), DataConfig(split="holdout", limit=2))
    says(caught, "Expected limit to be at least 3", "Received: limit=2")
