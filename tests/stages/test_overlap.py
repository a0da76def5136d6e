"""A model is judged on images that it has not seen, whatever data it is judged on."""

import csv
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from PIL import Image

from fer_experiments.config import Config, DataConfig
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.images import FER_CLASSES
from fer_experiments.data.prepared import by_fingerprint, prepare
from fer_experiments.data.seen import ImageSet, Seen, by_training
from fer_experiments.data.synthetic import draw_faces
from fer_experiments.errors import TrackingError
from fer_experiments.stages.common import keep_hashes
from fer_experiments.stages.overlap import overlap
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.models import LoggedModel, describe
from fer_experiments.tracking.runs import stored_arrays

from ..conftest import Fer
from .designed import answers, log_designed, write_images

NAME = "emotion-fer2013"  # what has its file names is called so
HOLDOUT = ("--split", "holdout", "--val-fraction", "0.4", "--image-size", "48")


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
    trained = fer(*TRAIN, "--dataset", folder).done()
    before = data_of(trained)
    write_faces(folder, 60, start=160)  # more came in: the split is drawn anew

    for options in ((), ("--leaks", "drop"), ("--limit", "60")):
        judged = fer(
            "evaluate", "--run-id", trained, "--dataset", folder, *HOLDOUT, *options
        ).done()
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


@pytest.mark.slow
def test_everything_that_a_model_was_made_from_counts(own_home: Path, fer: Fer) -> None:
    folder = write_faces(own_home / "faces", 100)
    trained = fer(*TRAIN, "--dataset", folder, "--keep-epoch", "last").done()
    tuned = fer("finetune", "--run-id", trained, "--finetune-epochs", "1").done()
    other = fer(*TRAIN, "--dataset", folder, "--keep-epoch", "last", "--seed", "1").done()
    calibrated = fer("calibrate", "--run-id", tuned).done()
    joined = fer("ensemble", "--run-ids", f"{calibrated},{other}").done()

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


@pytest.mark.slow
def test_pictures_are_known_again_in_another_format_and_at_another_size(
    own_home: Path, fer: Fer
) -> None:
    trained = fer(*TRAIN, "--dataset", write_faces(own_home / "faces", 100)).done()
    copies = write_faces(own_home / "copies", 100, kind="bmp")
    judged = fer("evaluate", "--run-id", trained, "--dataset", copies, *HOLDOUT,
                  "--data-seed", "1").done()  # fmt: skip
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


class Rearranged:
    """Two models, the first of them champion, of different parts of the same images.

    The champion was trained on so many images of each class of today's val; it knows those by heart
    and is right on 44 % of the others. The newcomer was trained on today's train and is right on
    60 %. Each class has 100 images in val.
    """

    def __init__(self, folder: Path, fer: Fer) -> None:
        self.folder, self.fer = folder, fer

    def make(self, known: int, **but: int) -> None:
        """Makes both, neither registered; `but` is the number for single classes."""
        memory = answers(0.44, seed=0)
        for i, name in enumerate(FER_CLASSES):
            memory[i, : but.get(name, known)] = i
        models = [memory, answers(0.6, seed=1)]
        twins = {"else": known} | but
        self.then = write_images(self.folder / "then" / "faces", models, twins=twins)
        now = write_images(self.folder / "now" / "faces", models)
        self.today = ("--dataset", now, "--split", "official")
        self.champion = log_designed(self.then, 0, confidence=0.7)
        self.newcomer = log_designed(now, 1, confidence=0.6)

    def begin(self, known: int, **but: int) -> None:
        """Makes both, and registers the champion."""
        self.make(known, **but)
        self.fer("evaluate", "--run-id", self.champion).done()
        self.fer("register").done()
        self.fer("promote", "--version", "1")  # where the gate would not have it
        assert self.holder() == self.champion

    def judge_champion(self) -> dict[str, float]:
        """Evaluates it on today's val; returns its scores."""
        return metrics(self.fer("evaluate", "--run-id", self.champion, *self.today).done())

    def judge(self) -> dict[str, float]:
        """Evaluates both on today's val; returns the champion's scores."""
        judged = self.judge_champion()
        self.fer("evaluate", "--run-id", self.newcomer).done()
        return judged

    def holder(self) -> str:
        """The run whose model is champion."""
        version = MlflowClient().get_model_version_by_alias(NAME, "champion")
        return str(version.tags["source_run_id"])


@pytest.fixture
def two(own_home: Path, fer: Fer) -> Rearranged:
    return Rearranged(own_home, fer)


def test_promotion_and_comparison_rest_on_images_that_neither_model_was_trained_on(
    two: Rearranged, fer: Fer
) -> None:
    two.begin(60)
    judged = two.judge()
    assert judged["val/images_with_twin"] == 420
    assert judged["val/accuracy"] == pytest.approx(0.776, abs=0.03)
    assert judged["val/clean/accuracy"] == pytest.approx(0.44, abs=0.06)

    compared = fer("compare")
    assert compared.exit_code == 0, compared.err
    assert "vgg16 train baseline s1 is better than vgg16 train baseline s0" in compared.out
    assert "on 280 of 700 images" in compared.out
    ranking = mlflow.artifacts.load_text(f"runs:/{compared.done()}/comparison.md")
    assert ranking.index("baseline s1 |") < ranking.index("baseline s0 |")

    outcome = fer("register")
    assert "better than version 1" in outcome.out
    assert "on the 280 val images that neither was trained on" in outcome.out
    assert two.holder() == two.newcomer


@pytest.mark.parametrize(
    ("known", "but", "why"),
    [
        (72, {}, "196 images are left, fewer than 200"),
        pytest.param(100, {}, "0 images are left, fewer than 200", marks=pytest.mark.slow),
        pytest.param(40, {"disgust": 100}, "no image is left of disgust", marks=pytest.mark.slow),
    ],
)
def test_where_too_few_images_are_left_nobody_is_compared(
    two: Rearranged, fer: Fer, known: int, but: dict[str, int], why: str
) -> None:
    two.begin(known, **but)
    judged = two.judge()
    twins = 7 * known + sum(number - known for number in but.values())
    assert judged["val/images_with_twin"] == twins
    clean = {name for name in judged if name.startswith("val/clean/")}
    assert bool(clean) is (twins < 700)

    compared = fer("compare")
    assert compared.exit_code == 0, compared.err
    assert "no pair could be compared on val" in compared.out
    assert why in compared.out
    text = mlflow.artifacts.load_text(f"runs:/{compared.done()}/val_pairs.csv")
    [row] = csv.DictReader(io.StringIO(text))
    assert row["macro-F1 difference"] == row["accuracy p"] == "–"
    assert why in row["why not compared"]

    outcome = fer("register")
    assert outcome.exit_code == 0, outcome.err
    assert why in outcome.out
    assert f"next   fer promote --version 2 --model-name {NAME}" in outcome.out
    assert two.holder() == two.champion


def forget_record(run_id: str) -> None:
    """Makes the model one of an older version, without a record of what it has seen."""
    client = MlflowClient()
    model_id = run(run_id).data.tags["model_uri"].removeprefix("models:/")
    file = Path(local_file_uri_to_path(client.get_logged_model(model_id).artifact_location))
    described = yaml.safe_load((file / "MLmodel").read_text())
    del described["metadata"]["seen"]
    (file / "MLmodel").write_text(yaml.safe_dump(described))
    kept = Path(local_file_uri_to_path(run(run_id).info.artifact_uri), "dataset")
    (kept / "pixel_hashes.npz").unlink()


def empty_home(two: Rearranged) -> None:
    """The prepared data and the source of what the champion was trained on are gone."""
    for folder in Path(os.environ["FER_DATA_HOME"]).glob("fer2013-*"):
        shutil.rmtree(folder)
    shutil.rmtree(two.then)


def test_what_an_older_model_was_trained_on_is_found_where_it_was_prepared(
    two: Rearranged,
) -> None:
    two.make(60)
    forget_record(two.champion)
    judged = two.judge_champion()
    assert judged["val/images_with_twin"] == 420
    # Nobody knows whether its val chose an epoch: that is taken to be so.
    assert judged["val/images_selected_on"] == 700
    newest = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"tags.stage = 'evaluate' and tags.source_run_id = '{two.champion}'",
        output_format="list",
    )[0]
    assert newest.data.tags["chosen_on_val"] == "epoch, perhaps"


def test_what_a_model_was_trained_on_is_found_with_its_run(two: Rearranged) -> None:
    two.make(60)
    empty_home(two)
    judged = two.judge_champion()
    assert judged["val/images_with_twin"] == 420
    assert judged["val/images_selected_on"] == 700


@pytest.mark.slow
def test_where_nobody_knows_what_a_model_was_trained_on_that_is_said_and_the_gate_refuses(
    two: Rearranged, fer: Fer
) -> None:
    two.begin(60)
    forget_record(two.champion)
    empty_home(two)
    outcome = fer("evaluate", "--run-id", two.champion, *two.today)
    assert outcome.exit_code == 0, outcome.err
    assert "overlap unknown, so no score is called clean" in outcome.out
    judged = metrics(outcome.done())
    assert not [n for n in judged if "clean" in n or "twin" in n or "selected" in n]
    assert "fitted" not in stored_arrays(outcome.done(), "val/probabilities.npz")
    fer("evaluate", "--run-id", two.newcomer).done()

    compared = fer("compare")
    assert "no pair could be compared on val" in compared.out
    assert "unknown which images vgg16 train baseline s0 was trained on" in compared.out
    refused = fer("register")
    assert refused.exit_code == 0, refused.err
    assert "unknown which val images vgg16 train baseline s0 was trained on" in refused.out
    assert f"next   fer promote --version 2 --model-name {NAME}" in refused.out
    assert two.holder() == two.champion
    assert fer("promote", "--version", "2").exit_code == 0
    assert two.holder() == two.newcomer


@dataclass(frozen=True)
class Gone:
    """Data that are not here any more, and the run that keeps what they were."""

    fingerprint: str
    val: set[str]  # ids
    run_id: str


@pytest.fixture
def gone(own_home: Path) -> tuple[Gone, PreparedDataset]:
    """With it, data of today that hold the same images and more."""

    def prepared(folder: Path) -> PreparedDataset:
        config = DataConfig(dataset=str(folder), split="holdout", val_fraction=0.4, image_size=48)
        return prepare(config)

    folder = write_faces(own_home / "faces", 60)
    before = prepared(folder)
    with open_run("train", "which keeps them") as writer:
        keep_hashes(writer, before)
    gone = Gone(before.fingerprint, split_ids(before, "val"), writer.run_id)
    shutil.rmtree(before.folder)
    return gone, prepared(write_faces(folder, 40, start=60))


def with_record(prepared: PreparedDataset, seen: Seen) -> LoggedModel:
    """A model that has seen this."""
    return LoggedModel(
        uri="models:/m-none",
        class_names=prepared.class_names,
        image_size=48,
        config=Config(),
        dataset_name=prepared.name,
        dataset_fingerprint=prepared.fingerprint,
        source_run_id="none",
        seen=seen,
    )


def test_what_only_chose_of_a_model_is_found_with_its_run(
    gone: tuple[Gone, PreparedDataset],
) -> None:
    before, now = gone
    chose = ImageSet(
        fingerprint=before.fingerprint, split="val", run_id=before.run_id, chose="temperature"
    )
    train = ImageSet(fingerprint=now.fingerprint, split="train")
    model = with_record(now, Seen(fitted=(train,), selected=(chose,)))
    found = overlap(model, now, ("train", "val"))
    assert (found.unknown, found.chosen) == ("", "temperature")
    assert found.fitted["train"].all() and not found.fitted["val"].any()
    for split in ("train", "val"):
        expected = np.isin(now.ids[now.slice(split)], sorted(before.val))
        assert 0 < expected.sum() < len(expected)
        np.testing.assert_array_equal(found.selected[split], expected)


def test_a_run_that_keeps_other_data_tells_nothing(gone: tuple[Gone, PreparedDataset]) -> None:
    before, now = gone
    lost = ImageSet(fingerprint="f" * 64, split="train", run_id=before.run_id)
    found = overlap(with_record(now, Seen(fitted=(lost,), selected=())), now, ("val",))
    assert found.fitted == found.selected == {}
    assert found.unknown == (
        "what it was trained on (data ffffffff) is neither prepared here nor kept with its run"
    )


def test_a_store_that_is_away_is_not_taken_for_an_unknown_overlap(
    two: Rearranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    two.make(60)
    logged = describe(run(two.champion).data.tags["model_uri"])
    empty_home(two)
    now = prepare(DataConfig(dataset=str(two.today[1]), split="official", image_size=16))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="cannot be used"):
        overlap(logged, now, ("val",))


def test_members_that_were_trained_on_different_splits_make_no_ensemble(
    two: Rearranged, fer: Fer
) -> None:
    two.make(60)
    refused = fer("ensemble", "--run-ids", f"{two.champion},{two.newcomer}")
    assert refused.exit_code == 2
    assert "Expected runs that were trained on the same data" in refused.error


@pytest.mark.slow
def test_on_the_real_images_the_holdout_is_what_the_official_split_trains_on(
    shared: Path, fresh_store: Path
) -> None:
    archive = str(shared / "fer2013" / "archive.zip")
    official, holdout = (
        prepare(DataConfig(dataset=archive, split=split)) for split in ("official", "holdout")
    )
    trained = with_record(official, by_training(official, Config().fit))
    found = overlap(trained, holdout, ("val",))
    assert (len(found.fitted["val"]), found.fitted["val"].sum()) == (5746, 5746)
    # Some of them stand in PublicTest, too, which chose the epoch.
    assert 0 < found.selected["val"].sum() < 280
    found = overlap(trained, official, ("val", "test"))
    assert (len(found.fitted["val"]), found.fitted["val"].sum()) == (3589, 280)
    assert found.selected["val"].all()
