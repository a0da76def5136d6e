"""`main`: prepare, then train, fine-tune and evaluate every backbone, compare, register."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.data import prepared as data
from fer_experiments.data.dataset import PreparedDataset
from fer_experiments.faces import preparing
from fer_experiments.reporting.tables import markdown
from fer_experiments.stages import common, compare, evaluate, finetune, prepare, register, train
from fer_experiments.stages.selection import Meant, check_fits
from fer_experiments.tracking import pages
from fer_experiments.tracking.journal import Journal
from fer_experiments.tracking.lifecycle import open_run, resumable
from fer_experiments.tracking.names import NOTE
from fer_experiments.tracking.registry import check_name, registered_name
from fer_experiments.tracking.runs import RunRecord, stages_of
from fer_experiments.tracking.views import closing_lines
from fer_experiments.tracking.writer import Writer

_SCORES = ("val/accuracy", "val/macro_f1", "test/accuracy", "test/macro_f1")


def run(
    configs: Sequence[Config],
    *,
    experiment: str | None = None,
    model_name: str | None = None,
    resumed: Journal | None = None,
) -> common.StageResult:
    """The whole job as one parent run with a nested run per stage.

    Args:
        configs: one per backbone and seed, alike in everything else.
        experiment: where to write.
        model_name: the registered model; None: `emotion-<dataset name>`.
        resumed: the journal of the run to resume; see `resume`.
    """
    if resumed is None:
        check(configs, model_name=model_name)
    first = configs[0]
    names = list(dict.fromkeys(config.model.backbone for config in configs))
    seeds = list(dict.fromkeys(str(config.fit.seed) for config in configs))
    name = f"main {' '.join(names)} {first.recipe} s{','.join(seeds)}"
    with open_run(
        "main",
        name,
        experiment=experiment,
        request={"configs": [config.stored() for config in configs], "model_name": model_name},
        resume=resumed,
    ) as writer:
        together = {"backbone": ",".join(names), "seed": ",".join(seeds)}
        # A param never changes: which split it is, is known when the data are.
        writer.params({k: v for k, v in first.flat().items() if k != "split"} | together)
        writer.tags({"recipe": first.recipe, "backbone": ",".join(names)})
        stages = _Stages(writer, stages_of(writer.run_id) if resumed is not None else [])
        prepared = stages.prepare(first)
        split = prepared.manifest["split"]
        writer.params({"split": split, "dataset_fingerprint": prepared.fingerprint})
        configs = [config.replace(split=split) for config in configs]
        # Again: a resumed run may find another registry, and what was skipped as unreadable
        # may have given the dataset its name.
        check_fits(
            model_name or registered_name(prepared.name),
            class_names=prepared.class_names,
            image_size=prepared.image_size,
        )
        scores: dict[str, float] = {}
        for config in configs:
            judged = stages.backbone(config)
            whose = config.model.backbone + (f"_s{config.fit.seed}" if len(seeds) > 1 else "")
            scores |= {
                f"{whose}/{key.replace('/', '_')}": judged[key] for key in _SCORES if key in judged
            }
            writer.metrics(scores)
        of: dict[str, Any] = {"fingerprint": prepared.fingerprint, "parent": writer}
        told = [
            *stages.once("compare", lambda: compare.run(**of)),
            *stages.once("register", lambda: register.run(model_name=model_name, **of)),
        ]
        writer.note("\n\n".join([*told[:1], "\n".join(_table(scores)), *told[1:]]))
        common.close(writer, closing_lines(writer.experiment_id), following=where_to_look())
    return common.result(writer, scores)


def check(configs: Sequence[Config], *, model_name: str | None = None) -> None:
    """Refuses at once what could only be refused later; arguments as of `run`.

    Raises:
        UsageError: unknown backbone, weights or data source; no registered model can have the
            name, or the one that has it cannot hold models of these data.
        DataError: the data cannot be read in one way.
    """
    for config in configs:
        common.for_backbone(config)
    if model_name is not None:
        check_name(model_name)
    asked = configs[0].data
    planned = data.plan(asked)
    check_fits(
        model_name or registered_name(planned.source.name),
        class_names=planned.reading.class_names,
        image_size=asked.image_size,
    )


def resume(run_id: str, *, model_name: str | None = None) -> common.StageResult:
    """Resumes a run that did not finish: stages that are done are skipped, the one that was under
    way resumes after its last epoch.

    Args:
        run_id: of the run.
        model_name: another registered model than the one that was asked for.

    Raises:
        ConfigError: no registered model can have the name.
        RunError: there is no such run on this machine.
    """
    if model_name is not None:
        check_name(model_name)
    journal = resumable(run_id, "main")
    request = journal.start.request
    configs = [Config.from_stored(flat) for flat in request["configs"]]
    return run(configs, model_name=model_name or request.get("model_name"), resumed=journal)


class _Stages:
    """Runs the stages that an earlier try has not finished."""

    def __init__(self, writer: Writer, earlier: Sequence[RunRecord]) -> None:
        self._main = writer
        # By stage, backbone and seed, the newest of each.
        self._earlier = {_which(run): run for run in earlier}

    def prepare(self, config: Config) -> PreparedDataset:
        """The prepared data."""
        if not self._is_done("prepare"):
            return prepare.run(config, parent=self._main).dataset
        return preparing.prepare(config.data)

    def backbone(self, config: Config) -> dict[str, float]:
        """Scores of the fine-tuned model."""
        trained = self._trained(
            "train", config, lambda: train.run(config, parent=self._main), train.resume
        )
        tuned = self._trained(
            "finetune",
            config,
            lambda: finetune.run({}, run_id=trained, parent=self._main),
            finetune.resume,
        )
        judged = self._done("evaluate", config)
        if judged is not None:
            return dict(judged.metrics)
        scores = evaluate.run(Meant(run_id=tuned), parent=self._main).scores
        _free_memory()
        return scores

    def once(self, stage: str, start: Callable[[], common.StageResult]) -> tuple[str, ...]:
        """What a stage that is there once says in a line; if it was done before, in its note."""
        if not self._is_done(stage):
            return start().told
        notes = (run.tags.get(NOTE) for run in self._earlier.values() if run.stage == stage)
        return tuple(note.partition("\n")[0].strip("*") for note in notes if note)

    def _trained(
        self,
        stage: str,
        config: Config,
        start: Callable[[], common.StageResult],
        resume: Callable[..., common.StageResult],
    ) -> str:
        """The id of a training run: done, resumed, or made now."""
        run = self._earlier.get(_wanted(stage, config))
        if run is None:
            return start().run_id
        if self._done(stage, config):
            return run.id
        return resume(run.id, parent=self._main).run_id

    def _done(self, stage: str, config: Config) -> RunRecord | None:
        return self._told(self._earlier.get(_wanted(stage, config)))

    def _is_done(self, stage: str) -> bool:
        """Of a stage that is there once."""
        return any(self._told(run) for run in self._earlier.values() if run.stage == stage)

    def _told(self, run: RunRecord | None) -> RunRecord | None:
        """The run, if it is finished: then that is said."""
        if run is None or not run.finished:
            return None
        console.say(f"{run.name}: done before\n")
        return run


def _table(scores: Mapping[str, float]) -> list[str]:
    """A row for each model, a column for each score."""
    models = dict.fromkeys(name.split("/")[0] for name in scores)
    columns = [c for c in _SCORES if any(n.endswith("/" + c.replace("/", "_")) for n in scores)]
    rows = [
        [model, *(f"{scores[f'{model}/' + c.replace('/', '_')]:.3f}" for c in columns)]
        for model in models
    ]
    heads = [column.replace("/", " ").replace("macro_f1", "macro-F1") for column in columns]
    return markdown(["model", *heads], rows)


def where_to_look() -> str:
    """How to see what the job did: a server has pages, a store on this machine needs one."""
    look = "open the link above"
    return look if pages.has_server() else f"make ui, then {look}"


def _which(run: RunRecord) -> tuple[str, str, str]:
    """By what a stage of this job is known: names can be edited in MLflow's pages."""
    # Older versions tagged no seed.
    seed = run.tags.get("seed") or run.params.get("seed", "")
    return run.stage, run.tags.get("backbone", ""), seed


def _wanted(stage: str, config: Config) -> tuple[str, str, str]:
    return stage, config.model.backbone, str(config.fit.seed)


def _free_memory() -> None:
    """Lets go of the backbone's graph before the next one is built."""
    import keras

    keras.utils.clear_session(free_memory=True)
