"""A model is judged on images that it has not seen, whatever data it is judged on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from PIL import Image

from fer_experiments.config import DataConfig
from fer_experiments.data.prepared import PreparedDataset, by_fingerprint, prepare
from fer_experiments.data.synthetic import draw_faces
from fer_experiments.stages.overlap import overlap
from fer_experiments.tracking.models import describe
from fer_experiments.tracking.runs import stored_arrays

from ..conftest import Fer

HOLDOUT = ("--split", "holdout", "--val-fraction", "0.4", "--image-size", "48")


def run_of(out: str) -> str:
    return out.split("run    ")[1].split()[0]


def done(fer: Fer, *arguments: object) -> str:
    """Runs a command that succeeds; returns the id of its run."""
    outcome = fer(*arguments)
    assert outcome.exit_code == 0, outcome.err
    return run_of(outcome.out)


def run(run_id: str) -> Run:
    return MlflowClient().get_run(run_id)


def metrics(run_id: str) -> dict[str, float]:
    return dict(run(run_id).data.metrics)


def split_ids(prepared: PreparedDataset, split: str) -> set[str]:
    return set(prepared.ids[prepared.slice(split)].tolist())


def data_of(run_id: str) -> PreparedDataset:
    found = by_fingerprint(run(run_id).data.tags["dataset_fingerprint"])
    assert found is not None
    return found


@pytest.fixture
def own_home(fresh_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store and data home of this test's own: it empties them."""
    monkeypatch.setenv("FER_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


def write_faces(folder: Path, count: int, *, start: int = 0, kind: str = "png") -> Path:
    """Faces number `start` to `start + count` in two class folders."""
    images, _, _ = draw_faces(count=start + count, seed=3)
    for i in range(start, start + count):
        path = folder / ("calm", "tense")[i % 2] / f"{i:04d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(path)
    return folder


TRAIN = ("train", "--backbone", "tiny", "--recipe", "demo", "--epochs", "1", *HOLDOUT)


def test_images_that_the_model_was_trained_on_are_marked_when_the_split_has_changed(
    own_home: Path, fer: Fer
) -> None:
    folder = write_faces(own_home / "faces", 160)
    trained = done(fer, *TRAIN, "--dataset", folder)
    before = data_of(trained)
    write_faces(folder, 60, start=160)  # more came in: the split is drawn anew

    for options in ((), ("--leaks", "drop"), ("--limit", "60")):
        judged = done(fer, "evaluate", "--run-id", trained, "--dataset", folder, *HOLDOUT, *options)
        now = data_of(judged)
        assert now.fingerprint != before.fingerprint
        # By their names: nothing here knows of hashes.
        val = now.ids[now.slice("val")]
        fitted = np.isin(val, sorted(split_ids(before, "train")))
        selected = np.isin(val, sorted(split_ids(before, "val")))
        assert 10 < fitted.sum() < len(val) - 10
        found = metrics(judged)
        assert found["val/images_with_twin"] == fitted.sum()
        assert found["val/images_selected_on"] == selected.sum() > 0
        assert found["val/clean/images"] == (~fitted).sum()
        stored = stored_arrays(judged, "val/probabilities.npz")
        np.testing.assert_array_equal(stored["fitted"], fitted)
        np.testing.assert_array_equal(stored["selected"], selected)
        right = stored["probabilities"].argmax(axis=1) == stored["labels"]
        assert found["val/clean/accuracy"] == pytest.approx(right[~fitted].mean())


def test_everything_that_a_model_was_made_from_counts(own_home: Path, fer: Fer) -> None:
    folder = write_faces(own_home / "faces", 100)
    trained = done(fer, *TRAIN, "--dataset", folder, "--keep-epoch", "last")
    tuned = done(fer, "finetune", "--run-id", trained, "--finetune-epochs", "1")
    other = done(fer, *TRAIN, "--dataset", folder, "--keep-epoch", "last", "--seed", "1")
    calibrated = done(fer, "calibrate", "--run-id", tuned)
    joined = done(fer, "ensemble", "--run-ids", f"{calibrated},{other}")

    def seen(run_id: str) -> Any:
        return describe(run(run_id).data.tags["model_uri"]).seen

    fingerprint = data_of(trained).fingerprint
    assert {(i.fingerprint, i.split) for i in seen(joined).fitted} == {(fingerprint, "train")}
    assert {i.run_id for i in seen(trained).fitted} == {trained}
    assert {i.run_id for i in seen(tuned).fitted} == {trained, tuned}
    assert {i.run_id for i in seen(joined).fitted} == {trained, tuned, other}
    assert seen(trained).selected == seen(tuned).selected == seen(other).selected == ()
    assert [(i.split, i.run_id, i.chose) for i in seen(joined).selected] == [
        ("val", calibrated, "temperature")
    ]


def test_pictures_are_known_again_in_another_format_and_at_another_size(
    own_home: Path, fer: Fer
) -> None:
    trained = done(fer, *TRAIN, "--dataset", write_faces(own_home / "faces", 100))
    copies = write_faces(own_home / "copies", 100, kind="bmp")
    judged = done(fer, "evaluate", "--run-id", trained, "--dataset", copies, *HOLDOUT,
                  "--data-seed", "1")  # fmt: skip
    before, now = data_of(trained), data_of(judged)
    trained_on = {name.removesuffix(".png") for name in split_ids(before, "train")}
    names = [name.removesuffix(".bmp") for name in now.ids[now.slice("val")]]
    count = sum(name in trained_on for name in names)
    assert metrics(judged)["val/images_with_twin"] == count > 0

    logged = describe(run(trained).data.tags["model_uri"])
    smaller = prepare(
        DataConfig(dataset=str(copies), split="holdout", val_fraction=0.4, image_size=32)
    )
    masks = overlap(logged, smaller, ("train", "val"))
    names = [name.removesuffix(".bmp") for name in smaller.ids]
    fitted = np.concatenate([masks.fitted["train"], masks.fitted["val"]])
    np.testing.assert_array_equal(fitted, np.isin(names, sorted(trained_on)))
