"""Training that is cut short and resumed comes to what it would have come to."""

import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_experiments.config import AugmentationConfig
from fer_experiments.data.synthetic import draw_faces
from fer_experiments.errors import TrainingError
from fer_experiments.models import classifier
from fer_experiments.models.augmentation import with_augmentation
from fer_experiments.recipes import resolve
from fer_experiments.training.batches import BatchAugmentation, Batches
from fer_experiments.training.checkpoints import EpochRecord
from fer_experiments.training.loop import TrainingResult, fit
from fer_experiments.training.optimizers import LoopConfig

IMAGES, LABELS, _ = draw_faces(count=70, seed=0)
EPOCHS = 4
PLAN = LoopConfig(learning_rate=1e-2, epochs=EPOCHS)


class CutShortError(Exception):
    pass


def train(
    checkpoint: Path | None,
    *,
    stop_after: int | None = None,
    plan: LoopConfig = PLAN,
    augmentation: BatchAugmentation | None = None,
    head_units: int = 64,
) -> tuple[keras.Model, TrainingResult, list[EpochRecord]]:
    """With all that is random: order, copies, augmentation, dropout; and batch normalisation."""
    config = resolve("demo", {"backbone": "tiny", "head_units": head_units, "dropout": 0.5})
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    classifier.unfreeze(model, 4, train_batchnorm=True)
    logged: list[EpochRecord] = []

    def log(record: EpochRecord) -> None:
        logged.append(record)
        if record["epoch"] == stop_after:
            raise CutShortError

    pixels = IMAGES[..., None]
    train_batches, val_batches = (
        Batches(copies, LABELS, classes=7, batch_size=16, seed=seed, augmentation=own)
        for copies, seed, own in (
            ([[pixels], [pixels[:, :, ::-1]]], 0, augmentation),
            ([[pixels]], None, None),
        )
    )
    result = fit(
        with_augmentation(model, AugmentationConfig(), seed=0).model,
        train_batches,
        val_batches,
        plan,
        first_epoch=1,
        log=log,
        checkpoint=checkpoint,
    )
    return model, result, logged


def without_times(history: object) -> list[dict[str, float]]:
    return [{k: v for k, v in r.items() if k != "seconds"} for r in history]  # type: ignore


SLOW = {
    "sgd cosine": replace(
        PLAN, optimizer="sgd", schedule="cosine", warmup_epochs=1.0, weight_decay=1e-2
    ),
    "adamw ema": replace(
        PLAN, optimizer="adamw", ema=0.9, layer_multipliers={"block2_0_conv": 0.1}
    ),
    "plateau ema last": replace(PLAN, schedule="plateau", keep_epoch="last", ema=0.5),
}
# Mixed in three of four epochs, so that a run resumed in the last one must not mix.
MIXED = BatchAugmentation(
    label_smoothing=0.1, mixup=0.4, cutmix=1.0, balance="sampling", until_epoch=3
)


@pytest.mark.parametrize(
    "plan, augmentation, stops",
    [
        pytest.param(PLAN, MIXED, (EPOCHS - 1,), id="adam"),
        *(
            pytest.param(plan, augmentation, (1, EPOCHS), id=name, marks=pytest.mark.slow)
            for (name, plan), augmentation in zip(SLOW.items(), (None, MIXED, None), strict=True)
        ),
    ],
)
def test_going_on_gives_the_same_weights(
    plan: LoopConfig, augmentation: BatchAugmentation | None, stops: tuple[int, ...], tmp_path: Path
) -> None:
    whole, result, logged = train(None, plan=plan, augmentation=augmentation)
    for stop_after in stops:
        file = tmp_path / f"{stop_after}.npz"
        with pytest.raises(CutShortError):
            train(file, stop_after=stop_after, plan=plan, augmentation=augmentation)
        model, later, logged_later = train(file, plan=plan, augmentation=augmentation)
        for ours, theirs in zip(model.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert later.kept_epoch == result.kept_epoch
        assert [r["epoch"] for r in logged_later] == [1, 2, 3, 4]
        for a, b in zip(without_times(logged_later), without_times(logged), strict=True):
            assert a == pytest.approx(b, abs=1e-5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training leaves that is cut short after its second epoch."""
    file = tmp_path_factory.mktemp("cut_short") / "checkpoint.npz"
    with pytest.raises(CutShortError):
        train(file, stop_after=2)
    return file


@pytest.mark.slow
def test_another_networks_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(checkpoint, tmp_path))
    with pytest.raises(TrainingError, match="of another; delete it"):
        train(file, head_units=65)


@pytest.mark.parametrize("damage", [b"", b"no zip at all", None])
def test_a_damaged_checkpoint_is_named(
    damage: bytes | None, checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint.npz"
    content = checkpoint.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(TrainingError, match=r"checkpoint\.npz cannot be read as a checkpoint"):
        train(file)


def test_only_the_file_itself_stays(checkpoint: Path) -> None:
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.npz"]
