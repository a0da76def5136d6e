"""`python docs/generate.py`: writes docs/reference/ from the code, so that it tells what is so.

A test says when a page is stale. What the code does not say, what a metric means, stands here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import click
import numpy as np

from fer_experiments.cli import cli
from fer_experiments.config import FIELDS, SECTIONS, Thresholds
from fer_experiments.evaluation.metrics import report
from fer_experiments.options import FieldType
from fer_experiments.recipes import DEFAULT_RECIPE, RECIPES, resolve

FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- Written by `make docs` from the code. Do not edit by hand. -->"
BACKBONES = ("vgg16", "resnet50")

# What each score of an evaluation means; a score without a line here stops the making.
SCORES = {
    "accuracy": "fraction of images whose class is predicted rightly",
    "balanced_accuracy": "mean recall over the classes",
    "macro_f1": "mean F1 over the classes: each class counts alike, however rare",
    "weighted_f1": "mean F1, each class weighted by its number of images",
    "log_loss": "cross-entropy of the predicted probabilities, in nats",
    "macro_roc_auc": "mean over the classes of the area under the ROC curve, one against the rest",
    "calibration/ece": "expected calibration error, 15 bins",
    "calibration/brier": "Brier score",
    "majority_share": "accuracy of always predicting the most frequent class",
    "images": "number of images",
    "interval/<score>_low": "lower end of the score's 95 % interval",
    "interval/<score>_high": "upper end of it",
    "per_class/precision_<class>": "of the images predicted as this class, the fraction that is",
    "per_class/recall_<class>": "of the images of this class, the fraction that is found",
    "per_class/f1_<class>": "harmonic mean of the two",
    "per_class/roc_auc_<class>": "area under the ROC curve, this class against the rest",
    "per_class/average_precision_<class>": "area under the precision–recall curve",
}

# Metrics: names, commands whose runs have them, meaning.
METRICS = (
    ("train/loss, val/loss", "train, finetune", "cross-entropy after each epoch (step: the epoch)"),
    ("train/accuracy, train/macro_f1", "train, finetune",
     "of each epoch; missing where images are mixed (`mixup`, `cutmix`)"),
    ("val/accuracy, val/macro_f1", "train, finetune", "after each epoch"),
    ("val/predicted_classes", "train, finetune", "how many classes are predicted at least once"),
    ("learning_rate", "train, finetune", "at the end of each epoch"),
    ("best_epoch", "train, finetune", "the epoch whose weights were kept"),
    ("time/epoch_seconds", "train, finetune", "of each epoch"),
    ("time/features_seconds", "train, finetune", "spent on computing features for the cache"),
    ("time/train_seconds", "train, finetune", "of all epochs of this run"),
    ("time/train_seconds_total", "train, finetune, evaluate, calibrate, ensemble",
     "everything that went into the model: features and epochs, earlier runs included"),
    ("time/images_per_second", "train, finetune", "training images per second"),
    ("weights/parameters", "train, finetune, evaluate, calibrate, ensemble",
     "number of weights of the model"),
    ("weights/trainable", "train, finetune", "number of weights that were trained"),
    ("weights/file_megabytes", "train, finetune, evaluate", "size of the model's file"),
    ("val/<score>, test/<score>", "evaluate", "the scores [below](#scores)"),
    ("val/clean/<score>, test/clean/<score>", "evaluate",
     "leak-free scores: without the images that the model was trained on"),
    ("val/tta/<score>, test/tta/<score>", "evaluate --tta", "with test-time augmentation"),
    ("val/images_with_twin, test/images_with_twin", "evaluate",
     "images with a duplicate among those that the model was trained on"),
    ("val/images_selected_on, test/images_selected_on", "evaluate",
     "images that chose the model's epoch, temperature or the like"),
    ("time/val_images_per_second, time/test_images_per_second", "evaluate",
     "images predicted per second"),
    ("temperature", "calibrate", "the temperature that was fitted on val"),
    ("val/calibration/ece, val/calibration/ece_before", "calibrate",
     "calibration error with the temperature and without it"),
    ("val/same_prediction", "calibrate", "fraction of val images whose predicted class stayed"),
    ("images/train, images/val, images/test", "prepare", "number of images"),
    ("audit/<count>", "prepare, audit",
     "what is wrong with the images; the run's note says it in words"),
    ("time/prepare_seconds, time/audit_seconds", "prepare, audit", "of the work"),
    ("models, best/val_macro_f1", "compare",
     "how many models were compared, and the best one's score"),
    ("candidates, images_judged", "register",
     "how many models were considered, on how many images of val"),
    ("candidate/<score>, candidate/clean/<score>", "register",
     "the candidate's score on val: on all images, and leak-free"),
    ("champion/clean/<score>", "register", "the champion's score on the same images"),
    ("difference/value, difference/low, difference/high, difference/p", "register",
     "candidate less champion, with 95 % interval and p value"),
    ("<backbone>/val_accuracy, <backbone>/val_macro_f1, <backbone>/test_accuracy, "
     "<backbone>/test_macro_f1", "main", "scores of the fine-tuned models; with several seeds "
     "`<backbone>_s<seed>/…`"),
    ("parity/largest_difference, parity/same_class, parity/images", "export",
     "the file against the model on val: the largest difference of a probability, the fraction of "
     "images with the same class, how many images"),
    ("parity/accuracy, parity/accuracy_of_model", "export", "accuracy on val of the file, and of "
     "the model itself"),
    ("parity/difference_value, parity/difference_low, parity/difference_high, "
     "parity/difference_p", "export",
     "file less model, with 95 % interval and p value; with `int8` and from mixed precision"),
    ("file/megabytes, time/export_seconds", "export", "size of the file; writing it"),
    ("system/<load>", "main, train, finetune", "load on the machine, sampled by MLflow"),
)  # fmt: skip

# Tags of runs, registered models and versions; tests hold the tables here against a whole job.
TAGS = (
    ("stage", "all runs", "the command that made the run"),
    ("backbone, recipe, seed", "runs of a model", "which model it is"),
    ("dataset_name, dataset_fingerprint", "all runs with data", "which data, and their content"),
    ("source_run_id, source_stage, model_uri", "runs that work on another run's model",
     "that run, its command, the model"),
    ("member_run_ids", "ensemble", "the runs whose models are averaged"),
    ("failure_reason", "runs that did not finish", "why"),
    ("resumes", "runs that `mlflow run` made to resume another", "that other run"),
    ("evaluation_format", "evaluate", "number of the definition of the scores; only equal ones are "
     "compared"),
    ("overlap_unknown", "evaluate", "why it is not known on which images the model was trained"),
    ("chosen_on_val", "evaluate", "what of the model was chosen on val: its epoch, a temperature"),
    ("trained_run_id, earlier_run_ids", "evaluate", "the run that trained the model, and those "
     "that trained it before"),
    ("test_time_variant", "evaluate", "the model of which this is a test-time variant"),
    ("fer_experiments", "all runs, registered models", "version of this suite"),
    ("fer_experiments.journal", "all runs", "key of the [run journal](../how-to/resume.md), by "
     "which a half-made run is found again"),
    ("champion_history", "registered models", "numbers of the versions that were champion, oldest "
     "first"),
    ("decision, decision_reason, decision_numbers, decision_run_id", "versions",
     "champion or challenger, why, by which numbers, and in which run"),
    ("exported_onnx, exported_litert, exported_litert_int8, exported_keras", "versions",
     "the newest [exported file](../how-to/export.md), and the run that wrote it"),
    ("evaluation_run_id, val/accuracy, val/macro_f1", "versions", "the evaluation that was decided "
     "on, and two of its scores"),
)  # fmt: skip

# Files (artifacts): path, commands whose runs have them, what is in them.
FILES = (
    ("config.json", "train, finetune, evaluate, calibrate, ensemble, export",
     "the whole configuration, resolved"),
    ("dataset/card.md, dataset/card.json", "prepare, train, finetune", "what the data are"),
    ("dataset/samples.png, dataset/class_counts.png", "prepare, train, finetune",
     "some training images; images per class"),
    ("dataset/pixel_hashes.npz", "train, finetune, calibrate, ensemble",
     "hashes of the images that the model has seen, by which duplicates are found later"),
    ("learning_curves.png", "train, finetune, compare", "loss, accuracy and macro-F1 by epoch"),
    ("<split>/classification_report.txt, <split>/classification_report.json", "evaluate",
     "precision, recall and F1 of each class"),
    ("<split>/confusion.json, <split>/confusion_counts.png, <split>/confusion_shares.png",
     "evaluate", "confusion matrix"),
    ("<split>/top_confusions.txt", "evaluate", "the most frequent confusions, in words"),
    ("<split>/predictions.json", "evaluate", "each image: true and predicted class, confidence"),
    ("<split>/probabilities.npz", "evaluate", "each image's probabilities, for programs"),
    ("<split>/confident_mistakes.png, <split>/least_certain.png", "evaluate",
     "the surest mistakes; the least certain answers"),
    ("<split>/reliability.png", "evaluate", "reliability diagram"),
    ("<split>/roc_and_precision_recall.png", "evaluate", "ROC and precision–recall curves"),
    ("<split>/heat_maps.png", "evaluate", "where the model looks"),
    ("comparison.html", "compare",
     "the whole comparison in one page, the winner first: start here"),
    ("comparison.md, comparison.csv, comparison.json", "compare", "the tables of models"),
    ("<split>_pairs.csv", "compare", "every pair of models: difference, interval, p value"),
    ("<split>_scores.png, <split>_per_class_f1.png, <split>_differences.png, "
     "<split>_disagreement.png", "compare", "the pictures of the page"),
    ("<file>.onnx, <file>.tflite, <file>.keras", "export",
     "the [exported model](../how-to/export.md)"),
    ("audit/groups.csv, audit/examples.png", "audit; groups.csv also of prepare",
     "groups of duplicates: every image; a picture of some"),
)  # fmt: skip


def pages() -> dict[str, str]:
    """Every page of the reference, by file name."""
    return {
        "commands.md": commands(),
        "configuration.md": configuration(),
        "recipes.md": recipes(),
        "mlflow.md": mlflow_names(),
    }


def commands() -> str:
    """Each command with its options."""
    lines = [
        "# Commands",
        "",
        MADE,
        "",
        "`fer COMMAND --help` prints the same in the terminal. In the names of options `-` and `_`",
        "mean the same: `--learning-rate`, `--learning_rate`. `fer --verbose COMMAND` shows the",
        "libraries' own messages, and where an error arose.",
        "",
        "A stage of the job can also be started by MLflow: every option `--name value` is then",
        "`-P name=value` ([how](../tutorial.md#started-by-mlflow)).",
        "",
    ]
    lines += [f"- [`fer {name}`](#fer-{name}): {_first(command.help)}" for name, command in _all()]
    for name, command in _all():
        context = click.Context(command, info_name=f"fer {name}")
        usage = " ".join(command.collect_usage_pieces(context))
        lines += ["", f"## fer {name}", "", _help(command.help), "", "```text"]
        lines += [f"fer {name} {usage}", "```", ""]
        own = [p for p in _options(command) if not _is_field(p)]
        lines += _table(
            ["option", "value", "meaning"],
            [[_flags(p), f"`{_metavar(p, context)}`" if _metavar(p, context) else "", p.help]
             for p in own],
        )  # fmt: skip
        fields_of = {str(p.name): p for p in _options(command) if _is_field(p)}
        if fields_of:
            lines += ["", "And fields of the [configuration](configuration.md):", ""]
        for section in SECTIONS:
            found = [_flags(p) for n, p in fields_of.items() if FIELDS[n][0] == section]
            if found:
                lines.append(f"- [{section}](configuration.md#{section}): {', '.join(found)}")
        if examples := re.findall(r"^ +(fer .*)$", command.epilog or "", re.MULTILINE):
            lines += ["", "```sh", *examples, "```"]
    lines += ["", *_EXIT_CODES, "", *_ENVIRONMENT]
    return "\n".join([*lines, ""])


_EXIT_CODES = (
    "## Exit codes",
    "",
    "| code | meaning |",
    "|---:|---|",
    "| 0 | done |",
    "| 1 | the work could not be done; one line says why |",
    "| 2 | what was asked for cannot be done: a wrong option, value, run or model |",
    "| 130 | ended by Ctrl-C |",
    "| 143 | ended by SIGTERM |",
)

_ENVIRONMENT = (
    "## Environment variables",
    "",
    "| variable | meaning |",
    "|---|---|",
    "| `FER_DATA_HOME` | the data home: the folder for prepared images, cached features and "
    "unfinished runs; otherwise the user's cache folder, `~/.cache/fer_experiments` on Linux |",
    "| `FER_TRACKING_PATIENCE` | seconds that a command waits at its end for a tracking server "
    "that is away; otherwise 120 |",
    "| `MLFLOW_TRACKING_URI` | the MLflow store; otherwise `mlflow.db` in the current folder, with "
    "`mlruns/` beside it |",
    "| `MLFLOW_EXPERIMENT_NAME`, `MLFLOW_EXPERIMENT_ID` | the experiment to write to; otherwise "
    "`fer2013` |",
    "| `MLFLOW_RUN_NAME` | the name of the run |",
    "| `KERAS_BACKEND` | `jax` trains on JAX; otherwise TensorFlow |",
    "| `KAGGLE_CONFIG_DIR` | where a Kaggle token lies, if there is one; none is needed |",
    "| `TF_ENABLE_ONEDNN_OPTS` | `0`: TensorFlow's own kernels instead of oneDNN's, see "
    "[GPU and JAX](../how-to/gpu-and-jax.md#processors) |",
)


def configuration() -> str:
    """Each field of the configuration, and the thresholds of `register`."""
    lines = [
        "# Configuration fields",
        "",
        MADE,
        "",
        "A field `name` is the option `--name` of a command, the param `name` of a run and the",
        "key `name` of its `config.json`. A [recipe](recipes.md) gives every field a value; the",
        f"third column shows that of `{DEFAULT_RECIPE}`, the recipe by default.",
    ]
    for section, cls in SECTIONS.items():
        lines += ["", f"## {section}", "", _help(cls.__doc__), ""]
        lines += _table(
            ["field", "values", f"in `{DEFAULT_RECIPE}`", "meaning"],
            [[f"`{spec.name}`", _rule(spec), _in_recipe(DEFAULT_RECIPE, spec.name),
              spec.metadata["help"]] for spec in fields(cls)],
        )  # fmt: skip
    lines += [
        "",
        "## Thresholds of register",
        "",
        "Options of [`fer register`](commands.md#fer-register); no part of an experiment's",
        "configuration. [The promotion rule](../how-to/promote.md#the-promotion-rule) says what",
        "they are for.",
        "",
    ]
    lines += _table(
        ["field", "values", "default", "meaning"],
        [[f"`{spec.name}`", _rule(spec), f"`{spec.default}`", spec.metadata["help"]]
         for spec in fields(Thresholds)],
    )  # fmt: skip
    return "\n".join([*lines, ""])


def recipes() -> str:
    """Each recipe in words, and the fields in which they differ."""
    lines = [
        "# Recipes",
        "",
        MADE,
        "",
        "A recipe is a named set of values for all fields of the",
        "[configuration](configuration.md). `--recipe NAME` picks one, any other option overrides",
        f"a single field; without `--recipe` it is `{DEFAULT_RECIPE}`. What each recipe reaches:",
        "[accuracy](../results/accuracy.md). *The notebook* in these texts is the Jupyter notebook",
        "that this project began with; `benchmarks/notebook.py` holds its way of training.",
    ]
    for name, recipe in RECIPES.items():
        lines += ["", f"## {name}", "", *_until_command(recipe.__doc__ or "")]
    configs = {
        (recipe, backbone): resolve(recipe, {"backbone": backbone}).flat()
        for recipe in RECIPES
        for backbone in BACKBONES
    }
    differing = [
        field
        for field in FIELDS
        if field != "backbone" and len({str(flat[field]) for flat in configs.values()}) > 1
    ]
    alike = [
        f"`{field}={_value(field, configs[DEFAULT_RECIPE, BACKBONES[0]][field], BACKBONES[0])}`"
        for field in FIELDS
        if field != "backbone" and field not in differing
    ]
    lines += [
        "",
        "## Where they differ",
        "",
        "Two values in a cell are of VGG16 and of ResNet50.",
        "",
    ]
    lines += _table(
        ["field", *(f"`{recipe}`" for recipe in RECIPES)],
        [[f"`{field}`", *(_in_recipe(recipe, field) for recipe in RECIPES)] for field in differing],
    )
    lines += ["", "## Where they agree", "", f"All recipes have {', '.join(alike)}."]
    return "\n".join([*lines, ""])


def mlflow_names() -> str:
    """Tags, params, metrics and files of runs."""
    lines = [
        "# Names in MLflow",
        "",
        MADE,
        "",
        "What runs of each command carry. [How to look at them](../how-to/look-at-runs.md).",
        "",
        "## Params",
        "",
        "The fields of the [configuration](configuration.md), `recipe` and `dataset_fingerprint`",
        "(which tells prepared data from other data). `train` and `finetune` runs also have",
        "`augmentation`: what became of the training images, in words. `register`, `promote` and",
        "`rollback` runs have what they were asked for, `ensemble` runs `run_ids` and `tta`.",
        "",
        "## Tags",
        "",
    ]
    lines += _table(["tag", "on", "meaning"], [[_codes(tag), on, what] for tag, on, what in TAGS])
    lines += ["", "## Metrics", ""]
    lines += _table(
        ["metric", "runs of", "meaning"],
        [[_codes(metric), stages, meaning] for metric, stages, meaning in METRICS],
    )
    lines += ["", "## Scores", "", "Of a split, behind `val/` and `test/`:", ""]
    lines += _table(["score", "meaning"], [[f"`{name}`", SCORES[name]] for name in scores()])
    lines += [
        "",
        "## Files",
        "",
        "Artifacts of a run. `<split>` is `val` or `test`.",
        "",
    ]
    lines += _table(
        ["file", "runs of", "what is in it"],
        [[_codes(path), stages, meaning] for path, stages, meaning in FILES],
    )
    return "\n".join([*lines, ""])


def scores() -> list[str]:
    """The scores of an evaluation, with `<score>` and `<class>` for what varies."""
    judged = report(np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([0, 1]), ["x", "y"], split="val")
    general = (
        re.sub(r"^interval/.*_(low|high)$", r"interval/<score>_\1",
               re.sub(r"^(per_class/.*)_[xy]$", r"\1_<class>", name))
        for name in judged.scores()
    )  # fmt: skip
    return list(dict.fromkeys(general))


def _all() -> list[tuple[str, click.Command]]:
    return [(name, command) for name, command in cli.commands.items() if not command.hidden]


def _options(command: click.Command) -> list[click.Option]:
    return [p for p in command.params if isinstance(p, click.Option) and not p.hidden]


def _is_field(option: click.Option) -> bool:
    return option.name in FIELDS and isinstance(option.type, FieldType)


def _flags(option: click.Option) -> str:
    return ", ".join(f"`{flag}`" for flag in option.opts)


def _metavar(option: click.Option, context: click.Context) -> str:
    return "" if option.is_flag else str(option.make_metavar(context))


def _rule(spec: Field[Any]) -> str:
    """Which values a field takes."""
    rule = spec.metadata
    optional = str(spec.type).endswith("None")
    kind = str(spec.type).removesuffix(" | None")
    if "choices" in rule:
        text = ", ".join(f"`{choice}`" for choice in rule["choices"])
    elif kind == "bool":
        text = "`true`, `false`"
    elif "minimum" in rule:
        least, most = rule["minimum"], rule.get("maximum")
        text = {"int": "whole number", "float": "number"}[kind]
        text += f" above {least:g}" if rule.get("above") else f" from {_number(least)}"
        text += "" if most is None else f" to {_number(most)}"
    else:
        text = "text"
    return f"{text}, or `none`" if optional else text


def _in_recipe(recipe: str, field: str) -> str:
    """A field's value in a recipe; both where it differs between the backbones."""
    values = [
        _value(field, resolve(recipe, {"backbone": backbone}).flat()[field], backbone)
        for backbone in BACKBONES
    ]
    return " / ".join(f"`{value}`" for value in dict.fromkeys(values))


def _value(field: str, value: Any, backbone: str) -> str:
    if field == "backbone":
        return resolve().model.backbone
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and f"{backbone}:" in value:  # a part for each backbone
        parts = dict(part.split(":", 1) for part in value.split(","))
        return parts[backbone]
    return _number(value) if isinstance(value, (int, float)) else str(value)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _until_command(docstring: str) -> list[str]:
    """A recipe's docstring up to the commands that run it, which are its first indented lines."""
    lines = inspect.cleandoc(docstring).splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("    ")), len(lines))
    text, code = lines[:first], []
    for line in lines[first:]:
        if line and not line.startswith("    "):
            break
        code.append(line.strip())
    while code and not code[-1]:
        code.pop()
    while text and not text[-1]:
        text.pop()
    return [*text, *(["", "```sh", *code, "```"] if code else [])]


def _help(text: str | None) -> str:
    """Help as Markdown: what is written for the terminal has no marks that would mislead."""
    return inspect.cleandoc(text or "").split("\f")[0].strip()


def _first(text: str | None) -> str:
    return " ".join(_help(text).split("\n\n")[0].split()).rstrip(".")


def _codes(joined: str) -> str:
    return ", ".join(f"`{name}`" for name in joined.split(", "))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    found = [[_cell(str(cell or "")) for cell in row] for row in rows]
    if not found:
        return []
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(row)} |" for row in found),
    ]


def _cell(text: str) -> str:
    """Text in a table: `|` is no border, and `<` outside of code begins no HTML."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def main() -> None:
    """Writes the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
