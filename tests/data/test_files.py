"""What is junk, and what a file's name says of its kind."""

import pytest
from PIL import Image

from fer_experiments.data.files import (
    IMAGE_SUFFIXES,
    UNREAD_IMAGE_SUFFIXES,
    is_junk,
    suffix_of,
)
from fer_experiments.data.images import FORMATS


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._face.png", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", "desktop.ini",
     "@eaDir", "$RECYCLE.BIN", "~$faces.xlsx", "__pycache__"],
)  # fmt: skip
def test_what_systems_leave_is_junk(name):
    assert is_junk(name)


@pytest.mark.parametrize("name", ["face.png", "thumbs", "macosx", "a.b", "_", "x~$"])
def test_what_people_have_is_none(name):
    assert not is_junk(name)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.PNG", ".png"), ("a.tar.gz", ".gz"), ("a.jfif", ".jfif"), ("a", ""), ("face.0001", ""),
     ("a.", ""), ("St. Anna and the others", ""), ("a.mp4", ".mp4")],
)  # fmt: skip
def test_how_names_end(name, suffix):
    assert suffix_of(name) == suffix


def test_suffixes_are_those_of_the_formats_that_are_read():
    Image.init()
    by_pillow = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}
    assert not IMAGE_SUFFIXES - by_pillow
    assert not IMAGE_SUFFIXES & UNREAD_IMAGE_SUFFIXES
