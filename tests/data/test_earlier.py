"""What version 0.1.0 prepared is found again where it read the source rightly, and only there."""

import zipfile

import numpy as np
import pytest

from fer_experiments.data.dataset import open_prepared
from fer_experiments.data.prepared import plan, prepare

from . import earlier


@pytest.fixture
def root(tmp_path, home):
    """The sources, and a data home as that version left it."""
    with zipfile.ZipFile(earlier.HOME) as packed:
        packed.extractall(home)
    return earlier.write(tmp_path)


def told_by_then(home, source, split):
    for folder in home.glob("*-*"):
        found = open_prepared(folder)
        told = found.manifest
        if (told["source"]["dataset"], told["split"]) == (source, split):
            return found
    raise AssertionError(f"{source} {split}")


UNCHANGED = [("archive.zip", "official"), ("archive.zip", "holdout"), ("own.zip", "holdout"),
             ("parts.zip", "holdout"), ("fer2013.csv", "official"),
             ("fer2013.csv", "holdout")]  # fmt: skip


@pytest.mark.parametrize(("source", "split"), UNCHANGED)
def test_it_is_found_under_its_key(source, split, root):
    before = told_by_then(root / "home", source, split)
    found = plan(earlier.config(root, source, split)).found()
    assert found is not None
    assert (found.folder, found.manifest["format"]) == (before.folder, 1)
    assert found.manifest["split"] == split


@pytest.mark.parametrize(
    ("source", "was", "now"),
    [("archive.zip", "official", "official"), ("own.zip", "holdout", "holdout"),
     ("parts.zip", "holdout", "given"), ("fer2013.csv", "official", "official")],
)  # fmt: skip
def test_the_default_split_finds_it_too(source, was, now, root):
    before = told_by_then(root / "home", source, was)
    found = plan(earlier.config(root, source, "auto")).found()
    assert found is not None
    assert found.folder == before.folder
    assert found.manifest["split"] == now


@pytest.mark.parametrize(("source", "split"), [("archive", "official"), ("own", "holdout")])
def test_a_folder_comes_to_the_same(source, split, root):
    # Its key holds a time that version 0.1.0 did not look at, so it is read once more.
    before = told_by_then(root / "home", f"{source}.zip", split)
    again = prepare(earlier.config(root, source, split))
    assert (again.folder, again.fingerprint) == (before.folder, before.fingerprint)
    np.testing.assert_array_equal(again.ids, before.ids)


@pytest.mark.parametrize("split", ["auto", "given", "holdout"])
@pytest.mark.parametrize(
    ("source", "sizes", "val"),
    [("three.zip", [35, 7, 7], "val/"), ("extra.zip", [28, 7, 14], "train/")],
)
def test_what_was_read_wrongly_is_not_taken_again(source, sizes, val, split, root):
    wrong = told_by_then(root / "home", source, "holdout")
    assert plan(earlier.config(root, source, split)).found() is None
    now = prepare(earlier.config(root, source, split))
    assert now.fingerprint != wrong.fingerprint
    assert [now.size(name) for name in ("train", "val", "test")] == sizes
    assert all(name.startswith(val) for name in now.ids[now.slice("val")])
    assert (now.manifest["val_fraction"] is None) == (val == "val/")
