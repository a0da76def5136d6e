"""The feature cache: it gives what the network gives, is found again, and its loss costs time only.

Most tests have a data home of their own. Those that take `trained` share the one of a finished run.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.prepared import by_fingerprint, prepare
from fer_experiments.data.storage import unfinished
from fer_experiments.errors import ConfigError, DataError
from fer_experiments.evaluation.predictions import predict
from fer_experiments.models import classifier, truncation
from fer_experiments.models.features import cache, extraction
from fer_experiments.recipes import resolve
from fer_experiments.stages import inputs
from fer_experiments.tracking.models import load, model_of
from fer_experiments.tracking.runs import get_run
from fer_experiments.training.batches import Batches

from ..conftest import QUICK, Fer, Outcome, process_environment
from ..data.helpers import pictures, write_folder

# Nothing is drawn at random in an epoch but the order of the images.
PLAIN = [
    "--augmented-copies",
    "0",
    "--rotation",
    "0",
    "--shift",
    "0",
    "--zoom",
    "0",
    "--flip",
    "off",
    "--dropout",
    "0",
]
TRAIN = ["train", "--backbone", "tiny", *QUICK[:4], "--epochs", "1", *PLAIN]
FINETUNE = ["finetune", "--finetune-epochs", "1"]
TRAIN_IMAGES, VAL_IMAGES = 166, 22  # of QUICK's 210 faces
SMALL = {"synthetic_count": 105}
SMALL_TRAIN, SMALL_VAL = 81, 12
pytestmark = pytest.mark.usefixtures("store", "home")
COMPUTES, FINDS = "computed once", "features: all found in the cache"


@pytest.fixture(scope="module")
def store(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a store for the runs of this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        yield folder


@dataclass(frozen=True)
class Trained:
    """A finished train run and the data home in which its features lie."""

    run: Run
    home: Path


@pytest.fixture(scope="module")
def train_run(store: Path) -> Trained:
    """`fer train` once for all tests that start from it."""
    from fer_experiments.entry import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_DATA_HOME", str(store / "home"))
        with pytest.raises(SystemExit) as ended:
            main(TRAIN)
    assert ended.value.code == 0
    newest, *_ = mlflow.search_runs(
        search_all_experiments=True,
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )
    return Trained(newest, store / "home")


@pytest.fixture
def trained(train_run: Trained, home: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """That run, its data home in use."""
    monkeypatch.setenv("FER_DATA_HOME", str(train_run.home))
    return train_run


def run_of(outcome: Outcome) -> Run:
    """The run that a command wrote."""
    assert outcome.exit_code == 0, outcome.err
    (run_id,) = re.findall(r"^run +(\w+)$", outcome.out, re.MULTILINE)
    return MlflowClient().get_run(run_id)


def scores(run: Run) -> dict[str, float]:
    return {k: v for k, v in run.data.metrics.items() if k.startswith(("train/", "val/"))}


def weights_of(run: Run) -> list[np.ndarray]:
    return load(model_of(get_run(run.info.run_id, stages=("train", "finetune")))).get_weights()


def agree(first: Run, second: Run) -> bool:
    """Whether the models have the same weights, but for what rounding does."""
    pairs = zip(weights_of(first), weights_of(second), strict=True)
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)


def material(**changes: object) -> tuple[keras.Model, PreparedDataset, Config]:
    """What the stages work on, as TRAIN would make it with these changes."""
    plain = {
        "augmented_copies": 0,
        "rotation": 0,
        "shift": 0,
        "zoom": 0,
        "flip": False,
        "dropout": 0,
    }
    wanted = {"backbone": "tiny", "synthetic_count": 210, **plain, **changes}
    config = resolve("demo", wanted)
    prepared = prepare(config.data)
    model = classifier.build(
        config.model,
        image_size=prepared.image_size,
        classes=len(prepared.class_names),
        seed=config.fit.seed,
    )
    return model, prepared, config


def head_points(model: keras.Model) -> tuple[str, ...]:
    return truncation.points(model, truncation.training_layers(model))


def obtain(**changes: object) -> extraction.Features:
    """The features that head training needs."""
    model, prepared, config = material(**changes)
    return extraction.obtain(model, prepared, config, points=head_points(model))


def entries(home: Path) -> list[Path]:
    """The folders of the cache that are whole to the eye."""
    return sorted(path for path in home.glob("features/[!.]*") if path.is_dir())


def bytes_by_entry(home: Path) -> dict[str, bytes]:
    return {folder.name: (folder / "features.npy").read_bytes() for folder in entries(home)}


def half_written(home: Path) -> list[Path]:
    return list(home.rglob(".writing-*"))


def process(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(**environment),
    )


@pytest.fixture(scope="module")
def small_home(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data home with the features of few faces."""
    folder = tmp_path_factory.mktemp("small") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_DATA_HOME", str(folder))
        assert obtain(**SMALL).computed == SMALL_TRAIN + SMALL_VAL
    return folder


@pytest.fixture
def kept(small_home: Path, home: Path) -> Path:
    """This test's data home, with a copy of them."""
    return shutil.copytree(small_home, home)


# It gives what the network gives


def test_the_logged_model_on_pixels_agrees_with_what_trained_on_cached_features(
    trained: Trained,
) -> None:
    logged = model_of(get_run(trained.run.info.run_id, stages=("train",)))
    model, prepared = load(logged), by_fingerprint(logged.dataset_fingerprint)
    assert prepared is not None
    expected = predict(model, prepared.split("val")[0])
    assert np.ptp(expected, axis=0).max() > 0.01  # the images can be told apart
    unfrozen = classifier.to_unfreeze(model, 4, train_batchnorm=False)
    for layers in ({"logits"}, {"logits", *unfrozen}):
        points = truncation.points(model, truncation.training_layers(model) | layers)
        found = extraction.obtain(model, prepared, logged.config, points=points)
        assert found.computed == 0
        behind = truncation.trainable_part(model, points)
        given = list(map(np.array, found.val)) if len(points) > 1 else np.array(found.val[0])
        np.testing.assert_allclose(behind.predict_on_batch(given), expected, atol=1e-5)


@pytest.mark.slow
def test_a_head_trained_without_the_cache_is_the_same(trained: Trained, fer: Fer) -> None:
    outcome = fer(*TRAIN, "--cache", "off")
    assert "features" not in outcome.out
    uncached = run_of(outcome)
    assert agree(uncached, trained.run)
    assert scores(uncached) == pytest.approx(scores(trained.run), abs=1e-4)


@pytest.mark.slow
def test_fine_tuning_finds_its_features_and_without_them_gives_the_same(
    trained: Trained, fer: Fer
) -> None:
    start = ["--run-id", trained.run.info.run_id]
    cached = fer(*FINETUNE, *start)
    assert FINDS in cached.out
    assert COMPUTES not in cached.out
    uncached = fer(*FINETUNE, *start, "--cache", "off")
    assert "features" not in uncached.out
    assert not agree(run_of(cached), trained.run)
    assert agree(run_of(cached), run_of(uncached))
    assert scores(run_of(uncached)) == pytest.approx(scores(run_of(cached)), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "truncate_at"), [("vgg16", "block2_pool"), ("resnet50", "conv2_block3_out")]
)
def test_a_real_backbone_trains_the_same_with_and_without_the_cache(
    backbone: str, truncate_at: str, fer: Fer
) -> None:
    train = [*TRAIN, "--backbone", backbone, "--truncate-at", truncate_at, "--weights", "none",
             "--initializer", "he_normal"]  # fmt: skip
    cached, uncached = run_of(fer(*train)), run_of(fer(*train, "--cache", "off"))
    assert agree(cached, uncached)
    start = ["--run-id", cached.info.run_id]
    tuned, without = (
        run_of(fer(*FINETUNE, *start)),
        run_of(fer(*FINETUNE, *start, "--cache", "off")),
    )
    assert not agree(tuned, cached)
    assert agree(tuned, without)


@pytest.mark.slow
def test_mixed_precision_has_features_of_its_own_and_float32_probabilities(
    trained: Trained, fer: Fer
) -> None:
    before = bytes_by_entry(trained.home)
    outcome = fer(*TRAIN, "--precision", "mixed_bfloat16")
    assert COMPUTES in outcome.out
    after = bytes_by_entry(trained.home)
    assert len(after) == len(before) + 6  # three tensors of train and val
    assert {name: after[name] for name in before} == before
    run = run_of(outcome)
    assert fer("evaluate", "--run-id", run.info.run_id).exit_code == 0
    model = load(model_of(get_run(run.info.run_id, stages=("train", "finetune"))))
    assert model.get_layer("block1_conv").compute_dtype == "bfloat16"
    probabilities = model.predict_on_batch(np.zeros((2, 48, 48, 1), np.float32))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)


# It is found again, and only for what is the same


def test_another_head_finds_the_features(trained: Trained, fer: Fer) -> None:
    outcome = fer(*TRAIN, "--learning-rate", "1e-2", "--dropout", "0.3", "--head-units", "64",
                  "--head-batchnorm", "off", "--optimizer", "sgd")  # fmt: skip
    assert FINDS in outcome.out
    assert COMPUTES not in outcome.out
    assert not half_written(trained.home)


@pytest.mark.parametrize(
    "changes",
    [
        {"data_seed": 1},
        {"truncate_at": "block2_add"},  # same weights below, same shape, without the last ReLU
        {"input_scaling": "unit"},
        {"seed": 1},  # with weights=none the backbone is drawn from it
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"synthetic_count": 217},
                {"limit": 70},
                {"truncate_at": "block1_pool"},
                {"head": "global_average_pooling"},
                {"input_size": 64},
                {"initializer": "glorot_uniform"},
                {"cache_dtype": "float16"},
                {"precision": "mixed_bfloat16"},
            )
        ),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_gives_other_features_is_computed(changes: dict[str, object], kept: Path) -> None:
    first = bytes_by_entry(kept)
    other = obtain(**SMALL | changes)
    assert other.computed == len(other.train[0][0]) + len(other.val[0])
    second = bytes_by_entry(kept)
    assert len(second) == 4
    assert {name: second[name] for name in first} == first
    assert obtain(**SMALL | changes).computed == obtain(**SMALL).computed == 0


def test_a_head_trains_on_what_the_logged_model_gives(home: Path) -> None:
    """After another truncation point whose features look alike, too."""
    obtain(**SMALL, truncate_at="block2_add")
    model, prepared, config = material(**SMALL, truncate_at="block2_out")
    found = extraction.obtain(model, prepared, config, points=head_points(model))
    given = truncation.feature_extractor(model, head_points(model)).predict_on_batch(
        prepared.split("val")[0].astype(np.float32)[..., None]
    )
    np.testing.assert_allclose(found.val[0], keras.tree.flatten(given)[0], atol=1e-4)
    assert found.val[0].min() == 0  # after a ReLU


def entry(**changes: object) -> cache.CachedTensor:
    """An augmented copy's place in the cache; `changes` are of the configuration."""
    wanted = {"synthetic_count": 105, "backbone": "tiny", "augmented_copies": 2, "rotation": 20}
    config = resolve("demo", wanted | changes)
    return cache.CachedTensor(
        subset=cache.ImageSubset(split="train", copy=1),
        name="head_flatten",
        tensor_shape=(576,),
        graph="one",
        backend="tensorflow",
        augmenter="one",
        prepared=prepare(replace(config.data, data_seed=0)),
        config=config,
    )


PAIRS: dict[str, Callable[[cache.CachedTensor], cache.CachedTensor]] = {
    "dataset": lambda kept: replace(kept, prepared=entry(synthetic_count=112).prepared),
    "split": lambda kept: replace(kept, subset=cache.ImageSubset(split="val", copy=1)),
    "view": lambda kept: replace(kept, subset=cache.ImageSubset(split="train", copy=2)),
    "augmentation": lambda kept: replace(kept, config=entry(rotation=10).config),
    "augmenter": lambda kept: replace(kept, augmenter="two"),
    "data_seed": lambda kept: replace(kept, config=entry(data_seed=1).config),
    "graph": lambda kept: replace(kept, graph="two"),
    "backend": lambda kept: replace(kept, backend="jax"),
    "dtype": lambda kept: replace(kept, config=entry(cache_dtype="float16").config),
}


def test_every_part_of_the_key_by_itself_leads_elsewhere() -> None:
    first = entry()
    assert set(PAIRS) == set(first.key) - {"format"}
    for part, change in PAIRS.items():
        other = change(first)
        differing = {name for name in first.key if first.key[name] != other.key[name]}
        assert differing == {part}
        assert other.folder != first.folder
    assert replace(first, config=entry(seed=5, learning_rate=0.5).config).folder == first.folder


def test_what_an_older_version_kept_is_listed_and_computed_anew(kept: Path, fer: Fer) -> None:
    for folder in entries(kept):
        file = folder / "manifest.json"
        manifest = json.loads(file.read_text())
        named = {name: manifest.pop(name) for name in ("backbone", "tensor")}
        manifest["key"] |= {"format": 2, **named}
        file.write_text(json.dumps(manifest))
        folder.rename(folder.with_name(f"tiny-{folder.name[::-1][:16]}"))
    rows = fer("cache").out.splitlines()[1:-1]
    assert len(rows) == 2
    assert all(row.startswith("tiny  ") and " head_flatten " in row for row in rows)
    assert obtain(**SMALL).computed == SMALL_TRAIN + SMALL_VAL


def test_what_gives_the_same_features_computes_nothing(home: Path) -> None:
    assert obtain().computed == TRAIN_IMAGES + VAL_IMAGES
    written = {path: path.stat().st_mtime_ns for path in home.rglob("*.npy")}
    for changes in (
        {"head_units": 8, "dropout": 0.3},
        {"learning_rate": 1e-2, "batch_size": 7, "keep_epoch": "last", "optimizer": "sgd"},
        {"rotation": 10, "flip": True},  # there are no augmented copies
        {"unfreeze_layers": 2},
    ):
        assert obtain(**changes).computed == 0
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*.npy")} == written


def test_half_of_what_is_wanted_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    model, prepared, config = material()
    extraction.obtain(model, prepared, config, points=["block1_pool"])
    capsys.readouterr()
    both = extraction.obtain(model, prepared, config, points=["block1_pool", "block2_2_bn"])
    assert both.computed == TRAIN_IMAGES + VAL_IMAGES
    assert f"{both.computed} images up to block2_2_bn, {COMPUTES}" in capsys.readouterr().out
    assert [array.shape[1:] for array in both.val] == [(12, 12, 8), (6, 6, 16)]


def test_the_same_key_gives_the_same_bytes_from_scratch(home: Path) -> None:
    changes = {"augmented_copies": 2, "rotation": 20, "shift": 0.2, "zoom": 0.1, "flip": True}
    obtain(**changes)
    first = bytes_by_entry(home)
    assert len(first) == 4
    cache.clear()
    assert entries(home) == []
    obtain(**changes)
    assert bytes_by_entry(home) == first


# Views


def test_more_views_compute_what_is_not_there_yet(home: Path) -> None:
    augmented = {"rotation": 20, "shift": 0.2, "flip": True}
    one = obtain(**augmented)
    three = obtain(augmented_copies=2, **augmented)
    assert one.computed == TRAIN_IMAGES + VAL_IMAGES
    assert three.computed == 2 * TRAIN_IMAGES
    (clean,), (first,), (second,) = map(np.array, three.train)
    np.testing.assert_array_equal(clean, one.train[0][0])
    for a, b in ((clean, first), (clean, second), (first, second)):
        assert not (a == b).all(axis=1).any()
    two = obtain(augmented_copies=1, **augmented)
    assert two.computed == 0
    np.testing.assert_array_equal(two.train[1][0], first)


@pytest.mark.parametrize("changes", [{"data_seed": 1}, {"rotation": 5}], ids=str)
def test_augmentation_decides_the_views_and_leaves_the_clean_images(
    changes: dict[str, object], tmp_path: Path
) -> None:
    faces = write_folder(tmp_path / "faces", pictures())  # no split of it hangs on data_seed
    wanted = {"dataset": str(faces), "augmented_copies": 1, "rotation": 20}
    first, other = obtain(**wanted), obtain(**wanted | changes)
    assert (first.computed, other.computed) == (35 + 35 + 14, 35)
    np.testing.assert_array_equal(other.train[0][0], first.train[0][0])
    assert not (other.train[1][0] == first.train[1][0]).all(axis=1).any()


def epoch_of(data: Batches, epoch: int | None = None) -> list[tuple[int, int, int]]:
    """(view, image, label) in the order of an epoch; `numbered` says what the values mean."""
    if epoch is not None:
        data.set_epoch(epoch)
    seen = []
    for i in range(len(data)):
        batch: Any = data[i]
        (first, second), one_hot = batch
        assert first.dtype == second.dtype == np.float32
        np.testing.assert_array_equal(second[:, 0, 1], -first[:, 0])  # both of one view
        views, images = np.divmod(first[:, 0].astype(int), 100)
        seen += list(zip(views, images, one_hot.argmax(axis=1), strict=True))
    return seen


def numbered(views: int, *, seed: int | None = 3, first_epoch: int = 1) -> Batches:
    """50 images and two tensors of each, their values 100 × view + image."""
    values = [np.arange(50, dtype=np.float16)[:, None] + 100 * v for v in range(views)]
    return Batches(
        [(value, np.stack([value, -value], axis=-1)) for value in values],
        np.arange(50) % 7,
        classes=7,
        batch_size=16,
        seed=seed,
        first_epoch=first_epoch,
    )


def test_an_epoch_takes_one_view_of_each_image_and_as_many_epochs_take_them_all() -> None:
    data = numbered(views=3)
    epochs = [epoch_of(data, epoch) for epoch in range(1, 7)]
    for seen in epochs:
        assert sorted(image for _, image, _ in seen) == list(range(50))
        assert all(label == image % 7 for _, image, label in seen)
        assert {view for view, _, _ in seen} == {0, 1, 2}
    pairs = [{(view, image) for view, image, _ in seen} for seen in epochs]
    assert len(pairs[0] | pairs[1] | pairs[2]) == 150
    assert pairs[3:] == pairs[:3]


def test_views_follow_from_seed_and_epoch_alone() -> None:
    data = numbered(views=3)
    first, second = epoch_of(data, 1), epoch_of(data, 2)
    assert epoch_of(numbered(views=3)) == first
    assert epoch_of(numbered(views=3, first_epoch=2)) == second
    assert epoch_of(numbered(views=3, seed=4)) != first
    val = numbered(views=1, seed=None)
    assert epoch_of(val, 1) == epoch_of(val, 2) == [(0, i, i % 7) for i in range(50)]


# What the run says


def test_a_run_without_augmentation_says_so_and_counts_the_features_time(trained: Trained) -> None:
    assert trained.run.data.params["augmentation"] == "none"
    seconds = trained.run.data.metrics
    assert 0 < seconds["time/features_seconds"] < seconds["time/train_seconds_total"]


@pytest.mark.slow
def test_a_run_with_views_says_how_many(trained: Trained, fer: Fer) -> None:
    outcome = fer(*TRAIN, "--augmented-copies", "2", "--rotation", "20", "--epochs", "2")
    assert f"features: {2 * TRAIN_IMAGES} images computed" in outcome.out
    run = run_of(outcome)
    assert run.data.params["augmentation"] == "kept: 1 clean view, 2 augmented"
    assert run.data.params["augmented_copies"] == "2"


def test_without_the_cache_images_are_augmented_anew_every_epoch() -> None:
    model, prepared, config = material(cache=False, rotation=20)
    fed = inputs.of_phase(model, config, prepared)
    assert fed.augmentation == "anew every epoch"
    assert fed.train[0][0].shape == (TRAIN_IMAGES, 48, 48, 1)
    model, prepared, config = material(cache=False)
    assert inputs.of_phase(model, config, prepared).augmentation == "none"


def test_a_network_without_frozen_layers_takes_pixels(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, prepared, config = material()
    classifier.unfreeze(model, len(classifier.backbone_layers(model)), train_batchnorm=True)
    fed = inputs.of_phase(model, config, prepared)
    assert fed.model is model
    assert fed.val[0][0].shape == (VAL_IMAGES, 48, 48, 1)
    assert "nothing is frozen" in capsys.readouterr().out
    assert not (home / "features").exists()


# float16


def test_float16_takes_half_and_scores_alike(trained: Trained) -> None:
    logged = model_of(get_run(trained.run.info.run_id, stages=("train",)))
    model, prepared = load(logged), by_fingerprint(logged.dataset_fingerprint)
    assert prepared is not None
    labels = prepared.split("val")[1]
    accuracy, size = [], []
    for dtype in ("float32", "float16"):
        config = logged.config.replace(cache_dtype=dtype)
        found = extraction.obtain(model, prepared, config, points=head_points(model))
        assert found.val[0].dtype == found.train[0][0].dtype == dtype
        behind = truncation.trainable_part(model, head_points(model))
        probabilities = behind.predict_on_batch(found.val[0].astype(np.float32))
        accuracy.append((probabilities.argmax(axis=1) == labels).mean())
        size.append(found.train[0][0].nbytes + found.val[0].nbytes)
    assert size[0] == 2 * size[1]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=1.5 / len(labels))


def test_features_too_large_for_float16_are_one_clear_error_and_leave_nothing(home: Path) -> None:
    model, prepared, config = material(cache_dtype="float16")
    shortcut = model.get_layer("block2_0_conv")
    shortcut.set_weights([weight * 1e6 for weight in shortcut.get_weights()])
    with pytest.raises(ConfigError, match=r"at most 65504.*head_flatten; pass cache_dtype=float32"):
        extraction.obtain(model, prepared, config, points=head_points(model))
    assert entries(home) == half_written(home) == []
    found = extraction.obtain(
        model, prepared, config.replace(cache_dtype="float32"), points=head_points(model)
    )
    assert found.train[0][0].max() > 65504


# Damage


def flip_a_byte(folder: Path) -> None:
    data = bytearray((folder / "features.npy").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "features.npy").write_bytes(data)


def cut_off(folder: Path) -> None:
    os.truncate(folder / "features.npy", (folder / "features.npy").stat().st_size // 2)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a flipped byte": flip_a_byte,
    "half of the file": cut_off,
    "no file": lambda f: (f / "features.npy").unlink(),
    "no manifest": lambda f: (f / "manifest.json").unlink(),
    "a manifest that is no JSON": lambda f: (f / "manifest.json").write_text("{"),
    "another manifest": lambda f: (f / "manifest.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_noticed_and_mended(
    damage: Callable[[Path], object], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = bytes_by_entry(kept)
    largest = max(entries(kept), key=lambda folder: (folder / "features.npy").stat().st_size)
    damage(largest)
    assert obtain(**SMALL).computed == SMALL_TRAIN
    assert "features of tiny, train: damaged, computed again" in capsys.readouterr().out
    assert bytes_by_entry(kept) == whole
    assert not half_written(kept)
    assert obtain(**SMALL).computed == 0


@pytest.mark.slow
def test_a_run_on_damaged_features_scores_as_before(home: Path, fer: Fer) -> None:
    first = run_of(fer(*TRAIN))
    whole = bytes_by_entry(home)
    for folder in entries(home):
        flip_a_byte(folder)
    outcome = fer(*TRAIN)
    assert outcome.out.count("damaged, computed again") == len(whole) == 6
    assert scores(run_of(outcome)) == scores(first)
    assert bytes_by_entry(home) == whole


# Several processes, and killed ones

FER_TOGETHER = """
import sys, time
from pathlib import Path
import keras
from fer_experiments.entry import main
Path(sys.argv[1]).touch()
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
main(sys.argv[3:])
"""


@pytest.mark.slow
def test_of_two_processes_at_once_one_computes(
    trained: Trained, home: Path, tmp_path: Path
) -> None:
    ready, go = [tmp_path / "ready-0", tmp_path / "ready-1"], tmp_path / "go"
    running = [
        process("-c", FER_TOGETHER, str(file), str(go), *TRAIN, FER_DATA_HOME=str(home))
        for file in ready
    ]
    while not all(file.exists() for file in ready):
        assert all(each.poll() is None for each in running)
        time.sleep(0.01)
    go.touch()
    printed = [each.communicate(timeout=300) for each in running]
    assert [each.returncode for each in running] == [0, 0], printed
    assert sorted(COMPUTES in out for out, _ in printed) == [False, True]
    assert sorted(FINDS in out for out, _ in printed) == [False, True]
    assert not half_written(home)
    assert bytes_by_entry(home).items() <= bytes_by_entry(trained.home).items()
    assert len(entries(home)) == 6


@pytest.mark.slow
def test_what_a_killed_process_left_is_removed(
    home: Path, tmp_path: Path, fer: Fer, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [*TRAIN, "--backbone", "vgg16", "--truncate-at", "none", "--synthetic-count", "700"]
    killed = process("-m", "fer_experiments", *train)
    while not list(home.glob("features/.writing-vgg16-*/features.npy")):
        assert killed.poll() is None
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert half_written(home)
    assert entries(home) == []
    shutil.copytree(home, tmp_path / "other")

    assert COMPUTES in fer(*train).out
    assert not half_written(home)
    assert len(entries(home)) == 4

    monkeypatch.setenv("FER_DATA_HOME", str(tmp_path / "other"))
    assert re.match(r"freed \d+\.\d MB", fer("cache", "--clear").out)
    assert not half_written(tmp_path / "other")


# A full disk


def warnings_of(outcome: Outcome) -> list[str]:
    lines = outcome.err.splitlines()
    assert all(line.startswith("Warning: ") for line in lines), outcome.err
    return lines


@pytest.mark.slow
def test_features_that_do_not_fit_are_computed_every_epoch_with_the_same_scores(
    train_run: Trained,
    small_disk: Callable[[str], Path],
    fer: Fer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = tmp_path / "home"
    disk.mkdir()
    (disk / "features").symlink_to(small_disk("size=200k"))  # 0.4 MB of features do not fit
    monkeypatch.setenv("FER_DATA_HOME", str(disk))
    outcome = fer(*TRAIN, "--rotation", "20")  # of which nothing is kept
    run = run_of(outcome)
    *refused, gone_on = warnings_of(outcome)
    assert len(refused) == 2
    assert all(re.search(rf"{disk}/features .* [\d.]+ MB are needed", line) for line in refused)
    assert "every epoch runs the frozen layers again" in gone_on
    assert run.data.params["augmentation"] == "none"
    assert scores(run) == pytest.approx(scores(train_run.run), abs=1e-4)
    assert entries(disk) == half_written(disk) == []


def test_where_only_the_heads_features_fit_they_are_kept(
    small_disk: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, prepared, config = material()
    later = classifier.to_unfreeze(model, 4, train_batchnorm=False)
    disk = small_disk("size=800k")  # 0.4 MB for the head fit, 1.3 MB more for fine-tuning do not
    monkeypatch.setenv("FER_DATA_HOME", str(disk))
    fed = inputs.of_phase(model, config, prepared, later=later)
    printed = capsys.readouterr()
    (refused,) = printed.err.splitlines()
    assert re.match(rf"Warning: .* {disk}/features .* 2 MB are needed, 1 MB are free", refused)
    assert f"up to head_flatten, {COMPUTES}" in printed.out
    assert fed.train[0][0].shape == (TRAIN_IMAGES, 576)
    assert {entry.about["tensor"] for entry in cache.entries()} == {"head_flatten"}
    assert not half_written(disk)


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_half_written(
    small_disk: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, prepared, config = material()
    disk = small_disk("nr_inodes=6")  # room enough, but not for so many files
    monkeypatch.setenv("FER_DATA_HOME", str(disk))
    fed = inputs.of_phase(model, config, prepared)
    assert fed.train[0][0].shape == (TRAIN_IMAGES, 48, 48, 1)
    assert fed.features_seconds == 0
    assert f"Warning: The disk that holds {disk}/features is full" in capsys.readouterr().err
    assert not half_written(disk)


@pytest.mark.parametrize("inodes", [1, 2], ids=["of the cache", "of the lock"])
def test_a_disk_without_room_for_the_folder_costs_time_only(
    inodes: int,
    small_disk: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, prepared, config = material()
    monkeypatch.setenv("FER_DATA_HOME", str(small_disk(f"nr_inodes={inodes}")))
    fed = inputs.of_phase(model, config, prepared)
    assert fed.train[0][0].shape == (TRAIN_IMAGES, 48, 48, 1)
    assert "is full" in capsys.readouterr().err


def test_a_read_only_data_home_is_one_clear_error(
    small_disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, fer: Fer
) -> None:
    disk = small_disk("size=5m")
    monkeypatch.setenv("FER_DATA_HOME", str(disk))
    obtain()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "cannot be written" in fer("cache", "--clear").error
    model, prepared, config = material()
    other = config.replace(cache_dtype="float16")
    with pytest.raises(DataError, match="cannot be written"):
        extraction.obtain(model, prepared, other, points=head_points(model))


def test_nothing_is_written_along_that_fine_tuning_will_not_use(home: Path) -> None:
    model, prepared, config = material()
    later = classifier.to_unfreeze(model, 12, train_batchnorm=False)  # all: it will take pixels
    inputs.of_phase(model, config, prepared, later=later)
    assert {entry.about["tensor"] for entry in cache.entries()} == {"head_flatten"}


def test_views_without_augmentation_are_refused(fer: Fer) -> None:
    outcome = fer(*TRAIN, "--augmented-copies", "2")
    assert outcome.exit_code == 2
    assert "Expected an augmentation" in outcome.error
    assert "Received: augmented_copies=2" in outcome.error


# The command


@pytest.mark.parametrize("text", [None, "{", "[1, 2]", "{}", "null", '{"key": {}}'])
def test_damaged_entries_are_listed_and_emptied(text: str | None, kept: Path, fer: Fer) -> None:
    manifest = entries(kept)[0] / "manifest.json"
    manifest.unlink() if text is None else manifest.write_text(text)
    assert f"damaged: {manifest.parent.name}" in fer("cache").out
    assert fer("cache", "--clear").exit_code == 0
    assert entries(kept) == []


def test_what_is_being_written_is_not_listed(kept: Path) -> None:
    folder = entries(kept)[0]
    folder.rename(folder.with_name(f"{unfinished(folder)}0123"))  # finished, not yet renamed
    assert len(cache.entries()) == 1


def test_the_command_lists_totals_and_empties(home: Path, fer: Fer) -> None:
    obtain(augmented_copies=1, flip=True)
    *rows, total = fer("cache").out.splitlines()
    assert rows[0].split()[:2] == ["backbone", "tensor"]
    assert sorted(re.findall(r"(train copy \d|train|val)  ", "\n".join(rows[1:]))) == [
        "train",
        "train copy 1",
        "val",
    ]
    assert all(row.startswith("tiny  ") and " head_flatten " in row for row in rows[1:])
    megabytes = sum(map(len, bytes_by_entry(home).values())) / 1e6
    assert total == f"3 features, {megabytes:.1f} MB in {home}/features"
    assert fer("cache", "--clear").out == f"freed {megabytes:.1f} MB in {home}/features\n"
    assert entries(home) == []
    assert fer("cache").out == f"0 features, 0.0 MB in {home}/features\n"


def test_emptying_removes_what_a_killed_process_left(kept: Path, fer: Fer) -> None:
    left = kept / "features" / f"{unfinished(Path('tiny-0123456789abcdef'))}0123"
    left.mkdir()
    (left / "features.npy").write_bytes(bytes(5_000_000))
    assert fer("cache").out.splitlines()[-1].startswith("2 features, 0.2 MB")
    assert fer("cache", "--clear").out.startswith("freed 5.2 MB")
    assert not half_written(kept)


def test_a_data_home_that_does_not_exist_yet_is_empty(home: Path, fer: Fer) -> None:
    for arguments, said in (((), "0 features, 0.0 MB"), (("--clear",), "freed 0.0 MB")):
        outcome = fer("cache", *arguments)
        assert (outcome.exit_code, outcome.err) == (0, "")
        assert outcome.out == f"{said} in {home}/features\n"
    assert not home.exists()


def test_the_command_does_not_import_keras(kept: Path) -> None:
    code = (
        "import sys\n"
        "from fer_experiments.entry import main\n"
        "for arguments in (['cache'], ['cache', '--clear']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "print('loaded', sorted({'keras', 'tensorflow', 'mlflow'} & set(sys.modules)))"
    )
    out, err = process("-c", code).communicate(timeout=60)
    *said, loaded = out.splitlines()
    assert said[-2].startswith("2 features, 0.2 MB")
    assert said[-1].startswith("freed 0.2 MB")
    assert (loaded, err) == ("loaded []", "")
