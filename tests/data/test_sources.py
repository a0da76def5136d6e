"""Every kind of source gives the same labelled images, or says in one line why not."""

import io
import re
import shutil
import struct
import tarfile

import numpy as np
import pytest

from fer_experiments.config import DataConfig
from fer_experiments.data.images import FER_CLASSES, PixelRule
from fer_experiments.data.listing import FolderFiles
from fer_experiments.data.sources import open_source
from fer_experiments.data.tree import TreeSource
from fer_experiments.errors import DataError, UsageError

from .helpers import (
    CHALLENGE_EMOTIONS,
    content,
    csv_rows,
    encode,
    expected_content,
    pictures,
    read,
    says,
    write_csv,
    write_folder,
    write_zip,
)

FILES = pictures()
JUNK = {
    "__MACOSX/train/angry/._Training_000001.png": b"resource fork",
    ".DS_Store": b"finder",
    "train/.DS_Store": b"finder",
    "train/angry/.DS_Store": b"finder",
    "test/happy/Thumbs.db": b"explorer",
    "test/happy/desktop.ini": b"explorer",
}
OWN = {
    f"{name}/{i}.png": picture
    for name, start in (("cats", 0), ("dogs", 4))
    for i, picture in enumerate(np.random.default_rng(1).integers(0, 256, (4, 48, 48), np.uint8))
}


def bad_row_reason(path):
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, path, "on_bad_image=skip")
    return str(caught.value)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: write_folder(folder / "faces", FILES),
        lambda folder: write_folder(folder / "faces", {f"fer/{k}": v for k, v in FILES.items()}),
        lambda folder: write_folder(folder / "faces", {**FILES, **JUNK}),
        lambda folder: write_zip(folder / "archive.zip", FILES),
        lambda folder: write_zip(folder / "archive.zip", FILES, top="fer2013/data/"),
        lambda folder: write_zip(folder / "archive.zip", FILES, top="./"),
        lambda folder: write_zip(folder / "archive.zip", {**FILES, **JUNK}),
        lambda folder: write_zip(folder / "archive", FILES),
        lambda folder: write_csv(folder / "fer2013.csv", csv_rows(FILES)),
    ],
    ids=[
        "folder",
        "nested folder",
        "folder with junk",
        "zip",
        "nested zip",
        "zip with ./",
        "zip with junk",
        "zip without suffix",
        "csv",
    ],
)
def test_every_kind_of_source_gives_the_same(write, tmp_path):
    data = read(write(tmp_path))
    assert content(data) == expected_content(FILES)
    assert data.class_names == FER_CLASSES
    assert data.name == "fer2013"
    assert (data.bad, data.resized, data.colour_converted) == ((), 0, 0)
    assert len(set(data.ids)) == len(FILES)


@pytest.mark.parametrize("name", ["with spaces and (more)", "Gefühle 表情 🙂"])
def test_any_path_will_do(name, tmp_path):
    folder = write_folder(tmp_path / name / "földer", FILES)
    archive = write_zip(tmp_path / name / "ärchive 1.zip", FILES)
    table = write_csv(tmp_path / name / "täble.csv", csv_rows(FILES))
    for path in (folder, archive, table):
        assert content(read(path)) == expected_content(FILES)


def test_a_path_may_start_at_home_or_here(tmp_path, monkeypatch):
    write_folder(tmp_path / "faces", FILES)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/faces", "faces", "./faces/"):
        assert content(read(path)) == expected_content(FILES)


def test_a_class_folder_may_be_a_link(tmp_path):
    folder = write_folder(tmp_path / "faces", FILES)
    shutil.move(folder / "train" / "sad", tmp_path / "elsewhere")
    (folder / "train" / "sad").symlink_to(tmp_path / "elsewhere")
    assert content(read(folder)) == expected_content(FILES)


def test_a_loop_of_links_ends(tmp_path):
    folder = write_folder(tmp_path / "faces", FILES)
    (folder / "train" / "loop").symlink_to(folder)
    assert content(read(folder)) == expected_content(FILES)


# Own faces


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Cats & Dogs", "my-cats-dogs"), ("faces.v2", "faces-v2"), ("表情", "images")],
)
def test_own_classes_are_named_after_their_folder(folder, name, tmp_path):
    data = read(write_folder(tmp_path / folder, OWN), split="holdout")
    assert data.name == name
    assert data.class_names == ("cats", "dogs")
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert set(data.parts) == {"train"}


def test_own_classes_in_a_zip_are_named_after_the_zip(tmp_path):
    assert read(write_zip(tmp_path / "Pets.ZIP", OWN, top="x/")).name == "pets"


def test_own_faces_with_the_seven_emotions_are_not_called_fer2013(tmp_path):
    files = {path.replace("Training_", "photo"): p for path, p in FILES.items()}
    assert read(write_folder(tmp_path / "selfies", files)).name == "selfies"


@pytest.mark.parametrize(("held_out", "part"), [("validation", "val"), ("Test", "test")])
def test_what_is_not_for_training_was_held_out(held_out, part, tmp_path):
    files = {path.replace("test/", f"{held_out}/"): p for path, p in FILES.items()}
    data = read(write_folder(tmp_path / "faces", files))
    meant = {path.replace("test/", f"{part}/"): p for path, p in FILES.items()}
    assert content(data) == expected_content(meant)


def test_files_beside_class_folders_are_no_images(tmp_path):
    files = FILES | {"README.md": b"about", "train/list.txt": b"list"}
    assert content(read(write_folder(tmp_path / "faces", files))) == expected_content(FILES)


# What cannot be used


@pytest.mark.parametrize("dataset", ["missing/faces", "~nobody-has-this-name/faces", "x" * 5000])
def test_nothing_there(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        read(dataset)
    says(caught, "Expected dataset to be kaggle, synthetic", dataset[:50])
    assert len(str(caught.value)) < 1000


def test_nothing_there_is_answered_with_the_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        read("missing/faces")
    says(caught, tmp_path / "missing" / "faces")


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "faces.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(UsageError) as caught:
        read(path)
    says(caught, "Expected a folder of class folders", path)


@pytest.mark.parametrize("files", [{}, {"1.png": OWN["cats/1.png"]}, JUNK], ids=len)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_no_class_folders(files, kind, tmp_path):
    if kind == "folder":
        path = write_folder(tmp_path / "faces", files)
    else:
        path = write_zip(tmp_path / "faces.zip", files)
    found = len([name for name in files if name == "1.png"])
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "Expected class folders with images", path, f"Found: {found} files")


def test_one_class(tmp_path):
    path = write_folder(tmp_path / "faces", {k: v for k, v in OWN.items() if "cats" in k})
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "Expected at least two classes", path, "Found: cats")


def test_a_class_only_in_test(tmp_path):
    files = {k: v for k, v in FILES.items() if not k.startswith("train/fear/")}
    path = write_folder(tmp_path / "faces", files)
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "Expected every class in the training part", path, "Only in test: fear")


# Bad files

BROKEN: dict[str, tuple[bytes, *tuple[str, ...]]] = {
    "train/angry/Training_900001.png": (b"", "empty file"),
    "train/fear/Training_900002.png": (b"<html>not found</html>", "not an image"),
    "train/sad/Training_900003.jpg": (
        encode(FILES["train/sad/Training_000026.png"], "JPEG")[:900],
    ),
    "test/sad/PublicTest_900004.png": (encode(FILES["train/sad/Training_000026.png"])[:900],),
}
WITH_BROKEN: dict[str, np.ndarray | bytes] = {
    **FILES,
    **{path: what[0] for path, what in BROKEN.items()},
}


def test_bad_files_are_refused_with_their_number_and_names(tmp_path):
    path = write_folder(tmp_path / "faces", WITH_BROKEN)
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, f"4 of {len(WITH_BROKEN)} images in {path}", "and 1 more", "on_bad_image=skip")
    says(caught, "train/angry/Training_900001.png: empty file")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_bad_files_can_be_skipped(kind, tmp_path):
    if kind == "folder":
        path = write_folder(tmp_path / "faces", WITH_BROKEN)
    else:
        path = write_zip(tmp_path / "faces.zip", WITH_BROKEN)
    data = read(path, on_bad_image="skip")
    assert content(data) == expected_content(FILES)
    reasons = dict(line.split(": ", 1) for line in data.bad)
    assert set(reasons) == set(BROKEN)
    for name, (_, *reason) in BROKEN.items():
        assert reasons[name] == reason[0] if reason else "truncated" in reasons[name]


def test_nothing_but_bad_files_is_refused_even_when_skipping(tmp_path):
    path = write_folder(tmp_path / "faces", dict.fromkeys(OWN, b"text"))
    with pytest.raises(DataError) as caught:
        read(path, on_bad_image="skip")
    says(caught, "8 of 8", "none of them is an image")


def test_a_class_with_nothing_but_bad_files_is_refused_even_when_skipping(tmp_path):
    files = {k: b"text" if "cats" in k else v for k, v in OWN.items()}
    with pytest.raises(DataError) as caught:
        read(write_folder(tmp_path / "faces", files), on_bad_image="skip")
    says(caught, "Expected readable training images of every class", "Found: none of cats")


def test_a_dangling_link_is_a_bad_file(tmp_path):
    path = write_folder(tmp_path / "faces", OWN)
    (path / "cats" / "lost.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "1 of 9", "cats/lost.png: cannot be read: No such file")


# Zips


def damaged(archive, start, replacement):
    whole = bytearray(archive.read_bytes())
    whole[start : start + len(replacement)] = replacement
    archive.write_bytes(whole)
    return archive


def test_half_a_zip(tmp_path):
    archive = write_zip(tmp_path / "archive.zip", FILES)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(DataError) as caught:
        read(archive)
    says(caught, archive, "cannot be opened as a zip", "download it again")


def test_a_zip_with_a_damaged_directory(tmp_path):
    archive = write_zip(tmp_path / "archive.zip", FILES)
    directory = archive.read_bytes().index(b"PK\1\2")
    with pytest.raises(DataError) as caught:
        read(damaged(archive, directory, b"\xff" * 60))
    says(caught, archive, "cannot be opened as a zip")


def test_a_damaged_member_is_a_bad_file(tmp_path):
    archive = write_zip(tmp_path / "archive.zip", FILES)
    bad = read(damaged(archive, 200, b"\0" * 40), on_bad_image="skip").bad
    assert len(bad) == 1
    assert bad[0].startswith(f"{next(iter(FILES))}: cannot be unpacked")


def test_an_encrypted_member_is_a_bad_file(tmp_path):
    archive = write_zip(tmp_path / "archive.zip", FILES)
    directory = archive.read_bytes().index(b"PK\1\2")
    damaged(archive, 6, struct.pack("<H", 1))  # the flag "encrypted", at both places
    damaged(archive, directory + 8, struct.pack("<H", 1))
    with pytest.raises(DataError) as caught:
        read(archive)
    says(caught, "1 of 63", next(iter(FILES)), "encrypted")


def test_a_path_inside_a_zip_writes_nothing_outside(tmp_path):
    archive = write_zip(tmp_path / "pets.zip", OWN | {"../cats/evil.png": b"x"})
    assert len(read(archive).images) == len(OWN)
    assert list(tmp_path.rglob("*")) == [archive]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_zip_in_a_zip(kind, tmp_path):
    inner = write_zip(tmp_path / "archive.zip", FILES).read_bytes()
    files = {"fer2013/archive.zip": inner, "fer2013/about.txt": b"text"}
    if kind == "folder":
        path = write_folder(tmp_path / "faces", files)
    else:
        path = write_zip(tmp_path / "faces.zip", files)
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "Expected class folders", "it holds fer2013/archive.zip", "unpack that")


def test_a_zip_with_back_slashes(tmp_path):
    path = write_zip(tmp_path / "faces.zip", {k.replace("/", "\\"): v for k, v in FILES.items()})
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "Expected names with /", path, "programs for Windows", "unpack it")


def zip_with_names(path, files, encoding):
    """A zip that does not tell the encoding of its names."""
    plain = {f"@{i:03d}".ljust(len(name.encode(encoding)), "@"): name
             for i, name in enumerate(files)}  # fmt: skip
    write_zip(path, {mark: files[name] for mark, name in plain.items()})
    whole = path.read_bytes()
    for mark, name in plain.items():
        assert whole.count(mark.encode()) == 2
        whole = whole.replace(mark.encode(), name.encode(encoding))
    path.write_bytes(whole)
    return path


def test_names_in_utf_8_that_do_not_say_so_are_read(tmp_path):
    files = {name.replace("cats", "Kätzchen"): picture for name, picture in OWN.items()}
    data = read(zip_with_names(tmp_path / "pets.zip", files, "utf-8"), split="holdout")
    assert data.class_names == ("Kätzchen", "dogs")
    assert sorted(data.ids) == sorted(files)


def test_names_in_an_unknown_encoding(tmp_path):
    files = {name.replace("cats", "Kätzchen"): picture for name, picture in OWN.items()}
    path = zip_with_names(tmp_path / "pets.zip", files, "latin-1")
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "Expected names in UTF-8", path, "an encoding that it does not tell", "unpack it")


# The challenge's CSV

HEADERS = [
    "emotion,pixels,Usage",
    "emotion, pixels, Usage",
    " emotion , pixels , Usage ",
    "\ufeffemotion,pixels,Usage",
]


@pytest.mark.parametrize("header", HEADERS)
def test_headers_of_the_csv(header, tmp_path):
    data = read(write_csv(tmp_path / "faces.csv", csv_rows(FILES), header))
    assert content(data) == expected_content(FILES)


def test_columns_of_icml_face_data(tmp_path):
    rows = [(emotion, usage, pixels) for emotion, pixels, usage in csv_rows(FILES)]
    path = write_csv(tmp_path / "icml_face_data.csv", rows, "emotion, Usage, pixels")
    assert content(read(path)) == expected_content(FILES)


def test_quotes_windows_line_ends_and_blank_lines(tmp_path):
    rows = [(emotion, f'"{pixels}"', usage) for emotion, pixels, usage in csv_rows(FILES)]
    path = write_csv(tmp_path / "faces.csv", rows)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    assert content(read(path)) == expected_content(FILES)


def test_the_public_and_the_private_test_can_be_told_apart(tmp_path):
    data = read(write_csv(tmp_path / "faces.csv", csv_rows(FILES)))
    usages = [name.split("_")[0] for name in data.ids]
    assert {usage: usages.count(usage) for usage in usages} == {
        "Training": 35,
        "PublicTest": 14,
        "PrivateTest": 14,
    }


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("emotion,pixels", "Usage"),
        ("label,image,Usage", "emotion, pixels"),
        ("", "emotion, pixels, Usage"),
    ],
)
def test_missing_columns(header, missing, tmp_path):
    path = write_csv(tmp_path / "faces.csv", csv_rows(FILES), header)
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, f"Expected columns emotion, pixels, Usage in {path}. Missing: {missing}")


@pytest.mark.parametrize("text", ["", "emotion,pixels,Usage\n"])
def test_an_empty_csv(text, tmp_path):
    path = tmp_path / "faces.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, path)


@pytest.mark.parametrize(
    ("header", "between"),
    [
        ("EMOTION,Pixels,usage", ","),
        ("emotion;pixels;Usage", ";"),
        ("Emotion\tpixels\tUSAGE", "\t"),
    ],
)
def test_headers_in_any_case_and_other_separators(header, between, tmp_path):
    path = tmp_path / "faces.csv"
    rows = [between.join(row) for row in csv_rows(FILES)]
    path.write_text("\n".join([header, *rows]) + "\n")
    assert content(read(path)) == expected_content(FILES)


@pytest.mark.parametrize(
    "words",
    [
        ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
        ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Neutral"),
    ],
)
def test_class_words_as_labels(words, tmp_path):
    rows = [(words[int(emotion)], *more) for emotion, *more in csv_rows(FILES)]
    path = write_csv(tmp_path / "faces.csv", rows)
    assert content(read(path)) == expected_content(FILES)
    reading = open_source(str(path), synthetic_count=21, data_seed=0).reading()
    assert reading.counts["train"] == dict.fromkeys(FER_CLASSES, 5)


def test_ids_are_rows_of_the_file_whatever_is_skipped(tmp_path):
    rows = csv_rows(FILES)
    broken = [(e, p if i % 10 != 3 else "1 2 3", u) for i, (e, p, u) in enumerate(rows)]
    data = read(write_csv(tmp_path / "faces.csv", broken), on_bad_image="skip")
    assert len(data.bad) == 6
    for image, label, name in zip(data.images, data.labels, data.ids, strict=True):
        usage, number = name.split("_")
        emotion, pixels, said = rows[int(number)]
        assert (usage, FER_CLASSES[label]) == (said, CHALLENGE_EMOTIONS[int(emotion)])
        assert " ".join(map(str, image.ravel())) == pixels
    # What is looked at before any pixel names rows the same way.
    reading = open_source(str(tmp_path / "faces.csv"), synthetic_count=21, data_seed=0).reading()
    assert set(data.ids) <= {file.path for file in reading.files}


def packed(kind, table, folder, more):
    """The table and other files in a folder, zip or tar."""
    if kind == "folder":
        return write_folder(folder / "challenge", {"fer2013/fer2013.csv": table, **more})
    if kind == "zip":
        return write_zip(folder / "challenge.zip", {"fer2013/fer2013.csv": table, **more})
    path = folder / f"challenge.{kind}"
    with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as archive:
        for name, body in {"fer2013/fer2013.csv": table, **more}.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return path


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "tgz"])
def test_what_holds_the_table_is_read_as_the_table(kind, tmp_path):
    table = write_csv(tmp_path / "fer2013.csv", csv_rows(FILES))
    more = {"fer2013/README": b"about", "example_submission.csv": b"a,b\n1,2\n",
            "icml_face_data.csv": table.read_bytes()}  # fmt: skip
    path = packed(kind, table.read_bytes(), tmp_path, more)
    alone, inside = read(table), read(path)
    assert content(inside) == content(alone) == expected_content(FILES)
    assert (inside.name, inside.ids) == (alone.name, alone.ids)
    assert identity(path) == identity(table)
    reading = open_source(str(path), synthetic_count=21, data_seed=0).reading()
    assert reading.table == "fer2013/fer2013.csv"
    assert any("README" in str(left) for left in reading.left_out)


VOTES = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


@pytest.mark.parametrize("kind", ["csv", "folder", "zip"])
def test_the_table_of_fer_plus_has_no_pixels(kind, tmp_path):
    votes = f"{VOTES}\nTraining,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n".encode()
    path = tmp_path / "fer2013new.csv"
    path.write_bytes(votes)
    if kind == "folder":
        path = write_folder(tmp_path / "ferplus", {"fer2013new.csv": votes})
    elif kind == "zip":
        path = write_zip(tmp_path / "ferplus.zip", {"fer2013new.csv": votes})
    with pytest.raises(DataError) as caught:
        read(path)
    says(
        caught, "fer2013new.csv", "FER+", "votes and no pixels", "pass the challenge's fer2013.csv"
    )


def test_the_table_with_pixels_is_taken_where_both_lie(tmp_path):
    table = write_csv(tmp_path / "pixels.csv", csv_rows(FILES)).read_bytes()
    votes = f"{VOTES}\n".encode()
    path = write_folder(tmp_path / "both", {"fer2013new.csv": votes, "pixels.csv": table})
    assert content(read(path)) == expected_content(FILES)


def test_two_tables_are_refused(tmp_path):
    table = write_csv(tmp_path / "fer2013.csv", csv_rows(FILES)).read_bytes()
    path = write_folder(tmp_path / "both", {"one.csv": table, "two.csv": table})
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "Expected one table of images", "one.csv, two.csv", "pass one of them")


def test_a_tar_of_images(tmp_path):
    path = tmp_path / "faces.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(write_folder(tmp_path / "faces", OWN), "faces")
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, "Expected a tar that holds fer2013.csv", path, "unpack it")


@pytest.mark.parametrize("name", ["faces.tar", "faces.tar.gz"])
def test_half_a_tar(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\x1f\x8b" + bytes(400))
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, path, "cannot be opened as a tar")


PIXELS = csv_rows(FILES)[0][1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("7", PIXELS, "Training"), "emotion must be 0 to 6 or a class, is '7'"),
        (("glad", PIXELS, "Training"), "emotion must be 0 to 6 or a class, is 'glad'"),
        (("", PIXELS, "Training"), "emotion must be 0 to 6 or a class, is ''"),
        (("0", PIXELS, "Test"), "Usage must be one of Training, PublicTest, PrivateTest"),
        (("0", PIXELS), "Usage must be one of"),
        (("0", PIXELS.rsplit(" ", 1)[0], "Training"), "must fill a square, are 2303"),
        (("0", "", "Training"), "must fill a square, are 0"),
        (("0", "256" + PIXELS[PIXELS.index(" ") :], "Training"), "whole numbers from 0 to 255"),
        (("0", "-1" + PIXELS[PIXELS.index(" ") :], "Training"), "whole numbers from 0 to 255"),
        (("0", "0.5" + PIXELS[PIXELS.index(" ") :], "Training"), "whole numbers from 0 to 255"),
        (("0", "x" + PIXELS[PIXELS.index(" ") :], "Training"), "whole numbers from 0 to 255"),
    ],
)
def test_bad_rows(row, reason, tmp_path):
    rows = csv_rows(FILES)
    path = write_csv(tmp_path / "faces.csv", [*rows[:3], row, *rows[3:]])
    message = bad_row_reason(path)
    assert f"1 of {len(rows) + 1} images" in message
    assert re.search(rf"row 4: [^;]*{re.escape(reason)}", message), message
    data = read(path, on_bad_image="skip")
    assert content(data) == expected_content(FILES)
    assert data.bad[0].startswith("row 4: ")


@pytest.mark.parametrize("raw", [b"\xff\xfe\0\1" * 9, b'emotion,pixels,Usage\n0,"' + b"1 " * 3**14])
def test_a_file_that_is_no_csv(raw, tmp_path):
    path = tmp_path / "faces.csv"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read(path)
    says(caught, path, "cannot be read as CSV")


def test_images_of_another_size_in_a_csv_are_resized_and_counted(tmp_path):
    small = " ".join(["7"] * 24 * 24)
    data = read(write_csv(tmp_path / "faces.csv", [*csv_rows(FILES), ("0", small, "Training")]))
    assert data.resized == 1
    assert (data.images[-1] == 7).all()


# Identity


class CountingFiles(FolderFiles):
    """A folder that notes how often it is walked."""

    walks = 0

    def listing(self):
        CountingFiles.walks += 1
        return super().listing()


def test_a_folder_is_walked_once(tmp_path):
    source = TreeSource(CountingFiles(write_folder(tmp_path / "faces", OWN)))
    CountingFiles.walks = 0
    source.identity()
    assert len(source.reading().files) == len(OWN)
    source.read(DataConfig(split="holdout"), PixelRule())
    assert CountingFiles.walks == 1


def identity(path):
    return open_source(str(path), synthetic_count=21, data_seed=0).identity()


@pytest.mark.parametrize("kind", ["folder", "zip", "csv"])
def test_the_identity_changes_with_the_content_only(kind, tmp_path):
    def write(files):
        if kind == "folder":
            path = tmp_path / "faces"
            shutil.rmtree(path, ignore_errors=True)
            write_folder(path, files)
            return path
        if kind == "zip":
            return write_zip(tmp_path / "faces.zip", files)
        return write_csv(tmp_path / "faces.csv", csv_rows(files))

    path = write(FILES)
    before = identity(path)
    # Files that are written anew count as changed, for nobody looks at what is in them.
    assert identity(path if kind == "folder" else write(FILES)) == before
    assert identity(write(dict(list(FILES.items())[1:]))) != before


def test_counts_are_known_without_decoding(tmp_path):
    folder = write_folder(tmp_path / "faces", dict.fromkeys(OWN, b"text"))
    archive = write_zip(tmp_path / "faces.zip", dict.fromkeys(OWN, b"text"))
    rows = [("3", "no pixels", "Training"), ("3", "", "PublicTest"), ("9", "", "PublicTest")]
    table = write_csv(tmp_path / "faces.csv", rows)
    readings = {
        kind: open_source(str(d), synthetic_count=33, data_seed=0).reading()
        for kind, d in {
            "folder": folder, "zip": archive, "csv": table, "synthetic": "synthetic",
            "kaggle": "kaggle",
        }.items()
    }  # fmt: skip
    assert {kind: len(reading.files) for kind, reading in readings.items()} == {
        "folder": 8, "zip": 8, "csv": 2, "synthetic": 33, "kaggle": 35_887
    }  # fmt: skip
    assert readings["csv"].counts == {"train": {"happy": 1}, "test": {"happy": 1}}
    assert {part: c.total() for part, c in readings["kaggle"].counts.items()} == {
        "train": 28_709, "test": 7_178
    }  # fmt: skip


def test_drawn_faces_are_read_as_they_are_drawn(tmp_path):
    data = read("synthetic", synthetic_count=50, data_seed=3)
    reading = open_source("synthetic", synthetic_count=50, data_seed=3).reading()
    assert [file.path for file in reading.files] == data.ids
    assert [file.part for file in reading.files] == data.parts.tolist()
    assert [file.label for file in reading.files] == [data.class_names[i] for i in data.labels]
