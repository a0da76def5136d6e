"""A model as one file: the description that stands in it, and how the file is opened.

.onnx    ONNX, read by onnxruntime; the description is a property of its metadata
.tflite  LiteRT, read by ai-edge-litert; the description lies in a zip behind the model, as
         LiteRT's associated files do
.keras   Keras; the file is a zip itself and holds the description too
"""

from __future__ import annotations

import importlib
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from fer_experiments import __version__, console
from fer_experiments.data.files import expanded, is_file
from fer_experiments.data.images import PixelRule
from fer_experiments.errors import RunError, UsageError, quote, summarize
from fer_experiments.inference.predictor import Identity, Predictor

# What each format's files end in.
ENDINGS = {"onnx": ".onnx", "litert": ".tflite", "keras": ".keras"}
# Under this name the description stands in ONNX's metadata, and as file in the zips.
PROPERTY, MEMBER = "fer_experiments", "fer_experiments.json"
# Raised when a field changes its meaning; a file of a higher number is refused.
_FORMAT = 1
_LARGEST_DESCRIPTION = 2**20  # bytes
_BATCH = 64  # images that go through at a time
_CONTENT = "no description by fer export"

Classify = Callable[[np.ndarray], np.ndarray]  # see `Predictor`


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a model's file tells beside the network, which takes raw grey pixels.

    The network's input is (batch, S, S, 1) float32, 0 black to 255 white; its output (batch, C)
    float32, probabilities in the order of `class_names`.
    """

    class_names: tuple[str, ...]
    image_size: int  # S, pixels
    rule: PixelRule
    model_uri: str  # models:/m-…, what was exported
    run_id: str  # of the run that logged it
    export_run_id: str  # of the run that wrote and checked the file
    versions: tuple[str, ...] = ()  # registered then, such as emotion-fer2013/3
    int8: bool = False
    suite_version: str = field(default=__version__)

    def to_json(self) -> str:
        """One JSON object."""
        about = asdict(self)
        about |= {"format": _FORMAT, **asdict(self.rule)}
        del about["rule"]
        side = self.image_size
        about["input"] = {
            "shape": ["batch", side, side, 1],
            "type": "float32",
            "values": "grey, 0 black to 255 white; the network scales them itself",
        }
        about["output"] = {
            "shape": ["batch", len(self.class_names)],
            "type": "float32",
            "values": "probabilities, in the order of class_names",
        }
        return json.dumps(about)

    @classmethod
    def from_json(cls, text: str | bytes) -> Description:
        """The description that `to_json` wrote.

        Raises:
            ValueError: it is none, or one of a newer version; the message says so in a few words.
        """
        try:
            about = json.loads(text)
            if int(about["format"]) > _FORMAT:
                raise ValueError(f"a description of a newer version, {about['suite_version']}")
            return cls(
                class_names=tuple(map(str, about["class_names"])),
                image_size=int(about["image_size"]),
                rule=PixelRule(
                    crop=str(about["crop"]),
                    white={str(k): float(v) for k, v in about["white"].items()},
                    detector=str(about.get("detector", "none")),
                ),
                versions=tuple(map(str, about["versions"])),
                int8=bool(about["int8"]),
                **{
                    name: str(about[name])
                    for name in ("model_uri", "run_id", "export_run_id", "suite_version")
                },
            )
        except (LookupError, TypeError, AttributeError, json.JSONDecodeError):
            raise ValueError(_CONTENT) from None


def is_model_file(named: str) -> bool:
    """Whether a model is named as a file, and not by its address in MLflow."""
    address = re.match(r"[A-Za-z][\w+.-]+:/", named)  # not C:/
    return not address and Path(named).suffix.lower() in ENDINGS.values()


def open_predictor(path: str | PathLike[str]) -> Predictor:
    """The predictor in a file that `fer export` wrote.

    An ONNX file needs onnxruntime and NumPy alone: neither Keras, TensorFlow nor MLflow.

    Raises:
        UsageError: there is no such file, it is none of ours, it is damaged, or what reads it is
            not installed.
    """
    named = fspath(path)
    file = expanded(named)
    opening = {".onnx": _onnx, ".tflite": _litert, ".keras": _keras}.get(file.suffix.lower())
    if opening is None or not is_file(file):
        raise UsageError(
            f"Expected a model file that ends in {', '.join(ENDINGS.values())}. Received: "
            f"{quote(named, 200)}" + ("" if opening is None else ", which is no file")
        )
    try:
        classify, description = opening(file)
    except UsageError:
        raise
    # The three libraries raise almost anything on damaged files.
    except Exception as error:
        raise RunError(
            f"Expected a model file that fer export wrote. Received: {quote(named, 200)} "
            f"({summarize(error)})"
        ) from None
    return Predictor(
        classify=classify,
        class_names=description.class_names,
        image_size=description.image_size,
        rule=description.rule,
        identity=Identity(
            address=file.name,
            uri=description.model_uri,
            run_id=description.run_id,
            versions=description.versions,
        ),
    )


def check_installed(*modules: str) -> None:
    """Raises UsageError, with what to install, if one of these modules is missing."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"Expected {', '.join(modules)} to be installed. Missing: {', '.join(missing)}; "
            "run pip install 'fer_experiments[export]'"
        )


def _onnx(file: Path) -> tuple[Classify, Description]:
    check_installed("onnxruntime")
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised as well
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    description = Description.from_json(about.get(PROPERTY, "{}"))
    [given] = session.get_inputs()

    def forward(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(session.run(None, {given.name: pixels})[0])

    return partial(_in_batches, forward), description


def _litert(file: Path) -> tuple[Classify, Description]:
    description = _in_zip(file)
    check_installed("ai_edge_litert")
    litert: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_path=str(file), num_threads=_cores())
    [given], [found] = interpreter.get_input_details(), interpreter.get_output_details()
    with console.stderr_aside():  # where it says by which kernels it computes
        interpreter.allocate_tensors()
    ready = [tuple(given["shape"])]  # the shape that memory is laid out for

    def forward(pixels: np.ndarray) -> np.ndarray:
        if ready != [pixels.shape]:
            interpreter.resize_tensor_input(given["index"], pixels.shape)
            interpreter.allocate_tensors()
            ready[:] = [pixels.shape]
        interpreter.set_tensor(given["index"], pixels)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(found["index"]))

    return partial(_in_batches, forward), description


def _keras(file: Path) -> tuple[Classify, Description]:
    description = _in_zip(file)
    check_installed("keras")
    import keras

    from fer_experiments.evaluation.predictions import predict

    model = keras.saving.load_model(file, compile=False, safe_mode=True)
    return partial(predict, model), description


def _in_zip(file: Path) -> Description:
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.getinfo(MEMBER).file_size > _LARGEST_DESCRIPTION:
                raise ValueError(_CONTENT)
            return Description.from_json(archive.read(MEMBER))
    except (KeyError, zipfile.BadZipFile):
        raise ValueError(_CONTENT) from None


def _in_batches(forward: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """(N, S, S) uint8 to (N, C) float32, N above 0."""
    found = [
        forward(pixels[start : start + _BATCH].astype(np.float32)[..., np.newaxis])
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(found)


def _cores() -> int:
    """Processors that this process may use; LiteRT takes one unless it is told."""
    import os

    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
