"""`python -m benchmarks [--quick]`: the notebook's way and ours in turns, in one run.

Writes results.json, a list of {name, ours, reference, ratio, unit, note}, and results.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import material, results
from benchmarks.processes import ask, fer, run

BACKBONES = ("vgg16", "resnet50")
HEAD_EPOCHS, FINETUNE_EPOCHS = 10, 5
STEPS = (
    "start_up",
    *(f"training_{backbone}" for backbone in reversed(BACKBONES)),
    *(f"options_{backbone}" for backbone in BACKBONES),
    *(f"rates_{backbone}" for backbone in BACKBONES),
    "memory",
    "growth",
    "accuracy",
)
# Each start of TensorFlow costs as long as what it is to time: one backbone takes six minutes.
QUICK_STEPS = ("start_up", "training_resnet50", "rates_resnet50")


@dataclass(kw_only=True)
class Bench:
    """One run of the benchmark: where it works, how much it does, and what it found."""

    folder: Path
    quick: bool
    rows: results.Rows

    def prepare(self) -> None:
        """Both sides' images and weights; the time that ours takes to prepare them."""
        self.archive = material.archive(self.folder, quick=self.quick)
        done = fer("prepare", *self.data_options, folder=self.folder)
        prepared = material.prepared(self.archive, limit=self.limit)
        self.train, self.val = prepared.size("train"), prepared.size("val")
        seconds = self._newest("prepare").data.metrics["time/prepare_seconds"]
        images = material.TRAIN + material.VAL if material.is_real() else self.train + self.val
        self.rows.add(
            "prepare",
            ours=images / seconds,
            reference=5000,
            unit="images/s",
            note=f"{images} files of the archive: decoded, split, audited, written",
        )
        self.rows.facts["images"] = (
            f"{self.train} training, {self.val} val; real images: {material.is_real()}"
        )
        self.rows.facts["peak memory of prepare"] = f"{done.peak_megabytes:.0f} MB"
        self.pictures = material.write_folder(prepared, self.folder / "pictures")
        self.weights = material.whole_weights(self.folder / "weights")

    @property
    def limit(self) -> int | None:
        """Images of each split."""
        return 600 if self.quick else None

    @property
    def data_options(self) -> list[str]:
        """What `fer` is told of the data."""
        options = ["--dataset", str(self.archive), "--split", "official"]
        return [*options, "--limit", str(self.limit)] if self.limit else options

    def take(self, step: str) -> None:
        """A step of `STEPS`: its name is the method's, and the backbone's where it has one."""
        name, _, backbone = step.rpartition("_")
        if backbone in BACKBONES:
            getattr(self, name)(backbone)
        else:
            getattr(self, step)()

    def training(self, backbone: str) -> None:
        """Head training, fine-tuning, the whole recipe: A B A B A."""
        options = self._training_options
        visits = [self._notebook(backbone)]
        whole = fer("main", "--backbones", backbone, *options, folder=self.folder)
        head, tuned = self._newest("train"), self._newest("finetune")
        visits.append(self._notebook(backbone))
        cached_process = fer("train", "--backbone", backbone, *options, folder=self.folder)
        cached = self._newest("train")
        visits.append(self._notebook(backbone))
        fer("cache", "--clear", folder=self.folder)

        rate = _medians(visits)
        validation = self.val / rate["val"]
        reference_head = self._notebook_head(rate)
        reference_tune = FINETUNE_EPOCHS * (self.train / rate["finetune"] + validation)
        pass_seconds = head.data.metrics["time/features_seconds"]
        add = self._adder(backbone)
        add(
            "head",
            _total(head),
            reference_head,
            head,
            f"the notebook trains {rate['head']:.0f}, fine-tunes {rate['finetune']:.0f} images/s",
        )
        add("head_cached", _total(cached), reference_head, cached, "checking the files counts")
        tune = _total(tuned)
        add(
            "finetune",
            tune,
            reference_tune,
            tuned,
            "its features come from the pass of head training; were that pass counted here again, "
            f"the ratio would be {reference_tune / (tune + pass_seconds):.3g}",
        )
        add(
            "recipe",
            whole.seconds,
            reference_head + reference_tune + validation,
            tuned,
            "`fer main` from start to exit: imports, figures, logging, comparison too",
        )
        self.rows.facts[f"peak memory of main, {backbone}"] = (
            f"{whole.peak_megabytes:.0f} MB resident with mapped files, "
            f"{whole.anonymous_megabytes:.0f} MB anonymous"
        )
        self.rows.facts[f"peak memory of train on cached features, {backbone}"] = (
            f"{cached_process.peak_megabytes:.0f} MB resident with mapped files, "
            f"{cached_process.anonymous_megabytes:.0f} MB anonymous"
        )
        self.rows.facts[f"peak memory of the notebook's way, {backbone}"] = (
            f"{max(v['peak'] for v in visits):.0f} MB"
        )

    def options(self, backbone: str) -> None:
        """Head training with four views, and in lower precision: A B B A."""
        train = ["train", "--backbone", backbone, *self._training_options]
        visits = [self._notebook(backbone)]
        fer(*train, "--augmented-copies", "3", folder=self.folder)
        views = self._newest("train")
        fer(*train, "--precision", "mixed_bfloat16", folder=self.folder)
        lower = _total(self._newest("train"))
        visits.append(self._notebook(backbone))
        fer("cache", "--clear", folder=self.folder)

        reference = self._notebook_head(_medians(visits))
        note = "the passes of all four views count"
        self._adder(backbone)("head_views4", _total(views), reference, views, note)
        self.rows.facts[f"head_{backbone} with precision=mixed_bfloat16"] = (
            f"{lower:.0f} s, ratio {reference / lower:.3g}; an option, no default"
        )

    def rates(self, backbone: str) -> None:
        """Against bare loops."""
        found, _ = ask(
            "rates",
            self.folder / "rates",
            backbone=backbone,
            dataset=str(self.archive),
            images=768 if self.quick else 3072,
            train_images=320 if self.quick else 1280,
            limit=self.limit or (12_000 if backbone == "vgg16" else None),
            rounds=1 if self.quick else 2,
        )
        notes = {
            "extract": "compilation, checksums and writing count; bare forward pass at batch "
            f"{found['best_batch']}",
            "predict": f"bare forward pass at batch {found['best_batch']}",
            "whole": "augmentation, macro-F1 and order count; bare: `train_on_batch`, one batch",
        }
        for name, note in notes.items():
            ours, bare = found[name]
            self.rows.add(
                f"{name}_{backbone}", ours=ours, reference=bare, unit="images/s", note=note
            )
        alone = (self.train + self.val) / found["extract"][1]
        self.rows.facts[f"one bare forward pass of {backbone} over all images"] = (
            f"{alone:.0f} s: head_{backbone} cannot take less"
        )
        rate = found["extract"][0] * found["gflop_per_image"]
        self.rows.facts[f"share of the matrix-product limit, extraction of {backbone}"] = (
            f"{rate / found['gflops_of_matrix_product']:.0%} "
            f"({found['gflop_per_image']:.2f} GFLOP an image, matrix product "
            f"{found['gflops_of_matrix_product']:.0f} GFLOP/s)"
        )

    def start_up(self) -> None:
        """How long a user waits for help and for an error."""
        commands: dict[str, tuple[tuple[str, ...], bool]] = {
            "startup_help": (("--help",), False),
            "startup_error": (("train", "--learning-rate", "abc"), True),
        }
        for name, (arguments, failing) in commands.items():
            seconds = [
                run(
                    "-m", "fer_experiments", *arguments, folder=self.folder, failing=failing
                ).seconds
                for _ in range(7)
            ]
            self.rows.add(
                name,
                ours=statistics.median(seconds),
                reference=0.35,
                unit="s",
                note=f"`fer {' '.join(arguments)}`, median of 7",
            )

    def memory(self) -> None:
        """Anonymous memory of head training at 10 times the images."""
        count = 300 if self.quick else 1500
        most = []
        for n in (count, 10 * count):
            data = ["--dataset", "synthetic", "--synthetic-count", str(n), "--split", "official"]
            model = ["--backbone", "vgg16", "--truncate-at", "block3_pool", "--weights", "none"]
            folder = self.folder / "memory"
            fer("prepare", *data, folder=folder)
            done = fer("train", *data, *model, "--epochs", "2", folder=folder)
            most.append(done.anonymous_megabytes)
        fer("cache", "--clear", folder=self.folder / "memory")
        self.rows.add(
            "memory_10x",
            ours=most[1],
            reference=most[0],
            unit="MB",
            note=f"anonymous memory of `fer train` on {10 * count} against {count} drawn faces",
            ratio=most[1] / most[0],
        )

    def growth(self) -> None:
        """Time per image at 1, 2, 4 and 10 times the images."""
        base = 200 if self.quick else 2000
        counts = [base * factor for factor in (1, 2, 4, 10)]
        folder = self.folder / "growth"
        folder.mkdir()
        found, _ = ask(
            "scaling",
            folder,
            archive=str(self.archive),
            parts=str(folder),
            counts=counts if material.is_real() else [c for c in counts if c <= self.train],
        )
        worst = max(found, key=lambda name: max(found[name]) / min(found[name]))
        shown = "; ".join(
            f"{name} {' '.join(f'{v:.0f}' for v in values)}" for name, values in found.items()
        )
        self.rows.add(
            "growth",
            ours=max(found[worst]),
            reference=min(found[worst]),
            unit="µs/image",
            note=f"{worst}, the worst of three; at {counts} images: {shown}",
            ratio=max(found[worst]) / min(found[worst]),
        )

    def accuracy(self) -> None:
        """Both ways for real, on the same images, cut and recipe."""
        if not material.is_real():
            self.rows.facts["accuracy"] = "not compared: the real images and weights are not here"
            return
        limit = 300 if self.quick else 4000
        epochs = 1 if self.quick else HEAD_EPOCHS
        folder = self.folder / "accuracy"
        folder.mkdir()
        data = material.prepared(self.archive, limit=limit)
        pictures = material.write_folder(data, folder / "pictures")
        options = ["--dataset", str(self.archive), "--split", "official", "--limit", str(limit)]
        options += ["--recipe", "notebook", "--epochs", str(epochs), "--cache", "on"]
        for backbone in BACKBONES:
            cut, weights = material.CUTS[backbone], material.lower_weights(backbone)
            notebook, _ = ask(
                "notebook",
                folder,
                backbone=backbone,
                pictures=str(pictures),
                epochs=epochs,
                truncate_at=cut,
                weights=str(weights),
            )
            self.rows.accuracy(backbone, "the notebook's way", **notebook)
            for copies in ("0", "3"):
                model = ["--backbone", backbone, "--truncate-at", cut, "--weights", str(weights)]
                fer("train", *options, *model, "--augmented-copies", copies, folder=folder)
                trained = self._newest("train", folder)
                self.rows.accuracy(
                    backbone,
                    f"ours, augmented_copies={copies}",
                    val_accuracy=trained.data.metrics["val/accuracy"],
                    seconds=_total(trained),
                )
        self.rows.facts["accuracy"] = (
            f"both ways on the same {data.size('train')} training images up to "
            f"{' and '.join(material.CUTS.values())}, real ImageNet weights, notebook's recipe, "
            f"{epochs} epochs, last epoch, {data.size('val')} val images"
        )

    def _adder(self, backbone: str) -> Callable[..., None]:
        def add(name: str, ours: float, reference: float, model: Any, note: str) -> None:
            score = model.data.metrics["val/accuracy"]
            self.rows.add(
                f"{name}_{backbone}",
                ours=ours,
                reference=reference,
                unit="s",
                note=f"val accuracy {score:.1%}; {note}",
            )

        return add

    @property
    def _training_options(self) -> list[str]:
        weights = str(self.weights) if self.weights else "none"
        return [*self.data_options, "--recipe", "baseline", "--weights", weights]

    def _notebook_head(self, rate: dict[str, float]) -> float:
        """Seconds that the notebook's way takes for head training at these images/s."""
        return HEAD_EPOCHS * (self.train / rate["head"] + self.val / rate["val"])

    def _notebook(self, backbone: str) -> dict[str, float]:
        material.read_once(self.pictures)
        steps, warm_up = (12, 2) if self.quick else (64, 4)
        rates, done = ask(
            "notebook",
            self.folder,
            backbone=backbone,
            pictures=str(self.pictures),
            steps=steps,
            warm_up=warm_up,
        )
        return {**rates, "peak": done.peak_megabytes}

    def _newest(self, stage: str, folder: Path | None = None) -> Any:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{folder or self.folder}/mlflow.db")
        experiment = client.get_experiment_by_name("fer2013")
        return client.search_runs(
            [experiment.experiment_id],
            f"tags.stage = '{stage}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )[0]


def _medians(visits: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(v[name] for v in visits) for name in visits[0]}


def _total(trained: Any) -> float:
    """Seconds of features and training."""
    metrics = trained.data.metrics
    return float(metrics["time/features_seconds"] + metrics["time/train_seconds"])


def main() -> None:
    """Runs everything; a result is on disk as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, ResNet50 alone")
    parser.add_argument("--only", nargs="+", choices=STEPS, help="these steps alone")
    asked = parser.parse_args()
    quick = asked.quick
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as temporary:
        folder = Path(temporary)
        (folder / "rates").mkdir()
        (folder / "memory").mkdir()
        os.environ["FER_DATA_HOME"] = str(folder / "data")
        bench = Bench(folder=folder, quick=quick, rows=results.Rows(quick=quick))
        bench.prepare()  # makes what the steps work on
        bench.rows.write()
        for step in asked.only or (QUICK_STEPS if quick else STEPS):
            bench.take(step)
            bench.rows.write()


main()
