"""`cache`: what lies in the feature cache; or empties it."""

from __future__ import annotations

from datetime import datetime

from fer_experiments import console
from fer_experiments.data.storage import data_home
from fer_experiments.models import features


def show() -> None:
    """One line per tensor and set of images."""
    entries = features.entries()
    rows = []
    for entry in entries:
        key = entry.manifest["key"]
        part = features.Part(split=key["split"], view=key["view"])
        made = datetime.fromtimestamp(entry.manifest["made"])
        rows.append(
            [
                key["backbone"],
                key["tensor"],
                f"{entry.manifest['dataset']} {key['dataset'][:8]}",
                part.title,
                str(entry.manifest["images"]),
                key["dtype"],
                f"{entry.size / 1e6:.1f}",
                f"{made:%Y-%m-%d %H:%M}",
            ]
        )
    if rows:
        console.table(
            ["backbone", "tensor", "dataset", "of", "images", "dtype", "MB", "made"], rows
        )
    total = sum(entry.size for entry in entries) / 1e6
    console.say(f"{len(entries)} features, {total:.1f} MB in {data_home() / 'features'}")


def clear() -> None:
    """Removes them all."""
    console.say(f"freed {features.clear() / 1e6:.1f} MB in {data_home() / 'features'}")
