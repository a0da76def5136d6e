"""`cache`: what lies in the feature cache; or empties it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fer_experiments import console
from fer_experiments.data.storage import data_home
from fer_experiments.models.features import cache
from fer_experiments.tracking import journal as journals


def show() -> dict[str, Any]:
    """Prints a line per tensor and set of images; gives them back as a script reads them."""
    entries = cache.entries()
    columns = ("backbone", "tensor", "dataset", "of", "images", "dtype")
    rows = []
    for entry in entries:
        made = f"{datetime.fromtimestamp(entry.made):%Y-%m-%d %H:%M}" if entry.made else "–"
        about = [entry.about.get(column, "–") for column in columns]
        if not entry.about:
            about[0] = f"damaged: {entry.folder.name}"
        rows.append([*about, f"{entry.size / 1e6:.1f}", made])
    if rows:
        console.table([*columns, "MB", "made"], rows)
    total = sum(entry.size for entry in entries) / 1e6
    console.say(f"{len(entries)} features, {total:.1f} MB in {data_home() / 'features'}")
    left = journals.stopped()
    if left:
        size = sum(size for _, size in left) / 1e6
        console.say(
            f"{len(left)} runs that did not finish, {size:.1f} MB in {journals.home()}: resume "
            "them, or remove them with fer cache --clear --unfinished"
        )
    return {
        "features": [{"folder": str(e.folder), "bytes": e.size, **e.about} for e in entries],
        "unfinished": [{"name": name, "bytes": size} for name, size in left],
    }


def clear(*, unfinished: bool = False) -> dict[str, int]:
    """Removes them all; with `unfinished` also the runs that could still be resumed.

    Returns:
        Bytes that were freed, by what held them.
    """
    freed = {"unfinished": journals.forget_stopped()} if unfinished else {}
    if unfinished:
        console.say(f"freed {freed['unfinished'] / 1e6:.1f} MB in {journals.home()}")
    freed["features"] = cache.clear()
    console.say(f"freed {freed['features'] / 1e6:.1f} MB in {data_home() / 'features'}")
    return freed
