"""`doctor`: what this machine has, and what it can reach."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from fer_experiments import __version__, console
from fer_experiments.data.storage import data_home
from fer_experiments.tracking import store

_PACKAGES = ("mlflow", "tensorflow", "jax", "keras", "numpy", "scikit-learn", "pillow", "kagglehub")
# What Linux calls a processor's instructions for it: Intel's and AMD's, and Arm's.
_BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}
_HOSTS = {"Kaggle": "www.kaggle.com", "ImageNet weights": "storage.googleapis.com"}


def run() -> list[tuple[str, str]]:
    """Findings as (what, what was found), in the order in which they are shown."""
    findings = [("fer_experiments", __version__), ("Python", platform.python_version())]
    findings += [(package, _version(package)) for package in _PACKAGES]
    findings += [
        ("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"),
        ("bfloat16", _attempt(_bfloat16)),
        ("Keras backend", _attempt(_backend)),
        ("devices", _attempt(_devices)),
        ("CPU kernels", _attempt(_kernels)),
        ("MLflow store", _attempt(store.describe)),
        ("data home", _attempt(_home)),
    ]
    findings += [(what, _reachable(host)) for what, host in _HOSTS.items()]
    return findings


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _attempt(look: Callable[[], str]) -> str:
    """What `look` finds; a doctor reports a failure, it does not fail."""
    try:
        return look()
    except Exception as error:
        return f"failed: {(str(error) or type(error).__name__).splitlines()[0][:160]}"


def _backend() -> str:
    console.load_keras()
    import keras

    return str(keras.backend.backend())


def _bfloat16() -> str:
    """Whether the processor computes in it; else precision=mixed_bfloat16 only costs time."""
    processor = Path("/proc/cpuinfo")
    if not processor.exists():
        return "unknown, as this system has no /proc/cpuinfo"
    found = _BFLOAT16.intersection(processor.read_text(encoding="utf-8", errors="replace").split())
    return f"the processor has {', '.join(sorted(found))}" if found else "not in the processor"


def _devices() -> str:
    import keras

    return ", ".join(keras.distribution.list_devices()) or "cpu only"


def _kernels() -> str:
    """Whose convolutions a CPU runs; `console.load_keras` has asked for oneDNN's."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return "the backend's own"
    asked = os.environ["TF_ENABLE_ONEDNN_OPTS"]
    return "oneDNN's" if asked == "1" else f"TensorFlow's (TF_ENABLE_ONEDNN_OPTS={asked})"


def _home() -> str:
    home = data_home()
    existing = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    datasets = [p.parent.name for p in home.glob("*/manifest.json")]
    held = f"holds {', '.join(sorted(datasets))}" if datasets else "holds nothing yet"
    return f"{home}, {free:.0f} GB free, {held}"


def _reachable(host: str) -> str:
    try:
        with socket.create_connection((host, 443), timeout=3):
            return f"{host} is reachable"
    except OSError:
        return f"{host} is not reachable from here"
