"""`prepare`: source -> prepared dataset, audited, split, described in MLflow."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from fer_experiments.config import Config
from fer_experiments.data.audit import exact_groups, groups_csv
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.reporting import dataset_card
from fer_experiments.run_names import data_run_name
from fer_experiments.stages import common
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.writer import Writer


@dataclass(frozen=True, kw_only=True)
class Prepared(common.StageResult):
    """With the prepared data themselves."""

    dataset: PreparedDataset


def run(config: Config, *, experiment: str | None = None, parent: Writer | None = None) -> Prepared:
    """Prepares the data, or finds it prepared, and writes the dataset card."""
    common.check_source(config)
    with open_run(
        "prepare",
        data_run_name("prepare", config.data.dataset),
        experiment=experiment,
        parent=parent,
    ) as writer:
        started = time.perf_counter()
        config, dataset = common.prepare(config, whole=True)
        seconds = time.perf_counter() - started
        writer.params({**asdict(config.data), "dataset_fingerprint": dataset.fingerprint})
        writer.tags({"dataset_name": dataset.name, "dataset_fingerprint": dataset.fingerprint})
        common.describe_data(writer, dataset)
        splits = [split for split in ("train", "val", "test") if dataset.size(split)]
        for split in splits:
            writer.dataset(dataset, split=split)
        writer.metrics(
            {f"images/{split}": dataset.size(split) for split in splits}
            | common.audit_metrics(dataset)
            | {"time/prepare_seconds": seconds}
        )
        if groups := exact_groups(dataset.images):
            writer.text(groups_csv(groups, dataset), "audit/groups.csv")
        writer.note(dataset_card.card(dataset))
        counts = ", ".join(f"{dataset.size(split)} {split}" for split in splits)
        lines = [f"{dataset.name}: {counts}", *dataset_card.audit_lines(dataset)]
        if not dataset.size("test"):
            lines.append("there are no test images: only val will be scored")
        lines.append(f"folder {dataset.folder}")
        common.close(
            writer,
            lines,
            following=common.following(writer, "train", **common.data_options(config)),
        )
    found = common.result(
        writer, {f"images/{split}": float(dataset.size(split)) for split in splits}
    )
    return Prepared(**vars(found), dataset=dataset)
