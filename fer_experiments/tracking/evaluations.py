"""Find what was evaluated: the newest evaluation of each model, on the same data or set apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fer_experiments.config import FIELDS, Config
from fer_experiments.errors import RunError
from fer_experiments.evaluation.metrics import Report, report
from fer_experiments.run_names import model_label
from fer_experiments.tracking import names, store
from fer_experiments.tracking.runs import RunRecord, get_run, search, stored_arrays

# Raised when scores of older evaluations mean something else or lack something.
FORMAT = 3


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model said of a split."""

    ids: np.ndarray  # (N,) text
    labels: np.ndarray  # (N,)
    probabilities: np.ndarray  # (N, C)
    fitted: np.ndarray | None  # (N,) bool: images that it was trained on; None: unknown
    selected: np.ndarray | None  # (N,) bool: images that chose something of it
    class_names: tuple[str, ...]

    @property
    def clean(self) -> np.ndarray:
        """(N,) bool: images that it was surely not trained on."""
        return np.zeros(len(self.labels), dtype=bool) if self.fitted is None else ~self.fitted


@dataclass(frozen=True)
class Evaluation:
    """The newest evaluation of one model."""

    run: RunRecord
    label: str

    @property
    def tags(self) -> Mapping[str, str]:
        """The run's tags."""
        return self.run.tags

    @property
    def metrics(self) -> Mapping[str, float]:
        """The run's scores."""
        return self.run.metrics

    @property
    def fingerprint(self) -> str:
        """The data that the model was judged on."""
        return self.tags["dataset_fingerprint"]

    @property
    def picked_on_val(self) -> bool:
        """Whether images of val chose the epoch, a temperature or the like: then val flatters."""
        return (
            self.metrics.get("val/images_selected_on", float(names.CHOSEN_ON_VAL in self.tags)) > 0
        )

    @property
    def val_remark(self) -> str:
        """What to keep in mind of the scores on val."""
        if not self.picked_on_val:
            return ""
        return f"Chosen on val, which flatters a little: {self.tags[names.CHOSEN_ON_VAL]}."

    @property
    def overlap_unknown(self) -> str:
        """Why it is not known which images the model was trained on; empty if it is."""
        return self.tags.get(names.OVERLAP_UNKNOWN, "")

    def clean_score(self, metric: str) -> float | None:
        """A score such as `val/macro_f1`, of the images that the model was not trained on.

        None: there are none, or nobody knows.
        """
        split, _, score = metric.partition("/")
        return self.metrics.get(f"{split}/clean/{score}")

    @property
    def family(self) -> tuple[Any, ...]:
        """The same for models that differ in `seed` alone.

        A field that the suite did not have yet when the run was made had its neutral value then.
        """
        params = {name: str(value) for name, value in Config().flat().items()}
        params |= self.run.params
        fields = tuple(params[name] for name in FIELDS if name != "seed")
        return (self.tags["backbone"], self.tags["source_stage"], self.tags["recipe"], *fields)

    @cached_property
    def _predictions(self) -> dict[str, Predictions]:
        return {}

    def predictions(self, split: str) -> Predictions:
        """What the model said of the split's images."""
        if split not in self._predictions:
            stored = stored_arrays(self.run.id, f"{split}/probabilities.npz")
            self._predictions[split] = Predictions(
                ids=stored["ids"],
                labels=stored["labels"],
                probabilities=stored["probabilities"],
                fitted=stored.get("fitted"),
                selected=stored.get("selected"),
                class_names=tuple(str(name) for name in stored["class_names"]),
            )
        return self._predictions[split]

    def report(self, split: str) -> Report:
        """The report on a split, made again from what the model said."""
        said = self.predictions(split)
        return report(said.probabilities, said.labels, said.class_names, split=split)


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Evaluations: those that can be compared, and those that are set apart."""

    same: list[Evaluation]  # on the same data, newest first
    other: list[Evaluation]  # on other data
    older: list[Evaluation]  # on the same data, by an older definition of the scores


def evaluations(
    *, dataset: str | None = None, experiment: str | None = None, fingerprint: str | None = None
) -> Matches:
    """The newest evaluation of each model on the data meant, and what is set apart from them.

    Args:
        dataset: a dataset's name or the `dataset` that it was made from; None: of the newest run.
        experiment: look nowhere else.
        fingerprint: the very data, if it is known.

    Raises:
        RunError: no evaluated run.
    """
    runs = [
        run
        for run in search("evaluate", experiment=experiment)
        if dataset is None or dataset in (run.tags["dataset_name"], run.params.get("dataset"))
    ]
    newest: dict[tuple[str, str], RunRecord] = {}
    for run in runs:
        tags = run.tags
        newest.setdefault((tags["model_uri"], tags["dataset_fingerprint"]), run)
    found = [Evaluation(run, label_of(run)) for run in newest.values()]
    current = [e for e in found if e.tags.get(names.EVALUATION_FORMAT) == str(FORMAT)]
    if not current:
        on = f" on dataset={dataset}" if dataset else ""
        old = f"{len(found)} by an older version" if found else "none"
        raise RunError(
            f"Expected an evaluated run{on}. Found: {old} in {store.looked_in()}; run fer evaluate "
            "first"
        )
    meant = fingerprint or current[0].fingerprint
    return Matches(
        same=_with_unique_labels([e for e in current if e.fingerprint == meant]),
        other=[e for e in found if e.fingerprint != meant],
        older=[e for e in found if e.fingerprint == meant and e not in current],
    )


def ranked(found: Sequence[Evaluation], metric: str = "val/macro_f1") -> list[Evaluation]:
    """The best first, by the images that each model was not trained on.

    After them those of which no such images are left or known, by all images.
    """
    sign = 1 if metric.endswith("log_loss") else -1

    def rank(e: Evaluation) -> tuple[bool, float]:
        clean = e.clean_score(metric)
        return clean is None, sign * (e.metrics[metric] if clean is None else clean)

    return sorted(found, key=rank)


def newest_of(run_id: str) -> Evaluation:
    """The evaluation that is this run."""
    run = get_run(run_id, stages=("evaluate",))
    return Evaluation(run, label_of(run))


def label_of(run: RunRecord) -> str:
    """What the model that this evaluation judged is called."""
    tags = run.tags
    stage = tags.get(names.SOURCE_STAGE, "")
    return model_label(tags[names.BACKBONE], stage, tags[names.RECIPE], run.params["seed"])


def _with_unique_labels(found: Sequence[Evaluation]) -> list[Evaluation]:
    labels = [e.label for e in found]
    return [
        e
        if labels.count(e.label) == 1
        else replace(e, label=f"{e.label} {e.tags['source_run_id'][:6]}")
        for e in found
    ]
