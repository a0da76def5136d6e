"""Which choices matter: runs of a recipe with one thing changed, and what came out of them all.

    python -m benchmarks.recipes run vgg16 --table quick reference balance=weights
    python -m benchmarks.recipes report

`run` appends a line a run to `recipes.jsonl`: what was changed, where, its MLflow run ids, its
scores with intervals and those of every epoch; `take` does so for a run that `fer` evaluated.
`report` prints the tables of docs/results/accuracy.md and draws its picture. Data and weights are
those of `FER_SHARED`.

    python -m benchmarks.recipes keep EVALUATION_RUN_ID …
    python -m benchmarks.recipes join VGG16 RESNET50

`keep` writes what an evaluation predicted for val to `predictions/`, so that `join` can judge the
average of models that were trained on different machines, as `fer ensemble` does on one.
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
PREDICTIONS = Path(__file__).with_name("predictions")
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "accuracy_curves.png"
_VAL_IMAGES = 3589  # PublicTest
_SCORES = (
    "val/accuracy",
    "val/macro_f1",
    "val/interval/macro_f1_low",
    "val/interval/macro_f1_high",
    "val/log_loss",
    "val/tta/accuracy",
    "val/clean/accuracy",
)


def fields(text: str) -> dict[str, str]:
    """`optimizer=sgd;ema=0` as fields; `reference` changes nothing."""
    return {} if text == "reference" else dict(part.split("=", 1) for part in text.split(";"))


@click.group()
def main() -> None:
    """Accuracy of recipes and of single choices."""


@main.command()
@click.argument("backbone")
@click.argument("choices", nargs=-1, required=True)
@click.option("--recipe", default="quick")
@click.option("--common", default="reference", help="fields of every run: a=1;b=2")
@click.option("--seeds", default="0,1")
@click.option("--experiment", default="fer2013-choices")
@click.option("--table", default="", help="the choices these belong to; none: whole runs")
@click.option("--device", default="CPU", help="where this runs, for the table")
@click.option("--out", type=click.Path(path_type=Path), default=RUNS)
def run(
    backbone: str,
    choices: tuple[str, ...],
    recipe: str,
    common: str,
    seeds: str,
    experiment: str,
    table: str,
    device: str,
    out: Path,
) -> None:
    """Runs each choice with each seed: head training, fine-tuning, evaluation."""
    from fer_experiments.stages import evaluate, finetune, train
    from fer_experiments.stages.selection import Meant

    shared = Path(os.environ.get("FER_SHARED", "../shared")).resolve()
    data = {"dataset": str(shared / "fer2013" / "archive.zip"), "weights": str(shared / "weights")}
    for choice in choices:
        for seed in seeds.split(","):
            started = time.perf_counter()
            changes: dict[str, Any] = data | fields(common) | fields(choice)
            config = resolve(recipe, changes | {"backbone": backbone, "seed": seed})
            first = train.run(config, experiment=experiment)
            last = finetune.run({}, run_id=first.run_id, experiment=experiment)
            seconds = time.perf_counter() - started
            judged = evaluate.run(Meant(run_id=last.run_id), tta="flip", experiment=experiment)
            line = {
                "table": table,
                "recipe": recipe,
                "backbone": backbone,
                "common": fields(common),
                "changed": fields(choice),
                "seed": int(seed),
                "device": device,
            }
            _write(out, line | _found(judged.run_id, seconds))


@main.command()
@click.argument("evaluation_run_id")
@click.option("--changed", default="reference", help="what the recipe does not say: a=1;b=2")
@click.option("--device", default="CPU", help="where it ran, for the table")
@click.option("--out", type=click.Path(path_type=Path), default=RUNS)
def take(evaluation_run_id: str, changed: str, device: str, out: Path) -> None:
    """Takes up a finetune run that `fer` made, in one go or several, by its evaluation."""
    from fer_experiments.tracking.runs import config_of, get_run

    evaluation = get_run(evaluation_run_id, stages=("evaluate",))
    found = get_run(evaluation.tags["source_run_id"], stages=("finetune",))
    config = config_of(found)
    line = {
        "table": "",
        "recipe": config.recipe,
        "backbone": config.model.backbone,
        "common": {},
        "changed": fields(changed),
        "seed": config.fit.seed,
        "device": device,
    }
    _write(out, line | _found(evaluation_run_id, found.metrics["time/train_seconds_total"]))


def _found(evaluation_run_id: str, seconds: float) -> dict[str, Any]:
    """What the line of an evaluated finetune run holds of its results."""
    from fer_experiments.tracking.runs import get_run, histories

    evaluation = get_run(evaluation_run_id, stages=("evaluate",))
    run = get_run(evaluation.tags["source_run_id"], stages=("finetune",))
    history = [
        {name: round(value, 4) for name, value in epoch.items()} for epoch in histories(run.id)
    ]
    scores = evaluation.metrics
    return {
        "train_run_id": run.tags["source_run_id"],
        "run_id": run.id,
        "evaluation_run_id": evaluation.id,
        "seconds": round(seconds, 1),
        "scores": {name: round(scores[name], 6) for name in _SCORES if name in scores},
        "history": history,
    }


def _write(out: Path, line: dict[str, Any]) -> None:
    with out.open("a") as file:
        file.write(json.dumps(line) + "\n")


@main.command()
@click.argument("evaluation_run_ids", nargs=-1, required=True)
def keep(evaluation_run_ids: tuple[str, ...]) -> None:
    """Keeps what these evaluations predicted for val."""
    import numpy as np

    from fer_experiments.tracking.runs import get_run, stored_arrays

    PREDICTIONS.mkdir(exist_ok=True)
    for run_id in evaluation_run_ids:
        evaluation = get_run(run_id, stages=("evaluate",))
        tags = evaluation.tags
        found = stored_arrays(evaluation.id, "val/probabilities.npz")
        np.savez_compressed(
            PREDICTIONS / f"{run_id[:8]}.npz",
            allow_pickle=False,
            fingerprint=np.array(tags["dataset_fingerprint"]),
            without_twin=~found["fitted"],
            **{name: found[name] for name in ("labels", "probabilities", "class_names")},
        )
        click.echo(f"{tags['mlflow.runName']}: {run_id[:8]}")


@main.command()
@click.argument("kept", nargs=-1, required=True)
def join(kept: tuple[str, ...]) -> None:
    """Judges the average of kept predictions, each named by its file."""
    import numpy as np

    from fer_experiments.evaluation.metrics import report as judge

    for name in kept:
        if not (PREDICTIONS / f"{name}.npz").exists():
            there = ", ".join(sorted(path.stem for path in PREDICTIONS.glob("*.npz"))) or "none"
            raise click.UsageError(f"Expected kept predictions, of {there}. Received: {name[:80]}")
    files = []
    for name in kept:
        with np.load(PREDICTIONS / f"{name}.npz", allow_pickle=False) as file:
            files.append(dict(file))
    if len({str(file["fingerprint"]) for file in files}) > 1:
        raise click.ClickException("Expected predictions of the same images. Received: of others")
    labels, alone = files[0]["labels"], files[0]["without_twin"]
    mean = np.mean([file["probabilities"].astype(np.float64) for file in files], axis=0)
    names = files[0]["class_names"].tolist()
    for what, part in (("val", alone | True), ("without twins", alone)):
        found = judge(mean[part], labels[part], names, split="val").scores()
        shown = [
            f"{score} {found[score]:.3f} ({found[f'interval/{score}_low']:.3f}"
            f"–{found[f'interval/{score}_high']:.3f})"
            for score in ("accuracy", "macro_f1")
        ]
        click.echo(f"{what}: {', '.join(shown)}")


@main.command()
def report() -> None:
    """Prints the tables and draws the learning curves."""
    for title, table in tables().items():
        print(f"\n### {title}\n\n{table}")
    whole = [run for run in _runs() if _is_preset(run) or _is_whole_network(run)]
    # On one core the same training ran again, for its time.
    _draw([run for run in whole if run["seed"] == 0 and not run["device"].startswith("1 core")])


def tables() -> dict[str, str]:
    """By title, the tables of docs/results/accuracy.md."""
    runs = _runs()
    by_title: dict[str, list[dict[str, Any]]] = {}
    for line in runs:
        if line["table"]:
            by_title.setdefault(f"{line['backbone']}, {line['table']}", []).append(line)
    found = {title: _choices(lines) for title, lines in by_title.items()}
    return found | {"whole runs": _whole([r for r in runs if not r["table"]])}


def _runs() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RUNS.read_text().splitlines()]


def _is_preset(line: dict[str, Any]) -> bool:
    return not line["common"] | line["changed"]


def _is_whole_network(line: dict[str, Any]) -> bool:
    """All of `quick`'s network, augmented anew every epoch."""
    changed = line["common"] | line["changed"]
    free = {"unfreeze_layers", "finetune_epochs", "precision"}
    return changed.get("unfreeze_layers") == "0" and set(changed) <= free


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
            + f" | {', '.join(_macro_f1(r) for r in runs)}"
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
        f"{_accuracy(r)} | {_macro_f1(r)} | {r['seconds']:.0f} | {r['device']} "
        f"| {r['run_id'][:8]} |"
        for r in sorted(lines, key=lambda r: (r["recipe"], r["backbone"], r["seed"]))
    ]
    return "\n".join(rows)


def _accuracy(line: dict[str, Any]) -> str:
    from fer_experiments.evaluation.statistics import wilson

    share = line["scores"]["val/accuracy"]
    interval = wilson(round(share * _VAL_IMAGES), _VAL_IMAGES)
    return f"{share:.1%} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"


def _macro_f1(line: dict[str, Any]) -> str:
    """With its interval, where the run was evaluated; older lines hold the epoch's score alone."""
    scores = line["scores"]
    low, high = (scores.get(f"val/interval/macro_f1_{end}") for end in ("low", "high"))
    return f"{scores['val/macro_f1']:.3f}" + ("" if low is None else f" ({low:.3f}–{high:.3f})")


def _words(changes: dict[str, str]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in changes.items())


def _draw(lines: list[dict[str, Any]]) -> None:
    """Val accuracy by epoch of the whole runs, a panel a backbone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    def name(line: dict[str, Any]) -> str:
        recipe = "whole network" if _is_whole_network(line) else line["recipe"]
        return f"{recipe}, {line['device']}"

    colors = {name(line): f"C{i}" for i, line in enumerate({name(r): r for r in lines}.values())}
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    for panel, backbone in zip(panels, ("vgg16", "resnet50"), strict=True):
        for line in lines:
            if line["backbone"] != backbone:
                continue
            epochs = [h["epoch"] for h in line["history"]]
            scores = [100 * h["val/accuracy"] for h in line["history"]]
            panel.plot(epochs, scores, color=colors[name(line)], label=name(line))
        panel.set_title(backbone)
        panel.set_xlabel("epoch (the first ones: the head alone)")
        panel.grid(alpha=0.3)
        panel.legend(loc="lower right", frameon=False)
    panels[0].set_ylabel("accuracy on val (PublicTest), %")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
