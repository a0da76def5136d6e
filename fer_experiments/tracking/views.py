"""Saved views: what MLflow's page of an experiment shows first, each with a name and a link.

MLflow keeps a view as a tag of the experiment. Its value is the name and the state of the page,
compressed, as the page of MLflow 3.17 writes it when a person saves a view by hand. State that a
page does not know is ignored there.
"""

from __future__ import annotations

import base64
import json
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

from mlflow.tracking import MlflowClient

from fer_experiments import __version__
from fer_experiments.tracking import names, pages, store

# The stages whose runs the views show: the first of them that finishes brings the views.
STAGES = ("train", "finetune", "evaluate")

_TAG = "mlflow.sharedViewState."
_OURS = "fer_experiments-"  # how the ids of our views begin; a person's view has a random id
_MOST = 40  # views of an experiment; with more, MLflow lets nobody save another one

_SCORES = ("macro_f1", "accuracy", "calibration/ece")
_CURVES = ("loss", "accuracy", "macro_f1")
_WHO = ("backbone", "recipe", "seed")


@dataclass(frozen=True, kw_only=True)
class View:
    """One view: which runs in which order, the table's columns, and charts."""

    name: str
    filter: str
    order: str  # the column to sort by, descending
    # Metrics, each a column and a chart, three charts a row.
    metrics: Sequence[str]
    chart: str  # BAR or LINE
    height: int  # of a chart, in pixels
    # MLflow adds a chart of every other metric of the runs. Those of these sections stay folded.
    folded: Sequence[str]
    opens_charts: bool  # whether its link opens the charts, or the table

    @property
    def id(self) -> str:
        """The same for everybody, another one in another version of the suite."""
        return f"{_OURS}{__version__}-{self.name.lower().replace(' ', '-')}"


def _of_splits(scores: Sequence[str], *splits: str) -> list[str]:
    return [f"{split}/{score}" for split, score in product(splits, scores)]


VIEWS = (
    View(
        name="Compare models",
        filter=f"tags.{names.STAGE} = 'evaluate'",
        order="metrics.`val/macro_f1`",
        metrics=_of_splits(_SCORES, "val", "test"),
        chart="BAR",
        height=260,
        folded=[
            *("val", "val/clean", "val/photo", "val/calibration", "val/interval", "val/per_class"),
            *("test", "test/clean", "test/calibration", "test/interval", "test/per_class"),
            *("val/clean/calibration", "val/clean/interval"),
            *("test/clean/calibration", "test/clean/interval", "time", "weights"),
        ],
        opens_charts=False,
    ),
    View(
        name="Learning curves",
        # Runs that train. The page refuses `tags.stage IN (…)`.
        filter="metrics.`train/loss` >= 0",
        # The newest first. In the order of `attributes.start_time`, as the page itself spells it,
        # runs would be folded below their parents.
        order="attributes.`Created`",
        metrics=_of_splits(_CURVES, "val", "train"),
        chart="LINE",
        height=320,
        folded=["val", "time", "weights", "Model metrics", "System metrics"],
        opens_charts=True,
    ),
)


def write(client: MlflowClient, experiment_id: str) -> None:
    """Writes the views into an experiment, once for each version of the suite.

    Views of an older version make room for them; a view that somebody has removed stays removed.

    Raises:
        MlflowException: the store is away, or refuses.
    """
    tags = client.get_experiment(experiment_id).tags
    if _numbers(tags.get(names.VIEWS, "")) >= _numbers(__version__):
        return
    held = [tag for tag in tags if tag.startswith(_TAG)]
    older = [tag for tag in held if tag.startswith(_TAG + _OURS)]
    if len(held) - len(older) + len(VIEWS) > _MOST:
        return
    for tag in older:
        client.delete_experiment_tag(experiment_id, tag)
    # MLflow lists the newest first.
    now = int(time.time() * 1000)
    for age, view in enumerate(VIEWS):
        client.set_experiment_tag(experiment_id, _TAG + view.id, _content(view, now - age))
    client.set_experiment_tag(experiment_id, names.VIEWS, __version__)


@store.translated()
def links(experiment_id: str) -> dict[str, str]:
    """The views of this version that an experiment has: the link of each by its name."""
    tags = store.client().get_experiment(experiment_id).tags
    return {
        view.name: pages.view(experiment_id, view.id, charts=view.opens_charts)
        for view in VIEWS
        if _TAG + view.id in tags
    }


def closing_lines(experiment_id: str) -> list[str]:
    """The lines by which a command leads to the views; makes them where there are none yet.

    None if that fails: views are a help, and never the reason why a command fails.
    """
    with suppress(Exception):
        write(store.client(), experiment_id)
        return list(lines(experiment_id))
    return []


def lines(experiment_id: str) -> Iterator[str]:
    """A line for each view that the experiment has."""
    for name, link in links(experiment_id).items():
        yield f"view   {link}  {name}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _content(view: View, created: int) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(_state(view)).encode())).decode()
    return json.dumps({"name": view.name, "createdAt": created, "state": f"deflate;{packed}"})


def _state(view: View) -> dict[str, Any]:
    """The state of the page, under its own names."""
    params = [f"params.`{name}`" for name in _WHO]
    metrics = [f"metrics.`{name}`" for name in view.metrics]
    return {
        "searchFilter": view.filter,
        "orderByKey": view.order,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [*params, *metrics],
        # The box to tick (which has a number for a name), name and age stand in front of them.
        "columnOrder": ["1", "attributes.`Run Name`", "runDateAndNestInfo", *params, *metrics],
        "columnWidths": {
            "attributes.`Run Name`": 260,
            **dict(zip(params, (90, 80, 60), strict=True)),
            **{column: 95 if column.count("/") < 2 else 135 for column in metrics},
        },
        "groupBy": None,
        "runsHiddenMode": "FIRST_20_RUNS",  # of those in the table, which the charts show
        "runListHidden": False,
        "viewMaximized": False,
        "hideEmptyCharts": True,
        "useGroupedValuesInCharts": True,
        "isAccordionReordered": True,  # else the sections would be sorted by name, ours in between
        "compareRunSections": [
            _section("ours", view.name, display=True) | {"columns": 3, "cardHeight": view.height},
            *(_section(f"folded {name}", name, display=False) for name in view.folded),
        ],
        "compareRunCharts": [_chart(view.chart, metric) for metric in view.metrics],
    }


def _section(uuid: str, name: str, *, display: bool) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "display": display,
        "isReordered": True,
        "isGenerated": False,
        "deleted": False,
    }


def _chart(kind: str, metric: str) -> dict[str, Any]:
    chart = {
        "uuid": f"{kind} {metric}",
        "type": kind,
        "metricSectionId": "ours",
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "runsCountToCompare": 20,
        "isGenerated": False,
        "deleted": False,
    }
    if kind == "LINE":
        chart |= {
            "xAxisKey": "step",
            "yAxisKey": "metric",
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "range": {},
            "yAxisExpressions": [],
            "selectedXAxisMetricKey": "",
            "lineSmoothness": 0,
            "ignoreOutliers": False,
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }
    return chart
