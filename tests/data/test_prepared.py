"""Data is prepared once, found again, told apart by its content, and never left half-written."""

import json
import os
import runpy
import shutil
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from fer_experiments.config import DataConfig
from fer_experiments.data import prepared, storage
from fer_experiments.data.dataset import PreparedDataset, open_prepared
from fer_experiments.data.images import FER_CLASSES, PixelRule, pixel_hash, pixel_hashes, to_pixels
from fer_experiments.data.prepared import prepare
from fer_experiments.errors import DataError, UsageError

from .helpers import csv_rows, encode, noise, pictures, says, write_csv, write_folder, write_zip

Found = TypeVar("Found")
FILES = pictures()
pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def faces(tmp_path):
    """The little data set as a folder."""
    return write_folder(tmp_path / "faces", FILES)


def config(path, **options):
    return DataConfig(dataset=str(path), **options)


def lookup(asked):
    return prepared.plan(asked).found()


def present(found: Found | None) -> Found:
    assert found is not None
    return found


def folders(home):
    """What lies in the data home, but for the folder of pointers."""
    return sorted(path.name for path in home.iterdir() if path.name != "sources")


def half_written(home):
    return list(home.rglob(".*")) if home.exists() else []


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What is written


def test_splits_are_slices_in_order(faces):
    data = prepare(config(faces))
    assert [data.size(split) for split in ("train", "val", "test")] == [35, 14, 14]
    assert data.counts == {"train": [5] * 7, "val": [2] * 7, "test": [2] * 7}
    for split, usage in (("train", "Training"), ("val", "PublicTest"), ("test", "PrivateTest")):
        images, labels = data.split(split)
        ids = data.ids[data.slice(split)]
        assert all(usage in name for name in ids)
        for image, label, name in zip(images, labels, ids, strict=True):
            np.testing.assert_array_equal(image, FILES[name])
            assert FER_CLASSES[label] == name.split("/")[1]


def test_the_manifest_tells_what_was_done(faces):
    manifest = prepare(config(faces, data_seed=7, limit=14)).manifest
    told = {"name", "class_names", "image_size", "split", "val_fraction", "limit", "data_seed"}
    assert {key: manifest[key] for key in told} == {
        "name": "fer2013",
        "class_names": list(FER_CLASSES),
        "image_size": 48,
        "split": "official",
        "val_fraction": None,
        "limit": 14,
        "data_seed": 7,
    }
    assert manifest["source"]["dataset"] == str(faces)
    assert (manifest["skipped"], manifest["resized"]) == ([], 0)
    assert manifest["audit"]["duplicate_groups"] == 0


def test_skipped_files_are_recorded(faces):
    (faces / "train" / "sad" / "Training_900001.png").write_bytes(b"")
    manifest = prepare(config(faces, on_bad_image="skip")).manifest
    assert manifest["skipped"] == ["train/sad/Training_900001.png: empty file"]


def test_arrays_are_opened_memory_mapped_and_cannot_be_changed(faces):
    images = prepare(config(faces)).images
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_the_folder_is_as_readable_as_any_other(faces, home):
    (home / "other").mkdir(parents=True)
    folder = prepare(config(faces)).folder
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE((home / "other").stat().st_mode)


def test_other_sizes(faces):
    data = prepare(config(faces, image_size=24))
    assert (data.image_size, data.images.shape) == (24, (63, 24, 24))
    assert data.manifest["resized"] == 63


def test_synthetic_faces():
    data = prepare(DataConfig(dataset="synthetic", synthetic_count=210))
    assert (data.name, data.class_names) == ("synthetic", FER_CLASSES)
    assert len(data.images) == 210
    assert min(data.counts["val"]) > 0


# Found again


def test_the_second_call_reads_no_image(faces):
    first = prepare(config(faces))
    written = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    opened = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    second = prepare(config(faces))
    read = [path for path in opened if path.startswith(str(faces))]
    assert opened
    assert not read
    assert second.folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in first.folder.iterdir()} == written
    np.testing.assert_array_equal(second.images, first.images)


def test_other_content_of_the_same_size_and_time_is_noticed(faces):
    first = prepare(config(faces))
    file = next(faces.rglob("*.png"))
    before, content = file.stat(), file.read_bytes()
    other = write_folder(faces.parent / "other", {"1.png": 255 - FILES[id_of(file, faces)]})
    changed = (other / "1.png").read_bytes().ljust(len(content), b"\0")[: len(content)]
    file.write_bytes(changed)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert prepare(config(faces)).fingerprint != first.fingerprint


def id_of(file, root):
    return file.relative_to(root).as_posix()


def test_a_changed_source_is_read_again(faces):
    first = prepare(config(faces))
    next(faces.rglob("*.png")).unlink()
    assert prepare(config(faces)).fingerprint != first.fingerprint


def test_lookup_finds_only_what_was_prepared(faces):
    assert lookup(config(faces)) is None
    made = prepare(config(faces))
    assert present(lookup(config(faces))).folder == made.folder
    assert lookup(config(faces, limit=7)) is None


def test_by_fingerprint_needs_no_source(faces):
    made = prepare(config(faces))
    shutil.rmtree(faces)
    assert present(prepared.by_fingerprint(made.fingerprint)).folder == made.folder
    assert prepared.by_fingerprint("0" * 64) is None
    assert prepared.by_fingerprint(made.fingerprint[:16] + "0" * 48) is None


def test_the_data_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FER_DATA_HOME", "~/faces")
    assert storage.data_home() == tmp_path / "faces"
    monkeypatch.delenv("FER_DATA_HOME")
    assert storage.data_home().name == "fer_experiments"
    monkeypatch.setenv("FER_DATA_HOME", "")
    assert storage.data_home().name == "fer_experiments"
    (tmp_path / "file").write_bytes(b"x")
    for wrong in (tmp_path / "file", "/dev/null", "~no-such-user/x"):
        monkeypatch.setenv("FER_DATA_HOME", str(wrong))
        with pytest.raises(UsageError, match=f"FER_DATA_HOME to be a folder. Received: {wrong}"):
            storage.data_home()


# Fingerprint


def test_the_same_content_is_the_same_dataset_wherever_it_lies(faces, tmp_path, home):
    copies = [
        write_folder(tmp_path / "other" / "place", FILES),
        write_zip(tmp_path / "archive.zip", FILES, top="fer2013/"),
        faces,
    ]
    made = [prepare(config(path)) for path in copies]
    assert len({data.fingerprint for data in made}) == 1
    assert folders(home) == [made[0].folder.name]


def changed_pixel():
    name = next(iter(FILES))
    picture = FILES[name].copy()
    picture[0, 0] ^= 1
    return FILES | {name: picture}


def changed_label():
    name = next(iter(FILES))
    files = {k: v for k, v in FILES.items() if k != name}
    return files | {name.replace("angry", "disgust"): FILES[name]}


def changed_split():
    name = next(iter(FILES))
    files = {k: v for k, v in FILES.items() if k != name}
    return files | {name.replace("train/", "test/").replace("Training", "PublicTest"): FILES[name]}


@pytest.mark.parametrize("change", [changed_pixel, changed_label, changed_split])
def test_other_content_is_another_dataset(change, faces, tmp_path):
    other = write_folder(tmp_path / "other", change())
    assert prepare(config(other)).fingerprint != prepare(config(faces)).fingerprint


def test_other_class_names_are_another_dataset(tmp_path):
    picked = {k: v for k, v in FILES.items() if "/angry/" in k or "/happy/" in k}
    renamed = {k.replace("happy", "joyful"): v for k, v in picked.items()}
    made = [
        prepare(config(write_folder(tmp_path / name / "faces", files)))
        for name, files in (("a", picked), ("b", renamed))
    ]
    assert made[0].images.tobytes() == made[1].images.tobytes()
    assert made[0].fingerprint != made[1].fingerprint


def test_another_holdout_is_another_dataset(faces):
    made = [prepare(config(faces, split="holdout", data_seed=seed)) for seed in (0, 1, 0)]
    assert made[0].fingerprint == made[2].fingerprint != made[1].fingerprint


@pytest.mark.parametrize("split", ["official", "holdout"])
def test_two_preparations_agree_byte_for_byte(split, faces, tmp_path, monkeypatch):
    found = []
    for home in ("one", "two"):
        monkeypatch.setenv("FER_DATA_HOME", str(tmp_path / home))
        data = prepare(config(faces, split=split, limit=14))
        assert data.folder.parent == tmp_path / home
        found.append(bytes_of(data.folder))
    assert found[0] == found[1]
    arrays = {f"{name}.npy" for name in ("images", "labels", "ids", "hashes")}
    assert set(found[0]) == arrays | {"manifest.json"}


def test_the_csv_gives_the_same_counts_and_name(faces, tmp_path):
    table = write_csv(tmp_path / "fer2013.csv", csv_rows(FILES))
    folder, csv = prepare(config(faces)), prepare(config(table))
    assert (csv.name, csv.counts) == (folder.name, folder.counts)


# One way to pixels


def test_a_request_may_say_how_images_become_pixels(tmp_path, home):
    faces = older_zip(tmp_path / "faces.zip", 16, 24)
    square = prepare(config(faces, **OLDER))
    squashed = prepare(config(faces, **OLDER), PixelRule(crop="squash"))
    assert (square.crop, squashed.crop) == ("central_square", "squash")
    assert square.manifest["not_square"] == squashed.manifest["not_square"] == 10
    assert square.fingerprint != squashed.fingerprint
    assert hash_by_id(square) == hash_by_id(squashed)
    assert lookup(config(faces, **OLDER)).fingerprint == square.fingerprint
    for data, other in ((square, squashed), (squashed, square)):
        assert data.suits(PixelRule(crop=data.crop))
        assert not data.suits(PixelRule(crop=other.crop))


def hash_by_id(data):
    return {name: row.tobytes() for name, row in zip(data.ids, data.hashes, strict=True)}


def test_where_all_are_square_there_is_nothing_to_crop(tmp_path):
    faces = older_zip(tmp_path / "faces.zip", 32, 32)
    squashed = prepare(config(faces, **OLDER), PixelRule(crop="squash"))
    assert squashed.crop == "central_square"
    assert squashed.folder == prepare(config(faces, **OLDER)).folder
    assert squashed.suits(PixelRule(crop="squash"))


def test_white_is_told_and_kept(tmp_path):
    wide = {
        f"{name}/{n}.png": encode(picture.astype(np.uint16) * 16)
        for name in "ab"
        for n, picture in enumerate(noise(5, seed=ord(name), size=16))
    }
    faces = write_folder(tmp_path / "faces", wide)
    data = prepare(config(faces, **OLDER))
    assert data.white == {"integer": 4095}
    assert data.images.max() > 250
    brighter = prepare(config(faces, **OLDER), PixelRule(white={"integer": 8000.0}))
    assert brighter.white == {"integer": 8000}
    assert brighter.images.max() < 140
    assert data.suits(PixelRule(white={"integer": 4095.0, "float": 1.0}))
    assert not brighter.suits(PixelRule(white={"integer": 4095.0}))


@pytest.mark.parametrize("kind", ["wide", "twelve_bit"])
def test_the_case_book(kind, shared, tmp_path):
    draw = runpy.run_path(str(shared / "cases" / "draw.py"))
    draw["layout"](kind, tmp_path / "faces", 63)
    data = prepare(config(tmp_path / "faces", split="holdout"))
    numbers = [int(Path(name).stem) for name in data.ids]
    if kind == "wide":
        expected = [to_pixels(draw["face"](n, 96, 96), size=48) for n in numbers]
        assert data.manifest["not_square"] == len(expected) == 63
    else:
        expected = [draw["face"](n) for n in numbers]
        assert data.white == {"integer": 4095}
    assert np.abs(data.images.astype(int) - np.stack(expected)).max() <= 1
    assert data.manifest["audit"]["faint_images"] == {"train": 0, "val": 0, "test": 0}


def test_hashes_are_those_of_the_images(faces):
    data = prepare(config(faces))
    expected = [pixel_hash(FILES[name]) for name in data.ids]
    assert [row.tobytes() for row in present(data.hashes)] == expected


def test_csv_and_drawn_faces_have_hashes_too(tmp_path):
    table = prepare(config(write_csv(tmp_path / "fer2013.csv", csv_rows(FILES)), image_size=24))
    pixels = {pixel_hash(picture) for picture in FILES.values()}
    assert {row.tobytes() for row in present(table.hashes)} == pixels
    drawn = prepare(DataConfig(dataset="synthetic", synthetic_count=210))
    np.testing.assert_array_equal(drawn.hashes, pixel_hashes(drawn.images))


# Folders of format 1, as older versions wrote them; keys and fingerprints are theirs

OLDER = {"split": "holdout", "image_size": 16}
OLDER_KEYS = {
    (16, 16): "bdf8e740193a28a97ddb5039f7b4ec51567ff8e51a336eefb4daae02299ff221",
    (16, 24): "090dd9c14e42850e791d078d91ec56450ef2b49bcfe060f6e08fb3c5c65a5528",
    (32, 32): "0251bab78f7862a63b64408aafc98f0a919470bbe2be6cbf3d0890865d25dbfe",
}
OLDER_FINGERPRINTS = {
    (16, 16): "0e20a2acba06a2233dcac73dd54ec70240d50f0b35540112c2367f33836ee77a",
    (16, 24): "d90b8d8ad49cdfd2740938645afaf1b1a6055793cc7bb030b5439f6ef57bee5f",
    (32, 32): "e67e96b79837de6d5659eaad93eb95f675dfd952253106c967aa060b2e819f6e",
}


def older_zip(path, height, width):
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(10):
            pixels = bytes((31 * n + 7 * i * i) % 256 for i in range(height * width))
            header = b"P5 %d %d 255\n" % (width, height)
            archive.writestr(f"train/{'ab'[n % 2]}/{n}.pgm", header + pixels)
    return path


def prepared_by_older_version(home, faces, shape):
    """The folder and the pointer that an older version left for this zip."""
    data = prepare(config(faces, **OLDER), PixelRule(crop="squash"))
    manifest = json.loads((data.folder / "manifest.json").read_text()) | {"format": 1}
    for name in ("not_square", "crop", "white", "hashes"):
        del manifest[name]
    (data.folder / "manifest.json").write_text(json.dumps(manifest))
    (data.folder / "hashes.npy").unlink()
    shutil.rmtree(home / "sources")
    (home / "sources").mkdir()
    (home / "sources" / OLDER_KEYS[shape]).write_text(data.folder.name)
    return open_prepared(data.folder)


@pytest.mark.parametrize("shape", OLDER_KEYS)
def test_older_data_are_found_by_their_fingerprint(shape, tmp_path, home):
    older = prepared_by_older_version(home, older_zip(tmp_path / "faces.zip", *shape), shape)
    assert older.fingerprint == OLDER_FINGERPRINTS[shape]
    assert older.manifest["format"] == 1
    assert older.crop == ("central_square" if shape == (16, 16) else "squash")
    assert older.suits(PixelRule(crop="squash"))
    assert older.white == {}
    assert present(prepared.by_fingerprint(older.fingerprint)).folder == older.folder


def test_older_data_that_were_not_altered_are_found_by_their_source(tmp_path, home):
    faces = older_zip(tmp_path / "faces.zip", 16, 16)
    older = prepared_by_older_version(home, faces, (16, 16))
    data = prepare(config(faces, **OLDER))
    assert (data.folder, data.manifest["format"]) == (older.folder, 1)
    np.testing.assert_array_equal(data.hashes, pixel_hashes(data.images))


def test_older_data_that_were_squashed_are_not_taken_for_new_ones(tmp_path, home):
    faces = older_zip(tmp_path / "faces.zip", 16, 24)
    older = prepared_by_older_version(home, faces, (16, 24))
    assert older.hashes is None
    assert not older.suits(PixelRule())
    assert lookup(config(faces, **OLDER)) is None
    data = prepare(config(faces, **OLDER))
    assert (data.crop, data.fingerprint != older.fingerprint) == ("central_square", True)
    again = prepare(config(faces, **OLDER), PixelRule(crop="squash"))
    assert (again.folder, again.crop) == (older.folder, "squash")
    assert hash_by_id(again) == hash_by_id(data)


def test_older_data_that_were_resized_get_hashes_when_prepared_again(tmp_path, home):
    faces = older_zip(tmp_path / "faces.zip", 32, 32)
    older = prepared_by_older_version(home, faces, (32, 32))
    assert older.hashes is None
    data = prepare(config(faces, **OLDER))
    assert (data.folder, data.manifest["format"]) == (older.folder, 2)
    assert (data.crop, len(present(data.hashes))) == ("central_square", 10)
    assert not half_written(home)


# The same content of several requests


def test_each_request_is_told_as_it_was_asked(faces, tmp_path, home):
    there = write_folder(tmp_path / "other" / "place", FILES)
    first = prepare(config(faces))
    second = prepare(config(there, leaks="drop", data_seed=7))
    assert second.folder == first.folder
    for _ in range(2):  # as made, and as found again
        second = prepare(config(there, leaks="drop", data_seed=7))
        told = second.manifest
        assert (told["source"]["dataset"], told["leaks"]) == (str(there), "drop")
        assert (told["data_seed"], told["audit"]["dropped_from_train"]) == (7, 0)
        assert told["fingerprint"] == first.fingerprint
    told = prepare(config(faces)).manifest
    assert (told["source"]["dataset"], told["leaks"]) == (str(faces), "keep")


def test_by_its_fingerprint_it_is_told_as_the_request_asked(faces, tmp_path):
    other = write_folder(tmp_path / "there", FILES)
    fingerprint = prepare(config(faces)).fingerprint
    prepare(config(other, leaks="drop"))
    for path, leaks in ((faces, "keep"), (other, "drop")):
        told = present(prepared.by_fingerprint(fingerprint, config(path, leaks=leaks))).manifest
        assert (told["source"]["dataset"], told["leaks"]) == (str(path), leaks)
    told = present(prepared.by_fingerprint(fingerprint, config(other))).manifest  # never asked for
    assert (told["source"]["dataset"], told["leaks"]) == (str(faces), "keep")


@pytest.mark.parametrize("text", ["{", '{"folder": 3}', '{"folder": "x", "request": 3}', "[]"])
def test_a_damaged_request_is_noticed_and_mended(text, faces, home):
    first = prepare(config(faces))
    (pointer,) = (home / "sources").iterdir()
    whole = pointer.read_text()
    pointer.write_text(text.replace("x", first.folder.name))
    assert lookup(config(faces)) is None
    assert prepare(config(faces)).folder == first.folder
    assert pointer.read_text() == whole


# Damage

DAMAGE = {
    "half of the images": lambda f: os.truncate(
        f / "images.npy", (f / "images.npy").stat().st_size // 2
    ),
    "empty images": lambda f: os.truncate(f / "images.npy", 0),
    "no images": lambda f: (f / "images.npy").unlink(),
    "images of another size": lambda f: np.save(f / "images.npy", np.zeros((63, 8, 8), np.uint8)),
    "text for labels": lambda f: (f / "labels.npy").write_text("labels"),
    "fewer labels": lambda f: np.save(f / "labels.npy", np.zeros(3, np.int64)),
    "no ids": lambda f: (f / "ids.npy").unlink(),
    "no hashes": lambda f: (f / "hashes.npy").unlink(),
    "fewer hashes": lambda f: np.save(f / "hashes.npy", np.zeros((3, 16), np.uint8)),
    "no manifest": lambda f: (f / "manifest.json").unlink(),
    "half a manifest": lambda f: os.truncate(f / "manifest.json", 100),
    "another manifest": lambda f: (f / "manifest.json").write_text("[1, 2]"),
    "an older format": lambda f: (f / "manifest.json").write_text(
        json.dumps(json.loads((f / "manifest.json").read_text()) | {"format": 0})
    ),
    "an empty folder": lambda f: [path.unlink() for path in f.iterdir()],
    "no folder": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_noticed_and_mended(damage, faces, home):
    first = prepare(config(faces))
    whole = bytes_of(first.folder)
    damage(first.folder)
    with pytest.raises(DataError) as caught:
        open_prepared(first.folder)
    says(caught, "Expected a whole prepared dataset", first.folder, "run prepare again")
    assert prepared.by_fingerprint(first.fingerprint) is None
    assert lookup(config(faces)) is None
    assert bytes_of(prepare(config(faces)).folder) == whole
    assert folders(home) == [first.folder.name]
    assert not half_written(home)


def test_other_hashes_are_noticed_and_mended(faces):
    first = prepare(config(faces))
    whole = bytes_of(first.folder)
    np.save(first.folder / "hashes.npy", np.roll(present(first.hashes), 1, axis=0))
    assert prepared.by_fingerprint(first.fingerprint) is None
    assert bytes_of(prepare(config(faces)).folder) == whole


def test_a_damaged_pointer_is_noticed_and_mended(faces, home):
    first = prepare(config(faces))
    (pointer,) = (home / "sources").iterdir()
    pointer.write_text("fer2013-0000")
    assert lookup(config(faces)) is None
    assert prepare(config(faces)).folder == first.folder
    assert lookup(config(faces)) is not None


# Failures leave nothing


def test_a_data_home_that_cannot_be_made(faces, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FER_DATA_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(DataError) as caught:
        prepare(config(faces))
    says(caught, tmp_path / "file" / "home", "cannot be written: Not a directory", "FER_DATA_HOME")


def test_a_data_home_that_is_a_file(faces, home):
    home.write_text("in the way")
    with pytest.raises(UsageError) as caught:
        prepare(config(faces))
    says(caught, home, "Expected FER_DATA_HOME to be a folder")
    assert home.read_text() == "in the way"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"dataset": "nowhere"}, UsageError),
        ({"limit": 3}, UsageError),
        ({"split": "holdout", "val_fraction": 0.01}, DataError),
    ],
)
def test_refused_requests_write_nothing(options, error, faces, home):
    with pytest.raises(error):
        prepare(DataConfig(**{"dataset": str(faces)} | options))
    assert not home.exists()


@pytest.fixture
def small_home(small_disk, monkeypatch):
    """A function that mounts a tiny disk and makes it the data home."""

    def mount(options):
        disk = small_disk(options)
        monkeypatch.setenv("FER_DATA_HOME", str(disk))
        return disk

    return mount


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ("size=64k", 0),  # the images do not fit
        ("nr_inodes=2", 0),  # nor any file
        ("nr_inodes=4", 0),  # nor the third
        ("nr_inodes=7", 1),  # the data fit, the pointer's folder does not
        ("nr_inodes=8", 1),  # nor the pointer
    ],
)
def test_a_full_disk_leaves_nothing_half_written(options, left, faces, small_home):
    disk = small_home(options)
    with pytest.raises(DataError) as caught:
        prepare(config(faces))
    says(caught, f"The disk that holds {disk}", "is full", "FER_DATA_HOME")
    assert len(folders(disk)) == left
    assert not half_written(disk)


def test_what_older_versions_prepared_was_cut_out_by_no_detector(tmp_path):
    older = PreparedDataset(tmp_path, {"crop": "central_square", "resized": 0})
    assert older.detector == older.rule.detector == "none"
    assert older.suits(PixelRule())
    assert older.suits(PixelRule(detector="mtcnn"))


# Several at once

PREPARE = """
import sys, time
from pathlib import Path
from fer_experiments.config import DataConfig
from fer_experiments.data.prepared import prepare
Path(sys.argv[2]).touch()
while not Path(sys.argv[3]).exists():
    time.sleep(0.001)
print(prepare(DataConfig(dataset=sys.argv[1])).folder)
"""


def test_processes_that_prepare_at_once_all_succeed(faces, home, tmp_path):
    ready = [tmp_path / f"ready-{number}" for number in range(2)]
    command = [sys.executable, "-c", PREPARE, str(faces)]
    running = [
        subprocess.Popen([*command, str(file), str(tmp_path / "go")], stdout=subprocess.PIPE)
        for file in ready
    ]
    while not all(file.exists() for file in ready):
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    found = {process.communicate()[0].decode().strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert [Path(folder).name for folder in found] == folders(home)
    assert not half_written(home)


# The real images


@pytest.mark.slow
def test_the_real_archive(shared):
    data = prepare(config(shared / "fer2013" / "archive.zip"))
    assert (data.name, data.class_names) == ("fer2013", FER_CLASSES)
    assert [data.size(split) for split in ("train", "val")] == [28_709, 3_589]
    assert data.counts["train"] == [3995, 436, 4097, 7215, 4965, 4830, 3171]
    audit = data.manifest["audit"]
    assert (audit["duplicate_groups"], audit["duplicate_images"]) == (1273, 2805)
    assert audit["val_in_train"] == 280
    assert audit["conflicting_groups"] == 47
    assert (audit["blank_images"]["train"], audit["blank_images"]["val"]) == (11, 1)
    assert data.manifest["skipped"] == []
    assert (data.manifest["colour_converted"], data.manifest["resized"]) == (0, 0)
