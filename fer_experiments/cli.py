"""The commands: each parses, calls one stage, prints its result.

Stages are imported inside the commands: `--help` and wrong options pay neither for MLflow (2 s)
nor for Keras (5 s).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click
import cloup

from fer_experiments import __version__, completion, console
from fer_experiments.config import FIELDS, Config, DataConfig, Thresholds, check_value
from fer_experiments.errors import (
    ConfigError,
    UsageError,
    quote,
)
from fer_experiments.options import (
    DAILY,
    TRACKING,
    Command,
    class_options,
    field_options,
    text_option,
)
from fer_experiments.recipes import DEFAULT_RECIPE, RECIPES, resolve

SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "max_content_width": 100,
}

recipe_option = text_option(
    "recipe",
    f"preset: {', '.join(RECIPES)} (default {DEFAULT_RECIPE})",
    choices=RECIPES,
    group=DAILY,
)
experiment_option = text_option(
    "experiment",
    "MLflow experiment to write to, and the only one to look in (default fer2013)",
    longest=250,
    group=TRACKING,
)
dry_run_option = cloup.option(
    "--dry-run", is_flag=True, help="Show the resolved configuration, expected time and disk."
)
resume_option = text_option(
    "resume",
    "resume this unfinished run, in the same run; takes no other option",
    shell_complete=completion.unfinished,
    group=TRACKING,
)
model_name_option = text_option(
    "model_name", "registered model (default emotion-<dataset name>)", longest=250
)
only_model_option = text_option(
    "model_name", "registered model (default: the only one there is)", longest=250
)
champion_of_option = text_option(
    "model_name", "registered model whose champion is meant (default: the only one)", longest=250
)
all_option = click.option(
    "--all",
    "every_form",
    is_flag=True,
    help="Every form of a model, earlier ones and test-time variants too.",
)
dataset_option = text_option(
    "dataset",
    "a dataset's name, or what it was prepared from",
    shell_complete=completion.files("kaggle", "synthetic"),
)

# Stages that write runs, in the order of the work.
RUN_STAGES = (
    "main", "prepare", "audit", "train", "finetune", "calibrate", "ensemble", "evaluate",
    "compare", "register", "promote", "rollback", "export",
)  # fmt: skip
# Those whose runs log a model.
_WITH_MODEL = ("train", "finetune", "calibrate", "ensemble")
_RUN = "an MLflow run, by its id or the beginning of it; fer runs lists them"
COMPLETIONS = {
    "backbone": completion.backbones,
    "dataset": completion.files("kaggle", "synthetic"),
    "weights": completion.files("imagenet", "none"),
}

DATA_FIELDS = [f.name for f in fields(DataConfig)]
ALL_FIELDS = list(FIELDS)
TRAIN_FIELDS = [name for name, (section, _) in FIELDS.items() if section != "finetune"]


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The configuration fields that were given on the command line."""
    return {name: v for name, v in options.items() if name in FIELDS and v is not None}


@cloup.group(context_settings=SETTINGS)
@click.version_option(__version__)
@click.option("--verbose", is_flag=True, help="Show the libraries' own messages and tracebacks.")
def cli(verbose: bool) -> None:
    """Compare ImageNet backbones on facial emotion recognition, tracked in MLflow."""
    if not verbose:
        console.quieten()


def command(*examples: str, name: str | None = None) -> Callable[[Callable[..., Any]], Command]:
    """A command of `fer`, with lines that show how it is typed."""
    return cli.command(name, cls=Command, examples=examples)


@command(
    "fer prepare --dataset archive.zip",
    "fer prepare --dataset my-faces/ --dry-run",
)
@recipe_option
@field_options(DATA_FIELDS, COMPLETIONS)
@experiment_option
@dry_run_option
def prepare(recipe: str | None, experiment: str | None, dry_run: bool, **options: Any) -> Any:
    """Source to prepared dataset: decoded, split, audited, described."""
    config = resolve(recipe, given(options))
    if dry_run:
        return _dry_run([config], [])
    from fer_experiments.stages import prepare as stage

    return stage.run(config, experiment=experiment)


@command(
    "fer audit --dataset archive.zip",
    "fer audit --dataset my-faces/ --json",
)
@recipe_option
@field_options(DATA_FIELDS, COMPLETIONS)
@experiment_option
def audit(recipe: str | None, experiment: str | None, **options: Any) -> Any:
    """What is wrong with the images: copies, near-copies, leaks, conflicting labels, blanks."""
    config = resolve(recipe, given(options))
    from fer_experiments.stages import audit as stage

    return stage.run(config, experiment=experiment)


@command(
    "fer train --backbone vgg16 --dataset archive.zip --weights weights/",
    "fer train --recipe demo --backbone resnet50 --epochs 3",
)
@recipe_option
@field_options(TRAIN_FIELDS, COMPLETIONS)
@experiment_option
@dry_run_option
@resume_option
@cloup.option(
    "--offline",
    is_flag=True,
    help="Keep the run here; fer sync delivers it to MLflow.",
    group=TRACKING,
)
def train(
    recipe: str | None,
    experiment: str | None,
    dry_run: bool,
    resume: str | None,
    offline: bool,
    **options: Any,
) -> Any:
    """Train a new head on a frozen backbone."""
    if resume is not None:
        _nothing_else(recipe, experiment, dry_run, *options.values())
        from fer_experiments.stages import train as stage

        return stage.resume(resume, offline=offline)
    config = resolve(recipe, given(options))
    if dry_run:
        return _dry_run([config], ["train"])
    from fer_experiments.stages import train as stage

    return stage.run(config, experiment=experiment, offline=offline)


@command(
    "fer finetune --run-id 1aac407e",
    "fer finetune --backbone vgg16 --unfreeze-layers 7 --finetune-epochs 5",
)
@text_option("run_id", _RUN, shell_complete=completion.run_ids("train", "finetune"))
@recipe_option
@field_options(ALL_FIELDS, COMPLETIONS)
@experiment_option
@dry_run_option
@resume_option
def finetune(
    run_id: str | None,
    recipe: str | None,
    experiment: str | None,
    dry_run: bool,
    resume: str | None,
    **options: Any,
) -> Any:
    """Unfreeze the backbone's last layers and train on at a smaller rate.

    Starts from --run-id, a finished train run, or a finetune run to unfreeze more of it; without
    it, from the newest train run that fits the other options.
    """
    if recipe is not None:
        resolve(recipe)
    if resume is not None:
        _nothing_else(run_id, recipe, experiment, dry_run, *options.values())
    from fer_experiments.stages import finetune as stage

    if resume is not None:
        return stage.resume(resume)

    meant: dict[str, Any] = {"run_id": run_id, "recipe": recipe, "experiment": experiment}
    if dry_run:
        return _dry_run([stage.plan(given(options), **meant)[1]], ["finetune"])
    return stage.run(given(options), **meant)


@command(
    "fer evaluate --run-id 1aac407e --tta flip",
    "fer evaluate --model models:/emotion-fer2013@champion",
)
@text_option("run_id", _RUN, shell_complete=completion.run_ids(*_WITH_MODEL))
@text_option(
    "backbone", "judge its newest train or finetune run", shell_complete=completion.backbones
)
@text_option("model", "a model URI such as models:/emotion-fer2013@champion")
@champion_of_option
@field_options(DATA_FIELDS, COMPLETIONS)
@experiment_option
@text_option(
    "tta",
    "test-time augmentation beside the plain scores: none, flip, crops, or N random views",
    longest=20,
)
@dry_run_option
def evaluate(
    run_id: str | None,
    backbone: str | None,
    model: str | None,
    model_name: str | None,
    tta: str | None,
    experiment: str | None,
    dry_run: bool,
    **options: Any,
) -> Any:
    """Judge a run's or a registered model on val and test.

    Default: the champion of the only registered model, else the newest fine-tuned run. The data is
    what the model was trained on, unless --dataset or another option of the data says otherwise.
    """
    if backbone is not None:
        from fer_experiments.models.backbones import lookup

        lookup(backbone)
    from fer_experiments.stages import evaluate as stage
    from fer_experiments.stages.selection import Meant, choose

    meant = Meant(run_id=run_id, backbone=backbone, model=model, model_name=model_name)
    if dry_run:
        config = stage.with_data(choose(meant, experiment=experiment).config, given(options))
        return _dry_run([config], ["evaluate"])
    return stage.run(meant, data=given(options), tta=tta or "none", experiment=experiment)


@command(
    "fer calibrate --run-id 1aac407e",
    "fer calibrate --backbone resnet50",
)
@text_option("run_id", _RUN, shell_complete=completion.run_ids(*_WITH_MODEL))
@text_option("backbone", "its newest train or finetune run", shell_complete=completion.backbones)
@champion_of_option
@experiment_option
def calibrate(
    run_id: str | None, backbone: str | None, model_name: str | None, experiment: str | None
) -> Any:
    """Fit a temperature on val and put it into the model, before its softmax.

    The predicted classes stay the same, the probabilities become honest. Default model: as for
    evaluate.
    """
    if backbone is not None:
        from fer_experiments.models.backbones import lookup

        lookup(backbone)
    from fer_experiments.stages import calibrate as stage
    from fer_experiments.stages.selection import Meant

    meant = Meant(run_id=run_id, backbone=backbone, model_name=model_name)
    return stage.run(meant, experiment=experiment)


@command(
    "fer ensemble --run-ids 1aac407e,9d604b68",
    "fer ensemble --run-ids 1aac407e --tta flip",
)
@text_option(
    "run_ids",
    "runs whose models to average, separated by commas",
    required=True,
    longest=10_000,
    shell_complete=completion.run_ids(*_WITH_MODEL),
)
@text_option(
    "tta",
    "flip: every member also judges the mirror image; crops: five crops and their mirror images "
    "(default none)",
    longest=20,
)
@experiment_option
def ensemble(run_ids: str, tta: str | None, experiment: str | None) -> Any:
    """Average the probabilities of several runs' models, as one model."""
    from fer_experiments.stages import ensemble as stage

    names = [name.strip() for name in run_ids.split(",") if name.strip()]
    return stage.run(names, tta=tta or "none", experiment=experiment)


@command(
    "fer compare",
    "fer compare --dataset fer2013 --delta 0.02",
)
@all_option
@click.option(
    "--delta",
    type=click.FloatRange(0, 1, min_open=True),
    help="Differences of macro-F1 and accuracy below this do not matter: pairs may be equivalent.",
)
@dataset_option
@experiment_option
def compare(
    every_form: bool, delta: float | None, dataset: str | None, experiment: str | None
) -> Any:
    """All evaluated models on the same data, side by side.

    Each trained model once, in its last form: fine-tuned rather than the head alone, calibrated
    rather than not.
    """
    from fer_experiments.stages import compare as stage

    return stage.run(dataset=dataset, experiment=experiment, every_form=every_form, delta=delta)


@command(
    "fer register",
    "fer register --dataset fer2013 --min-improvement 0.01",
)
@text_option("metric", "the score on val that decides (default val/macro_f1)")
@class_options(Thresholds)
@all_option
@model_name_option
@dataset_option
@experiment_option
def register(
    metric: str | None,
    every_form: bool,
    model_name: str | None,
    dataset: str | None,
    experiment: str | None,
    **thresholds: float | None,
) -> Any:
    """Register the best evaluated model that meets the promotion rule, and make it champion.

    If it lets none pass, the best one becomes challenger.
    """
    wanted: dict[str, Any] = {}
    if metric is not None:
        wanted["metric"] = metric
    asked = {name: value for name, value in thresholds.items() if value is not None}
    from fer_experiments.stages import register as stage

    return stage.run(
        thresholds=Thresholds(**asked),
        model_name=model_name,
        dataset=dataset,
        experiment=experiment,
        every_form=every_form,
        **wanted,
    )


@command(
    "fer promote --version 2",
    "fer promote --version 2 --model-name emotion-fer2013",
)
@text_option("version", "number of the version that becomes champion", required=True)
@only_model_option
@experiment_option
def promote(version: str, model_name: str | None, experiment: str | None) -> Any:
    """Make a version champion by hand, whatever the promotion rule says; leaves a trace."""
    if not version.isdecimal() or len(version) > 18:
        raise ConfigError(f"Expected version to be a whole number. Received: {quote(version)}")
    from fer_experiments.stages import promote as stage

    return stage.promote(int(version), model_name=model_name, experiment=experiment)


@command(
    "fer rollback",
    "fer rollback --model-name emotion-fer2013",
)
@only_model_option
@experiment_option
def rollback(model_name: str | None, experiment: str | None) -> Any:
    """Make the champion before this one champion again; leaves a trace."""
    from fer_experiments.stages import promote as stage

    return stage.rollback(model_name=model_name, experiment=experiment)


@command(
    "fer registry",
    "fer registry --model-name emotion-fer2013 --json",
    name="registry",
)
@text_option("model_name", "registered model (default: all)", longest=250)
def registry_(model_name: str | None) -> Any:
    """Registered versions, their aliases, scores and why they are what they are."""
    from fer_experiments.stages import promote as stage

    return stage.show(model_name=model_name)


@command(
    "fer main --dataset archive.zip --weights weights/",
    "fer main --recipe demo --seeds 0,1,2",
    name="main",
)
@text_option(
    "backbones",
    "which to compare (default vgg16,resnet50)",
    shell_complete=completion.backbones,
)
@text_option("seeds", "several seeds, such as 0,1,2: each backbone is trained with each of them")
@recipe_option
@field_options([name for name in ALL_FIELDS if name != "backbone"], COMPLETIONS)
@model_name_option
@experiment_option
@dry_run_option
@text_option(
    "resume",
    "resume this unfinished run, in the same run; takes no other option but --model-name",
    shell_complete=completion.unfinished,
    group=TRACKING,
)
def main_(
    backbones: str | None,
    seeds: str | None,
    recipe: str | None,
    model_name: str | None,
    experiment: str | None,
    dry_run: bool,
    resume: str | None,
    **options: Any,
) -> Any:
    """All of it: prepare; train, fine-tune and evaluate each backbone; compare; register."""
    if resume is not None:
        _nothing_else(backbones, seeds, recipe, experiment, dry_run, *options.values())
        from fer_experiments.stages import main as stage

        return stage.resume(resume, model_name=model_name)
    names = [name.strip() for name in (backbones or "vgg16,resnet50").split(",")]
    if len(set(names)) != len(names):
        raise ConfigError(f"Expected each backbone once. Received: backbones={quote(backbones)}")
    own = given(options)
    chosen: list[Any] = [own.pop("seed", None)]
    if seeds is not None:
        if chosen != [None]:
            raise UsageError("Expected one of seed and seeds. Received: both")
        chosen = [check_value(FIELDS["seed"][1], seed) for seed in seeds.split(",")]
        if len(set(chosen)) != len(chosen):
            raise ConfigError(f"Expected each seed once. Received: seeds={quote(seeds)}")
    configs = [
        resolve(recipe, {**own, "backbone": name} | ({} if seed is None else {"seed": seed}))
        for name in names
        for seed in chosen
    ]
    from fer_experiments.stages import main as stage

    if dry_run:
        stage.check(configs, model_name=model_name)
        return _dry_run(configs, ["train", "finetune", "evaluate"])
    return stage.run(configs, experiment=experiment, model_name=model_name)


@command(
    "fer predict photo.jpg",
    "fer predict photos/ --annotate found/",
    "fer predict faces/ --csv > faces.csv",
)
@click.argument("images", nargs=-1, shell_complete=completion.files())
@text_option(
    "model",
    "a model URI such as models:/emotion-fer2013@champion, or a file that fer export wrote",
)
@champion_of_option
@text_option(
    "detector",
    "finds the faces: auto (default: mtcnn, but small squares are judged as they are), mtcnn, "
    "yunet:FILE, or none",
)
@click.option(
    "--faces",
    type=click.Choice(["all", "largest"]),
    default="all",
    help="Which faces of a picture count (default all).",
)
@text_option("annotate", "folder for copies with boxes and emotions drawn in")
@click.option("--heat-map", is_flag=True, help="With --annotate: draw in where the model looked.")
@click.option(
    "--every",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=1.0,
    help="Seconds between two pictures of a video (default 1).",
)
@text_option("camera", "in place of files: a camera's number, or what else OpenCV opens")
@click.option("--strict", is_flag=True, help="Fail if a single picture has no answer.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines: a face a line, then a summary.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def predict(
    images: tuple[str, ...],
    model: str | None,
    model_name: str | None,
    detector: str | None,
    faces: str,
    annotate: str | None,
    heat_map: bool,
    every: float,
    camera: str | None,
    strict: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """The faces in IMAGES, and what each shows: photos, videos, or folders of them.

    Faces in photos are searched, cut out and turned as FER-2013 frames faces. A picture without an
    answer has a row that says why. Folders are read as prepare reads them; what is left out is
    named.
    """
    if as_json and as_csv:
        raise UsageError("Expected one of --json and --csv. Received: both")
    if not images and camera is None:
        raise UsageError("Expected a photo, a video, a folder or --camera. Received: nothing")
    from fer_experiments.stages import predict as stage
    from fer_experiments.stages.answers import tell

    options = stage.Options(
        detector=detector or "auto",
        largest=faces == "largest",
        every=every,
        annotate=annotate,
        heat_map=heat_map,
    )
    found = stage.run(images, model=model, model_name=model_name, options=options, camera=camera)
    tell(found, form="json" if as_json else "csv" if as_csv else "table", strict=strict)


@command(
    "fer export",
    "fer export --format litert --int8 --out champion.tflite",
)
@text_option(
    "format",
    "onnx, litert or keras (default onnx)",
    choices=("onnx", "litert", "keras"),
    group=DAILY,
)
@cloup.option(
    "--int8",
    is_flag=True,
    help="Weights in 8 bits: a quarter of the size; with --format litert.",
    group=DAILY,
)
@text_option("out", "file to write (default: in this folder, named after the model)", group=DAILY)
@text_option(
    "model",
    "a model URI such as models:/emotion-fer2013@champion (default: the champion)",
    group=DAILY,
)
@champion_of_option
@text_option(
    "dataset",
    "check on val of this data (default: what the model was trained on)",
    shell_complete=completion.files("kaggle", "synthetic"),
)
@experiment_option
def export(
    format: str | None,
    int8: bool,
    out: str | None,
    model: str | None,
    model_name: str | None,
    dataset: str | None,
    experiment: str | None,
) -> Any:
    """Write the champion, or another model, as one file that other programs read.

    Its probabilities are held against the model's on val: a file that says something else does not
    stay. Class names and how a photo becomes pixels stand in it.
    """
    from fer_experiments.stages import export as stage

    return stage.run(
        form=format or "onnx",
        int8=int8,
        model=model,
        model_name=model_name,
        dataset=dataset,
        out=out,
        experiment=experiment,
    )


@command(
    "fer cache",
    "fer cache --clear",
)
@click.option("--clear", is_flag=True, help="Remove them all.")
@click.option(
    "--unfinished", is_flag=True, help="With --clear: also runs that --resume could still resume."
)
def cache(clear: bool, unfinished: bool) -> Any:
    """List the features that are kept, or remove them; see --cache of train."""
    if unfinished and not clear:
        raise UsageError("Expected unfinished together with clear. Received: unfinished alone")
    from fer_experiments.stages import cache as stage

    return stage.clear(unfinished=unfinished) if clear else stage.show()


@command(
    "fer sync",
    "fer sync --json",
)
def sync() -> Any:
    """Deliver to MLflow what runs have kept while it could not be reached, or with --offline."""
    from fer_experiments.stages import sync as stage

    return stage.run()


@command(
    "fer doctor",
    "fer doctor --json",
)
def doctor() -> Any:
    """Versions, backend, devices, store, data home, and what is reachable."""
    from fer_experiments.stages import doctor as stage

    findings = stage.run()
    console.table(["what", "found"], [[*finding] for finding in findings], numbers=False)
    return dict(findings)


@command(
    "fer runs",
    "fer runs --stage evaluate --all",
)
@text_option("stage", f"runs of this stage alone: {', '.join(RUN_STAGES)}", choices=RUN_STAGES)
@text_option("experiment", "runs of this MLflow experiment alone", longest=250)
@click.option("--all", "every", is_flag=True, help="Every run, not only the newest of a stage.")
def runs(stage: str | None, experiment: str | None, every: bool) -> Any:
    """The runs in the store, by stage, with ids and scores (of the epoch that was kept)."""
    if stage is not None and stage not in RUN_STAGES:
        raise ConfigError(
            f"Expected stage to be one of {', '.join(RUN_STAGES)}. Received: stage={quote(stage)}"
        )
    from fer_experiments.stages import runs as listing

    return listing.show((stage,) if stage else RUN_STAGES, experiment=experiment, every=every)


@command(
    "fer ui",
    "fer ui --port 5001",
)
@click.option("--host", default="127.0.0.1", help="Address to listen at (default 127.0.0.1).")
@click.option(
    "--port", default=5000, type=click.IntRange(1, 65535), help="Port to listen at (default 5000)."
)
def ui(host: str, port: int) -> None:
    """MLflow's pages of this store, with a link to each experiment that holds runs."""
    from fer_experiments.stages import ui as stage

    return stage.run(host=host, port=port)


def _nothing_else(*options: Any) -> None:
    """Raises UsageError if any of these was given beside --resume."""
    if any(option not in (None, False) for option in options):
        raise UsageError(
            "Expected resume alone: a run is resumed with the options that it was started with. "
            "Received: other options too"
        )


def _dry_run(configs: list[Config], stages: list[str]) -> Any:
    from fer_experiments.stages import estimate

    return estimate.show(configs, stages=stages)
