"""Time per image at 1, 2, 4 and 10 times the images; the parent measures memory.

`python -m benchmarks.scaling '{"archive": …, "counts": [2000, …]}'` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from fer_experiments.config import Config
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.prepared import prepare
from fer_experiments.recipes import resolve

# Keras is imported late: processes that help to decode import this module, too.


def main(asked: dict[str, Any]) -> dict[str, list[float]]:
    """Microseconds per image of each step, by count; small counts are tried twice.

    Args:
        asked: `archive` with images to take from, `parts` the folder for smaller archives,
            `counts` of training images.
    """
    archives = [_part(Path(asked["archive"]), n, Path(asked["parts"])) for n in asked["counts"]]
    _steps(archives[0], 0)  # what is compiled or read for the first time
    times: dict[str, list[float]] = {"prepare": [], "extraction": [], "epoch": []}
    for count, archive in zip(asked["counts"], archives, strict=True):
        runs = [_steps(archive, repeat) for repeat in ((1, 2) if count <= 4000 else (1,))]
        for name, values in times.items():
            values.append(min(run[name] for run in runs) / count * 1e6)
    return times


def _part(archive: Path, count: int, folder: Path) -> Path:
    """An archive with the first `count` training images, evenly from all classes, and 70 of val."""
    path = folder / f"{count}.zip"
    with ZipFile(archive) as source, ZipFile(path, "w") as part:
        for split, wanted in (("train", count), ("test", 70)):
            names = [n for n in source.namelist() if f"{split}/" in n and not n.endswith("/")]
            step = len(names) / wanted
            for i in range(wanted):
                name = names[int(i * step)]
                part.writestr(name, source.read(name))
    return path


def _steps(archive: Path, repeat: int) -> dict[str, float]:
    """Seconds of each step."""
    from fer_experiments.models import classifier
    from fer_experiments.models.features import cache
    from fer_experiments.stages import inputs

    seconds = {"prepare": float("inf")}
    for attempt in range(3):
        config = resolve(
            "baseline",
            {
                "dataset": str(archive),
                "split": "official",
                # Another one gives the official split another key, so nothing is found ready.
                "data_seed": 3 * repeat + attempt,
                "backbone": "vgg16",
                "weights": "none",
            },
        )
        started = time.perf_counter()
        prepared = prepare(config.data)
        seconds["prepare"] = min(seconds["prepare"], time.perf_counter() - started)
    cache.clear()
    model = classifier.build(config.model, image_size=48, classes=7, seed=0)
    feed = inputs.of_phase(model, config, prepared)
    seconds["extraction"] = feed.features_seconds
    seconds["epoch"] = _epoch(feed, prepared, config)
    return seconds


def _epoch(feed: Any, prepared: PreparedDataset, config: Config) -> float:
    """Seconds of the fastest of four epochs after the first one, which compiles."""
    from fer_experiments.training.batches import Batches
    from fer_experiments.training.loop import fit
    from fer_experiments.training.optimizers import LoopConfig

    seconds: list[float] = []
    train, val = (
        Batches(views, prepared.split(split)[1], classes=7, batch_size=32, seed=seed)
        for split, views, seed in (("train", feed.train, 0), ("val", feed.val, None))
    )
    fit(
        feed.model,
        train,
        val,
        LoopConfig(learning_rate=config.head_training.learning_rate, epochs=5, keep_epoch="last"),
        first_epoch=1,
        log=lambda record: seconds.append(record["seconds"]),
    )
    return min(seconds[1:])


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
