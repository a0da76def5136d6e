"""Wrong input for every door of the command line, and what must come of it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_experiments.config import FIELDS, Thresholds
from tests.faults import files

USAGE, FAILURE = 2, 1
MODEL = "{model}"  # in arguments: the URI of a model that is there
PREPARE = ("prepare", "--split", "holdout", "--dataset")
DRAWN = ("--recipe", "demo", "--synthetic-count", "210")
TRAIN = ("train", "--backbone", "tiny", *DRAWN, "--epochs", "1", "--weights")


@dataclass(frozen=True, kw_only=True)
class Case:
    """An input and the command that meets it, in a working folder of its own."""

    name: str
    arguments: tuple[str, ...]
    exit_codes: tuple[int, ...]  # 0: odd, but right
    make: Callable[[Path], object] = lambda folder: None  # what lies in the working folder
    environment: Mapping[str, str] = field(default_factory=dict)
    after: Callable[[Path], str | None] = lambda folder: None  # what is wrong, if anything
    says: str = ""
    as_user: bool = False  # root may do anything, so root can't try it


def every(*, large: bool) -> Iterator[Case]:
    """All cases, the quick ones first; `large` ones move gigabytes."""
    yield from options()
    yield from other_options()
    yield from environments()
    yield from images()
    yield from folders()
    yield from zips()
    yield from tables(large=large)
    yield from weights()
    yield from model_uris()
    yield from prepared()


LONG = "x" * 100_000
ODD = {
    "empty": "",
    "blank": "  ",
    "null byte": "1\0",
    "broken unicode": "1\udce9",
    "escape": "\x1b[31m1",
    "two lines": "1\n2",
    "very long": LONG,
    "right to left": "\u202e1",
    "emoji": "🙂",
    "with a password": "https://me:hunter2x@host/data",
}
WRONG = {
    "int": {"a word": "ten", "a half": "1.5", "infinite": "inf", "digits": "9" * 5000, "hex": "0x1"},
    "float": {"a word": "ten", "no number": "nan", "infinite": "-inf", "comma": "1,5"},
    "bool": {"a word": "maybe", "two": "2", "cut off": "tru"},
    "choice": {"unknown": "nothing", "upper case": "OFFICIAL"},
    "dataset": {"missing": "no/such/folder", "nobody's home": "~no-such-user/x", "device": "/dev/null"},
    "backbone": {"unknown": "vgg17", "upper case": "VGG16"},
    "weights": {"missing": "no/such.h5", "nobody's home": "~no-such-user/x", "device": "/dev/null"},
    "truncate_at": {},
    "detector": {"unknown": "haar", "auto": "auto", "missing": "yunet:no/such.onnx", "device": "yunet:/dev/null"},
}  # fmt: skip


def options() -> Iterator[Case]:
    """Every field of the configuration, with all that it must refuse."""
    for name, (_, spec) in FIELDS.items():
        command = "train" if name == "backbone" else "main"
        yield from _option(command, spec, ("--dataset", "synthetic") if name != "dataset" else ())
    for spec in Thresholds.__dataclass_fields__.values():
        yield from _option("register", spec, ())


def _option(command: str, spec: Field[Any], before: tuple[str, ...]) -> Iterator[Case]:
    kind = str(spec.type).removesuffix(" | None")
    kind = "choice" if "choices" in spec.metadata else spec.name if kind == "str" else kind
    values = ODD | WRONG[kind]
    if kind in ("dataset", "weights", "truncate_at"):
        # A path may have any of these; what is no path is refused as missing, a cut when it is cut.
        values = {k: v for k, v in values.items() if kind != "truncate_at" or k not in _ANY_TEXT}
    low, high = spec.metadata.get("minimum"), spec.metadata.get("maximum")
    if low is not None:
        values["too low"] = str(low if spec.metadata.get("above") else low - 1)
    if high is not None:
        values["too high"] = str(high + 1)
    flag = f"--{spec.name.replace('_', '-')}"
    for what, value in values.items():
        yield Case(
            name=f"{flag} {what}",
            arguments=(command, *before, f"{flag}={value}"),
            exit_codes=(USAGE,),
            says=spec.name,
        )


_ANY_TEXT = {"very long", "right to left", "emoji"}


def other_options() -> Iterator[Case]:
    """Options that are no fields, arguments, names of commands."""
    for what, value in ODD.items():
        for command, option in (
            ("evaluate", "run-id"), ("evaluate", "model"), ("evaluate", "backbone"),
            ("evaluate", "tta"), ("finetune", "run-id"), ("calibrate", "run-id"),
            ("compare", "experiment"), ("compare", "dataset"), ("register", "metric"),
            ("promote", "version"), ("rollback", "model-name"), ("registry", "model-name"),
            ("train", "recipe"), ("ensemble", "run-ids"), ("main", "seeds"), ("main", "backbones"),
        ):  # fmt: skip
            version = ("--version", "1") if (command, option) == ("promote", "model-name") else ()
            yield Case(
                name=f"{command} --{option} {what}",
                arguments=(command, *version, f"--{option}={value}"),
                exit_codes=(USAGE,),
            )
        if what not in ("very long", "right to left", "emoji"):
            yield Case(
                name=f"prepare --experiment {what}",
                arguments=("prepare", *DRAWN, f"--experiment={value}"),
                exit_codes=(USAGE,),
            )
        yield Case(
            name=f"predict of {what}", arguments=("predict", "--", value), exit_codes=(USAGE,)
        )
        yield Case(name=f"command {what}", arguments=(value, "train"), exit_codes=(USAGE,))
        yield Case(
            name=f"unknown option {what}", arguments=("train", f"--x{value}"), exit_codes=(USAGE,)
        )
    for line in (
        "train --epochs", "train --epochs 1 2", "train nonsense", "prepare --epochs 1", "predict",
        "predict --json --csv x.png", "evaluate --run-id a --model b", "evaluate --tta 1",
        "evaluate --tta 9999999", f"evaluate --tta {'9' * 19}", "ensemble", "ensemble --run-ids ,",
        "ensemble --run-ids a,a", "ensemble --run-ids a,b", "ensemble --run-ids a --tta 5",
        "main --seeds 1,1", "main --seeds 1,,2", "main --seeds -1", "main --seed 1 --seeds 1,2",
        "main --backbones ,", "main --backbones tiny,tiny", "main --backbones tiny,", "promote",
        "promote --version -1", "promote --version 1 --model-name nothing", "registry --clear",
        f"promote --version {'9' * 5000}", "register --metric test/accuracy", "cache --clear=1",
        "register --dataset nothing", "compare --experiment nowhere", "--nonsense", "-x",
        "finetune --run-id 0 --recipe nothing", "main --recipe baseline --augmented-copies 1 --rotation 0 --shift 0 --flip off",
    ):  # fmt: skip
        yield Case(name=line[:60], arguments=tuple(line.split()), exit_codes=(USAGE,))
    for cut, what in (("nothing", "unknown"), ("🙂", "emoji"), (LONG, "very long"), ("a:b:c", "")):
        yield Case(
            name=f"--truncate-at {what}",
            arguments=(*TRAIN, "none", f"--truncate-at={cut}"),
            exit_codes=(USAGE,) if cut != "a:b:c" else (0, USAGE),
        )


def environments() -> Iterator[Case]:
    """What the suite is told by the environment."""
    prepare = ("prepare", *DRAWN)
    for home in (
        "/dev/null",
        "/dev/null/x",
        "/proc/nothing",
        "file",
        "~no-such-user/x",
        LONG[:300],
    ):
        yield Case(
            name=f"FER_DATA_HOME {home[:20]}",
            arguments=(*prepare, "--data-seed", "5"),
            exit_codes=(USAGE,) if home in ("/dev/null", "file") or "~" in home else (FAILURE,),
            environment={"FER_DATA_HOME": home},
            make=lambda folder: (folder / "file").write_bytes(b"x"),
        )
    for patience in ("abc", "-1", "nan", "🙂", "1" * 400, "inf", " 5 "):
        yield Case(
            name=f"FER_TRACKING_PATIENCE {patience[:20]}",
            arguments=prepare,
            exit_codes=(USAGE,) if patience in ("abc", "-1", "nan", "🙂") else (0,),
            environment={"FER_TRACKING_PATIENCE": patience},
        )
    for uri in (
        "nonsense://x", "sqlite:////proc/x/y.db", "sqlite:///garbage", "http://127.0.0.1:9",
        "http://", "http://me:hunter2x@127.0.0.1:9", "postgresql://me:hunter2x@127.0.0.1:9/x",
        "sqlite:///", "🙂://",
    ):  # fmt: skip
        yield Case(
            name=f"MLFLOW_TRACKING_URI {uri}",
            arguments=prepare,
            exit_codes=(FAILURE,) if uri != "sqlite:///" else (0, FAILURE),
            environment={
                "MLFLOW_TRACKING_URI": uri,
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
                "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
            },
            make=lambda folder: (folder / "garbage").write_bytes(b"garbage" * 999),
        )


def _images() -> dict[str, tuple[bytes, bool]]:
    """Contents of files that are called x.png, and whether they are images all the same."""
    found: dict[str, tuple[bytes, bool]] = {
        "nothing": (b"", False),
        "one byte": (b"\0", False),
        "zero bytes": (bytes(5000), False),
        "text": (b"no image\n" * 99, False),
        "a web page": (b"<html><body>404</body></html>", False),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', False),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", False),
        "pdf": (b"%PDF-1.7\n%%EOF", False),
        "a zip": (files.zipped(files.faces()), False),
        "a pickle": (pickle.dumps(list(range(99))), False),
        "20,000×20,000": (files.png_of(20_000, 20_000), False),
        "a row of 2³¹-1": (
            files.picture()[:16] + b"\x7f\xff\xff\xff" + files.picture()[20:],
            False,
        ),
        "no pixels": (files.picture()[:16] + bytes(8) + files.picture()[24:], False),
        "a bomb in its comment": (files.png_with_text_bomb(), False),
        "a bitmap of 60,000²": (files.bitmap_promising(60_000), False),
        "a bitmap of -1": (files.bitmap_promising(-1), False),
        "a GIF of 65,535²": (files.gif_promising(), False),
        "CMYK": (files.picture("JPEG", "CMYK"), True),
        "16 bits": (files.sixteen_bit(), True),
        "moving GIF": (files.animated("GIF"), True),
        "moving WEBP": (files.animated("WEBP"), True),
        "moving PNG": (files.animated("PNG"), True),
        "one pixel": (files.saved(Image.new("L", (1, 1))), True),
        "a line": (files.saved(Image.new("L", (20_000, 1))), True),
        "half transparent": (files.picture("PNG", "RGBA"), True),
        "LAB colours": (files.saved(Image.new("LAB", (48, 48)), "TIFF"), False),
        "floating point": (files.saved(Image.new("F", (48, 48)), "TIFF"), True),
        "palette": (files.picture("PNG", "P"), True),
    }
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        whole = files.picture(kind)
        found[f"half a {kind}"] = (whole[: len(whole) // 2], False)
        found[f"ten bytes of {kind}"] = (whole[:10], False)
        found[f"a {kind} called .png"] = (whole, True)
    return found


def images() -> Iterator[Case]:
    """`predict` of files that are no images, or odd ones; the same inside a folder to prepare."""
    for what, (content, right) in _images().items():
        yield Case(
            name=f"predict {what}",
            arguments=("predict", "x.png", "--model", MODEL),
            exit_codes=(0,) if right else (FAILURE,),
            make=lambda folder, content=content: (folder / "x.png").write_bytes(content),
            says="" if right else "x.png",
        )
        if not right:
            yield Case(
                name=f"prepare with {what}",
                arguments=(*PREPARE, "faces"),
                exit_codes=(FAILURE,),
                make=lambda folder, content=content: files.write(
                    folder / "faces", {**files.faces(), "a/x.png": content}
                ),
                says="a/x.png",
            )
    for name in (
        "a b (c).png",
        "Gesicht ü 表情 🙂.png",
        "-x.png",
        "~x.png",
        "x\n.png",
        "\x1b[31m.png",
    ):
        yield Case(
            name=f"predict a file called {name!r}",
            arguments=("predict", "--model", MODEL, "--", name),
            exit_codes=(0,),
            make=lambda folder, name=name: (folder / name).write_bytes(files.picture()),
        )
        yield Case(
            name=f"predict a bad file called {name!r}",
            arguments=("predict", "--model", MODEL, "--", name),
            exit_codes=(FAILURE,),
            make=lambda folder, name=name: (folder / name).write_bytes(b"no"),
        )
    for form in ((), ("--json",), ("--csv",)):
        yield Case(
            name=f"predict a folder with every odd name {form}",
            arguments=("predict", "all", "--model", MODEL, *form),
            exit_codes=(0,),
            make=lambda folder: files.write(
                folder / "all",
                {f"{n}.png": files.picture() for n in ("a b", "\x1b[2J", "\udce9", "a\nb", "ü")},
            ),
        )
    for what, make, code in (
        ("a link to itself", lambda f: (f / "x.png").symlink_to("x.png"), USAGE),
        ("a link to nothing", lambda f: (f / "x.png").symlink_to("nothing"), USAGE),
        ("a pipe", lambda f: os.mkfifo(f / "x.png"), USAGE),
        ("an endless device", lambda f: (f / "x.png").symlink_to("/dev/zero"), USAGE),
        ("an empty folder", lambda f: (f / "x.png").mkdir(), USAGE),
        ("a folder of folders", lambda f: (f / "x.png" / "y.png").mkdir(parents=True), USAGE),
        ("a folder with a pipe", lambda f: _folder_with_pipe(f / "x.png"), FAILURE),
        ("a folder with a device", lambda f: _folder_with_device(f / "x.png"), FAILURE),
        ("a folder with itself", lambda f: _folder_with_itself(f / "x.png"), FAILURE),
        ("100 MB", lambda f: _sparse(f / "x.png", 100 * files.MB), FAILURE),
        ("a folder of text", lambda f: files.write(f / "x.png", {"1.png": b"a", "2.jpg": b""}), FAILURE),
    ):  # fmt: skip
        yield Case(
            name=f"predict {what}",
            arguments=("predict", "x.png", "--model", MODEL),
            exit_codes=(code,),
            make=make,
        )
    yield Case(
        name="predict a file that may not be read",
        arguments=("predict", "x.png", "--model", MODEL),
        exit_codes=(FAILURE,),
        make=lambda folder: _locked(folder / "x.png"),
        as_user=True,
    )
    yield Case(
        name="predict a good and a bad file",
        arguments=("predict", "good.png", "bad.png", "--model", MODEL),
        exit_codes=(0,),
        make=lambda folder: files.write(folder, {"good.png": files.picture(), "bad.png": b"no"}),
    )


def _sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)


def _locked(path: Path) -> None:
    path.write_bytes(files.picture())
    path.chmod(0)


def _folder_with_pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "1.png")


def _folder_with_device(folder: Path) -> None:
    folder.mkdir()
    (folder / "1.png").symlink_to("/dev/zero")


def _folder_with_itself(folder: Path) -> None:
    folder.mkdir()
    (folder / "self").symlink_to(".")
    (folder / "1.png").symlink_to("1.png")


def folders() -> Iterator[Case]:
    """`prepare` of folders."""
    picture, good = files.picture(), files.faces()
    for what, content, code in (
        ("empty", {}, FAILURE),
        ("no class folders", {"1.png": picture}, FAILURE),
        ("one class", {f"a/{i}.png": files.picture(seed=i) for i in range(4)}, FAILURE),
        ("classes without images", {"a/1.png": b"", "b/1.png": b""}, FAILURE),
        ("one image of each class", {"a/1.png": picture, "b/1.png": picture}, FAILURE),
        ("a class in test only", {"train/a/1.png": picture, "train/b/1.png": picture,
                                  "test/c/1.png": picture}, FAILURE),
        ("a class with a very long name", {**good, f"{'x' * 200}/1.png": picture}, FAILURE),
        ("a class with a terminal's command", {**good, "\x1b[31m/1.png": picture}, FAILURE),
        ("a class with two lines", {**good, "x\ny/1.png": picture}, FAILURE),
        ("a class in broken unicode", {**good, "\udce9/1.png": picture}, FAILURE),
        ("an image in broken unicode", {**good, "a/\udce9.png": picture}, 0),
        ("a bad image in broken unicode", {**good, "a/\udce9\n.png": b"no"}, FAILURE),
        ("classes in any script", {f"{'表情 🙂'}/{k}": v for k, v in good.items()}, 0),
    ):  # fmt: skip
        yield Case(
            name=f"prepare a folder: {what}",
            arguments=(*PREPARE, "faces"),
            exit_codes=(code,),
            make=lambda folder, content=content: _folder(folder / "faces", content),
        )

    def odd(add: Callable[[Path], object]) -> Callable[[Path], object]:
        def make(folder: Path) -> None:
            files.write(folder / "faces", good)
            add(folder / "faces")

        return make

    for what, add, code in (
        ("a link to itself", lambda f: (f / "a/x.png").symlink_to("x.png"), FAILURE),
        ("a link to nothing", lambda f: (f / "a/x.png").symlink_to("nothing"), FAILURE),
        ("a class that links to itself", lambda f: (f / "c").symlink_to("c"), 0),
        ("links to its own folder", lambda f: (f / "a/x").symlink_to(f), 0),
        ("a pipe", lambda f: os.mkfifo(f / "a/x.png"), FAILURE),
        ("an endless device", lambda f: (f / "a/x.png").symlink_to("/dev/zero"), FAILURE),
        ("a file of 100 MB", lambda f: _sparse(f / "a/x.png", 100 * files.MB), FAILURE),
        ("a folder called x.png", lambda f: (f / "a/x.png").mkdir(), 0),
    ):
        yield Case(
            name=f"prepare a folder with {what}",
            arguments=(*PREPARE, "faces"),
            exit_codes=(code,),
            make=odd(add),
        )
    for limit, code in ((1, USAGE), (2, 0)):
        yield Case(
            name=f"prepare with limit {limit}",
            arguments=(*PREPARE, "faces", "--limit", str(limit)),
            exit_codes=(code,),
            make=lambda folder: files.write(folder / "faces", good),
        )
    yield Case(
        name="prepare own faces with the official split",
        arguments=("prepare", "--split", "official", "--dataset", "faces"),
        exit_codes=(FAILURE,),
        make=lambda folder: files.write(folder / "faces", good),
    )
    yield Case(
        name="prepare a folder that may not be entered",
        arguments=(*PREPARE, "faces"),
        exit_codes=(FAILURE,),
        make=odd(lambda f: (f / "a").chmod(0)),
        as_user=True,
    )


def _folder(folder: Path, content: Mapping[str, bytes]) -> None:
    folder.mkdir()
    files.write(folder, content)


def zips() -> Iterator[Case]:
    """`prepare` of zips."""
    good, picture = files.faces(), files.picture()
    whole = files.zipped(good)
    directory = whole.index(b"PK\1\2")
    bomb = files.zipped({**good, "a/bomb.png": bytes(200 * files.MB)})
    big = {**good, "a/bomb.png": bytes(50 * files.MB)}
    for what, content, code in (
        ("nothing", b"", FAILURE),
        ("text", b"no zip", FAILURE),
        ("a PNG", picture, FAILURE),
        ("a CSV", files.table(files.rows()), FAILURE),
        ("an empty zip", files.zipped({}), FAILURE),
        ("half a zip", whole[: len(whole) // 2], FAILURE),
        ("its directory alone", whole[directory:], FAILURE),
        ("a damaged directory", whole[:directory] + b"\xff" * 60 + whole[directory + 60 :], FAILURE),
        ("a damaged member", whole[:200] + bytes(60) + whole[260:], FAILURE),
        ("encrypted", files.encrypted(whole), FAILURE),
        ("an unknown packing", _packed_otherwise(whole), FAILURE),
        ("a bomb of 200 MB", bomb, FAILURE),
        ("a bomb that lies", files.lying(big, "a/bomb.png", 2304), FAILURE),
        ("a member of 4 GB, so it says", files.lying(good, "a/0.png", 2**32 - 2), FAILURE),
        ("members outside", files.zipped({**good, "../../out.png": picture, "../b/o.png": picture}), 0),
        ("absolute names", files.zipped({f"/tmp/{k}": v for k, v in good.items()}), 0),
        ("names of Windows", files.zipped({k.replace("/", "\\"): v for k, v in good.items()}), FAILURE),
        ("a name with a terminal's command", files.zipped({**good, "\x1b[2J/x.png": picture}), FAILURE),
        ("a name with two lines", files.zipped({**good, "a/x\ny.png": b"no"}), FAILURE),
        ("a zip in a zip", files.zipped({**good, "a/x.png": whole}), FAILURE),
        ("a link as a member", _with_link(good), FAILURE),
        ("a tail of garbage", whole + b"garbage" * 99, 0),
        ("a head of garbage", b"garbage" * 99 + whole, 0),
        ("packed by LZMA", files.zipped(good, zipfile.ZIP_LZMA), 0),
    ):  # fmt: skip
        yield Case(
            name=f"prepare a zip: {what}",
            arguments=(*PREPARE, "faces.zip"),
            exit_codes=(code,),
            make=lambda folder, content=content: (folder / "faces.zip").write_bytes(content),
            after=lambda folder: (
                None if len(list(folder.iterdir())) == 1 else "files beside the zip"
            ),
            says="" if code == 0 else "faces.zip",
        )
    for name in ("faces.csv", "faces", "faces.png", "a b ü 🙂.ZIP"):
        yield Case(
            name=f"prepare a zip called {name}",
            arguments=(*PREPARE, name),
            exit_codes=(0,),
            make=lambda folder, name=name: (folder / name).write_bytes(whole),
        )


def _packed_otherwise(archive: bytes) -> bytes:
    changed = bytearray(archive)
    struct.pack_into("<H", changed, archive.index(b"PK\3\4") + 8, 77)
    struct.pack_into("<H", changed, archive.index(b"PK\1\2") + 10, 77)
    return bytes(changed)


def _with_link(good: Mapping[str, bytes]) -> bytes:
    import io

    buffer = io.BytesIO(files.zipped(good))
    with zipfile.ZipFile(buffer, "a") as archive:
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def tables(*, large: bool) -> Iterator[Case]:
    """`prepare` of CSVs."""
    good = files.rows(84)
    one = good[0][1]

    def with_row(*row: str) -> bytes:
        return files.table([*good, row])

    def first(value: str) -> str:
        return f"{value} {one.split(' ', 1)[1]}"

    reordered = files.table([(u, p, e) for e, p, u in good], "Usage,pixels,emotion")
    for what, content, code in (
        ("nothing", b"", FAILURE),
        ("a header alone", b"emotion,pixels,Usage\n", FAILURE),
        ("no header", files.table(good[1:], ",".join(good[0])), FAILURE),
        ("no emotion", files.table(good, "x,pixels,Usage"), FAILURE),
        ("no pixels", files.table(good, "emotion,x,Usage"), FAILURE),
        ("no Usage", files.table(good, "emotion,pixels"), FAILURE),
        ("other case", files.table(good, "Emotion,Pixels,usage"), FAILURE),
        ("columns twice", files.table(good, "emotion,pixels,pixels"), FAILURE),
        ("another order", reordered, 0),
        ("more columns", files.table([(*r, "x") for r in good], "emotion,pixels,Usage,more"), 0),
        ("semicolons", files.table(good).replace(b",", b";"), FAILURE),
        ("UTF-16", files.table(good).decode().encode("utf-16"), FAILURE),
        ("a mark of UTF-8", b"\xef\xbb\xbf" + files.table(good), 0),
        ("a PNG", files.picture(), FAILURE),
        ("null bytes", bytes(5000), FAILURE),
        ("an open quote", files.table(good) + b'0,"1 2 3' + b"\n4 5" * 999, FAILURE),
        ("a short row", with_row("0"), FAILURE),
        ("a short pixel row", with_row("0", one.rsplit(" ", 1)[0], "Training"), FAILURE),
        ("no pixels in a row", with_row("0", "", "Training"), FAILURE),
        ("pixel 256", with_row("0", first("256"), "Training"), FAILURE),
        ("pixel -1", with_row("0", first("-1"), "Training"), FAILURE),
        ("pixel nan", with_row("0", first("nan"), "Training"), FAILURE),
        ("pixel inf", with_row("0", first("inf"), "Training"), FAILURE),
        ("pixel 1.5", with_row("0", first("1.5"), "Training"), FAILURE),
        ("pixel 1e30", with_row("0", first("1" + "0" * 30), "Training"), FAILURE),
        ("pixel of 9,000 digits", with_row("0", first("9" * 9000), "Training"), FAILURE),
        ("pixel with a terminal's command", with_row("0", first("\x1b[31m"), "Training"), FAILURE),
        ("emotion 7", with_row("7", one, "Training"), FAILURE),
        ("emotion -1", with_row("-1", one, "Training"), FAILURE),
        ("emotion nan", with_row("nan", one, "Training"), FAILURE),
        ("emotion in words", with_row("happy \x1b[31m", one, "Training"), FAILURE),
        ("usage unknown", with_row("0", one, "Testing"), FAILURE),
        ("usage a file", with_row("0", one, "x" * 9999), FAILURE),
        ("rows of other sizes", with_row("0", "7 " * 99 + "7", "Training"), 0),
        ("5 MB in a field", with_row("0", "7 " * (5 * files.MB // 2), "Training"), FAILURE),
    ):  # fmt: skip
        yield Case(
            name=f"prepare a CSV: {what}",
            arguments=(*PREPARE, "faces.csv"),
            exit_codes=(code,),
            make=lambda folder, content=content: (folder / "faces.csv").write_bytes(content),
            says="" if code == 0 else "faces.csv",
        )
    size = (1024 if large else 64) * files.MB
    for what, start in (
        ("of zeros", b"emotion,pixels,Usage\n0,"),
        ("as header", b"emotion,"),
        ("in quotes", b'emotion,pixels,Usage\n0,"'),
    ):
        yield Case(
            name=f"prepare a CSV: a line of {size // files.MB} MB {what}",
            arguments=(*PREPARE, "faces.csv"),
            exit_codes=(FAILURE,),
            make=lambda folder, start=start: files.endless_line(folder / "faces.csv", size, start),
            says="longer than",
        )
    for name, content in (("x.txt", files.table(good)), ("x.png", files.picture()), ("x", b"x")):
        yield Case(
            name=f"prepare a file called {name}",
            arguments=(*PREPARE, name),
            exit_codes=(USAGE,),
            make=lambda folder, name=name, content=content: (folder / name).write_bytes(content),
        )
    for what, make in (
        ("a pipe", lambda f: os.mkfifo(f / "x.csv")),
        ("a link to itself", lambda f: (f / "x.csv").symlink_to("x.csv")),
    ):
        yield Case(
            name=f"prepare a CSV that is {what}",
            arguments=(*PREPARE, "x.csv"),
            exit_codes=(USAGE,),
            make=make,
        )
    yield Case(
        name="prepare a CSV that may not be read",
        arguments=(*PREPARE, "x.png"),
        exit_codes=(FAILURE, USAGE),
        make=lambda folder: _locked(folder / "x.png"),
        as_user=True,
    )


class Payload:
    """Leaves a file in the working folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """What a pickle calls."""
        return os.mkdir, ("unpickled",)


def _not_unpickled(folder: Path) -> str | None:
    return "a pickle was opened" if (folder / "unpickled").exists() else None


def weights() -> Iterator[Case]:
    """`train` with weights files that do not fit."""
    whole = "whole.h5"

    def other(change: Callable[[Path], object]) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            files.weights_file(folder / "x.h5")
            change(folder / "x.h5")

        return make

    for what, make in (
        ("nothing", lambda f: (f / "x.h5").touch()),
        ("text", lambda f: (f / "x.h5").write_text("weights")),
        ("a PNG", lambda f: (f / "x.h5").write_bytes(files.picture())),
        ("a zip", lambda f: (f / "x.h5").write_bytes(files.zipped(files.faces()))),
        ("a pickle", lambda f: (f / "x.h5").write_bytes(pickle.dumps(Payload()))),
        ("a NumPy pickle", lambda f: _numpy_pickle(f / "x.h5")),
        ("a layer missing", lambda f: files.weights_file(f / "x.h5", without="block1_bn")),
        ("another shape", lambda f: files.weights_file(f / "x.h5", wrong="block1_conv")),
        ("half a file", other(lambda p: os.truncate(p, p.stat().st_size // 2))),
        ("a file without layers", lambda f: _h5(f / "x.h5", lambda h: None)),
        ("another backbone's layers", lambda f: _h5(f / "x.h5", _foreign_layers)),
        ("layers that are a number", lambda f: _h5(f / "x.h5", lambda h: h.attrs.update(layer_names=3))),
        ("layers that are not there", lambda f: _h5(f / "x.h5", _absent_layers)),
        ("text instead of numbers", other(lambda p: _replace(p, "text"))),
        ("complex numbers", other(lambda p: _replace(p, np.zeros((3, 3, 3, 8), complex)))),
        ("numbers that are none", other(lambda p: _replace(p, np.full((3, 3, 3, 8), np.nan)))),
        ("an array of 4 TB", other(_promise)),
        ("a link to another file", other(_link_outside)),
        ("bytes of another file", other(_bytes_outside)),
        ("a link to itself", other(_link_to_itself)),
        ("a folder instead of an array", other(_group_as_array)),
    ):  # fmt: skip
        yield Case(
            name=f"train with weights: {what}",
            arguments=(*TRAIN, "x.h5"),
            exit_codes=(FAILURE,),
            make=make,
            after=_not_unpickled,
            says="x.h5",
        )
    for what, name, make, code in (
        ("an empty folder", "x", lambda f: (f / "x").mkdir(), USAGE),
        ("a folder with two files", "x", lambda f: files.write(f / "x", {"tiny1.h5": b"", "tiny2.h5": b""}), USAGE),
        ("a folder with a pipe", "x", lambda f: _pipe_in(f / "x"), USAGE),
        ("a pipe", "x.h5", lambda f: os.mkfifo(f / "x.h5"), USAGE),
        ("a loop", "x.h5", lambda f: (f / "x.h5").symlink_to("x.h5"), USAGE),
        ("Keras 3's name, no HDF5", "x.weights.h5", lambda f: (f / "x.weights.h5").write_bytes(b"x"), FAILURE),
        ("Keras 3's name, other content", "x.weights.h5", lambda f: _h5(f / "x.weights.h5", lambda h: None), FAILURE),
        ("a Keras archive", "x.keras", lambda f: (f / "x.keras").write_bytes(files.zipped({"config.json": b"{}"})), FAILURE),
        ("ImageNet for a backbone without", "imagenet", lambda f: None, USAGE),
        ("whole", whole, lambda f: files.weights_file(f / whole), 0),
        ("whole, as integers", whole, lambda f: files.weights_file(f / whole, dtype="i4"), 0),
    ):  # fmt: skip
        yield Case(
            name=f"train with weights: {what}",
            arguments=(*TRAIN, name),
            exit_codes=(code,),
            make=make,
            after=_not_unpickled,
        )


def _pipe_in(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "tiny.h5")


def _numpy_pickle(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Payload()], dtype=object), allow_pickle=True)


def _h5(path: Path, fill: Callable[..., object]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        fill(file)


def _foreign_layers(file: object) -> None:
    file.attrs["layer_names"] = [b"block1_conv1"]  # type: ignore[attr-defined]
    group = file.create_group("block1_conv1")  # type: ignore[attr-defined]
    group.attrs["weight_names"] = [b"kernel:0"]
    group["kernel:0"] = np.zeros((3, 3, 3, 64))


def _absent_layers(file: object) -> None:
    file.attrs["layer_names"] = [b"block1_conv"]  # type: ignore[attr-defined]


_FIRST = "block1_conv/block1_conv/0:0"


def _replace(path: Path, value: object) -> None:
    import h5py

    with h5py.File(path, "a") as file:
        del file[_FIRST]
        file[_FIRST] = value


def _promise(path: Path) -> None:
    import h5py

    with h5py.File(path, "a") as file:
        del file[_FIRST]
        file.create_dataset(_FIRST, shape=(10**12,), dtype="f4", chunks=(10**6,))


def _link_outside(path: Path) -> None:
    import h5py

    files.weights_file(path.with_name("other.h5"))
    with h5py.File(path, "a") as file:
        del file[_FIRST]
        file[_FIRST] = h5py.ExternalLink("other.h5", _FIRST)


def _bytes_outside(path: Path) -> None:
    import h5py

    with h5py.File(path, "a") as file:
        del file[_FIRST]
        outside = [("/etc/passwd", 0, 864)]
        file.create_dataset(_FIRST, shape=(3, 3, 3, 8), dtype="f4", external=outside)


def _link_to_itself(path: Path) -> None:
    import h5py

    with h5py.File(path, "a") as file:
        del file[_FIRST]
        file[_FIRST] = h5py.SoftLink(f"/{_FIRST}")


def _group_as_array(path: Path) -> None:
    import h5py

    with h5py.File(path, "a") as file:
        del file[_FIRST]
        file.create_group(_FIRST)


def model_uris() -> Iterator[Case]:
    """`--model` of what is no model of this suite."""
    for uri in (
        "models:/", "models:/x", "models:/x@", "models:/x/1", "models:/x@champion", "models:/@",
        "models:/m-0", "models:/m-00000000000000000000000000000000", "models:/x/y/z", "models:/../..",
        "models://x", "runs:/", "runs:/x", "runs:/x/model", "/", "/etc", "/etc/passwd", ".", "..",
        "file:///etc/passwd", "file://", "s3://bucket/x", "gs://bucket/x", "hdfs://x/y", "dbfs:/x",
        "ftp://127.0.0.1:9/x", "http://127.0.0.1:9/x", "mlflow-artifacts:/x", "nonsense", ":", "://",
        "x'; DROP TABLE runs; --", "models:/x'@champion", "models:/emotion-synthetic@nobody",
        "models:/emotion-synthetic/999", "models:/emotion-synthetic/x", "model", "mlmodel",
    ):  # fmt: skip
        yield Case(
            name=f"predict with --model {uri}",
            arguments=("predict", "x.png", "--model", uri),
            exit_codes=(USAGE, FAILURE),
            make=_strangers_model,
            environment={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
            after=_not_unpickled,
        )


def _strangers_model(folder: Path) -> None:
    """A picture, and folders with MLflow's description of a model that says other things."""
    (folder / "x.png").write_bytes(files.picture())
    for name, description in (
        ("model", "flavors: {}\nmetadata: {class_names: [a, b]}\n"),
        ("mlmodel", "!!python/object/apply:os.mkdir [unpickled]\n"),
    ):
        (folder / name).mkdir()
        (folder / name / "MLmodel").write_text(description)


def prepared() -> Iterator[Case]:
    """Prepared data that was changed by others: `prepare` makes it again."""

    def damaged(change: Callable[[Path], object]) -> Callable[[Path], object]:
        def make(folder: Path) -> None:
            home = Path(os.environ["FER_DATA_HOME"])
            source = next(home.glob("synthetic-*"))
            for name in (source.name, "sources"):
                shutil.copytree(home / name, folder / "home" / name)
            change(folder / "home" / source.name)

        return make

    def manifest(**values: object) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            path = folder / "manifest.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

        return change

    def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
        def apply(folder: Path) -> None:
            found = np.load(folder / f"{name}.npy")
            np.save(folder / f"{name}.npy", change(found), allow_pickle=True)

        return apply

    def text(content: str | bytes, name: str = "manifest.json") -> Callable[[Path], object]:
        raw = content if isinstance(content, bytes) else content.encode()
        return lambda folder: (folder / name).write_bytes(raw)

    names = ["a", "b", "c", "d", "e", "f", "g"]
    for what, change in (
        ("no manifest", lambda f: (f / "manifest.json").unlink()),
        ("an empty manifest", text("")),
        ("a manifest that is a list", text("[]")),
        ("a manifest that is null", text("null")),
        ("half a manifest", text('{"format": 1, "name"')),
        ("a manifest in no UTF-8", text(b"\xff\xfe{}")),
        ("a manifest of brackets", text("[" * 100_000)),
        ("other class names", manifest(class_names=names)),
        ("fewer class names", manifest(class_names=names[:3])),
        ("class names that are a number", manifest(class_names=7)),
        ("another image size", manifest(image_size=64)),
        ("an endless image size", manifest(image_size=float("inf"))),
        ("other counts", manifest(counts={"train": [30] * 7, "val": [0] * 7, "test": [0] * 7})),
        ("negative counts", manifest(counts={"train": [-1], "val": [], "test": []})),
        ("counts that are text", manifest(counts="many")),
        ("no counts", manifest(counts={})),
        ("another fingerprint", manifest(fingerprint="0" * 64)),
        ("another format", manifest(format=99)),
        ("no audit", lambda f: _without(f / "manifest.json", "audit")),
        ("no images", lambda f: (f / "images.npy").unlink()),
        ("half of the images", lambda f: os.truncate(f / "images.npy", 5000)),
        ("a changed pixel", array("images", lambda a: np.where(np.arange(48) == 7, a ^ 1, a))),
        ("images as numbers of 64 bits", array("images", lambda a: a.astype(np.int64))),
        ("fewer images", array("images", lambda a: a[:-1])),
        ("images that are a zip", lambda f: (f / "images.npy").write_bytes(files.zipped({}))),
        ("images that are a pickle", text(pickle.dumps(Payload()), "images.npy")),
        ("labels that are a pickle", array("labels", lambda a: np.array([Payload()] * len(a)))),
        ("other labels", array("labels", lambda a: np.roll(a, 1))),
        ("labels out of range", array("labels", lambda a: a + 10**12)),
        ("negative labels", array("labels", lambda a: a - 5)),
        ("labels with commas", array("labels", lambda a: a + 0.5)),
        ("ids that are numbers", array("ids", lambda a: np.arange(len(a)))),
        ("a pointer to nowhere", lambda f: _point(f, "../../etc")),
        ("a pointer in no UTF-8", lambda f: _point(f, b"\xff\0")),
        ("an empty pointer", lambda f: _point(f, "")),
        ("a folder instead of a file", lambda f: _as_folder(f / "labels.npy")),
    ):  # fmt: skip
        yield Case(
            name=f"prepared data with {what}",
            arguments=("prepare", *DRAWN),
            exit_codes=(0,),
            make=damaged(change),
            environment={"FER_DATA_HOME": "home"},
            after=_whole_again,
        )


def _without(path: Path, key: str) -> None:
    content = json.loads(path.read_text())
    del content[key]
    path.write_text(json.dumps(content))


def _point(folder: Path, content: str | bytes) -> None:
    for pointer in (folder.parent / "sources").iterdir():
        pointer.write_bytes(content if isinstance(content, bytes) else content.encode())


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _whole_again(folder: Path) -> str | None:
    from fer_experiments.data.dataset import is_intact, open_prepared

    if (folder / "unpickled").exists():
        return "a pickle was opened"
    found = list((folder / "home").glob("synthetic-*"))
    if len(found) != 1 or not is_intact(open_prepared(found[0])):
        return "the data is not whole again"
    return None
