"""Which choices matter: runs of a recipe with one thing changed, and what came out of them all.

    python -m benchmarks.recipes run vgg16 --recipe tuned --seeds 0,1 \\
        --common "finetune_epochs=10;precision=mixed_bfloat16" reference optimizer=sgd mixup=0.4
    python -m benchmarks.recipes report

`run` appends a line a run to `recipes.jsonl`: what was changed, where, its MLflow run id, its
scores of every epoch; `take` does so for a run that `fer` made. `report` prints the tables of
docs/accuracy.md and draws its picture. Data and weights are those of `FER_SHARED`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import click

from fer_experiments.recipes import resolve

RUNS = Path(__file__).with_name("recipes.jsonl")
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "accuracy_curves.png"
_VAL_IMAGES = 3589  # PublicTest


def fields(text: str) -> dict[str, str]:
    """`optimizer=sgd;ema=0` as fields; `reference` changes nothing."""
    return {} if text == "reference" else dict(part.split("=", 1) for part in text.split(";"))


@click.group()
def main() -> None:
    """Accuracy of recipes and of single choices."""


@main.command()
@click.argument("backbone")
@click.argument("choices", nargs=-1, required=True)
@click.option("--recipe", default="tuned")
@click.option("--common", default="reference", help="fields of every run: a=1;b=2")
@click.option("--seeds", default="0,1")
@click.option("--experiment", default="fer2013-choices")
@click.option("--device", default="CPU", help="where this runs, for the table")
@click.option("--out", type=click.Path(path_type=Path), default=RUNS)
def run(
    backbone: str,
    choices: tuple[str, ...],
    recipe: str,
    common: str,
    seeds: str,
    experiment: str,
    device: str,
    out: Path,
) -> None:
    """Runs each choice with each seed: head training, then fine-tuning."""
    from fer_experiments.stages import finetune, train

    shared = Path(os.environ.get("FER_SHARED", "../shared")).resolve()
    data = {"dataset": str(shared / "fer2013" / "archive.zip"), "weights": str(shared / "weights")}
    for choice in choices:
        for seed in seeds.split(","):
            started = time.perf_counter()
            changes: dict[str, Any] = data | fields(common) | fields(choice)
            config = resolve(recipe, changes | {"backbone": backbone, "seed": seed})
            first = train.run(config, experiment=experiment)
            last = finetune.run({}, run_id=first.run_id, experiment=experiment)
            line = {
                "recipe": recipe,
                "backbone": backbone,
                "common": fields(common),
                "changed": fields(choice),
                "seed": int(seed),
                "device": device,
            }
            _write(out, line | _found(last.run_id, time.perf_counter() - started))


@main.command()
@click.argument("run_id")
@click.option("--changed", default="reference", help="what the recipe does not say: a=1;b=2")
@click.option("--device", default="CPU", help="where it ran, for the table")
@click.option("--out", type=click.Path(path_type=Path), default=RUNS)
def take(run_id: str, changed: str, device: str, out: Path) -> None:
    """Takes up a finetune run that `fer` made, in one go or several."""
    from fer_experiments.tracking.runs import config_of, get_run

    found = get_run(run_id, stages=("finetune",))
    config = config_of(found)
    line = {
        "recipe": config.recipe,
        "backbone": config.model.backbone,
        "common": {},
        "changed": fields(changed),
        "seed": config.train.seed,
        "device": device,
    }
    _write(out, line | _found(run_id, found.data.metrics["time/train_seconds_total"]))


def _found(run_id: str, seconds: float) -> dict[str, Any]:
    """What the line of a finetune run holds of its results."""
    from fer_experiments.tracking.runs import get_run, histories

    run = get_run(run_id, stages=("finetune",))
    history = [
        {name: round(value, 4) for name, value in epoch.items()} for epoch in histories(run_id)
    ]
    kept = next(e for e in history if e["epoch"] == run.data.metrics["best_epoch"])
    return {
        "train_run_id": run.data.tags["source_run_id"],
        "run_id": run_id,
        "seconds": round(seconds, 1),
        "scores": {name: score for name, score in kept.items() if name.startswith("val/")},
        "history": history,
    }


def _write(out: Path, line: dict[str, Any]) -> None:
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")


@main.command()
def report() -> None:
    """Prints the tables and draws the learning curves."""
    for title, table in tables().items():
        print(f"\n### {title}\n\n{table}")
    whole = [run for run in _runs() if not _is_choice(run)]
    _draw([r for r in whole if r["seed"] == 0 and set(r["common"]) <= {"precision"}])


def tables() -> dict[str, str]:
    """By title, the tables of docs/accuracy.md."""
    runs = _runs()
    found = {
        title: _choices([r for r in runs if r["backbone"] == backbone and _is_choice(r)])
        for title, backbone in (("VGG16", "vgg16"), ("ResNet50", "resnet50"))
    }
    return found | {"Whole runs": _whole([r for r in runs if not _is_choice(r)])}


def _runs() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RUNS.read_text().splitlines()]


def _is_choice(line: dict[str, Any]) -> bool:
    return line["common"].get("finetune_epochs") == "10"


def _choices(lines: list[dict[str, Any]]) -> str:
    """A row a choice, the reference first, then by what it gives."""
    by_choice: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_choice.setdefault(_words(line["changed"]) or "reference", []).append(line)

    def mean(runs: list[dict[str, Any]], score: str) -> float:
        return float(sum(r["scores"][score] for r in runs) / len(runs))

    reference = mean(by_choice["reference"], "val/accuracy")
    rows = [
        "| changed | val accuracy of each seed (95 % interval) | against the reference | macro-F1 "
        "| MLflow runs |",
        "|---|---|---:|---|---|",
    ]
    for name in sorted(
        by_choice, key=lambda n: (n != "reference", -mean(by_choice[n], "val/accuracy"))
    ):
        runs = sorted(by_choice[name], key=lambda r: int(r["seed"]))
        gain = 100 * (mean(runs, "val/accuracy") - reference)
        rows.append(
            f"| {name} | {', '.join(_accuracy(r) for r in runs)} | "
            + ("" if name == "reference" else f"{gain:+.1f}")
            + f" | {', '.join(format(r['scores']['val/macro_f1'], '.3f') for r in runs)}"
            + f" | {', '.join(r['run_id'][:8] for r in runs)} |"
        )
    return "\n".join(rows)


def _whole(lines: list[dict[str, Any]]) -> str:
    rows = [
        "| recipe | backbone | changed | seed | val accuracy (95 % interval) | macro-F1 | seconds "
        "| device | MLflow run |",
        "|---|---|---|---:|---|---:|---:|---|---|",
    ]
    rows += [
        f"| {r['recipe']} | {r['backbone']} | {_words(r['common'] | r['changed'])} | {r['seed']} | "
        f"{_accuracy(r)} | {r['scores']['val/macro_f1']:.3f} | {r['seconds']:.0f} | {r['device']} "
        f"| {r['run_id'][:8]} |"
        for r in sorted(lines, key=lambda r: (r["recipe"], r["backbone"], r["seed"]))
    ]
    return "\n".join(rows)


def _accuracy(line: dict[str, Any]) -> str:
    from fer_experiments.evaluation.statistics import wilson

    share = line["scores"]["val/accuracy"]
    interval = wilson(round(share * _VAL_IMAGES), _VAL_IMAGES)
    return f"{share:.1%} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def _words(changes: dict[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in changes.items())


def _draw(lines: list[dict[str, Any]]) -> None:
    """Val accuracy by epoch of the whole runs, a panel a backbone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for panel, backbone in zip(panels, ("vgg16", "resnet50"), strict=True):
        for line in lines:
            if line["backbone"] != backbone:
                continue
            epochs = [h["epoch"] for h in line["history"]]
            scores = [100 * h["val/accuracy"] for h in line["history"]]
            panel.plot(epochs, scores, label=f"{line['recipe']}, {line['device']}")
        panel.set_title(backbone)
        panel.set_xlabel("epoch (the first ones: the head alone)")
        panel.grid(alpha=0.3)
        panel.legend(loc="lower right", frameon=False)
    panels[0].set_ylabel("accuracy on val (PublicTest), %")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
