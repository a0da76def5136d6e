"""Every field of the configuration changes what it should, from the command line to Keras.

A command runs up to the moment in which Keras's own `fit` would begin, in head training and in
fine-tuning; what `fit` was given is looked at. A few fields show in finished trainings only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from fer_experiments.config import FIELDS, Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.images import to_pixels
from fer_experiments.data.prepared import prepare
from fer_experiments.entry import main
from fer_experiments.errors import WeightsError
from fer_experiments.recipes import resolve
from fer_experiments.stages import train

from ..data.helpers import noise, pictures, write_folder
from ..faces.photos import grace_hopper, png
from .designed import log_untrained

FACES = 70
# Nothing random but the order of the images; the network takes the images themselves.
PLAIN: dict[str, Any] = {
    "backbone": "tiny", "synthetic_count": FACES, "cache": False, "augmented_copies": 0,
    "epochs": 4, "finetune_epochs": 3, "rotation": 0, "shift": 0, "zoom": 0, "flip": False,
    "batch_size": 16,
}  # fmt: skip


class Begun(BaseException):
    """Training would begin now."""


class Ended(BaseException):
    """Training is done; what follows is not waited for."""


@dataclass(frozen=True)
class Given:
    """What Keras's `fit` was given."""

    network: keras.Model
    train: keras.utils.PyDataset
    val: keras.utils.PyDataset
    first_epoch: int
    epochs: int

    @property
    def optimizer(self) -> keras.optimizers.Optimizer:
        return self.network.optimizer

    @property
    def pixels(self) -> np.ndarray:
        """All training images in the order of this epoch."""
        return np.concatenate([images_of(batch) for batch in self.train])

    @property
    def labels(self) -> np.ndarray:
        """Their labels, (N, C)."""
        return np.concatenate([batch[1] for batch in self.train])

    def layer(self, name: str) -> keras.layers.Layer:
        return self.network.get_layer(name)

    def has(self, name: str) -> bool:
        return name in [layer.name for layer in self.network.layers]


def images_of(batch: Any) -> np.ndarray:
    """What the network is given of each image, (B, …); of several inputs the first."""
    return batch[0][0] if isinstance(batch[0], tuple) else batch[0]


def options(values: dict[str, Any]) -> list[str]:
    """As they are typed."""
    return [
        part
        for name, value in values.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]


class World:
    """Trainings that end where Keras's would begin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.with_finetuning = True
        self._plain: list[Given] = []
        self._standing: dict[int, list[str]] = {}  # ids of runs
        self._made_up: dict[str, str] = {}  # ids of runs, by their configuration

    def begun(self, *arguments: str) -> Given:
        """What `fit` is given by this command."""
        caught: list[Given] = []

        def fit(network: keras.Model, x: Any, **settings: Any) -> None:
            caught.append(
                Given(
                    network,
                    x,
                    settings["validation_data"],
                    settings["initial_epoch"] + 1,
                    settings["epochs"],
                )
            )
            raise Begun

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keras.Model, "fit", fit)
            with pytest.raises(Begun):
                main([*arguments])
        return caught[0]

    def train(self, **changes: Any) -> Given:
        """Head training."""
        return self.begun("train", "--offline", *self.typed(changes))

    def typed(self, changes: dict[str, Any]) -> list[str]:
        """Options of `fer train`, which has none of fine-tuning."""
        values = PLAIN | changes
        own = {name: value for name, value in values.items() if FIELDS[name][0] != "finetune"}
        return ["--recipe", "demo", *options(own)]

    def finetune(self, own: dict[str, Any] | None = None, **changes: Any) -> Given:
        """Fine-tuning of a train run that was made with these changes; `own`: its own options."""
        run_id = self.finished_train_run(resolve("demo", PLAIN | changes))
        return self.begun("finetune", "--run-id", run_id, *options(own or {}))

    def both(self, **changes: Any) -> list[Given]:
        """Head training and the fine-tuning that follows it.

        Fine-tuning takes longer to prepare, so it is left out for all values of a field but one.
        """
        head = self.train(**changes)
        return [head, self.finetune(**changes)] if self.with_finetuning else [head]

    @property
    def plain(self) -> list[Given]:
        """Both without any change, for the images and labels of their first epochs."""
        if not self._plain:
            self._plain = [self.train(), self.finetune()]
        return self._plain

    def finetunings(self, **own: Any) -> list[Given]:
        """Fine-tuning with these options of its own, under the same condition."""
        return [self.finetune(own)] if self.with_finetuning else []

    def finetuned(self, field: str, value: Any) -> list[Given]:
        """Fine-tuning with this value of its own, and as the train run was made with it."""
        own = [self.finetune({field: value})]
        return [*own, self.finetune(**{field: value})] if self.with_finetuning else own

    def finished_train_run(self, config: Config) -> str:
        """A train run whose epochs are made up."""
        known = repr(config)
        if known not in self._made_up:
            self._made_up[known] = log_untrained(config)
        return self._made_up[known]

    def still_standing(self, *, patience: int) -> dict[str, list[list[float]]]:
        """Logged values of head training, and of fine-tuning, too slow to change anything.

        Without patience the best epoch is kept, with it the last one. Fine-tuning is left out as in
        `both`.
        """
        runs = self._standing.setdefault(patience, [])
        if len(runs) < 1 + self.with_finetuning:
            config = {
                "learning_rate": 1e-9, "finetune_learning_rate": 1e-9, "epochs": 5,
                "finetune_epochs": 5, "head_batchnorm": False, "schedule": "plateau",
                "patience": patience, "keep_epoch": "last" if patience else "best",
            }  # fmt: skip
            if not runs:
                runs.append(self.finished("train", *self.typed(config)))
            if self.with_finetuning:
                made_up = self.finished_train_run(resolve("demo", PLAIN | config))
                runs.append(self.finished("finetune", "--run-id", made_up))
        return {
            name: [
                [point.value for point in MlflowClient().get_metric_history(run_id, name)]
                for run_id in runs[: 1 + self.with_finetuning]
            ]
            for name in ("learning_rate", "val/loss", "best_epoch")
        }

    def finished(self, *arguments: str) -> str:
        """Runs a whole command; returns the id of its run."""
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        assert ended.value.code == 0
        [run, *_] = mlflow.search_runs(
            search_all_experiments=True,
            filter_string=f"tags.stage = '{arguments[0]}'",
            order_by=["attributes.start_time DESC"],
            output_format="list",
        )
        return str(run.info.run_id)

    def changed_epochs(self, **changes: Any) -> tuple[list[bool], list[bool]]:
        """Of each epoch of head training, whether it mixed and whether it augmented."""
        fit = keras.Model.fit
        mixed: dict[int, bool] = {}
        augmented: dict[int, bool] = {}
        current = 0

        def watched(network: keras.Model, x: Any, **settings: Any) -> Any:
            class Watch(keras.callbacks.Callback):
                def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                    nonlocal current
                    current = epoch + 1

                def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                    images = network.get_layer("augmentation")(SLOPE[:8, ..., None], training=True)
                    augmented[current] = not np.array_equal(images[..., 0], SLOPE[:8])

            class Watched(type(x)):  # type: ignore[misc]
                def __getitem__(self, index: int) -> Any:
                    batch = super().__getitem__(index)
                    mixed[current] = mixed.get(current, False) or (batch[1].max(axis=1) < 1).any()
                    return batch

            x.__class__ = Watched
            fit(network, x, callbacks=[*settings.pop("callbacks"), Watch()], **settings)
            raise Ended

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keras.Model, "fit", watched)
            with pytest.raises(Ended):
                main(["train", *self.typed({"mixup": 5.0, "brightness": 0.3} | changes)])
        epochs = sorted(augmented)
        return [mixed[epoch] for epoch in epochs], [augmented[epoch] for epoch in epochs]

    def prepared(self, **changes: Any) -> PreparedDataset:
        """The data that head training would get, by `fer prepare` and then found again."""
        values = {"synthetic_count": FACES} | changes
        with pytest.raises(SystemExit) as ended:
            main(["prepare", "--recipe", "demo", *options(values)])
        assert ended.value.code == 0
        return prepare(resolve("demo", values).data)


@pytest.fixture(scope="module")
def world(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("fields")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("FER_DATA_HOME", str(folder / "home"))
        patch.chdir(folder)
        yield World(folder)


Case = Callable[[World, Any], None]
CASES: dict[str, tuple[tuple[Any, ...], Case]] = {}


def case(field: str, *values: Any) -> Callable[[Case], Case]:
    """Registers what shows that a field has each of these values."""

    def register(shows: Case) -> Case:
        CASES[field] = (values, shows)
        return shows

    return register


# --- data -----------------------------------------------------------------------------------------


@case("dataset", "synthetic", "own")
def _(world: World, value: str) -> None:
    dataset = "synthetic" if value == "synthetic" else str(official_faces(world))
    assert world.prepared(dataset=dataset, split="official").name == (
        "synthetic" if value == "synthetic" else "fer2013"
    )


@case("split", "auto", "official", "given", "holdout")
def _(world: World, value: str) -> None:
    prepared = world.prepared(dataset=official_faces(world), split=value, val_fraction=0.5)
    drawn = value in ("given", "holdout")  # its test part is given, val comes out of train
    usage = "Training" if drawn else "PublicTest"
    resolved = "official" if value == "auto" else value
    assert prepared.manifest["split"] == resolved
    assert len(ids_of(prepared, "val")) == 14
    assert {Path(name).name.split("_")[0] for name in ids_of(prepared, "val")} == {usage}


@case("val_fraction", 0.25, 0.5)
def _(world: World, value: float) -> None:
    prepared = world.prepared(dataset=official_faces(world), split="holdout", val_fraction=value)
    assert (prepared.size("train"), prepared.size("val")) == (28 - 28 * value, 28 * value)


@case("image_size", 32, 40)
def _(world: World, value: int) -> None:
    assert world.prepared(image_size=value).images.shape[1:] == (value, value)
    assert world.train(image_size=value).pixels.shape[1:] == (value, value, 1)


@case("limit", 7, 14)
def _(world: World, value: int) -> None:
    prepared = world.prepared(dataset=official_faces(world), split="official", limit=value)
    assert [prepared.size(split) for split in ("train", "val", "test")] == [value, 14, 14][:1] + [
        min(value, 14)
    ] * 2


@case("data_seed", 0, 1)
def _(world: World, value: int) -> None:
    faces = official_faces(world)
    for what in (
        {"dataset": faces, "split": "holdout", "val_fraction": 0.5},
        {"dataset": faces, "split": "official", "limit": 14},
    ):
        ids, others, again = (
            ids_of(world.prepared(**what, data_seed=seed), "train") for seed in (value, 2, value)
        )
        assert ids != others
        assert ids == again
    own, other = (world.prepared(data_seed=seed).images for seed in (value, 2))
    assert not np.array_equal(own, other)
    augmented = {
        "cache": True,
        "augmented_copies": 1,
        "brightness": 0.3,
        "dataset": faces,
        "seed": 3,
    }
    own, other = (
        np.unique(rows_of_epochs(world.train(**augmented, data_seed=seed), 2), axis=0)
        for seed in (value, 2)
    )
    assert not np.array_equal(own, other)


@case("leaks", "keep", "drop")
def _(world: World, value: str) -> None:
    pixels = noise(28, seed=2, size=48)
    files = {}
    for i, pixel in enumerate(pixels):
        files[f"train/{'ab'[i % 2]}/Training_{i}.png"] = pixel
        if i < 6:
            files[f"test/{'ab'[i % 2]}/PublicTest_{i}.png"] = pixel
    folder = write_folder(world.folder / "leaks", files)
    prepared = world.prepared(dataset=folder, split="official", leaks=value)
    assert prepared.size("train") == {"keep": 28, "drop": 22}[value]
    assert prepared.size("val") == 6


@case("on_bad_image", "refuse", "skip")
def _(world: World, value: str) -> None:
    files = {f"{'ab'[i % 2]}/{i}.png": pixel for i, pixel in enumerate(noise(20, size=48))}
    folder = write_folder(world.folder / "bad", {**files, "a/bad.png": b"no image"})
    arguments = ["--dataset", str(folder), "--split", "holdout", "--on-bad-image", value]
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "--recipe", "demo", *arguments])
    assert ended.value.code == {"refuse": 1, "skip": 0}[value]


@case("detector", "none", "mtcnn")
def _(world: World, value: str) -> None:
    prepared = world.prepared(dataset=photos(world), detector=value, on_no_face="keep")
    photo = np.asarray(Image.open(photos(world) / str(prepared.ids[0])).convert("L"))
    plain = np.array_equal(prepared.images[0], to_pixels(photo, size=48))
    assert plain is (value == "none")


@case("on_no_face", "drop", "keep")
def _(world: World, value: str) -> None:
    prepared = world.prepared(dataset=photos(world), detector="mtcnn", on_no_face=value)
    assert (prepared.size("train") + prepared.size("val")) == {"drop": 12, "keep": 16}[value]


def photos(world: World) -> Path:
    """Two classes of six photos with a face, each a little darker, and two without one."""
    folder = world.folder / "photos"
    if not folder.exists():
        images = {}
        for number, (label, i) in enumerate((label, i) for label in "ab" for i in range(8)):
            dark = Image.new("RGB", (200, 160), (number, number, number))
            darker = grace_hopper().point([v * (40 - number) // 40 for v in range(256)] * 3)
            images[f"{label}/{i}.png"] = png(darker if i < 6 else dark)
        write_folder(folder, images)
    return folder


@case("on_empty_class", "refuse", "drop")
def _(world: World, value: str) -> None:
    folder = write_folder(world.folder / "empty", noises("{c}/{i}.png"))
    (folder / "c").mkdir(exist_ok=True)
    arguments = ["--dataset", str(folder), "--on-empty-class", value]
    with pytest.raises(SystemExit) as ended:
        main(["prepare", "--recipe", "demo", *arguments])
    assert ended.value.code == {"refuse": 1, "drop": 0}[value]


@case("class_level", 1, 2)
def _(world: World, value: int) -> None:
    folder = write_folder(world.folder / "persons", noises("{c}/person {p}/{i}.png"))
    names = {1: ("a", "b"), 2: ("person 0", "person 1")}[value]
    assert world.prepared(dataset=folder, class_level=value).class_names == names


def noises(pattern: str) -> dict[str, np.ndarray]:
    """Twenty images; `{c}` is a or b, `{p}` 0 or 1."""
    return {
        pattern.format(c="ab"[i % 2], p=i // 2 % 2, i=i): pixels
        for i, pixels in enumerate(noise(20, size=48))
    }


@case("synthetic_count", 70, 140)
def _(world: World, value: int) -> None:
    assert len(world.prepared(synthetic_count=value).images) == value


def official_faces(world: World) -> Path:
    """Noise of seven classes: 4 training images of each, 2 of PublicTest, 2 of PrivateTest."""
    folder = world.folder / "official"
    if not folder.exists():
        write_folder(folder, pictures({"Training": 4, "PublicTest": 2, "PrivateTest": 2}))
    return folder


def ids_of(prepared: PreparedDataset, split: str) -> list[str]:
    return [str(name) for name in prepared.ids[prepared.slice(split)]]


# --- the network ----------------------------------------------------------------------------------


@case("backbone", "tiny", "vgg16")
def _(world: World, value: str) -> None:
    given = world.train(backbone=value)
    assert given.network.name == value
    assert given.has({"tiny": "block1_bn", "vgg16": "block1_conv2"}[value])


@case("weights", "none", "file")
def _(world: World, value: str) -> None:
    import h5py

    file = world.folder / "tiny.h5"
    drawn = world.train(seed=5).network
    if not file.exists():
        with h5py.File(file, "w") as written:
            layers = [layer for layer in drawn.layers if layer.weights and in_backbone(layer)]
            written.attrs["layer_names"] = [layer.name for layer in layers]
            for layer in layers:
                group = written.create_group(layer.name)
                group.attrs["weight_names"] = [weight.path for weight in layer.weights]
                for weight in layer.weights:
                    group[weight.path] = np.array(weight) + 1
    given = world.train(seed=5, weights=file if value == "file" else "none")
    for layer in given.network.layers:
        if in_backbone(layer):
            for held, before in zip(
                layer.weights, drawn.get_layer(layer.name).weights, strict=True
            ):
                np.testing.assert_array_equal(held, np.array(before) + (value == "file"))


@case("missing_weights", "refuse", "draw")
def _(world: World, value: str) -> None:
    import h5py

    file = world.folder / "short_tiny.h5"
    with h5py.File(file, "w") as written:
        written.attrs["layer_names"] = ["block1_conv"]
        group = written.create_group("block1_conv")
        group.attrs["weight_names"] = ["kernel"]
        group["kernel"] = np.full((3, 3, 3, 8), 0.5, dtype=np.float32)
    config = resolve("demo", PLAIN | {"weights": str(file), "missing_weights": value})
    if value == "refuse":
        with pytest.raises(WeightsError, match="lacks 6 of the 7 layers"):
            train.run(config, offline=True)
    else:
        given = world.train(weights=file, missing_weights=value)
        assert (np.array(given.layer("block1_conv").kernel) == 0.5).all()
        assert np.array(given.layer("block2_1_conv").kernel).std() > 0.05


@case("truncate_at", "none", "block1_pool", "vgg16:block1_pool,tiny:block2_1_relu")
def _(world: World, value: str) -> None:
    last = {"none": "block2_out", "block1_pool": "block1_pool"}.get(value, "block2_1_relu")
    given = world.train(truncate_at=value)
    [behind] = [layer for layer in given.network.layers if layer.name.startswith("head_fl")]
    assert behind.input is given.layer(last).output


@case("input_scaling", "backbone", "unit")
def _(world: World, value: str) -> None:
    lowest = {"backbone": -1.0, "unit": 0.0}[value]
    given = world.train(input_scaling=value)
    scaled = before_backbone(given)(np.array([0.0, 255.0]).reshape(2, 1, 1, 1) * np.ones(SHAPE))
    assert np.array(scaled)[0] == pytest.approx(lowest)
    assert np.array(scaled)[1] == pytest.approx(1.0)


@case("input_size", "none", 64)
def _(world: World, value: str | int) -> None:
    given = world.train(input_size=value)
    side = 48 if value == "none" else value
    assert before_backbone(given).output.shape[1:] == (side, side, 3)


@case("crop", "none", 40)
def _(world: World, value: str | int) -> None:
    """The backbone sees the middle, and in training something else stands there."""
    network = world.train(crop=value).network
    if value == "none":
        assert "augmentation" not in [layer.name for layer in network.layers]
        return
    faces = np.random.default_rng(0).uniform(0, 255, (20, 48, 48, 1)).astype(np.float32)
    inner = network.get_layer("tiny")
    seen = keras.Model(inner.input, inner.get_layer("backbone_input").output)
    assert seen.output.shape[1:] == (40, 40, 3)
    moved = np.array(network.get_layer("augmentation")(faces, training=True))
    assert not np.array_equal(moved[:, 4:44, 4:44], faces[:, 4:44, 4:44])


@case("head", "flatten", "global_average_pooling")
def _(world: World, value: str) -> None:
    given = world.train(head=value)
    read = given.layer("head_batchnorm").input.shape[-1]
    assert read == {"flatten": 6 * 6 * 16, "global_average_pooling": 16}[value]


@case("head_units", 0, 16, 32)
def _(world: World, value: int) -> None:
    given = world.train(head_units=value)
    assert given.has("head_dense") == (value > 0)
    if value:
        assert given.layer("head_dense").units == value


@case("head_batchnorm", False, True)
def _(world: World, value: bool) -> None:
    given = world.train(head_batchnorm=value)
    assert given.has("head_batchnorm") == value


@case("dropout", 0.0, 0.25, 0.5)
def _(world: World, value: float) -> None:
    given = world.train(dropout=value)
    assert given.has("head_dropout") == (value > 0)
    if value:
        assert given.layer("head_dropout").rate == value


@case("initializer", "glorot_uniform", "he_normal")
def _(world: World, value: str) -> None:
    kernel = np.array(world.train(initializer=value).layer("block2_1_conv").kernel)
    height, width, inputs, outputs = kernel.shape
    limit = np.sqrt(6 / (height * width * (inputs + outputs)))
    spread = {"glorot_uniform": limit / np.sqrt(3), "he_normal": np.sqrt(2 / (9 * inputs))}[value]
    assert kernel.std() == pytest.approx(spread, rel=0.1)
    assert (np.abs(kernel).max() <= limit) == (value == "glorot_uniform")


@case("precision", "float32", "mixed_bfloat16")
def _(world: World, value: str) -> None:
    low = {"float32": "float32", "mixed_bfloat16": "bfloat16"}[value]
    given = world.train(precision=value)
    assert given.layer("block1_conv").compute_dtype == low
    assert given.layer("head_dense").compute_dtype == low
    assert given.layer("softmax").compute_dtype == "float32"


SHAPE = (1, 48, 48, 1)


def in_backbone(layer: keras.layers.Layer) -> bool:
    return layer.name.startswith("block")


def before_backbone(given: Given) -> keras.Model:
    """What happens to pixels before the backbone sees them."""
    return keras.Model(given.network.input, given.layer("backbone_input").output)


# --- features -------------------------------------------------------------------------------------


@case("cache", False, True)
def _(world: World, value: bool) -> None:
    for given in world.both(cache=value):
        assert given.has("block1_conv") == (not value)
        assert (given.pixels.shape[1:] == SHAPE[1:]) == (not value)


@case("augmented_copies", 0, 1, 2)
def _(world: World, value: int) -> None:
    given = world.train(cache=True, augmented_copies=value, brightness=0.3)
    rows = rows_of_epochs(given, 1 + value)
    # In so many epochs each image was seen in all of its forms, no two of which are alike.
    assert len(np.unique(rows, axis=0)) == len(rows)


@case("cache_dtype", "float32", "float16")
def _(world: World, value: str) -> None:
    for given in world.both(cache=True, cache_dtype=value):
        halved = given.pixels.astype(np.float16)
        assert np.array_equal(halved, given.pixels) == (value == "float16")


def rows_of_epochs(given: Given, epochs: int) -> np.ndarray:
    """What the network is given in so many epochs, a row an image."""
    rows = []
    for epoch in range(given.first_epoch, given.first_epoch + epochs):
        given.train.set_epoch(epoch)
        rows.append(given.pixels.reshape(len(given.pixels), -1))
    return np.concatenate(rows)


# --- augmentation ---------------------------------------------------------------------------------

# Grey rises by 2 a column and by 1 a row; 127.5 in the middle.
STEPS = np.arange(48, dtype=np.float32) - 23.5
SLOPE = np.broadcast_to(127.5 + 2 * STEPS[None, :] + STEPS[:, None], (200, 48, 48))


def changed(given: Given, images: np.ndarray = SLOPE) -> np.ndarray:
    """The images (N, H, W) as the network sees them in training."""
    return np.array(given.layer("augmentation")(images[..., None], training=True))[..., 0]


def slopes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each image, by how much grey rises a column and a row, about the middle."""
    middle = images[:, 20:28, 20:28]
    return np.diff(middle, axis=2).mean(axis=(1, 2)), np.diff(middle, axis=1).mean(axis=(1, 2))


def reaches(values: np.ndarray, most: float) -> bool:
    """Whether the values spread from -most to most and not beyond."""
    return bool(
        np.abs(values).max() <= most * 1.001
        and values.max() > 0.85 * most
        and values.min() < -0.85 * most
    )


@case("rotation", 10, 40)
def _(world: World, value: float) -> None:
    for given in world.both(rotation=value):
        across, down = slopes(changed(given))
        np.testing.assert_allclose(across**2 + down**2, 5, rtol=1e-2)
        assert reaches(np.rad2deg(np.arctan2(down, across) - np.arctan2(1, 2)), value)


@case("shift", 0.1, 0.25)
def _(world: World, value: float) -> None:
    for given in world.both(shift=value):
        for axis in (0, 1):
            ramp = 127.5 + STEPS[:, None] * np.ones(48) if axis == 0 else 127.5 + STEPS
            images = changed(given, np.broadcast_to(ramp, SLOPE.shape))
            assert reaches(images[:, 20:28, 20:28].mean(axis=(1, 2)) - 127.5, value * 48)


@case("zoom", 0.1, 0.3)
def _(world: World, value: float) -> None:
    for given in world.both(zoom=value):
        across, down = slopes(changed(given))
        np.testing.assert_allclose(across, 2 * down, rtol=1e-2)
        assert reaches(down - 1, value)


@case("flip", False, True)
def _(world: World, value: bool) -> None:
    for given in world.both(flip=value):
        assert given.has("augmentation") == value
        if value:
            across, down = slopes(changed(given))
            np.testing.assert_allclose(down, 1, rtol=1e-3)
            assert {round(float(slope), 2) for slope in across} == {-2.0, 2.0}


@case("contrast", 0.2, 0.5)
def _(world: World, value: float) -> None:
    for given in world.both(contrast=value):
        across, down = slopes(changed(given, 127.5 + (SLOPE - 127.5) / 2))
        np.testing.assert_allclose(across, 2 * down, rtol=1e-2)
        assert reaches(2 * (down * 2 - 1) - value, value)  # stretched by 0 to this share


@case("brightness", 0.1, 0.3)
def _(world: World, value: float) -> None:
    for given in world.both(brightness=value):
        added = changed(given, np.full_like(SLOPE, 127.5)) - 127.5
        assert (np.ptp(added, axis=(1, 2)) < 1e-3).all()
        assert reaches(added[:, 0, 0], value * 255)


@case("erasing", 0.25, 0.75)
def _(world: World, value: float) -> None:
    for given in world.both(erasing=value):
        erased = (changed(given) != SLOPE).mean(axis=(1, 2))
        assert (erased > 0).mean() == pytest.approx(value, abs=0.15)
        assert erased.max() < 0.5


@case("num_ops", 0, 1)
def _(world: World, value: int) -> None:
    for given in world.both(num_ops=value, brightness=0.3, erasing=1.0):
        images = changed(given, np.full_like(SLOPE, 127.5))
        rest = np.median(images, axis=(1, 2))
        brighter, erased = rest != 127.5, np.ptp(images, axis=(1, 2)) > 1e-3
        if value:
            assert (brighter ^ erased).all()
            assert 50 < brighter.sum() < 150
        else:
            assert (brighter & erased).all()


# --- training -------------------------------------------------------------------------------------


@case("optimizer", "adam", "adamw", "sgd")
def _(world: World, value: str) -> None:
    kinds = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
    for given in (*world.both(optimizer=value), *world.finetunings(optimizer=value)):
        known = [kind.__name__ for kind in type(given.optimizer).__mro__]
        assert next(name for name in known if name in kinds.values()) == kinds[value]


@case("learning_rate", 1e-3, 5e-3)
def _(world: World, value: float) -> None:
    found = [rate(given) for given in world.both(learning_rate=value)]
    assert found == pytest.approx([value, 1e-4][: len(found)])


@case("finetune_learning_rate", 1e-5, 1e-2)
def _(world: World, value: float) -> None:
    for given in world.finetuned("finetune_learning_rate", value):
        assert rate(given) == pytest.approx(value)


@case("epochs", 2, 6)
def _(world: World, value: int) -> None:
    found = [(given.first_epoch, given.epochs) for given in world.both(epochs=value)]
    assert found == [(1, value), (value + 1, value + 3)][: len(found)]


@case("finetune_epochs", 2, 6)
def _(world: World, value: int) -> None:
    for given in world.finetuned("finetune_epochs", value):
        assert (given.first_epoch, given.epochs) == (5, 4 + value)


@case("schedule", "plateau", "constant", "cosine")
def _(world: World, value: str) -> None:
    if value == "plateau":
        for history in world.still_standing(patience=0)["learning_rate"]:
            assert history == pytest.approx([1e-9] * 4 + [5e-10])
        return
    for given, highest in zip(world.both(schedule=value), (1e-3, 1e-4), strict=False):
        steps = len(given.train) * (given.epochs - given.first_epoch + 1)
        found = [rate(given, step) for step in (0, steps // 2, steps)]
        cosine = value == "cosine"
        assert found == pytest.approx([highest, highest / 2, 0] if cosine else [highest] * 3)


@case("warmup_epochs", 0.0, 1.0, 2.0)
def _(world: World, value: float) -> None:
    for given, highest in zip(
        world.both(schedule="cosine", warmup_epochs=value), (1e-3, 1e-4), strict=False
    ):
        up = int(value * len(given.train))
        assert rate(given, up) == pytest.approx(highest)
        assert rate(given, up // 2) == pytest.approx(highest / 2 if up else highest)


@case("weight_decay", 0.0, 0.01, 0.1)
def _(world: World, value: float) -> None:
    for given in world.both(weight_decay=value):
        assert (given.optimizer.weight_decay or 0.0) == value


@case("ema", 0.0, 0.5, 0.8)
def _(world: World, value: float) -> None:
    for given in world.both(ema=value, batch_size=1):
        assert given.optimizer.use_ema == (value > 0)
        if value:
            assert given.optimizer.ema_momentum == value


@case("batch_size", 4, 16)
def _(world: World, value: int) -> None:
    for given in (*world.both(batch_size=value), *world.finetunings(batch_size=value)):
        assert {len(batch[1]) for batch in list(given.train)[:-1]} == {value}
        assert {len(batch[1]) for batch in list(given.val)[:-1]} <= {value}


@case("label_smoothing", 0.0, 0.1, 0.4)
def _(world: World, value: float) -> None:
    for given in world.both(label_smoothing=value):
        np.testing.assert_allclose(given.labels.max(axis=1), 1 - value + value / 7, rtol=1e-6)
        np.testing.assert_allclose(given.labels.min(axis=1), value / 7, rtol=1e-6)


@case("mixup", 0.0, 0.4)
def _(world: World, value: float) -> None:
    for given, plain in zip(world.both(mixup=value), world.plain, strict=False):
        if not value:
            np.testing.assert_array_equal(given.pixels, plain.pixels)
        shares = []
        for mixed, clean in zip(given.train, plain.train, strict=True) if value else ():
            shares += [blended(*row, *clean) for row in enumerate(zip(*mixed, strict=True))]
        if value:
            assert min(shares) < 0.9


def blended(
    own: int, mixed: tuple[np.ndarray, np.ndarray], pixels: np.ndarray, labels: np.ndarray
) -> float:
    """Checks that pixels and label are blends of two images at one share, which is returned."""
    flat = pixels.reshape(len(pixels), -1)
    target = mixed[0].ravel()
    for partner, other in enumerate(flat):
        along = flat[own] - other
        share = float((target - other) @ along / (along @ along)) if along.any() else 1.0
        if np.allclose(share * flat[own] + (1 - share) * other, target, atol=0.01):
            expected = share * labels[own] + (1 - share) * labels[partner]
            np.testing.assert_allclose(mixed[1], expected, atol=1e-3)
            return share
    raise AssertionError("no blend of two images of the batch")


@case("cutmix", 0.0, 1.0)
def _(world: World, value: float) -> None:
    for given, plain in zip(world.both(cutmix=value), world.plain, strict=False):
        pasted = [patched(*a, *b) for a, b in zip(given.train, plain.train, strict=True)]
        assert (max(pasted) > 0.1) == (value > 0)


def patched(
    mixed: np.ndarray, targets: np.ndarray, pixels: np.ndarray, labels: np.ndarray
) -> float:
    """Checks that a batch holds one rectangle of other images, and labels at its share."""
    rows, columns = (np.flatnonzero((mixed != pixels).any(axis=(0, 3, axis))) for axis in (2, 1))
    if not len(rows):
        np.testing.assert_allclose(targets, labels, atol=0.1)
        return 0.0
    place = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    area = mixed[(0, *place)].size / mixed[0].size
    for image, target, label in zip(mixed, targets, labels, strict=True):
        [partner, *_] = [i for i, x in enumerate(pixels) if np.array_equal(x[place], image[place])]
        # The rectangle may be wider by rows and columns that are the same in both images.
        np.testing.assert_allclose(target, (1 - area) * label + area * labels[partner], atol=0.05)
    return float(area)


@case("balance", "none", "weights", "sampling")
def _(world: World, value: str) -> None:
    for given in world.both(balance=value):
        counts = np.bincount(world.plain[0].labels.argmax(axis=1), minlength=7)
        rarest = int(counts.argmin())
        epochs = 6
        drawn = np.zeros(7)
        for epoch in range(given.first_epoch, given.first_epoch + epochs):
            given.train.set_epoch(epoch)
            drawn += given.labels.sum(axis=0)
            for batch in given.train:
                weights = counts.sum() / (7 * counts[batch[1].argmax(axis=1)])
                assert len(batch) == (3 if value == "weights" else 2)
                if value == "weights":
                    np.testing.assert_allclose(batch[2], weights, rtol=1e-5)
        if value == "sampling":
            assert drawn[rarest] / drawn.sum() == pytest.approx(1 / 7, abs=0.06)
        else:
            np.testing.assert_array_equal(drawn, counts * epochs)


@case("plain_epochs", 0, 2)
def _(world: World, value: int) -> None:
    mixed, augmented = world.changed_epochs(plain_epochs=value, epochs=3)
    expected = [epoch <= 3 - value for epoch in (1, 2, 3)]
    assert mixed == expected
    assert augmented == expected


@case("patience", 0, 1)
def _(world: World, value: int) -> None:
    for history in world.still_standing(patience=value)["val/loss"]:
        assert len(history) == (2 if value else 5)


@case("keep_epoch", "best", "last")
def _(world: World, value: str) -> None:
    kept = world.still_standing(patience={"best": 0, "last": 1}[value])["best_epoch"]
    # Nothing improves, so the first epoch of a phase is its best one.
    assert kept == {"best": [[1], [6]], "last": [[2], [7]]}[value][: len(kept)]


@case("seed", 0, 1)
def _(world: World, value: int) -> None:
    own, again, other = (world.train(seed=seed) for seed in (value, value, 2))
    for first, second in zip(own.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(own.layer("logits").kernel, other.layer("logits").kernel)
    for seeds in ((own, again, other), [world.finetune({"seed": s}) for s in (value, value, 2)]):
        first, second, third = (given.pixels for given in seeds)
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, third)


def rate(given: Given, step: int = 0) -> float:
    given.optimizer.iterations.assign(step)
    return float(given.optimizer.learning_rate)


# --- fine-tuning ----------------------------------------------------------------------------------


def unfrozen(given: Given) -> set[str]:
    return {x.name for x in given.network.layers if in_backbone(x) and x.trainable_weights}


@case("unfreeze_layers", 0, 4, 5)
def _(world: World, value: int) -> None:
    topmost = {"block2_0_conv", "block2_2_conv", "block2_1_conv", "block1_conv"}
    expected = {0: topmost, 4: {"block2_0_conv"}, 5: {"block2_0_conv", "block2_2_conv"}}[value]
    for given in world.finetuned("unfreeze_layers", value):
        assert unfrozen(given) == expected
    assert unfrozen(world.plain[0]) == set()


@case("train_batchnorm", False, True)
def _(world: World, value: bool) -> None:
    for given in world.finetuned("train_batchnorm", value):
        assert ("block2_2_bn" in unfrozen(given)) == value
        assert given.layer("block2_2_bn").trainable == value


@case("layer_decay", 1.0, 0.5, 0.25)
def _(world: World, value: float) -> None:
    given = world.finetune({"layer_decay": value}, unfreeze_layers=0, optimizer="sgd")
    weights = given.network.trainable_variables
    before = [np.array(weight) for weight in weights]
    given.optimizer.apply([keras.ops.ones(weight.shape) for weight in weights], weights)
    moved = {
        weight.path: float(np.abs(np.array(weight) - old).max())
        for weight, old in zip(weights, before, strict=True)
    }
    head = moved["logits/kernel"]
    assert moved["block2_1_conv/kernel"] / head == pytest.approx(1, rel=1e-3)
    assert moved["block1_conv/kernel"] / head == pytest.approx(value, rel=1e-3)


# --- all of them ----------------------------------------------------------------------------------

# One of each kind; the others' fine-tuning is looked at in a test of its own, which is slow.
WITH_FINETUNING = ("optimizer", "rotation", "mixup", "cache")


def asks(shows: Case) -> set[str]:
    """What of the world a case uses, by name."""
    return {*shows.__code__.co_names}


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_what_it_should(field: str, world: World) -> None:
    assert field in CASES, f"no case shows what {field} changes"
    values, shows = CASES[field]
    choices = FIELDS[field][1].metadata.get("choices", ())
    assert set(choices) <= set(values), f"no case for {set(choices) - set(values)}"
    assert len(values) > 1, "one value shows no change"
    for value in values:
        world.with_finetuning = field in WITH_FINETUNING and value == values[-1]
        shows(world, value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "field",
    [
        field
        for field, (_, shows) in CASES.items()
        if asks(shows) & {"both", "finetunings", "finetuned", "still_standing"}
        and field not in WITH_FINETUNING
    ],
)
def test_every_field_of_training_reaches_fine_tuning(field: str, world: World) -> None:
    values, shows = CASES[field]
    world.with_finetuning = True
    # What stands still was trained once for all values.
    for value in values if "still_standing" in asks(shows) else values[-1:]:
        shows(world, value)
