"""Every number that a report or a table shows, computed once more from the predictions.

By scikit-learn, statsmodels and plain NumPy: nothing of the package's own arithmetic is used.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import sklearn.metrics as reference
from mlflow.tracking import MlflowClient
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from fer_experiments.data.images import FER_CLASSES
from fer_experiments.entry import main

from .designed import answers, log_designed, write_images

NAMES = FER_CLASSES
C = len(NAMES)
# Of each class of val, so many images also stand in train.
TWINS = 10
SHARES, SURENESS = (0.6, 0.62, 0.8), (0.7, 0.62, 0.8)


@dataclass(frozen=True)
class Said:
    """What a model said of some images, and every score of that."""

    labels: np.ndarray
    probabilities: np.ndarray

    @cached_property
    def predicted(self) -> np.ndarray:
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confusion(self) -> np.ndarray:
        return reference.confusion_matrix(self.labels, self.predicted, labels=range(C))

    @cached_property
    def losses(self) -> np.ndarray:
        return -np.log(self.probabilities[np.arange(len(self.labels)), self.labels])

    @cached_property
    def squares(self) -> np.ndarray:
        return ((self.probabilities - np.eye(C)[self.labels]) ** 2).sum(axis=1)

    def of(self, images: np.ndarray) -> Said:
        return Said(self.labels[images], self.probabilities[images])

    @cached_property
    def ece(self) -> float:
        sure = self.probabilities.max(axis=1)
        right = self.labels == self.predicted
        total = 0.0
        for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
            inside = (sure > low) & (sure <= high)
            if inside.any():
                total += inside.sum() * abs(right[inside].mean() - sure[inside].mean())
        return total / len(right)

    @cached_property
    def scores(self) -> dict[str, float]:
        """By the name under which they are logged, without the split."""
        y, p, z = self.labels, self.probabilities, self.predicted
        averages = [reference.roc_auc_score(y == i, p[:, i]) for i in range(C)]
        found = {
            "accuracy": reference.accuracy_score(y, z),
            "balanced_accuracy": reference.balanced_accuracy_score(y, z),
            "macro_f1": reference.f1_score(y, z, average="macro"),
            "weighted_f1": reference.f1_score(y, z, average="weighted"),
            # Rounded to float32, rows miss 1 by 1e-7.
            "log_loss": reference.log_loss(y, p / p.sum(axis=1, keepdims=True), labels=range(C)),
            "macro_roc_auc": float(np.mean(averages)),
            "calibration/ece": self.ece,
            "calibration/brier": self.squares.mean(),
            "majority_share": np.bincount(y).max() / len(y),
            "images": float(len(y)),
        }
        kinds = {
            "precision": reference.precision_score(y, z, average=None),
            "recall": reference.recall_score(y, z, average=None),
            "f1": reference.f1_score(y, z, average=None),
            "roc_auc": averages,
            "average_precision": [
                reference.average_precision_score(y == i, p[:, i]) for i in range(C)
            ],
        }
        for kind, values in kinds.items():
            found |= {
                f"per_class/{kind}_{name}": value for name, value in zip(NAMES, values, strict=True)
            }
        return found

    @cached_property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """The ends of the intervals that have a formula."""
        right = int((self.labels == self.predicted).sum())
        return {
            "accuracy": proportion_confint(right, len(self.labels), method="wilson"),
            "log_loss": _by_class(self.losses, self.labels),
            "brier": _by_class(self.squares, self.labels),
        }

    @cached_property
    def resampled(self) -> dict[str, tuple[float, float]]:
        """The ends of the others: images are drawn again within their class."""
        draw = np.random.default_rng(99)
        found: dict[str, list[float]] = {}
        for _ in range(1000):
            drawn = np.concatenate(
                [draw.choice(np.flatnonzero(self.labels == i), (self.labels == i).sum())
                 for i in range(C)]
            )  # fmt: skip
            counts = np.zeros((C, C))
            np.add.at(counts, (self.labels[drawn], self.predicted[drawn]), 1)
            images = counts.sum(axis=1)
            f1 = 2 * np.diag(counts) / (images + counts.sum(axis=0))
            found.setdefault("macro_f1", []).append(f1.mean())
            found.setdefault("weighted_f1", []).append((f1 * images).sum() / images.sum())
            found.setdefault("balanced_accuracy", []).append((np.diag(counts) / images).mean())
        return {k: tuple(np.quantile(v, [0.025, 0.975])) for k, v in found.items()}


def _by_class(values: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The mean's interval by Student's t, images drawn within their class (Satterthwaite)."""
    parts = [values[labels == i] for i in range(C)]
    errors = np.array([len(x) * x.var(ddof=1) for x in parts]) / len(values) ** 2
    freedom = errors.sum() ** 2 / (errors**2 / [len(x) - 1 for x in parts]).sum()
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(errors.sum())
    return values.mean() - reach, values.mean() + reach


@dataclass(frozen=True)
class Written:
    """What the commands wrote: the models' evaluations in the order of SHARES, and the rest."""

    evaluations: list[str]
    compare: str
    first: str
    register: str
    printed: dict[str, str]

    def said(self, number: int) -> Said:
        stored = arrays(self.evaluations[number])
        return Said(stored["labels"].astype(int), stored["probabilities"].astype(float))

    def clean(self, number: int) -> Said:
        return self.said(number).of(~arrays(self.evaluations[number])["fitted"])

    def mirrored(self, number: int) -> Said:
        """With test-time augmentation: in a mirror image the model sees nothing (designed.py)."""
        said = self.said(number)
        return Said(said.labels, (said.probabilities + 1 / C) / 2)

    def label(self, number: int) -> str:
        return f"vgg16 train baseline s{number}"


def arrays(run_id: str) -> dict[str, np.ndarray]:
    path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="val/probabilities.npz")
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def text(run_id: str, path: str) -> str:
    return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{path}"))


def metrics(run_id: str) -> dict[str, float]:
    return dict(MlflowClient().get_run(run_id).data.metrics)


@pytest.fixture(scope="module")
def written(
    base: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Written]:
    """Three models whose answers are known, evaluated, compared and registered."""
    folder = tmp_path_factory.mktemp("numbers")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        dataset = write_images(folder / "faces", SHARES, twins=TWINS)
        runs = [log_designed(dataset, i, confidence=sure) for i, sure in enumerate(SURENESS)]

        def fer(*arguments: str) -> str:
            capture.read_global_capture()
            with pytest.raises(SystemExit) as ended:
                main([*arguments])
            out, err = capture.read_global_capture()
            assert ended.value.code == 0, err
            return str(out)

        printed = {"evaluate 0": fer("evaluate", "--run-id", runs[0], "--tta", "flip")}
        printed["first"] = fer("register")
        for i, run_id in enumerate(runs[1:], 1):
            printed[f"evaluate {i}"] = fer("evaluate", "--run-id", run_id, "--tta", "flip")
        printed["compare"] = fer("compare")
        printed["register"] = fer("register")
        ids = {name: re.findall(r"^run +(\w+)$", out, re.M)[0] for name, out in printed.items()}
        evaluations = [ids[f"evaluate {i}"] for i in range(3)]
        yield Written(evaluations, ids["compare"], ids["first"], ids["register"], printed)


@pytest.mark.parametrize("number", range(3))
def test_metrics_of_an_evaluation(written: Written, number: int) -> None:
    logged = metrics(written.evaluations[number])
    said, clean, mirrored = (of(number) for of in (written.said, written.clean, written.mirrored))
    expected: dict[str, float] = {
        "val/images_with_twin": TWINS * C,
        "val/images_selected_on": len(said.labels),
    }
    parts = {"val": said, "val/clean": clean, "val/tta": mirrored}
    for prefix, part in parts.items():
        expected |= {f"{prefix}/{name}": value for name, value in part.scores.items()}
        for name, (low, high) in part.bounds.items():
            expected[f"{prefix}/interval/{name}_low"] = low
            expected[f"{prefix}/interval/{name}_high"] = high
    approximate = {
        f"{prefix}/interval/{name}_{end}": (value, 0.1 * (bounds[1] - bounds[0]))
        for prefix, part in parts.items()
        for name, bounds in part.resampled.items()
        for end, value in zip(("low", "high"), bounds, strict=True)
    }
    cost = ("weights/", "time/", "system/")
    for name, value in logged.items():
        if name in approximate:
            near, within = approximate[name]
            assert value == pytest.approx(near, abs=within), name
        elif not name.startswith(cost):
            assert value == pytest.approx(expected[name], abs=1e-6), name
    assert {name for name in (*expected, *approximate) if name.count("/") < 2} <= set(logged)
    few = {"accuracy", "macro_f1", "images", "calibration/ece", "interval/macro_f1_low"}
    assert {f"val/{part}/{name}" for part in ("clean", "tta") for name in few} <= set(logged)


@pytest.mark.parametrize("number", range(3))
def test_files_of_an_evaluation(written: Written, number: int) -> None:
    run_id, said = written.evaluations[number], written.said(number)
    found = json.loads(text(run_id, "val/classification_report.json"))
    by_class = found.pop("per_class")
    logged = metrics(run_id)
    assert found == pytest.approx(
        {name.removeprefix("val/"): logged[name] for name in logged
         if name.removeprefix("val/") in found}
    )  # fmt: skip
    assert set(said.scores) <= set(found)
    for i, name in enumerate(NAMES):
        assert by_class[name] == pytest.approx(
            {
                **{k: said.scores[f"per_class/{k}_{name}"] for k in ("precision", "recall", "f1")},
                "support": (said.labels == i).sum(),
            }
        )
    assert text(run_id, "val/classification_report.txt") == reference.classification_report(
        said.labels, said.predicted, labels=range(C), target_names=list(NAMES), digits=4
    )
    assert json.loads(text(run_id, "val/confusion.json")) == {
        "class_names": list(NAMES),
        "counts_true_by_predicted": said.confusion.tolist(),
    }
    assert text(run_id, "val/top_confusions.txt").splitlines() == confusions(said)


def confusions(said: Said) -> list[str]:
    """The five most frequent mistakes."""
    cells = [
        (int(said.confusion[i, j]), said.confusion[i, j] / said.confusion[i].sum(), i, j)
        for i in range(C)
        for j in range(C)
        if i != j
    ]
    return [
        f"{NAMES[i]} taken for {NAMES[j]}: {images} of {said.confusion[i].sum()} ({share:.0%})"
        .replace("%", " %")
        for images, share, i, j in sorted(cells, key=lambda cell: (-cell[0], -cell[1]))[:5]
    ]  # fmt: skip


def test_the_table_of_predictions(written: Written) -> None:
    run_id, said = written.evaluations[0], written.said(0)
    found = json.loads(text(run_id, "val/predictions.json"))
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]
    stored = arrays(run_id)
    for i, row in enumerate(rows):
        label, predicted = said.labels[i], said.predicted[i]
        assert row == {
            "id": stored["ids"][i],
            "label": NAMES[label],
            "predicted": NAMES[predicted],
            "correct": label == predicted,
            "confidence": pytest.approx(said.probabilities[i].max(), abs=1e-4),
            "fitted_on": bool(stored["fitted"][i]),
            "selected_on": True,
        }
        # What the images were drawn to say (designed.py).
        position = int(Path(row["id"]).stem.split("_")[1])
        assert NAMES[position // 1000] == row["label"]
        assert bool(row["fitted_on"]) == (position % 1000 < TWINS)
        drawn = answers(SHARES[0], seed=0)[position // 1000, position % 1000]
        assert NAMES[drawn] == row["predicted"]
    assert len(rows) == len(said.labels) == 700


def interval(said: Said, score: str, form: str, logged: dict[str, float], prefix: str) -> str:
    """`61.0% (57.3%–64.5%)`; the ends, whose values are tested above, as they are logged."""
    low, high = (logged[f"{prefix}/interval/{score}_{end}"] for end in ("low", "high"))
    return f"{said.scores[score]:{form}} ({low:{form}}–{high:{form}})"


@pytest.mark.parametrize("number", range(3))
def test_note_and_lines_of_an_evaluation(written: Written, number: int) -> None:
    run_id = written.evaluations[number]
    run = MlflowClient().get_run(run_id)
    note, out = run.data.tags["mlflow.note.content"], written.printed[f"evaluate {number}"]
    for name, prefix, said in (
        ("val", "val", written.said(number)),
        ("val clean", "val/clean", written.clean(number)),
        ("val with TTA", "val/tta", written.mirrored(number)),
    ):
        accuracy, macro_f1 = (
            interval(said, score, form, run.data.metrics, prefix)
            for score, form in (("accuracy", ".1%"), ("macro_f1", ".3f"))
        )
        images, ece = len(said.labels), said.scores["calibration/ece"]
        assert f"| {name} | {images} | {accuracy} | {macro_f1} | {ece:.3f} |" in note
        assert (
            f"{name:5} accuracy {accuracy}, macro-F1 {macro_f1}, "
            f"log-loss {said.scores['log_loss']:.3f}, ECE {ece:.3f}, {images} images" in out
        )
    for line in confusions(written.said(number)):
        assert f"- val: {line}" in note


class Cells(HTMLParser):
    """The cells of every table of a page, by table and row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.tables[-1][-1][-1] += data


# Best first.
RANKED = (2, 1, 0)


def model_row(written: Written, number: int) -> list[str]:
    """A model's row in `compare`, as text: label, then val and test, then what it cost."""
    logged = metrics(written.evaluations[number])
    said, clean = written.said(number), written.clean(number)

    def cell(part: Said, score: str, form: str, prefix: str) -> str:
        return interval(part, score, form, logged, prefix)

    return [
        written.label(number),
        cell(said, "accuracy", ".1%", "val") + "*",
        cell(said, "macro_f1", ".3f", "val") + "*",
        str(len(clean.labels)),
        cell(clean, "accuracy", ".1%", "val/clean") + "*",
        cell(clean, "macro_f1", ".3f", "val/clean") + "*",
        f"{said.scores['calibration/ece']:.3f}",
    ]


HEADER = (
    "model",
    "val accuracy", "val macro-F1", "val leak-free images", "val leak-free accuracy",
    "val leak-free macro-F1", "val ECE",
)  # fmt: skip


def test_tables_of_a_comparison(written: Written) -> None:
    expected = [model_row(written, number) for number in RANKED]
    markdown = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text(written.compare, "comparison.md").splitlines()
        if line.startswith("| ")
    ]
    stored = json.loads(text(written.compare, "comparison.json"))
    page = Cells(text(written.compare, "comparison.html"))
    assert [row[:7] for row in stored["data"]] == expected
    assert [row[7:13] for row in stored["data"]] == [["–"] * 6] * 3
    # People read a column per model, without what no model has.
    turned = [["score", *(row[0] for row in expected)]] + [
        [head, *cells]
        for head, *cells in zip(HEADER[1:7], *(row[1:] for row in expected), strict=True)
    ]
    heads = [head for head, *_ in turned] + ["images/s", "MB", "training run", "evaluation run"]
    for rows in (markdown, page.tables[0]):
        assert rows[0] == turned[0]
        kept = [row for row in rows[: len(heads) + 1] if row[0] in heads]
        assert [row[0] for row in kept] == heads
        assert kept[: len(turned)] == turned
    note = MlflowClient().get_run(written.compare).data.tags["mlflow.note.content"]
    for row in turned:
        assert f"| {' | '.join(row)} |" in note
    logged = metrics(written.compare)
    assert logged["models"] == 3
    assert logged["best/val_macro_f1"] == pytest.approx(written.said(2).scores["macro_f1"])


def test_the_table_of_all_scores_of_a_comparison(written: Written) -> None:
    rows = list(csv.DictReader(io.StringIO(text(written.compare, "comparison.csv"))))
    assert [row["model"] for row in rows] == [written.label(number) for number in RANKED]
    for row, number in zip(rows, RANKED, strict=True):
        run = MlflowClient().get_run(written.evaluations[number])
        assert row["run_id"] == run.info.run_id
        assert row["model_uri"] == run.data.tags["model_uri"]
        known = {name: float(value) for name, value in row.items() if name in run.data.metrics}
        assert known == pytest.approx(run.data.metrics)


def test_seeds_pooled(written: Written) -> None:
    values = {
        score: np.array([written.said(i).scores[score] for i in range(3)])
        for score in ("accuracy", "macro_f1")
    }
    cells = [
        f"{values[score].mean():{form}} ± {values[score].std(ddof=1):{form}}"
        for score, form in (("accuracy", ".1%"), ("macro_f1", ".3f"))
    ]
    row = ["vgg16 train baseline", "0, 1, 2", "val", *cells]
    assert "| " + " | ".join(row) + " |" in text(written.compare, "comparison.md")
    assert row in Cells(text(written.compare, "comparison.html")).tables[2]
    assert re.search(" +".join(map(re.escape, row)), written.printed["compare"])


def test_the_winner_of_a_comparison(written: Written) -> None:
    [row] = [
        row
        for row in csv.DictReader(io.StringIO(text(written.compare, "val_pairs.csv")))
        if (row["first"], row["second"]) == (written.label(2), written.label(1))
    ]
    best = written.clean(2)
    expected = (
        f"{written.label(2)} leads by macro-F1 ({best.scores['macro_f1']:.3f} on 630 of 700 images "
        "of val that it was not trained on); it is shown to be better than the second, "
        f"{written.label(1)}, on 630 of 700 images of val: by # points (95 % interval # to #), "
        "p below 0.001 (corrected for 3 pairs)"
    )
    winner = written.printed["compare"].splitlines()[0]
    points = re.search(r"by ([\d.]+) points \(95 % interval ([\d.]+) to ([\d.]+)\)", winner)
    assert points is not None
    for name, shown in zip(("macro-F1 difference", "low", "high"), points.groups(), strict=True):
        assert float(shown) == pytest.approx(100 * float(row[name]), abs=0.06)
        expected = expected.replace("#", shown, 1)
    assert winner == expected
    assert float(row["p"]) < 0.001
    note = MlflowClient().get_run(written.compare).data.tags["mlflow.note.content"]
    for told in (note, text(written.compare, "comparison.md")):
        assert told.splitlines()[0] == f"**{expected}**"
    assert f'</h1>\n<p class="lead">{expected}</p>\n' in text(written.compare, "comparison.html")


def test_classes_of_a_comparison(written: Written) -> None:
    said = [written.said(number) for number in RANKED]
    expected = [
        ["class", "images", "judging the best two", *map(written.label, RANKED)],
        *(
            [
                name,
                "100",
                str(100 - TWINS),
                *(f"{s.scores[f'per_class/f1_{name}']:.3f}" for s in said),
            ]
            for name in NAMES
        ),
        ["all images, macro-F1", "700", "630", *(f"{s.scores['macro_f1']:.3f}" for s in said)],
    ]
    assert Cells(text(written.compare, "comparison.html")).tables[3] == expected
    markdown = text(written.compare, "comparison.md")
    for row in expected:
        assert f"| {' | '.join(row)} |" in markdown


def test_pairs_of_a_comparison(written: Written) -> None:
    rows = list(csv.reader(io.StringIO(text(written.compare, "val_pairs.csv"))))
    page = Cells(text(written.compare, "comparison.html"))
    assert [row[:-1] for row in rows] == page.tables[4]  # the last column is empty
    pairs = list(combinations(RANKED, 2))
    for row, (one, other) in zip(rows[1:], pairs, strict=True):
        # The images that neither was trained on.
        first, second = written.clean(one), written.clean(other)
        assert row[:3] == [written.label(one), written.label(other), str(len(first.labels))]
        f1, low, high, p, accuracy, a_low, a_high, a_p = (float(cell) for cell in row[3:11])
        assert row[11:] == [""]
        assert accuracy == pytest.approx(difference(first, second, "accuracy"), abs=1e-4)
        right = [said.labels == said.predicted for said in (first, second)]
        table = [[((right[0] == a) & (right[1] == b)).sum() for b in (1, 0)] for a in (1, 0)]
        expected = min(1, 3 * mcnemar(table, exact=False, correction=False).pvalue)
        assert a_p == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert (a_low > 0 or a_high < 0) == (a_p < 0.05)
        assert a_low < accuracy < a_high
        check_difference(first, second, (f1, low, high, p), comparisons=3)


def difference(first: Said, second: Said, score: str) -> float:
    return first.scores[score] - second.scores[score]


def check_difference(
    first: Said, second: Said, shown: tuple[float, float, float, float], *, comparisons: int
) -> None:
    """A difference in macro-F1, its interval and p, as so many comparisons want them."""
    value, low, high, p = shown
    assert value == pytest.approx(difference(first, second, "macro_f1"), abs=1e-4)
    assert p == pytest.approx(min(1, comparisons * swapped(first, second)), abs=0.06)
    assert (low > 0 or high < 0) == (p < 0.05)
    assert low < value < high
    wide = 2 * stats.norm.ppf(1 - 0.025 / comparisons) * bootstrapped(first, second)
    assert high - low == pytest.approx(wide, rel=0.12)


def macro_f1(labels: np.ndarray, named: np.ndarray) -> float:
    counts = np.zeros((C, C))
    np.add.at(counts, (labels, named), 1)
    return float((2 * np.diag(counts) / (counts.sum(axis=1) + counts.sum(axis=0))).mean())


def swapped(first: Said, second: Said) -> float:
    """p of no difference in macro-F1: each image could as well have its answers swapped."""
    draw = np.random.default_rng(7)
    labels, a, b = first.labels, first.predicted, second.predicted
    measured = abs(macro_f1(labels, a) - macro_f1(labels, b))
    found = []
    for _ in range(2000):
        swap = draw.random(len(labels)) < 0.5
        one, other = np.where(swap, b, a), np.where(swap, a, b)
        found.append(abs(macro_f1(labels, one) - macro_f1(labels, other)))
    return float((np.array(found) >= measured - 1e-12).mean())


def bootstrapped(first: Said, second: Said) -> float:
    """The spread of the difference in macro-F1 when images are drawn again within their class."""
    draw = np.random.default_rng(8)
    found = []
    for _ in range(1000):
        drawn = np.concatenate(
            [draw.choice(np.flatnonzero(first.labels == i), (first.labels == i).sum())
             for i in range(C)]
        )  # fmt: skip
        labels = first.labels[drawn]
        found.append(
            macro_f1(labels, first.predicted[drawn]) - macro_f1(labels, second.predicted[drawn])
        )
    return float(np.std(found))


def test_numbers_of_the_first_version(written: Written) -> None:
    assert metrics(written.first) == pytest.approx(
        {
            "candidate/val_macro_f1": written.said(0).scores["macro_f1"],
            "candidate/clean/val_macro_f1": written.clean(0).scores["macro_f1"],
            "images_judged": len(written.clean(0).labels),
            "candidates": 1,
        }
    )


def test_numbers_of_a_decision(written: Written) -> None:
    best, champion = written.clean(2), written.clean(0)
    logged = metrics(written.register)
    value, low, high, p = (logged.pop(f"difference/{x}") for x in ("value", "low", "high", "p"))
    shown = value, low, high, p
    expected = {
        "candidate/val_macro_f1": written.said(2).scores["macro_f1"],
        "candidate/clean/val_macro_f1": best.scores["macro_f1"],
        "champion/clean/val_macro_f1": champion.scores["macro_f1"],
        "images_judged": len(best.labels),
        "candidates": 2,
    }
    assert logged == pytest.approx(expected)
    check_difference(best, champion, shown, comparisons=2)

    version = MlflowClient().get_model_version_by_alias("emotion-fer2013", "champion")
    assert version.tags["evaluation_run_id"] == written.evaluations[2]
    for name in ("accuracy", "macro_f1"):
        assert version.tags[f"val/{name}"] == f"{written.said(2).scores[name]:.6f}"
    numbers = json.loads(version.tags["decision_numbers"])
    assert {name: numbers[name] for name in expected} == pytest.approx(expected)
    assert [numbers[f"difference/{name}"] for name in ("value", "low", "high", "p")] == [*shown]
    reason = version.tags["decision_reason"]
    assert reason in written.printed["register"]
    assert (
        f"better than version 1 ({champion.scores['macro_f1']:.4f}) by {shown[0]:+.4f}, "
        f"95 % interval {shown[1]:+.4f} to {shown[2]:+.4f} on the {len(best.labels)} val images"
    ) in reason


def test_numbers_of_the_model_card(written: Written) -> None:
    version = MlflowClient().get_model_version_by_alias("emotion-fer2013", "champion")
    logged = metrics(written.evaluations[2])
    for name, said in (("val", written.said(2)), ("val/clean", written.clean(2))):
        cells = [
            str(len(said.labels)),
            *(
                interval(said, score, form, logged, name)
                for score, form in (("accuracy", ".1%"), ("macro_f1", ".3f"))
            ),
            f"{said.scores['calibration/ece']:.3f}",
        ]
        assert f"| {name} | {' | '.join(cells)} |" in version.description
