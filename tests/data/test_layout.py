"""Which folder means what: read rightly, or refused with the option that settles it."""

import importlib.util
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_experiments.config import DataConfig
from fer_experiments.data import layout
from fer_experiments.data.prepared import plan, prepare
from fer_experiments.data.splits import expected
from fer_experiments.errors import DataError
from tests.faults import layouts

from .helpers import says

CLASSES = ("angry", "happy", "sad")
SEVEN = ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"]


def paths(*patterns, count=2):
    """`{c}` becomes each class, `{i}` a running number."""
    numbers = iter(range(10**6))
    return [p.format(c=c, i=next(numbers)) for p in patterns for c in CLASSES for _ in range(count)]


def read(files, empty=(), *, root="faces", **options):
    return layout.read(files, empty, where=Path("/data") / root, **options)


def refused(files, empty=(), **options):
    with pytest.raises(DataError) as caught:
        read(files, empty, **options)
    return caught


def totals(reading):
    return {part: counts.total() for part, counts in reading.counts.items()}


# Parts


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *[(name, "train") for name in ("train", "Training", "TRAIN", "train_data", "X_train",
          "trainSet", "train2", "trainset", "FER2013Train", "fer2013train", "trainval")],
        *[(name, "val") for name in ("val", "Valid", "validation set", "my-val", "dev",
          "FER2013Valid", "PublicTest", "publictest", "Public Test")],
        *[(name, "test") for name in ("test", "Testing", "TEST images", "testSet", "FER2013Test",
          "PrivateTest", "private_test")],
        *[(name, None) for name in ("contest", "valley", "strain", "invalid", "testimony",
          "train_test_split", "trainer", "happy", "latest")],
    ],
)  # fmt: skip
def test_what_a_folders_name_says(name, part):
    assert layout.part_of(name) == part


@pytest.mark.parametrize(
    "patterns",
    [
        ("train/{c}/{i}.png", "val/{c}/{i}.png", "test/{c}/{i}.png"),
        ("Training/{c}/{i}.png", "PublicTest/{c}/{i}.png", "PrivateTest/{c}/{i}.png"),
        ("{c}/train/{i}.png", "{c}/val/{i}.png", "{c}/test/{i}.png"),
        ("fer/train/images/{c}/{i}.png", "fer/val/images/{c}/{i}.png", "fer/test/all/{c}/{i}.png"),
        ("a/b/c/d/train/{c}/{i}.png", "a/b/c/d/valid/{c}/{i}.png", "a/b/c/d/test/{c}/{i}.png"),
        ("images/train/{c}/{i}.png", "images/val/{c}/{i}.png", "images/test/{c}/{i}.png"),
        ("my test data/train/{c}/{i}.png", "my test data/val/{c}/{i}.png",
         "my test data/test/{c}/{i}.png"),
        ("train/{c}/{c} one/{i}.png", "val/{c}/{i}.png", "test/{c}/x/y/{i}.png"),
    ],
)  # fmt: skip
def test_parts_and_classes_wherever_they_stand(patterns):
    reading = read(paths(*patterns))
    assert reading.class_names == CLASSES
    assert totals(reading) == {"train": 6, "val": 6, "test": 6}
    assert all(counts == dict.fromkeys(CLASSES, 2) for counts in reading.counts.values())


def test_the_roots_own_name_says_no_part():
    for root in ("test", "test.zip", "my train.ZIP"):
        assert totals(read(paths("{c}/{i}.png"), root=root)) == {"train": 6}
    # A zip mostly holds a folder of its own name.
    assert totals(read(paths("faces_test/{c}/{i}.png"), root="faces_test.zip")) == {"train": 6}


def test_a_test_part_by_itself_is_not_trained_on():
    says(refused(paths("test/{c}/{i}.png")), "Expected images for training", "6 in test")


def test_a_path_that_says_two_parts_is_refused():
    files = paths("train/{c}/{i}.png", "train/validation/{c}/{i}.png")
    says(refused(files), "Expected at most one part", "train/validation/", "says train and val")


def test_labelled_images_in_no_part_are_refused():
    files = paths("train/{c}/{i}.png", "test/{c}/{i}.png", "evaluation/{c}/{i}.png")
    says(refused(files), "Expected every labelled image", "evaluation/angry/", "take it out")


def test_images_in_no_part_that_are_no_faces_are_named():
    reading = read([*paths("train/{c}/{i}.png", "test/{c}/{i}.png"), "docs/figure.png"])
    assert totals(reading) == {"train": 6, "test": 6}
    assert list(map(str, reading.left_out)) == ["1 in none of the parts (docs/figure.png)"]


def test_parts_without_classes_are_refused():
    files = [f"{part}/{part}_{i:04d}.jpg" for part in ("train", "test") for i in range(9)]
    says(refused(files), "Found: 18 files", "train/train_0000.jpg lies in a part", "no folder says")


# Classes


def test_a_pass_through_folder_must_be_one_in_every_part():
    files = paths("train/images/{c}/{i}.png", "test/{c}/{i}.png")
    says(refused(files), "Expected every class in the training part", "Only in test: angry")


@pytest.mark.parametrize("above", ["", "train/", "fer/"])
def test_a_level_that_repeats_is_refused_with_both_readings(above):
    files = paths(f"{above}{{c}}/s1/{{i}}.png", f"{above}{{c}}/s2/{{i}}.png")
    first = 2 if above == "fer/" else 1
    says(refused(files), "Expected one way", f"3 classes angry, happy, sad (--class-level {first})")
    says(refused(files), f"2 classes s1, s2 (--class-level {first + 1})")
    assert read(files, class_level=first).class_names == CLASSES
    assert read(files, class_level=first + 1).class_names == ("s1", "s2")


def test_persons_above_the_classes_are_refused_too():
    files = paths("person 1/{c}/{i}.png", "person 2/{c}/{i}.png")
    says(refused(files), "2 classes person 1, person 2", "3 classes angry, happy, sad")
    assert read(files, class_level=2).class_names == CLASSES


@pytest.mark.parametrize(
    "patterns",
    [
        ("{c}/{c} one/{i}.png", "{c}/{c} two/{i}.png"),  # no name repeats
        ("{c}/{i}.png", "{c}/more/{i}.png"),  # some images would have no class
        ("{c}/images/{i}.png",),  # one class would be none
    ],
)
def test_deeper_folders_belong_to_the_class_where_nothing_else_is_possible(patterns):
    assert read(paths(*patterns)).class_names == CLASSES


def test_a_class_level_that_is_not_there():
    says(refused(paths("{c}/{i}.png"), class_level=2), "class_level of at most 1", "class_level=2")


def test_images_above_the_class_level_are_counted():
    reading = read([*paths("all/{c}/{i}.png"), "all/x.png", "y.png"], class_level=2)
    assert reading.class_names == CLASSES
    assert list(map(str, reading.left_out)) == ["2 in no class folder (all/x.png, y.png)"]


@pytest.mark.parametrize(
    ("more", "empty"),
    [
        ([], ["disgust"]),
        (["disgust/1.jxl"], []),
        (["disgust/list.txt"], []),
        ([], ["disgust/a/b"]),
    ],
)
def test_a_class_without_images_is_refused_by_name(more, empty):
    for part in ("", "train/"):
        files = [*paths(f"{part}{{c}}/{{i}}.png"), *(part + path for path in more)]
        folders = [part + path for path in empty]
        says(refused(files, folders), "Expected images in every class folder", "none in disgust")
        says(refused(files, folders), "on_empty_class=drop")
        reading = read(files, folders, on_empty_class="drop")
        assert (reading.class_names, reading.dropped) == (CLASSES, ("disgust",))


def test_an_empty_class_among_persons_does_not_make_persons_the_classes():
    files = [f"happy/{person}/{i}.png" for person in ("ann", "bob") for i in range(3)]
    assert read(files).class_names == ("ann", "bob")
    says(refused(files, ["sad"]), "Expected at least two classes", "Found: happy")
    # A folder of photos that cannot be read is a class without images, too; one of texts is none.
    says(refused([*files, "sad/1.jxl"]), "Expected at least two classes", "Found: happy")
    assert read([*files, "sad/notes.txt"]).class_names == ("ann", "bob")


def test_empty_folders_that_are_no_classes_are_passed_over():
    files = paths("train/{c}/{i}.png", "test/{c}/{i}.png")
    assert read(files, ["docs", "train/happy/extra", "val"]).class_names == CLASSES


def test_a_class_that_train_lacks_is_refused():
    for part in ("val", "test"):
        files = [*paths("train/{c}/{i}.png"), f"{part}/fear/1.png"]
        says(refused(files), "Expected every class in the training part", f"Only in {part}: fear")


def test_what_is_left_out_is_told_by_kind_with_examples():
    reading = read(
        [*paths("{c}/{i}.png"), "a.txt", "sad/b.txt", *(f"sad/{i}.jxl" for i in range(9)),
         "sad/face.jfif", "sad/face", ".DS_Store", "sad/__MACOSX/x.png", "sad/__MACOSX/y.png"]
    )  # fmt: skip
    assert list(map(str, reading.left_out)) == [
        "9 .jxl, a kind of image that is not read (sad/0.jxl, sad/1.jxl, sad/2.jxl, …)",
        "2 .txt (a.txt, sad/b.txt)",
    ]
    assert str(reading.junk) == "2 junk (.DS_Store, sad/__MACOSX)"
    assert reading.counts["train"] == {"angry": 2, "happy": 2, "sad": 4}
    lines = reading.lines("holdout")
    assert [line.split() for line in lines[:5]] == [
        ["class", "train"], ["angry", "2"], ["happy", "2"], ["sad", "4"], ["all", "8"]
    ]  # fmt: skip
    assert lines[5:] == [f"left out: {text}" for text in map(str, reading.left_out)] + [
        "skipped: 2 junk (.DS_Store, sad/__MACOSX)"
    ]


# The split that is meant


@pytest.mark.parametrize(
    ("patterns", "policy"),
    [
        (("{c}/{i}.png",), "holdout"),
        (("train/{c}/{i}.png",), "holdout"),
        (("train/{c}/{i}.png", "test/{c}/{i}.png"), "given"),
        (("train/{c}/{i}.png", "val/{c}/{i}.png"), "given"),
        (("FER2013Train/{c}/{i}.png", "FER2013Valid/{c}/{i}.png"), "given"),
        (("Training/{c}/{i}.png", "PublicTest/{c}/{i}.png"), "official"),
        (("Training/{c}/{i}.png", "PrivateTest/{c}/{i}.png"), "given"),
        (("train/{c}/Training_{i}.png", "test/{c}/PublicTest_{i}.png"), "official"),
        (("train/{c}/Training_{i}.png", "test/{c}/PrivateTest_{i}.png"), "given"),
        (("train/{c}/Training_{i}.png", "test/{c}/PublicTest_{i}.png", "test/{c}/me{i}.png"),
         "given"),
        (("{c}/Training_{i}.png", "{c}/PublicTest_{i}.png"), "official"),
        (("train/{c}/{i}.png", "val/{c}/PrivateTest_{i}.png", "test/{c}/PublicTest_{i}.png"),
         "given"),
    ],
)  # fmt: skip
def test_what_auto_means(patterns, policy):
    assert read(paths(*patterns)).policy == policy


def splits_of(reading, split, **options):
    splits = expected(reading, DataConfig(split=split, **options))
    return Counter(zip([f.path.split("/")[0] for f in reading.files], splits.tolist(), strict=True))


@pytest.mark.parametrize("split", ["auto", "given", "holdout"])
def test_given_parts_are_kept_under_every_policy(split):
    reading = read(paths("train/{c}/{i}.png", "val/{c}/{i}.png", "test/{c}/{i}.png", count=5))
    found = splits_of(reading, split)
    assert found == {("train", "train"): 15, ("val", "val"): 15, ("test", "test"): 15}
    test_only = read(paths("train/{c}/{i}.png", "test/{c}/{i}.png", count=5))
    found = splits_of(test_only, split)
    assert found == {("train", "train"): 12, ("train", "val"): 3, ("test", "test"): 15}


def test_usage_folders_are_kept_under_every_policy():
    files = paths("Training/{c}/{i}.png", "PublicTest/{c}/{i}.png", "PrivateTest/{c}/{i}.png")
    for split in ("auto", "official", "given", "holdout"):
        assert splits_of(read(files), split) == {
            ("Training", "train"): 6, ("PublicTest", "val"): 6, ("PrivateTest", "test"): 6
        }  # fmt: skip


def test_the_card_tells_what_is_left_out(home, tmp_path):
    root = tmp_path / "faces"
    for path in [*paths("{c}/{i}.pgm", count=5), "sad/face.jxl", "sad/list.txt"]:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        number = path.rsplit("/", 1)[1][:-4]
        (root / path).write_bytes(layouts.pgm(int(number)) if number.isdigit() else b"other")
    (root / "fear").mkdir()
    told = prepare(DataConfig(dataset=str(root), on_empty_class="drop")).manifest["left_out"]
    assert told == [
        "the class fear, without images",
        "1 .jxl, a kind of image that is not read (sad/face.jxl)",
        "1 .txt (sad/list.txt)",
    ]


def test_given_without_parts_is_refused():
    with pytest.raises(DataError) as caught:
        splits_of(read(paths("{c}/{i}.png")), "given")
    says(caught, "Expected val or test folders with split=given", "pass split=holdout")


# Every case that is drawn, and many more, from files to prepared data


def drawn(shared, kind, target):
    found = importlib.util.spec_from_file_location("draw", shared / "cases" / "draw.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.layout(kind, target, 210)
    return module


def sizes(data):
    return [data.size(split) for split in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("kind", "split", "counts"),
    [
        ("plain", "given", [112, 28, 70]),
        ("usage_folders", "official", [140, 35, 35]),
        ("extra_level", "given", [112, 28, 70]),
        ("train_val_test", "given", [140, 35, 35]),
        ("wide", "given", [112, 28, 70]),
        ("twelve_bit", "given", [112, 28, 70]),
    ],
)
def test_cases_that_are_read(kind, split, counts, shared, home, tmp_path):
    drawn(shared, kind, tmp_path / kind)
    data = prepare(DataConfig(dataset=str(tmp_path / kind)))
    assert list(data.class_names) == SEVEN
    assert (data.manifest["split"], sizes(data)) == (split, counts)
    numbers = [int(str(name).rsplit("/")[-1].removesuffix(".png")) for name in data.ids]
    assert data.labels.tolist() == [number % 7 for number in numbers]
    if kind != "wide":  # the place of the block says the class, whatever the path says
        corners = [divmod(int(label), 3) for label in data.labels]
        assert all(
            (image[r * 16 : r * 16 + 12, c * 16 : c * 16 + 12] > 240).all()
            for image, (r, c) in zip(np.asarray(data.images), corners, strict=True)
        )


@pytest.mark.parametrize(
    ("kind", "words", "settled", "counts"),
    [
        ("subjects", "--class-level 1", {"class_level": 1}, [168, 42, 0]),
        ("subjects_split", "--class-level 1", {"class_level": 1}, [112, 28, 70]),
        ("empty_class", "none in disgust", {"on_empty_class": "drop"}, [96, 24, 60]),
        ("parts_without_classes", "no folder says its class", None, None),
    ],
)
def test_cases_that_are_refused(kind, words, settled, counts, shared, home, tmp_path):
    drawn(shared, kind, tmp_path / kind)
    with pytest.raises(DataError) as caught:
        prepare(DataConfig(dataset=str(tmp_path / kind)))
    says(caught, words)
    assert not home.exists()
    if settled:
        data = prepare(DataConfig(dataset=str(tmp_path / kind), **settled))
        assert sizes(data) == counts
        wanted = [name for name in SEVEN if (kind, name) != ("empty_class", "disgust")]
        assert list(data.class_names) == wanted


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(one=st.one_of(layouts.layouts(), layouts.layouts(), layouts.named_by_usage()))
def test_layouts_at_random(one, tmp_path_factory, home):
    assert layouts.problems(one, tmp_path_factory.mktemp("layout")) == []


def test_options_that_change_the_reading_change_the_key(home, tmp_path):
    root = tmp_path / "faces"
    for path in paths("{c}/s1/{i}.pgm", "{c}/s2/{i}.pgm"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(layouts.pgm(int(path.rsplit("/", 1)[1][:-4])))
    nothing_and_drop: tuple[dict[str, Any], ...] = ({}, {"on_empty_class": "drop"})
    keys = {
        plan(DataConfig(dataset=str(root), class_level=level, **more)).key
        for level in (1, 2)
        for more in nothing_and_drop
    }
    assert len(keys) == 2  # nothing is empty, so that option changes nothing


def test_an_empty_class_is_refused_though_the_data_were_prepared_before(home, tmp_path):
    root = tmp_path / "faces"
    for path in paths("{c}/{i}.pgm", count=5):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(layouts.pgm(int(path.rsplit("/", 1)[1][:-4])))
    before = prepare(DataConfig(dataset=str(root)))
    (root / "contempt").mkdir()
    with pytest.raises(DataError):
        prepare(DataConfig(dataset=str(root)))
    dropped = prepare(DataConfig(dataset=str(root), on_empty_class="drop"))
    assert dropped.fingerprint == before.fingerprint


def test_nothing_is_cut_off_by_depth(home, tmp_path):
    root = tmp_path / "faces"
    deep = "/".join("abcdefghijklmnopqrstuvwxyz")
    for path in paths(f"{deep}/{{c}}/{{i}}.pgm", count=5):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(layouts.pgm(int(path.rsplit("/", 1)[1][:-4])))
    assert sizes(prepare(DataConfig(dataset=str(root)))) == [12, 3, 0]


def test_a_folder_and_a_zip_tell_the_same_empty_class(home, tmp_path):
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        archive.mkdir("disgust")
        for path in paths("{c}/{i}.pgm"):
            archive.writestr(path, b"P5 1 1 255\n0")
    with pytest.raises(DataError) as caught:
        plan(DataConfig(dataset=str(tmp_path / "faces.zip")))
    says(caught, "none in disgust")
