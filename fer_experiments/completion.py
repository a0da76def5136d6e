"""What the Tab key offers: backbones, ids of runs, files. Imports are done when it is pressed.

A shell shows no errors here: where nothing can be found, nothing is offered.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from click.shell_completion import CompletionItem

from fer_experiments import console

Complete = Callable[[Any, Any, str], list[CompletionItem]]

_MOST = 200  # of the newest runs


def files(*words: str) -> Complete:
    """File names, and words that mean something instead of a file."""

    def complete(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        found = [word for word in words if incomplete and word.startswith(incomplete)]
        if found:  # shells that see words ask for no files any more
            found += glob.glob(f"{glob.escape(incomplete)}*")  # noqa: PTH207 - as it was typed
        return [CompletionItem(incomplete, type="file"), *map(CompletionItem, found)]

    return complete


def backbones(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of backbones, also behind a comma."""
    from fer_experiments.models.backbones import BACKBONES

    return _in_list(incomplete, [(name, row.title) for name, row in BACKBONES.items()])


def run_ids(*stages: str) -> Complete:
    """Ids of finished runs of these stages, the newest first, also behind a comma."""

    def complete(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        console.quieten()
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "5"
        with suppress(Exception):
            from fer_experiments.tracking.runs import recent

            return _in_list(
                incomplete,
                [
                    (run.id, run.name)
                    for run in recent(most=_MOST)
                    if run.stage in stages and run.finished
                ],
            )
        return []

    return complete


def unfinished(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Ids of runs of this command that can be resumed on this machine."""
    with suppress(Exception):
        from fer_experiments.tracking.journal import resumable_ids

        return _in_list(
            incomplete,
            [(key, name) for key, stage, name in resumable_ids() if stage == ctx.command.name],
        )
    return []


def _in_list(incomplete: str, known: Iterable[tuple[str, str]]) -> list[CompletionItem]:
    """Of values and what they are, those that begin with what stands behind the last comma."""
    before, comma, begun = incomplete.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{value}", help=about)
        for value, about in known
        if value.startswith(begun) and value not in before.split(",")
    ]
