"""`audit`: what is wrong with the images, near-duplicates too, as counts, a CSV and a picture."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from fer_experiments.config import Config
from fer_experiments.data.audit import (
    Group,
    exact_groups,
    groups_csv,
    is_blank,
    near_counts,
    near_groups,
)
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.reporting import dataset_card, image_grids
from fer_experiments.run_names import data_run_name
from fer_experiments.stages import common
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.writer import Writer

EXAMPLES = 3  # groups of each sort in the picture


def run(config: Config, *, experiment: str | None = None) -> common.StageResult:
    """Audits the prepared data; prepares it if that has not been done."""
    common.check_source(config)
    name = data_run_name("audit", config.data.dataset)
    with open_run("audit", name, experiment=experiment) as writer:
        config, dataset = common.prepare(config)
        writer.params({**asdict(config.data), "dataset_fingerprint": dataset.fingerprint})
        writer.tags({"dataset_name": dataset.name, "dataset_fingerprint": dataset.fingerprint})
        used = [split for split in ("train", "val", "test") if dataset.size(split)]
        for split in used:
            writer.dataset(dataset, split=split)
        started = time.perf_counter()
        images = np.asarray(dataset.images)
        exact, near = exact_groups(images), near_groups(images)
        seconds = time.perf_counter() - started
        found = near_counts(near, images, np.asarray(dataset.labels), dataset.splits)
        scores = common.audit_metrics(dataset) | {f"audit/{k}": n for k, n in found.items()}
        writer.metrics(scores | {"time/audit_seconds": seconds})
        _log_groups(writer, dataset, exact, near)
        lines = [*dataset_card.audit_lines(dataset), *_near_lines(found)]
        writer.note("\n".join([f"# {dataset.name}", "", *(f"- {line}" for line in lines), ""]))
        counts = ", ".join(f"{dataset.size(split)} {split}" for split in used)
        leaking = any(dataset.manifest["audit"][f"{part}_in_train"] for part in ("val", "test"))
        options = common.data_options(config, **({"leaks": "drop"} if leaking else {}))
        common.close(
            writer,
            [f"{dataset.name}: {counts}", *lines],
            following=common.following(writer, "train", **options),
        )
    return common.result(writer, scores)


def _near_lines(found: dict[str, int]) -> list[str]:
    if not found["near_groups"]:
        return ["no near-duplicates"]
    return [
        f"{found['near_groups']} sets of near-duplicates ({found['near_images']} images); "
        f"{found['near_cross_split_groups']} reach over splits, "
        f"{found['near_conflicting_groups']} carry different labels",
        f"{found['near_val_in_train']} more val and {found['near_test_in_train']} more test images "
        "have a near-duplicate in train",
    ]


def _log_groups(
    writer: Writer, dataset: PreparedDataset, exact: Sequence[Group], near: Sequence[Group]
) -> None:
    writer.text(groups_csv([*exact, *near], dataset), "audit/groups.csv")
    rows = list(_examples(dataset, exact, near))
    if rows:
        title = f"{dataset.name}: what the audit found"
        writer.figure(image_grids.image_groups(rows, title=title), "audit/examples.png")


def _examples(
    dataset: PreparedDataset, exact: Sequence[Group], near: Sequence[Group]
) -> Iterator[image_grids.Block]:
    """A few groups of each sort; no group twice, and no blank images, which tell nothing."""
    splits, labels = dataset.splits, np.asarray(dataset.labels)
    exact = [g for g in exact if not is_blank(dataset.images[g.members[:1]])[0]]
    near = sorted(near, key=lambda g: not (g.reaches_over(splits) or g.reaches_over(labels)))
    crossing = [g for g in exact if g.reaches_over(splits)][:EXAMPLES]
    conflicting = [g for g in exact if g.reaches_over(labels) and g not in crossing][:EXAMPLES]
    for heading, groups in (
        ("Same pixels, in more than one split", crossing),
        ("Same pixels, different labels", conflicting),
        ("Near-duplicates", near[:EXAMPLES]),
    ):
        for group in groups:
            # One of each split and label comes first: the row may not hold all members.
            key = np.char.add(splits[group.members], labels[group.members].astype(str))
            first = np.sort(np.unique(key, return_index=True)[1])
            members = group.members[np.append(first, np.setdiff1d(np.arange(len(key)), first))]
            yield image_grids.Block(
                heading,
                dataset.images[members],
                [f"{splits[i]} {dataset.class_names[labels[i]]}" for i in members],
            )
