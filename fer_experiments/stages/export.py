"""`export`: a model as one file, checked against the model itself."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer_experiments import console
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.data.files import as_text, expanded, is_folder
from fer_experiments.errors import ConfigError, DataError, FerError, UsageError, quote
from fer_experiments.evaluation import comparison
from fer_experiments.evaluation.parity import accuracy_shortfalls, parity
from fer_experiments.inference import export as exporting
from fer_experiments.inference.files import ENDINGS, Description, check_installed, open_predictor
from fer_experiments.run_names import run_name
from fer_experiments.stages import common, evaluate
from fer_experiments.stages.datasets import dataset_of
from fer_experiments.stages.selection import MODEL_STAGES, answered, predictor
from fer_experiments.tracking import names, registry
from fer_experiments.tracking.lifecycle import open_run
from fer_experiments.tracking.models import LoggedModel, load
from fer_experiments.tracking.registry import Version
from fer_experiments.tracking.runs import get_run
from fer_experiments.tracking.writer import Writer

if TYPE_CHECKING:
    import keras

_FILE, _MODEL = "the file", "the model"


@dataclass(frozen=True, kw_only=True)
class Exported(common.StageResult):
    """With the path of the file."""

    file: str


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Which model becomes which file."""

    form: str
    int8: bool
    path: Path
    logged: LoggedModel
    versions: tuple[Version, ...]  # registered ones that hold the model


@dataclass(frozen=True, kw_only=True)
class _Check:
    """What was measured of a file, in numbers and words, and what is wrong with it."""

    metrics: dict[str, float]
    lines: list[str]
    shortfalls: list[str]


def run(
    *,
    form: str = "onnx",
    int8: bool = False,
    model: str | None = None,
    model_name: str | None = None,
    dataset: str | None = None,
    out: str | None = None,
    experiment: str | None = None,
) -> Exported:
    """Writes a model as one file that gives the same answers, or none.

    It is judged on the val images of the data that the model was trained on: in float32 it has to
    give the model's probabilities (`evaluation.parity`); with int8, or where the model computes in
    mixed precision, its accuracy has to stay within half a point of the model's.

    Args:
        form: onnx, litert or keras.
        int8: store LiteRT's weights in 8 bits.
        model: a model URI.
        model_name: the registered model whose champion is meant; None: the only one.
        dataset: check on val of this data instead.
        out: where to write; None: in the working folder, named after the model.
        experiment: where to write the run.

    Raises:
        UsageError: unknown format, no such model, a package is missing, Keras has another backend
            than TensorFlow.
        DataError: the val images are not to be had, or the file cannot be written.
        FerError: the file does not give the same answers; it is removed.
    """
    _check_form(form, int8=int8)
    check_installed(*exporting.NEEDS[form])
    logged = predictor(model, model_name)
    versions = tuple(registry.holding(logged.uri))
    path = _place(out, form, logged, versions)
    asked = _Asked(form=form, int8=int8, path=path, logged=logged, versions=versions)
    source = get_run(logged.source_run_id, stages=MODEL_STAGES)
    if dataset is not None:
        common.check_source(evaluate.with_data(logged.config, {"dataset": dataset}))
    console.load_keras()
    _check_backend(form)
    with open_run(
        "export",
        run_name(logged.config, "export"),
        experiment=experiment,
        tags={
            **common.whose(logged.config),
            names.SOURCE_RUN: logged.source_run_id,
            names.SOURCE_STAGE: source.stage,
            names.MODEL_URI: logged.uri,
        },
    ) as writer:
        prepared = _data(logged, dataset)
        common.identify(writer, logged.config, prepared)
        writer.params({"format": form, "int8": int8})
        writer.dataset(prepared, split="val")
        scores = _export(writer, asked, prepared)
    return Exported(**vars(common.result(writer, scores)), file=as_text(str(path.absolute())))


def _export(writer: Writer, asked: _Asked, prepared: PreparedDataset) -> dict[str, float]:
    """Writes the file, checks it, and tells of it; gives what was measured."""
    with _beside(asked.path) as temporary:
        description = _describe(asked, writer.run_id)
        check, seconds = _write(load(asked.logged), temporary, description, prepared)
        size = temporary.stat().st_size / 1e6
        found = {**check.metrics, "file/megabytes": size, "time/export_seconds": seconds}
        writer.metrics(found)
        if check.shortfalls:
            raise FerError(_refusal(asked.form, prepared, check.shortfalls))
    writer.file(asked.path, asked.path.name)
    kind = f"{asked.form}{'_int8' if asked.int8 else ''}"
    for version in asked.versions:
        told = f"{asked.path.name} of run {writer.run_id}"
        registry.set_tags(version, {f"{names.EXPORTED}{kind}": told})
    named = as_text(str(asked.path))
    lines = [
        f"{named}: {size:.1f} MB, {kind.replace('_', ' ')}",
        *check.lines,
        f"model  {answered(asked.logged, asked.versions)}",
    ]
    writer.note("\n\n".join(lines))
    common.close(writer, lines, following=f"{common.command('predict', model=named)} photo.jpg")
    return found


def _check_form(form: str, *, int8: bool) -> None:
    if form not in ENDINGS:
        raise ConfigError(
            f"Expected format to be one of {', '.join(ENDINGS)}. Received: format={quote(form)}"
        )
    if int8 and form != "litert":
        raise UsageError(f"Expected int8 with format=litert alone. Received: format={form}")


def _check_backend(form: str) -> None:
    import keras

    backend = keras.config.backend()
    if form in exporting.NEEDS_TENSORFLOW and backend != "tensorflow":
        raise UsageError(
            f"Expected KERAS_BACKEND=tensorflow to export as {form}. Received: {backend}; export "
            "with that, or pass --format keras"
        )


def _place(out: str | None, form: str, logged: LoggedModel, versions: Sequence[Version]) -> Path:
    ending = ENDINGS[form]
    if out is None:
        name = f"model-{logged.source_run_id[:8]}"
        if versions:
            name = f"{versions[0].name}-{versions[0].number}"
        return Path(name + ending)
    path = expanded(out)
    if path.suffix != ending or is_folder(path) or not is_folder(path.parent):
        raise UsageError(
            f"Expected out to be a file that ends in {ending}, in a folder that exists. Received: "
            f"out={quote(out, 200)}"
        )
    return path


def _data(logged: LoggedModel, dataset: str | None) -> PreparedDataset:
    """The data on whose val the file is checked."""
    if dataset is not None:
        config = evaluate.with_data(logged.config, {"dataset": dataset})
        _, prepared = common.prepare(config, logged.rule)
        evaluate.check_fit(logged, prepared)
    else:
        try:
            prepared = dataset_of(logged.config.data, logged.dataset_fingerprint)
        except (UsageError, DataError) as error:
            raise DataError(
                f"The file is checked on the val images of the model's data. {error}; or pass "
                "--dataset with other data of these classes"
            ) from None
    if not prepared.size("val"):
        raise DataError(f"Expected val images to check the file on. Found: none in {prepared.name}")
    return prepared


def _describe(asked: _Asked, run_id: str) -> Description:
    logged = asked.logged
    return Description(
        class_names=logged.class_names,
        image_size=logged.image_size,
        rule=logged.rule,
        model_uri=logged.uri,
        run_id=logged.source_run_id,
        export_run_id=run_id,
        versions=tuple(f"{v.name}/{v.number}" for v in asked.versions),
        int8=asked.int8,
    )


def _write(
    network: keras.Model, path: Path, description: Description, prepared: PreparedDataset
) -> tuple[_Check, float]:
    """Writes the file and reads it again; also the seconds that writing took."""
    from fer_experiments.evaluation.predictions import predict
    from fer_experiments.models.precision import in_float32, is_float32

    started = time.perf_counter()
    plain = in_float32(network)
    exporting.write(plain, path, description)
    seconds = time.perf_counter() - started
    images, labels = prepared.split("val")
    found = open_predictor(path).probabilities(images)
    reference = predict(plain, images)
    same = parity(found, reference)
    own = reference if is_float32(network) else predict(network, images)
    accuracy, before = (float((p.argmax(axis=1) == labels).mean()) for p in (found, own))
    metrics = {
        "parity/images": float(same.images),
        "parity/largest_difference": same.largest_difference,
        "parity/same_class": same.same_class,
        "parity/accuracy": accuracy,
        "parity/accuracy_of_model": before,
    }
    whose = "the model's" if is_float32(network) else "those of the model in float32"
    lines = [
        f"on {same.images} val images of {prepared.name}: probabilities differ by at most "
        f"{same.largest_difference:.2g} from {whose}, {same.same_class:.2%} of the images are "
        "named alike"
    ]
    shortfalls = [] if description.int8 else same.shortfalls
    if description.int8 or not is_float32(network):
        [pair] = comparison.pairs(
            {_FILE: found, _MODEL: own}, labels, classes=len(prepared.class_names)
        )
        lines.append(_accuracy_line(accuracy, before, pair))
        shortfalls += accuracy_shortfalls(accuracy, before)
        if (tested := pair.accuracy) is not None:
            metrics |= {f"parity/difference_{n}": v for n, v in vars(tested).items()}
    return _Check(metrics=metrics, lines=lines, shortfalls=shortfalls), seconds


def _accuracy_line(accuracy: float, before: float, pair: comparison.Pair) -> str:
    line = f"accuracy {accuracy:.2%}, the model's own {before:.2%}"
    tested = pair.accuracy
    if tested is None:
        return f"{line}; not tested: {pair.not_compared}"
    return (
        f"{line}: difference {100 * tested.value:+.2f} points (95 % interval "
        f"{100 * tested.low:+.2f} to {100 * tested.high:+.2f}, p {tested.p:.2g})"
    )


def _refusal(form: str, prepared: PreparedDataset, shortfalls: Sequence[str]) -> str:
    return (
        f"Expected the {form} file to say what the model says on the {prepared.size('val')} val "
        f"images of {prepared.name}. Found: {'; '.join(shortfalls)}; the file was removed"
    )


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A temporary file with the same ending, which takes its place if all goes well."""
    temporary = path.with_name(f".writing-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        place = quote(path.absolute(), 300)
        raise DataError(
            f"{place} cannot be written: {error.strerror or error}; free some room or pass --out"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
