"""`train`: a new head on a frozen backbone."""

from __future__ import annotations

from fer_experiments import console
from fer_experiments.config import Config
from fer_experiments.run_names import run_name
from fer_experiments.stages import common
from fer_experiments.stages.fitting import Job, begin, fit_and_log, summary
from fer_experiments.tracking.journal import Journal
from fer_experiments.tracking.lifecycle import open_run, resumable
from fer_experiments.tracking.writer import Writer


def run(
    config: Config,
    *,
    experiment: str | None = None,
    parent: Writer | None = None,
    resumed: Journal | None = None,
    offline: bool = False,
) -> common.StageResult:
    """Trains the head and logs the whole model.

    Args:
        config: what to train.
        experiment: where to write.
        parent: the run of the job that this is a stage of.
        resumed: the journal of the run to resume; see `resume`.
        offline: nothing goes to MLflow now.
    """
    config = common.for_backbone(config)
    with open_run(
        "train",
        run_name(config, "train"),
        experiment=experiment,
        parent=parent,
        tags=common.whose(config),
        request={"config": config.stored()},
        resume=resumed,
        offline=offline,
    ) as writer:
        config, prepared = common.prepare(config)
        begin(writer, config, prepared)
        console.say(
            f"{run_name(config, 'train')}: {prepared.size('train')} training images of "
            f"{prepared.name}"
        )
        console.load_keras()
        from fer_experiments.models import classifier
        from fer_experiments.training.phases import Phase

        model = classifier.build(
            config.model,
            image_size=prepared.image_size,
            classes=len(prepared.class_names),
            seed=config.fit.seed,
        )
        phase = Phase(
            learning_rate=config.head_training.learning_rate,
            epochs=config.head_training.epochs,
            first_epoch=1,
        )
        own = config.finetune
        later = classifier.to_unfreeze(
            model, own.unfreeze_layers, train_batchnorm=own.train_batchnorm
        )
        job = Job(stage="train", phase=phase)
        result = fit_and_log(writer, model, config, prepared, job, later=later)
        following = common.following(writer, "finetune", run_id=result.run_id)
        common.close(writer, summary(config, result, "train"), following=following)
    return common.result(writer, result.scores)


def resume(
    run_id: str, *, offline: bool = False, parent: Writer | None = None
) -> common.StageResult:
    """Resumes a run that did not finish, in the same run, to the same result.

    Raises:
        RunError: there is no such run on this machine.
    """
    journal = resumable(run_id, "train", nested=parent is not None)
    config = Config.from_stored(journal.start.request["config"])
    return run(config, parent=parent, resumed=journal, offline=offline)
