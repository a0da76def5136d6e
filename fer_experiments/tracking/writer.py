"""The one door through which params, metrics and artifacts leave for MLflow."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from fer_experiments.data.prepared import PreparedDataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PARAM_CHARACTERS = 6000


class Writer:
    """Writes to one run."""

    def __init__(self, run_id: str, experiment_id: str, *, nested: bool = False) -> None:
        self.run_id = run_id
        self.nested = nested  # one stage of a larger job, which says itself how to go on
        self.experiment_id = experiment_id
        self._client = MlflowClient()

    def params(self, values: Mapping[str, Any]) -> None:
        """Logs params; keys that the run already has stay as they are.

        `mlflow run` logs what was typed before our code runs, and a param can't be changed:
        `1e-4` and `0.0001` would clash.
        """
        held = self._client.get_run(self.run_id).data.params
        new = [
            Param(name, str(value)[:_MOST_PARAM_CHARACTERS])
            for name, value in values.items()
            if name not in held
        ]
        self._client.log_batch(self.run_id, params=new)

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags."""
        self._client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in values.items()])

    def note(self, text: str) -> None:
        """The run's description, Markdown; replaces an earlier one."""
        self.tags({"mlflow.note.content": text})

    def metrics(
        self, values: Mapping[str, float], *, step: int = 0, model_id: str | None = None
    ) -> None:
        """Logs metrics at a step; with `model_id` they belong to that logged model too."""
        now = get_current_time_millis()
        named = {metric_name(name): float(value) for name, value in values.items()}
        self._client.log_batch(
            self.run_id, metrics=[Metric(name, value, now, step) for name, value in named.items()]
        )
        if model_id is not None:
            mlflow.log_metrics(named, step=step, run_id=self.run_id, model_id=model_id)

    def text(self, content: str, path: str) -> None:
        """A text artifact."""
        self._client.log_text(self.run_id, content, path)

    def json(self, content: Any, path: str) -> None:
        """A JSON artifact."""
        self.text(json.dumps(content, indent=2, default=_plain), path)

    def figure(self, figure: Figure, path: str) -> None:
        """A PNG artifact."""
        self._client.log_figure(self.run_id, figure, path)

    def table(self, columns: Mapping[str, list[Any]], path: str) -> None:
        """A table that the UI shows. MLflow appends: write each path once a run."""
        self._client.log_table(self.run_id, dict(columns), path)

    def arrays(self, values: Mapping[str, np.ndarray], path: str) -> None:
        """NumPy arrays as one compressed .npz artifact, without pickles."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / Path(path).name
            np.savez_compressed(file, allow_pickle=False, **values)
            self._client.log_artifact(self.run_id, str(file), str(Path(path).parent))

    def dataset(self, prepared: PreparedDataset, *, split: str) -> None:
        """Links the run to the split of a dataset that it used."""
        images, labels = prepared.split(split)
        mlflow.log_input(
            mlflow.data.from_numpy(
                images,
                targets=labels,
                source=str(prepared.manifest["source"]["dataset"]),
                name=f"{prepared.name} {split}",
                digest=prepared.fingerprint[:36],
            ),
            context=split,
        )


def metric_name(name: str) -> str:
    """The name with what MLflow refuses (class names may hold anything) replaced."""
    return re.sub(r"[^\w\-./ :]", "_", name)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot stand in JSON")
