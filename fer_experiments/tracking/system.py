"""The load on the machine while a run is open: processor, memory, disk, network, accelerator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from fer_experiments.errors import FerError
from fer_experiments.tracking.writer import Writer


@contextmanager
def watching(writer: Writer, seconds: float) -> Iterator[None]:
    """Writes `system/…` every so many seconds.

    MLflow's own thread would go around the journal, and give up when the server is away once.
    """
    stopped = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(writer, seconds, stopped), daemon=True, name="system"
    )
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _watch(writer: Writer, seconds: float, stopped: threading.Event) -> None:
    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(Exception):  # no accelerator, or no library that knows it
        monitors.append(GPUMonitor())
    step = writer.journal.next_step("system/cpu_utilization_percentage")
    while not stopped.wait(min(seconds, threading.TIMEOUT_MAX)):
        values: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        with suppress(FerError):  # the run itself will hear of it
            writer.metrics({f"system/{n}": v for n, v in values.items()}, step=step)
        step += 1
