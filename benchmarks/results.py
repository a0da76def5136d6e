"""results.json and results.md."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent

# What is aimed at: at least, or for those in AT_MOST at most, this ratio.
TARGETS = {
    "head_vgg16": 15, "head_resnet50": 8,
    "head_views4_vgg16": 4, "head_views4_resnet50": 2.5,
    "head_cached_vgg16": 100, "head_cached_resnet50": 20,
    "finetune_vgg16": 3, "finetune_resnet50": 6,
    "recipe_vgg16": 6, "recipe_resnet50": 8,
    "extract_vgg16": 0.95, "extract_resnet50": 0.95,
    "predict_vgg16": 0.95, "predict_resnet50": 0.95,
    "whole_vgg16": 0.90, "whole_resnet50": 0.90,
    "prepare": 1, "startup_help": 1, "startup_error": 1,
    "memory_10x": 1.15, "growth": 1.2,
}  # fmt: skip
AT_MOST = {"memory_10x", "growth"}


class Rows:
    """What was measured; a step that is measured again replaces what it gave before."""

    def __init__(self, *, quick: bool) -> None:
        stem = "quick" if quick else "results"
        self._rows, self._page = FOLDER / f"{stem}.json", FOLDER / f"{stem}.md"
        self._beside = FOLDER / f"{stem}-beside.json"  # what is not a row
        self._quick = quick
        self.speed = {row["name"]: row for row in _read(self._rows, [])}
        beside = _read(self._beside, {})
        self.accuracies: dict[str, list[str]] = beside.get("accuracies", {})
        self.facts: dict[str, str] = beside.get("facts", {})

    def add(
        self,
        name: str,
        *,
        ours: float,
        reference: float,
        unit: str,
        note: str,
        ratio: float | None = None,
    ) -> None:
        """A row; the ratio says how many times better ours is, unless it is given."""
        if ratio is None:
            ratio = reference / ours if unit == "s" else ours / reference
        row = {"name": name, "ours": ours, "reference": reference, "ratio": ratio}
        self.speed[name] = {**row, "unit": unit, "note": note}
        print(f"{name}: {ours:.4g} against {reference:.4g} {unit}, ratio {ratio:.3g}", flush=True)

    def accuracy(self, backbone: str, way: str, *, val_accuracy: float, seconds: float) -> None:
        """One training of the accuracy comparison."""
        row = [backbone, way, f"{val_accuracy:.1%}", f"{seconds:.0f}"]
        self.accuracies[f"{backbone}, {way}"] = row
        print(*row, flush=True)

    def write(self) -> None:
        """Writes everything that is known so far."""
        rows = [self.speed[name] for name in TARGETS if name in self.speed]
        beside = {"accuracies": self.accuracies, "facts": self.facts}
        self._rows.write_text(json.dumps(rows, indent=2) + "\n")
        self._beside.write_text(json.dumps(beside, indent=2) + "\n")
        self._page.write_text(_markdown(rows, self.accuracies, self.facts, quick=self._quick))


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else otherwise


def _markdown(
    rows: list[dict[str, Any]],
    accuracies: dict[str, list[str]],
    facts: dict[str, str],
    *,
    quick: bool,
) -> str:
    command = "make bench-quick" if quick else "make bench"
    lines = [
        "# Speed, measured",
        "",
        f"`{command}`, last on {date.today():%Y-%m-%d}. Ratios hold within a step: both sides took "
        "turns on the same machine. The ratio says how many times faster ours is; of "
        f"{' and '.join(sorted(AT_MOST))} it says how much more ours takes. The notes give "
        "the accuracy of whole backbones whose lower layers alone have real ImageNet weights, the "
        "upper ones random weights; the accuracies to compare are those of the step `accuracy`.",
        "",
        "| name | ours | reference | unit | ratio | target | |",
        "|---|---:|---:|---|---:|---:|---|",
    ]
    for row in rows:
        target = TARGETS[row["name"]]
        most = row["name"] in AT_MOST
        met = row["ratio"] <= target if most else row["ratio"] >= target
        lines.append(
            f"| `{row['name']}` | {row['ours']:.4g} | {row['reference']:.4g} | {row['unit']} "
            f"| {row['ratio']:.3g} | {'≤' if most else '≥'} {target} | {'' if met else 'missed'} |"
        )
    lines += ["", "What each row says:", ""]
    lines += [f"- `{row['name']}`: {row['note']}" for row in rows]
    if accuracies:
        lines += ["", "## Accuracy beside speed", "", facts.get("accuracy", ""), ""]
        lines += ["| backbone | way | val accuracy | seconds |", "|---|---|---:|---:|"]
        lines += [f"| {' | '.join(row)} |" for row in accuracies.values()]
    lines += ["", "## Memory, limits, machine", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items() if name != "accuracy"]
    versions = ", ".join(
        f"{p} {importlib.metadata.version(p)}" for p in ("tensorflow", "keras", "numpy", "mlflow")
    )
    lines += [f"- machine: {os.cpu_count()} cores, {platform.machine()}, {_cpu()}"]
    lines += [f"- versions: Python {platform.python_version()}, {versions}", ""]
    return "\n".join(lines)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "")
