"""Whatever leaves through the writer is free of secrets: every way out, found by walking them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.prepared import prepare
from fer_experiments.data.seen import by_training
from fer_experiments.recipes import resolve
from fer_experiments.tracking.events import Tags
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.writer import Writer

from ..data.helpers import noise, write_folder

PASSWORD = "s3cr3t-Qx7Zk"
SECRET = f"https://me:{PASSWORD}@host/x token={PASSWORD}"

Way = Callable[[Writer, PreparedDataset, Config], None]


def titled() -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.suptitle(SECRET)
    return figure


def tiny() -> keras.Model:
    pixels = keras.Input((16, 16, 1))
    return keras.Model(pixels, keras.layers.Softmax()(keras.layers.Flatten()(pixels)))


# Each public method, with a secret in every text that is no name: of
# events, keys are ours, and so are paths.
WAYS: dict[str, Way] = {
    "event": lambda writer, *_: writer.event(Tags(time=0, values={"a": SECRET})),
    "params": lambda writer, *_: writer.params({"a": SECRET, "b": Path(f"token={PASSWORD}")}),
    "tags": lambda writer, *_: writer.tags({"a": SECRET}),
    "note": lambda writer, *_: writer.note(f"note {SECRET}"),
    "metrics": lambda writer, *_: writer.metrics({"a": 1.0}, model_id=SECRET),
    "text": lambda writer, *_: writer.text(f"text {SECRET}", "a/text.txt"),
    "json": lambda writer, *_: writer.json({SECRET: [SECRET, (f"'{SECRET}\"",)]}, "a/data.json"),
    "figure": lambda writer, *_: writer.figure(titled(), "a/figure.png"),
    "arrays": lambda writer, *_: writer.arrays({"ids": np.array(["b", SECRET])}, "a/arrays.npz"),
    "table": lambda writer, *_: writer.table({SECRET: [SECRET, f'"{SECRET}"']}, "a/table.json"),
    "dataset": lambda writer, data, _: writer.dataset(data, split="train"),
    "model": lambda writer, data, config: writer.model(
        tiny(), config=config, prepared=data, seen=by_training(data, config.fit)
    ),
}
# Its text becomes pixels.
WITHOUT_TRACE = ("figure",)


def written(folder: Path) -> dict[str, bytes]:
    """Everything that the journal holds, archives unpacked."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.name] = path.read_bytes()
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    for name in archive.namelist():
                        found[f"{path.name}/{name}"] = archive.read(name)
    return found


def test_every_way_out_is_walked() -> None:
    public = {
        name
        for name, member in vars(Writer).items()
        if callable(member) and not name.startswith("_")
    }
    # The first writes nothing; the second carries the file of `fer export`, as it is.
    assert set(WAYS) == public - {"as_parent", "file"}


@pytest.mark.parametrize("way", WAYS)
def test_what_leaves_is_redacted(way: str, base: Path, tmp_path: Path) -> None:
    files = {
        f"{name}/token={PASSWORD} {i}.png": pixels
        for name in "ab"
        for i, pixels in enumerate(noise(10, seed=ord(name), size=16))
    }
    folder = write_folder(tmp_path / f"token={PASSWORD}", files)
    config = resolve("demo", {"dataset": str(folder), "split": "holdout", "image_size": 16})
    prepared = prepare(config.data)
    with open_run("train", "designed", offline=True) as writer:
        before = written(writer.journal.folder)
        WAYS[way](writer, prepared, config)
        after = written(writer.journal.folder)
    left = {name: data for name, data in after.items() if data != before.get(name)}
    assert left
    for name, data in left.items():
        # NumPy keeps text as UTF-32.
        assert PASSWORD.encode() not in data.replace(b"\0", b""), name
    if way not in WITHOUT_TRACE:
        assert any(b"[secret]" in data.replace(b"\0", b"") for data in left.values())


def test_arrays_of_text_without_secrets_stay_as_they_are(base: Path) -> None:
    ids = np.array(["a/1.png", "b/22.png"])
    with open_run("train", "designed", offline=True) as writer:
        writer.arrays({"ids": ids, "values": np.arange(3)}, "a/arrays.npz")
        content = written(writer.journal.folder)["arrays.npz"]
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["ids"], ids)
        assert stored["ids"].dtype == ids.dtype
        np.testing.assert_array_equal(stored["values"], np.arange(3))


def test_a_file_is_carried_as_it_is(base: Path, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(b"\0\1\2 of a network")
    with open_run("export", "designed", offline=True) as writer:
        writer.file(source, "champion.onnx")
        assert written(writer.journal.folder)["champion.onnx"] == source.read_bytes()
    assert source.exists()
