import keras
import numpy as np
import pytest

from fer_experiments.config import AugmentationConfig
from fer_experiments.data.synthetic import draw_faces
from fer_experiments.errors import TrainingError
from fer_experiments.models import classifier
from fer_experiments.models.augmentation import build_layers, with_augmentation
from fer_experiments.recipes import resolve
from fer_experiments.training.batches import Batches
from fer_experiments.training.loop import EpochRecord, TrainingResult, fit
from fer_experiments.training.optimizers import Plan

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
    *,
    seed: int = 0,
    augmentation: AugmentationConfig | None = None,
    keep_epoch: str = "best",
    learning_rate: float = 1e-3,
    epochs: int = 3,
    first_epoch: int = 1,
) -> tuple[keras.Model, TrainingResult, list[EpochRecord]]:
    config = resolve("demo", {"backbone": "tiny"})
    model = classifier.build(config.model, image_size=48, classes=7, seed=seed)
    logged: list[EpochRecord] = []
    result = fit(
        with_augmentation(model, augmentation or config.augmentation, seed=seed).model,
        batches(seed, first_epoch=first_epoch),
        batches(None),
        Plan(learning_rate=learning_rate, epochs=epochs, keep_epoch=keep_epoch),
        first_epoch=first_epoch,
        log=logged.append,
    )
    return model, result, logged


def order_of(data: Batches) -> list[bytes]:
    return [pixels.tobytes() for i in range(len(data)) for pixels in data[i][0]]


def test_an_epoch_sees_every_image_once_with_its_own_label() -> None:
    data = batches(seed=3)
    assert len(data) == 5
    seen = {}
    for i in range(len(data)):
        pixels, one_hot = data[i]
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
    data.on_epoch_end()
    second = order_of(data)
    assert first != second
    assert order_of(batches(seed=3)) == first
    assert order_of(batches(seed=3, first_epoch=2)) == second
    assert order_of(batches(seed=4)) != first
    assert order_of(batches(seed=None)) == [i.astype(np.float32).tobytes() for i in IMAGES]


def test_same_seed_same_weights_other_seed_others() -> None:
    augmentation = AugmentationConfig()
    first, again, other = (
        train(seed=s, augmentation=augmentation)[0].get_weights() for s in (0, 0, 1)
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_epoch_is_logged_with_all_its_figures() -> None:
    _, result, logged = train(first_epoch=11)
    assert [record["epoch"] for record in logged] == [11, 12, 13]
    assert tuple(logged) == result.history
    scores = {f"{s}/{m}" for s in ("train", "val") for m in ("loss", "accuracy", "macro_f1")}
    for record in logged:
        assert set(record) == scores | {
            "epoch", "learning_rate", "seconds", "val/predicted_classes"
        }  # fmt: skip
        assert 1 <= record["val/predicted_classes"] <= 7
        assert record["learning_rate"] == pytest.approx(1e-3)


def test_the_best_epochs_weights_are_kept() -> None:
    model, result, logged = train(epochs=5, learning_rate=3e-2)
    best = max(logged, key=lambda record: record["val/macro_f1"])
    assert result.kept_epoch == best["epoch"]
    predicted = model.predict(IMAGES.astype(np.float32)[..., None], verbose=0).argmax(axis=1)
    assert (predicted == LABELS).mean() == pytest.approx(best["val/accuracy"])


def test_the_last_epochs_weights_are_kept_if_the_recipe_says_so() -> None:
    _, result, _ = train(keep_epoch="last", epochs=2)
    assert result.kept_epoch == 2


def test_a_loss_that_is_no_number_ends_training_with_epoch_and_batch() -> None:
    with pytest.raises(TrainingError, match=r"finite train/loss.*epoch 1, batches 1 to \d+;"):
        train(learning_rate=10.0**30, augmentation=PLAIN)


def test_augmentation_changes_training_images_only() -> None:
    pixels = IMAGES[:8].astype(np.float32)[..., None]
    changed = plain = pixels
    for layer in build_layers(AugmentationConfig(zoom=0.1), seed=0):
        changed, plain = layer(changed, training=True), layer(plain, training=False)
    np.testing.assert_array_equal(np.array(plain), pixels)
    assert not np.array_equal(np.array(changed), pixels)
    assert np.array(changed).min() >= 0
    assert np.array(changed).max() <= 255.001
