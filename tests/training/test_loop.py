import re
from typing import Any

import keras
import numpy as np
import pytest

from fer_experiments.config import AugmentationConfig
from fer_experiments.data.synthetic import draw_faces
from fer_experiments.errors import TrainingError
from fer_experiments.evaluation.metrics import report
from fer_experiments.models import classifier
from fer_experiments.models.augmentation import build_layers, with_augmentation
from fer_experiments.recipes import resolve
from fer_experiments.training.batches import BatchAugmentation, Batches
from fer_experiments.training.checkpoints import EpochRecord
from fer_experiments.training.loop import TrainingResult, fit
from fer_experiments.training.optimizers import LoopConfig

IMAGES, LABELS, _ = draw_faces(count=70, seed=0)
PLAIN = AugmentationConfig(rotation=0, shift=0, zoom=0, flip=False)


def batches(seed: int | None, *, first_epoch: int = 1) -> Batches:
    return Batches(
        [[IMAGES[..., None]]],
        LABELS,
        classes=7,
        batch_size=16,
        seed=seed,
        first_epoch=first_epoch,
    )


def train(
    model: keras.Model, plan: LoopConfig, *, seed: int = 0, first_epoch: int = 1
) -> tuple[TrainingResult, list[EpochRecord]]:
    logged: list[EpochRecord] = []
    result = fit(
        model,
        batches(seed, first_epoch=first_epoch),
        batches(None),
        plan,
        first_epoch=first_epoch,
        log=logged.append,
    )
    return result, logged


def tiny(seed: int, augmentation: AugmentationConfig) -> tuple[keras.Model, keras.Model]:
    """The tiny backbone's classifier, and the same with augmentation before it."""
    config = resolve("demo", {"backbone": "tiny"})
    model = classifier.build(config.model, image_size=48, classes=7, seed=seed)
    return model, with_augmentation(model, augmentation, seed=seed).model


class Given(Batches):
    """Batches that keep what Keras took of them, by the epoch that training was in."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.now = 0
        self.by_epoch: dict[int, dict[int, Any]] = {}
        super().__init__(*arguments, **more)

    def __getitem__(self, index: int) -> Any:
        batch = super().__getitem__(index)
        self.by_epoch.setdefault(self.now, {})[index] = batch
        return batch


def given(
    kind: type[Batches],
    augmentation: BatchAugmentation | None = None,
    *,
    epoch: int,
    copies: int = 1,
) -> Batches:
    pixels = IMAGES[..., None]
    return kind(
        [[pixels], [pixels[:, :, ::-1]]][:copies],
        LABELS,
        classes=7,
        batch_size=16,
        seed=0,
        first_epoch=epoch,
        augmentation=augmentation,
    )


@pytest.mark.parametrize(
    "first, plan",
    [
        (1, LoopConfig(learning_rate=1e-3, epochs=4)),
        (3, LoopConfig(learning_rate=1e-3, epochs=4)),
        (1, LoopConfig(learning_rate=1e-3, epochs=1)),
        (5, LoopConfig(learning_rate=1e-3, epochs=2, ema=0.9)),
    ],
)
def test_each_epoch_trains_on_its_own_batches(first: int, plan: LoopConfig) -> None:
    """Order, copies and mixing are those of the epoch that the record names, the last one too."""
    last = first - 1 + plan.epochs
    augmentation = BatchAugmentation(mixup=1.0, until_epoch=max(first, last - 1))
    train = given(Given, augmentation, epoch=first, copies=2)
    assert isinstance(train, Given)
    records: list[EpochRecord] = []
    fit(
        small(),
        train,
        batches(None),
        plan,
        first_epoch=first,
        log=records.append,
        begin_epoch=lambda epoch: setattr(train, "now", epoch),
    )
    epochs = range(first, last + 1)
    assert [record["epoch"] for record in records] == list(epochs)
    for epoch in epochs:
        expected = given(Batches, augmentation, epoch=epoch, copies=2)
        assert sorted(train.by_epoch[epoch]) == list(range(len(expected)))
        for i in range(len(expected)):
            for ours, theirs in zip(train.by_epoch[epoch][i], expected[i], strict=True):
                np.testing.assert_array_equal(ours, theirs)
        mixed = any(len(np.unique(t)) > 2 for _, t in train.by_epoch[epoch].values())
        assert mixed == (epoch <= max(first, last - 1)), epoch


def small() -> keras.Model:
    """A classifier of pixels that is built and compiled in no time."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((48, 48, 1)),
            keras.layers.AveragePooling2D(6),
            keras.layers.Flatten(),
            keras.layers.Dense(7, activation="softmax"),
        ]
    )


def order_of(data: Batches) -> list[bytes]:
    return [pixels.tobytes() for i in range(len(data)) for pixels in data[i][0]]


def test_an_epoch_sees_every_image_once_with_its_own_label() -> None:
    data = batches(seed=3)
    assert len(data) == 5
    seen = {}
    for i in range(len(data)):
        batch: Any = data[i]
        pixels, one_hot = batch
        assert pixels.shape[1:] == (48, 48, 1)
        assert pixels.dtype == one_hot.dtype == np.float32
        for image, label in zip(pixels, one_hot.argmax(axis=1), strict=True):
            seen[image.astype(np.uint8).tobytes()] = int(label)
    assert seen == {
        image.tobytes(): int(label) for image, label in zip(IMAGES, LABELS, strict=True)
    }


def test_order_follows_from_seed_and_epoch_alone() -> None:
    data = batches(seed=3)
    first = order_of(data)
    data.set_epoch(2)
    second = order_of(data)
    assert first != second
    assert order_of(batches(seed=3)) == first
    assert order_of(batches(seed=3, first_epoch=2)) == second
    assert order_of(batches(seed=4)) != first
    assert order_of(batches(seed=None)) == [i.astype(np.float32).tobytes() for i in IMAGES]


def test_same_seed_same_weights_other_seed_others() -> None:
    def weights(seed: int) -> list[np.ndarray]:
        model, augmented = tiny(seed, AugmentationConfig())
        train(augmented, LoopConfig(learning_rate=1e-3, epochs=2), seed=seed)
        return list(model.get_weights())

    first, again, other = (weights(seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_epoch_is_logged_with_all_its_figures() -> None:
    result, logged = train(small(), LoopConfig(learning_rate=1e-3, epochs=3), first_epoch=11)
    assert [record["epoch"] for record in logged] == [11, 12, 13]
    assert tuple(logged) == result.history
    scores = {f"{s}/{m}" for s in ("train", "val") for m in ("loss", "accuracy", "macro_f1")}
    for record in logged:
        assert set(record) == scores | {
            "epoch", "learning_rate", "seconds", "val/predicted_classes"
        }  # fmt: skip
        assert 1 <= record["val/predicted_classes"] <= 7
        assert record["learning_rate"] == pytest.approx(1e-3)


class Fixed(keras.layers.Layer):
    """Names the class that the grey level of the first pixel says, whatever its weight learns."""

    def build(self, shape: Any) -> None:
        self.idle = self.add_weight(shape=(), name="idle")

    def call(self, pixels: Any) -> Any:
        first = keras.ops.cast(pixels[:, 0, 0, 0], "int32")
        return 0.98 * keras.ops.one_hot(first, 7) + 0.02 / 7 + 0 * self.idle


# Half of class 0 is named 1, all of class 3 is named 5; classes 4, 5 and 6 have no image.
TRUE = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
NAMED = np.array([0, 0, 1, 1, 1, 1, 2, 2, 5, 5])
MACRO_F1 = (2 / 3 + 2 / 3 + 1 + 0) / 4  # over the four classes that have images


def scored(
    *, augmentation: BatchAugmentation | None = None, bar: bool = False, epochs: int = 1
) -> EpochRecord:
    """The last epoch's record of a network whose answers are known."""
    pixels = np.broadcast_to(NAMED.astype(np.float32)[:, None, None, None], (10, 2, 2, 1))
    train, val = (
        Batches([[pixels]], TRUE, classes=7, batch_size=4, seed=seed, augmentation=own)
        for seed, own in ((0, augmentation), (None, None))
    )
    model = keras.Sequential([keras.Input((2, 2, 1)), Fixed()])
    plan = LoopConfig(learning_rate=1e-3, epochs=epochs)
    result = fit(model, train, val, plan, first_epoch=1, log=lambda _: None, progress_bar=bar)
    return result.history[-1]


@pytest.mark.parametrize(
    "augmentation",
    [
        None,
        BatchAugmentation(label_smoothing=0.1),
        BatchAugmentation(label_smoothing=0.9),
        BatchAugmentation(balance="weights"),
        BatchAugmentation(mixup=1.0, until_epoch=0),
    ],
    ids=repr,
)
def test_scores_are_of_hard_labels_and_of_the_classes_that_are_there(
    augmentation: BatchAugmentation | None,
) -> None:
    record = scored(augmentation=augmentation)
    for split in ("train", "val"):
        assert record[f"{split}/accuracy"] == pytest.approx(0.6)
        assert record[f"{split}/macro_f1"] == pytest.approx(MACRO_F1)
    assert record["val/predicted_classes"] == 4


def test_val_means_in_training_what_it_means_in_evaluation() -> None:
    judged = report(np.eye(7)[NAMED], TRUE, "abcdefg", split="val")
    record = scored()
    assert record["val/macro_f1"] == pytest.approx(judged.macro_f1)
    assert record["val/accuracy"] == pytest.approx(judged.accuracy)
    assert record["val/predicted_classes"] == judged.predicted_classes


@pytest.mark.parametrize(
    "augmentation", [BatchAugmentation(mixup=0.2), BatchAugmentation(cutmix=1.0)], ids=repr
)
def test_an_epoch_of_mixed_images_has_no_scores_on_train(
    augmentation: BatchAugmentation, capsys: pytest.CaptureFixture[str]
) -> None:
    record = scored(augmentation=augmentation, bar=True)
    assert {name for name in record if name.startswith("train/")} == {"train/loss"}
    assert record["val/macro_f1"] == pytest.approx(MACRO_F1)
    shown = capsys.readouterr().out
    assert "val_accuracy: 0.6000" in shown
    assert f"val_macro_f1: {MACRO_F1:.4f}" in shown
    assert not re.search(r"(?<!val_)(accuracy|macro_f1):", shown)


def test_the_bar_shows_the_scores(capsys: pytest.CaptureFixture[str]) -> None:
    scored(bar=True)
    shown = capsys.readouterr().out
    for name, value in (("accuracy", 0.6), ("macro_f1", MACRO_F1)):
        assert f" {name}: {value:.4f}" in shown
        assert f" val_{name}: {value:.4f}" in shown


@pytest.mark.parametrize("ema", [0.0, 0.99])
@pytest.mark.parametrize("keep_epoch", ["best", "last"])
def test_the_weights_that_were_judged_are_kept(ema: float, keep_epoch: str) -> None:
    """With an average that is the average, not the weights that went on training."""
    model, val = small(), batches(None)
    plan = LoopConfig(learning_rate=3e-2, epochs=3, ema=ema, keep_epoch=keep_epoch)
    result = fit(model, batches(0), val, plan, first_epoch=1, log=lambda _: None)
    losses = [record["val/loss"] for record in result.history]
    assert min(abs(a - b) for a in losses for b in losses if a is not b) > 1e-3
    loss, _ = model.evaluate(val, verbose=0)
    assert loss == pytest.approx(result.kept["val/loss"], rel=1e-5)
    if keep_epoch == "last":
        assert result.kept_epoch == 3


def test_the_best_epochs_weights_are_kept() -> None:
    model = small()
    result, logged = train(model, LoopConfig(learning_rate=0.3, epochs=4))
    best = max(logged, key=lambda record: record["val/macro_f1"])
    assert result.kept_epoch == best["epoch"] < 4
    predicted = model.predict_on_batch(IMAGES.astype(np.float32)[..., None]).argmax(axis=1)
    assert (predicted == LABELS).mean() == pytest.approx(best["val/accuracy"])


def test_a_loss_that_is_no_number_ends_training_with_epoch_and_batch() -> None:
    _, plain = tiny(0, PLAIN)
    with pytest.raises(TrainingError, match=r"finite train/loss.*epoch 1, batches 1 to \d+;"):
        train(plain, LoopConfig(learning_rate=10.0**30, epochs=3))


def test_augmentation_changes_training_images_only() -> None:
    pixels = IMAGES[:8].astype(np.float32)[..., None]
    changed = plain = pixels
    for layer in build_layers(AugmentationConfig(zoom=0.1), seed=0):
        changed, plain = layer(changed, training=True), layer(plain, training=False)
    np.testing.assert_array_equal(np.array(plain), pixels)
    assert not np.array_equal(np.array(changed), pixels)
    assert np.array(changed).min() >= 0
    assert np.array(changed).max() <= 255.001
