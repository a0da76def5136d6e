"""A request for prepared data finds what the same request made, and never what another one made."""

from typing import Any

import numpy as np
import pytest

from fer_experiments.config import DataConfig
from fer_experiments.data.images import PixelRule
from fer_experiments.data.prepared import plan, prepare
from fer_experiments.errors import DataError

from .helpers import pictures, write_folder

FILES = pictures({"Training": 10, "PublicTest": 2, "PrivateTest": 2})
FIRST: dict[str, Any] = {"split": "official"}
HELD_OUT: dict[str, Any] = {"split": "holdout"}
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def faces(tmp_path):
    """The little data set as a folder; one of its val images stands in train, too."""
    twin = next(path for path in FILES if "Training" in path)
    files = dict(FILES)
    files[next(path for path in FILES if "PublicTest" in path)] = FILES[twin]
    return write_folder(tmp_path / "faces", files)


@pytest.mark.parametrize(
    "base, change",
    [
        (FIRST, {"split": "holdout"}),
        (HELD_OUT, {"val_fraction": 0.4}),
        (FIRST, {"image_size": 32}),
        (FIRST, {"limit": 14}),
        (FIRST | {"limit": 14}, {"limit": 21}),
        (FIRST | {"limit": 14}, {"data_seed": 1}),
        (HELD_OUT, {"data_seed": 1}),
        (FIRST, {"leaks": "drop"}),
    ],
    ids=str,
)
def test_each_part_of_a_request_by_itself_leads_to_data_of_its_own(
    base, change, faces, tmp_path, monkeypatch
):
    first = prepare(DataConfig(dataset=str(faces), **base))
    config = DataConfig(dataset=str(faces), **base | change)
    assert plan(config).found() is None
    other = prepare(config)
    assert other.fingerprint != first.fingerprint
    monkeypatch.setenv("FER_DATA_HOME", str(tmp_path / "another home"))
    assert prepare(config).fingerprint == other.fingerprint
    monkeypatch.undo()


def test_another_source_has_data_of_its_own(faces, tmp_path):
    first = prepare(DataConfig(dataset=str(faces), **FIRST))
    inverted = {path: 255 - picture for path, picture in FILES.items()}
    other = write_folder(tmp_path / "elsewhere" / "faces", inverted)
    second = prepare(DataConfig(dataset=str(other), **FIRST))
    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(
        np.sort(second.images[:, 0, 0]), np.sort([p[0, 0] for p in inverted.values()])
    )


def test_what_was_skipped_for_one_request_is_refused_for_another(faces):
    (faces / "train" / "sad" / "Training_900001.png").write_bytes(b"no image")
    asked: dict[str, Any] = {"dataset": str(faces), **FIRST}
    assert prepare(DataConfig(**asked, on_bad_image="skip")).size("train") == 70
    with pytest.raises(DataError, match="Training_900001"):
        prepare(DataConfig(**asked, on_bad_image="refuse"))


def test_another_way_to_pixels_has_data_of_its_own(tmp_path):
    wide = {path: np.pad(picture, ((0, 0), (0, 16))) for path, picture in FILES.items()}
    config = DataConfig(dataset=str(write_folder(tmp_path / "wide", wide)), **FIRST)
    squashed = prepare(config, PixelRule(crop="squash"))
    cropped = prepare(config)
    assert cropped.fingerprint != squashed.fingerprint
    assert (cropped.manifest["crop"], squashed.manifest["crop"]) == ("central_square", "squash")


def test_drawn_faces_follow_from_count_and_seed():
    asked: dict[str, Any] = {"dataset": "synthetic", "synthetic_count": 70}
    first = prepare(DataConfig(**asked))
    for change in ({"synthetic_count": 77}, {"data_seed": 1}):
        assert prepare(DataConfig(**asked | change)).fingerprint != first.fingerprint


def test_another_level_of_classes_has_data_of_its_own(tmp_path):
    """anna/happy/1.png and so on: people by one reading, emotions by the other."""
    picture = iter(FILES.values())
    files = {
        f"{person}/{emotion}/{number}.png": next(picture)
        for person in ("anna", "ben")
        for emotion in ("happy", "sad")
        for number in range(12)
    }
    asked: dict[str, Any] = {
        "dataset": str(write_folder(tmp_path / "people", files)),
        "split": "holdout",
    }
    people = prepare(DataConfig(**asked, class_level=1))
    emotions = prepare(DataConfig(**asked, class_level=2))
    assert people.class_names == ("anna", "ben")
    assert emotions.class_names == ("happy", "sad")
    assert prepare(DataConfig(**asked, class_level=1)).fingerprint == people.fingerprint


def test_a_class_that_was_dropped_for_one_request_is_refused_for_another(faces):
    (faces / "train" / "bored").mkdir()
    asked: dict[str, Any] = {"dataset": str(faces), "split": "holdout"}
    assert "bored" not in prepare(DataConfig(**asked, on_empty_class="drop")).class_names
    with pytest.raises(DataError, match="bored"):
        prepare(DataConfig(**asked, on_empty_class="refuse"))
