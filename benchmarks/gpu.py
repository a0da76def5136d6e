"""Long trainings on a machine with a GPU and without MLflow, and what came out of them.

    KERAS_BACKEND=jax python -m benchmarks.gpu train best-crop-vgg16 --out results
    KERAS_BACKEND=jax python -m benchmarks.gpu train best-crop-vgg16 --limit 512 --epochs 1
    python -m benchmarks.gpu report

`train` is `fer train` and `fer finetune` in one process, on PublicTest as val, the last epoch kept,
so that no choice was made on it. Killed, it resumes after the last epoch that ended. What it leaves
are the scores of every epoch and the predictions for val: as it is, mirrored, in ten crops, and
disturbed (shifted, turned, scaled). Data and weights are those of `FER_SHARED`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from fer_experiments.config import Config
from fer_experiments.recipes import resolve

if TYPE_CHECKING:
    import keras

    from fer_experiments.data.dataset import PreparedDataset
    from fer_experiments.training.phases import Phase


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: a recipe with some of its fields changed."""

    backbone: str
    recipe: str = "best"
    changed: dict[str, Any] = field(default_factory=dict)

    def config(self, **more: Any) -> Config:
        """What it trains with."""
        always = {"backbone": self.backbone, "keep_epoch": "last", "cache": False}
        return resolve(self.recipe, always | self.changed | more)


RESULTS = Path(__file__).with_name("gpu-results")

_CROPPED = {"crop": 44, "cutmix": 1.0}
# 96 to 44 pixels and AdamW to SGD: what the published results on 48 pixels train with.
_LONG_SGD = {
    "crop": 44,
    "cutmix": 1.0,
    "input_size": "none",
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "finetune_learning_rate": 0.02,
    "weight_decay": 5e-3,  # decoupled; with momentum 0.9 that of 5e-4 in the loss
    "warmup_epochs": 3,
}
TRAININGS = {
    "best-vgg16": Training(backbone="vgg16"),
    "best-resnet50": Training(backbone="resnet50"),
    "best-crop-vgg16": Training(backbone="vgg16", changed=_CROPPED | {"finetune_epochs": 60}),
    "best-crop-resnet50": Training(backbone="resnet50", changed=_CROPPED | {"finetune_epochs": 45}),
    "sgd-vgg16": Training(backbone="vgg16", changed=_LONG_SGD | {"finetune_epochs": 200}),
    "trial-tiny": Training(
        backbone="tiny", recipe="demo", changed={"crop": 44, "unfreeze_layers": 0}
    ),
    "sgd-resnet50": Training(backbone="resnet50", changed=_LONG_SGD | {"finetune_epochs": 100}),
}


@click.group()
def main() -> None:
    """Long trainings without MLflow."""


@main.command()
@click.argument("name", type=click.Choice(sorted(TRAININGS)))
@click.option("--seed", default=0)
@click.option("--epochs", type=int, help="of fine-tuning, instead of the training's own")
@click.option("--limit", type=int, help="training images, for a trial")
@click.option("--dataset", help="instead of FER_SHARED's")
@click.option("--weights", help="instead of FER_SHARED's")
@click.option("--out", type=click.Path(path_type=Path), default=Path("gpu-results"))
def train(
    name: str,
    seed: int,
    epochs: int | None,
    limit: int | None,
    dataset: str | None,
    weights: str | None,
    out: Path,
) -> None:
    """Trains NAME, or resumes it."""
    from fer_experiments import console
    from fer_experiments.stages import common

    shared = Path(os.environ.get("FER_SHARED", "../shared")).resolve()
    more: dict[str, Any] = {
        "seed": seed,
        "dataset": dataset or str(shared / "fer2013" / "archive.zip"),
        "weights": weights or str(shared / "weights"),
        "limit": limit,
    }
    if epochs is not None:
        more |= {"finetune_epochs": epochs, "epochs": min(epochs, 3), "warmup_epochs": 0}
    config = common.for_backbone(TRAININGS[name].config(**more))
    folder = out / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "predictions.npz").exists():
        print(f"{folder}: done already")
        return
    config, prepared = common.prepare(config)
    console.load_keras()
    model, history = _trained(config, prepared, folder)
    (folder / "about.json").write_text(
        json.dumps({"name": name, "config": config.flat(), "history": history}, indent=1)
    )
    _predict(model, prepared, folder)


def _trained(
    config: Config, prepared: PreparedDataset, folder: Path
) -> tuple[keras.Model, list[dict[str, float]]]:
    """Head training, then fine-tuning, each from its checkpoint on."""
    from fer_experiments.models import classifier
    from fer_experiments.training.phases import Phase

    model = classifier.build(
        config.model,
        image_size=prepared.image_size,
        classes=len(prepared.class_names),
        seed=config.fit.seed,
    )
    head = Phase(
        learning_rate=config.head_training.learning_rate,
        epochs=config.head_training.epochs,
        first_epoch=1,
    )
    history = _fit(model, config, prepared, head, "train", folder)
    classifier.unfreeze(
        model,
        config.finetune.unfreeze_layers,
        train_batchnorm=config.finetune.train_batchnorm,
    )
    whole = Phase(
        learning_rate=config.finetune.finetune_learning_rate,
        epochs=config.finetune.finetune_epochs,
        first_epoch=config.head_training.epochs + 1,
        layer_multipliers=classifier.learning_rate_multipliers(model, config.finetune.layer_decay),
    )
    return model, [*history, *_fit(model, config, prepared, whole, "finetune", folder)]


def _fit(
    model: keras.Model,
    config: Config,
    prepared: PreparedDataset,
    phase: Phase,
    stage: str,
    folder: Path,
) -> list[dict[str, float]]:
    from fer_experiments.stages import inputs
    from fer_experiments.training.phases import train as train_phase

    feed = inputs.of_phase(model, config, prepared)
    started = time.perf_counter()

    def on_epoch(record: dict[str, float]) -> None:
        print(
            f"{time.perf_counter() - started:6.1f} s {folder.name} {stage} "
            f"epoch {record['epoch']:.0f}: loss {record['train/loss']:.3f}, val loss "
            f"{record['val/loss']:.3f}, accuracy {record['val/accuracy']:.4f}, "
            f"{record['seconds']:.2f} s",
            flush=True,
        )

    result = train_phase(
        feed.model,
        phase,
        config.fit,
        feed.data(prepared),
        on_epoch=on_epoch,
        checkpoint=folder / f"{stage}.npz",
    )
    return [dict(record) for record in result.history]


def _predict(model: keras.Model, prepared: PreparedDataset, folder: Path) -> None:
    from fer_experiments.evaluation.predictions import predict, test_time_views
    from fer_experiments.models.crops import crop_of

    images, labels = prepared.split("val")
    ways = ["none", "flip", *(["crops"] if crop_of(model) else [])]
    found = {way: predict(model, images, views=test_time_views(way)) for way in ways}
    found |= {how: predict(model, changed) for how, changed in disturbed(images)}
    temporary = folder / ".predictions.npz"
    np.savez_compressed(
        temporary,
        allow_pickle=False,
        labels=labels,
        class_names=np.array(prepared.class_names),
        fingerprint=np.array(prepared.fingerprint),
        **{name: values.astype(np.float16) for name, values in found.items()},
    )
    temporary.replace(folder / "predictions.npz")


def disturbed(images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Faces that lie a little otherwise: by 2 pixels, 10 degrees, a tenth of the size.

    Args:
        images: (N, H, W) uint8.

    Yields:
        What was done and (N, H, W) uint8, read bilinearly, the border going on outside.
    """
    for down, right in ((2, 0), (-2, 0), (0, 2), (0, -2)):
        yield f"shift {down} {right}", _moved(images, np.eye(2), (-down, -right))
    for degrees in (10, -10):
        turn = np.deg2rad(degrees)
        matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        yield f"turn {degrees}", _moved(images, matrix)
    for scale in (0.9, 1.1):
        yield f"scale {scale}", _moved(images, np.eye(2) / scale)


def _moved(
    images: np.ndarray, matrix: np.ndarray, offset: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Where each pixel comes from: `matrix` times its place about the middle, plus `offset`."""
    from scipy.ndimage import affine_transform

    middle = (np.array(images.shape[1:]) - 1) / 2
    shift = middle - matrix @ middle + np.array(offset)
    moved = [
        affine_transform(image.astype(np.float32), matrix, shift, order=1, mode="nearest")
        for image in images
    ]
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)


@main.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path), default=RESULTS)
@click.option("--join", "joined", multiple=True, help="A,B: also the average of these")
def report(folder: Path, joined: tuple[str, ...]) -> None:
    """Prints what the trainings in FOLDER reached, alone and averaged."""
    print(table(folder, joined))


def table(folder: Path, joined: Sequence[str] = ()) -> str:
    """A row a training, then one an average; each score with its 95 % interval."""
    rows: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted(folder.rglob("predictions.npz")):
        with np.load(path, allow_pickle=False) as file:
            rows[path.parent.name] = dict(file)
    for names in joined:
        members = [rows[name] for name in names.split(",")]
        ways = set.intersection(*(set(member) for member in members))
        rows[" + ".join(names.split(","))] = {
            way: members[0][way]
            if members[0][way].ndim != 2
            else np.mean([member[way].astype(np.float64) for member in members], axis=0)
            for way in ways
        }
    lines = [
        "| training | as it is | mirrored too | ten crops | ten crops less as it is "
        "| shifted | turned | scaled |",
        "|---|---|---|---|---|---:|---:|---:|",
    ]
    for name, row in rows.items():
        cells = [_score(row, way) for way in ("none", "flip", "crops")]
        cells += [_gain(row)]
        cells += [_mean(row, how) for how in ("shift", "turn", "scale")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _gain(row: dict[str, np.ndarray]) -> str:
    """In points of accuracy, with the p of McNemar's test on the same images."""
    from fer_experiments.evaluation.comparison import pairs

    if "crops" not in row:
        return ""
    models = {way: row[way] for way in ("crops", "none")}
    [pair] = pairs(models, row["labels"], classes=len(row["class_names"]))
    found = pair.accuracy
    return "" if found is None else f"{100 * found.value:+.1f}, p = {found.p:.2g}"


def _score(row: dict[str, np.ndarray], way: str) -> str:
    from fer_experiments.evaluation.metrics import report as judge

    if way not in row:
        return ""
    found = judge(
        row[way].astype(np.float64), row["labels"], row["class_names"].tolist(), split="val"
    ).scores()
    low, high = (100 * found[f"interval/accuracy_{end}"] for end in ("low", "high"))
    return f"{found['accuracy']:.1%} ({low:.1f}–{high:.1f}), macro-F1 {found['macro_f1']:.3f}"


def _mean(row: dict[str, np.ndarray], how: str) -> str:
    shares = [
        float((values.argmax(axis=1) == row["labels"]).mean())
        for name, values in row.items()
        if name.startswith(how)
    ]
    return f"{np.mean(shares):.1%}"


if __name__ == "__main__":
    main()
