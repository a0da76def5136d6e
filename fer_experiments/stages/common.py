"""What several stages do alike: check early, describe the data, report at the end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from fer_experiments import console
from fer_experiments.config import Config, per_backbone
from fer_experiments.data import prepared as data
from fer_experiments.data import seen
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.images import PixelRule
from fer_experiments.data.sources import open_source
from fer_experiments.faces import preparing
from fer_experiments.models import backbones
from fer_experiments.models import weights as pretrained
from fer_experiments.recipes import DEFAULT_RECIPE, resolve
from fer_experiments.reporting import dataset_card, figures
from fer_experiments.tracking.writer import Writer

if TYPE_CHECKING:
    from fer_experiments.tracking.runs import RunRecord


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """The run that a stage wrote, the figures that it printed, and where all of it is."""

    run_id: str
    scores: dict[str, float]
    uri: str | None = None  # of the model that was logged
    link: str | None = None  # of the run's page
    files: tuple[str, ...] = ()  # artifacts, by their path in the run
    told: tuple[str, ...] = ()  # what came out, in a line or two


def result(writer: Writer, scores: dict[str, float], told: Sequence[str] = ()) -> StageResult:
    """What a stage gives back; asked for when its run has ended."""
    return StageResult(
        run_id=writer.run_id,
        scores=scores,
        uri=writer.uri,
        link=writer.link,
        files=tuple(writer.files),
        told=tuple(told),
    )


def cost_of(runs: Sequence[RunRecord]) -> dict[str, float]:
    """What the models of these runs took together: parameters, seconds of training."""
    names = ("weights/parameters", "time/train_seconds_total")
    return {
        name: sum(run.metrics[name] for run in runs)
        for name in names
        if all(name in run.metrics for run in runs)
    }


def for_backbone(config: Config) -> Config:
    """The configuration with `cut` resolved for its backbone.

    Raises:
        UsageError: unknown backbone, weights or data source; found before Keras is imported.
    """
    row = backbones.lookup(config.model.backbone)
    pretrained.check(config.model.weights, row)
    check_source(config)
    return config.replace(truncate_at=per_backbone(config.model.truncate_at, row.name))


def prepare(
    config: Config, rule: PixelRule | None = None, *, whole: bool = False
) -> tuple[Config, PreparedDataset]:
    """The prepared data, and the configuration with the split that was resolved.

    Says how the source was read: in a line, or as a table where `whole`.
    """
    prepared = preparing.prepare(config.data, rule, told=partial(say_reading, whole=whole))
    return config.replace(split=prepared.manifest["split"]), prepared


def say_reading(plan: data.Plan, *, whole: bool = True) -> None:
    """How the source is read: parts and classes with their counts, what is left out."""
    split = plan.config.split
    counts = plan.reading.counts_with(split)
    totals = ", ".join(f"{counts[part].total()} in {part}" for part in counts)
    console.say(
        f"{plan.config.dataset}: {len(plan.reading.class_names)} classes, {totals}; "
        f"split {split}{_HOW[split, 'val' in plan.reading.counts]}"
    )
    if whole:
        for line in plan.reading.lines(split):
            console.say(line)
    elif plan.reading.not_used():
        console.say(f"left out: {'; '.join(plan.reading.not_used())}")


# What a split policy does, by its name and whether there is a val part.
_HOW = {
    ("official", False): ": PublicTest is val, PrivateTest is test",
    ("official", True): ": PublicTest is val, PrivateTest is test",
    ("given", True): ": the parts as they are",
    ("given", False): ": the parts as they are, val out of train",
    ("holdout", True): ": val as it is",
    ("holdout", False): ": val out of train",
}


def check_source(config: Config) -> None:
    """Raises UsageError if `dataset` cannot be read, or `detector` cannot be used."""
    asked = config.data
    preparing.check(asked)
    open_source(asked.dataset, synthetic_count=asked.synthetic_count, data_seed=asked.data_seed)


def whose(config: Config) -> dict[str, str]:
    """Tags by which a run is found from its first moment on, whatever it is called later."""
    return {
        "backbone": config.model.backbone,
        "recipe": config.recipe,
        "seed": str(config.fit.seed),
    }


def identify(writer: Writer, config: Config, prepared: PreparedDataset) -> None:
    """Params and tags by which a run is found and compared, and the whole configuration."""
    writer.params({**config.flat(), "dataset_fingerprint": prepared.fingerprint})
    writer.tags(
        {
            **whose(config),
            "dataset_name": prepared.name,
            "dataset_fingerprint": prepared.fingerprint,
        }
    )
    writer.json(config.stored(), "config.json")


def describe_data(writer: Writer, prepared: PreparedDataset) -> None:
    """The dataset card: counts, audit, a grid of samples."""
    manifest = prepared.manifest
    writer.json(manifest, "dataset/card.json")
    writer.text(dataset_card.card(prepared), "dataset/card.md")
    images, labels = prepared.split("train")
    writer.figure(
        figures.sample_grid(
            images,
            labels,
            class_names=prepared.class_names,
            title=f"{prepared.name}: training images",
        ),
        "dataset/samples.png",
    )
    writer.figure(
        figures.class_counts(
            prepared.counts,
            class_names=prepared.class_names,
            title=f"{prepared.name}: images per class",
        ),
        "dataset/class_counts.png",
    )


def keep_hashes(writer: Writer, prepared: PreparedDataset) -> None:
    """Keeps with the run what tells, anywhere, whether an image is one of its train or val."""
    hashes = seen.hashes_of(prepared)
    if hashes is not None:
        writer.arrays(hashes, seen.HASHES)


def audit_metrics(prepared: PreparedDataset) -> dict[str, float]:
    """The audit's counts as metrics `audit/…`; what is counted by split, a metric each."""
    found: dict[str, float] = {}
    for name, count in prepared.manifest["audit"].items():
        if isinstance(count, dict):
            found |= {f"audit/{name}_{split}": n for split, n in count.items()}
        else:
            found[f"audit/{name}"] = count
    return found


def following(writer: Writer, name: str, **options: object) -> str:
    """The command to type after a run, as it can be pasted into a shell.

    Args:
        writer: of the run, in whose experiment the next one shall be.
        name: the command of `fer`.
        options: as `command` takes them.
    """
    return command(name, **options, experiment=writer.experiment)


def command(name: str, **options: object) -> str:
    """A command of `fer`, quoted for a shell; an option that is None was not given."""
    words = ["fer", name]
    for option, value in options.items():
        if value is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(words)


def data_options(config: Config, **changes: object) -> dict[str, object]:
    """The options that give this configuration's data again, with some changed."""
    preset = asdict(resolve(config.recipe, {"backbone": config.model.backbone}).data)
    wanted = {**asdict(config.data), **changes}
    return {
        "recipe": None if config.recipe == DEFAULT_RECIPE else config.recipe,
        # `none` is what takes away a number that the recipe has.
        **{
            k: "none" if v is None else v
            for k, v in wanted.items()
            if k == "dataset" or v != preset[k]
        },
    }


def close(writer: Writer, lines: Sequence[str], *, following: str) -> None:
    """The last lines of a command: key figures, run, link, what to type next."""
    for line in lines:
        console.say(line)
    if writer.nested:
        console.say()
        return
    console.say(f"run    {writer.run_id}")
    if writer.link:
        console.say(f"open   {writer.link}")
        console.say(f"next   {following}")
