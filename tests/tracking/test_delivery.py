"""Events are brought to a store each once: one after the other, or by several runs at once."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from mlflow.tracking import MlflowClient

from fer_experiments import console
from fer_experiments.errors import TrackingError
from fer_experiments.tracking.delivery import MlflowDelivery
from fer_experiments.tracking.events import Artifact, End, Metrics, Params, Tags, UsedDataset
from fer_experiments.tracking.journal import Journal

AT_ONCE = 4


# MLflow registers its source for folders twice; `fer` shows no warnings.
@pytest.mark.filterwarnings("ignore:The specified dataset source can be interpreted:UserWarning")
def test_runs_that_log_the_same_images_for_the_first_time_at_once(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", str(fresh_store / "data"))
    journals = [
        Journal.create(stage="train", name="a", tags={}, experiment="at once")
        for _ in range(AT_ONCE)
    ]
    deliveries = [MlflowDelivery(journal) for journal in journals]
    for delivery in deliveries:
        delivery.deliver_now()
    digests = [f"digest {n}" for n in range(8)]  # each is one chance of a collision
    barrier = Barrier(AT_ONCE)

    def log(i: int) -> None:
        for digest in digests:
            arrays = [[[2, 48, 48], "uint8"], [[2], "int64"]]
            used = {"name": "faces", "digest": digest, "source": "drawn", "split": "train"}
            journals[i].append(UsedDataset(time=0, arrays=arrays, **used))
            barrier.wait(timeout=60)  # else a delivery that failed would keep the others waiting
            deliveries[i].deliver_now()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(log, range(AT_ONCE)))
    for journal in journals:
        run = MlflowClient().get_run(str(journal.run_id))
        assert sorted(used.dataset.digest for used in run.inputs.dataset_inputs) == digests


def begun(folder: Path) -> Journal:
    """A journal whose run stands in MLflow."""
    journal = Journal.create(stage="train", name="a", tags={}, experiment="events")
    MlflowDelivery(journal).deliver_now()
    assert journal.delivered == 1
    return journal


def artifact(journal: Journal, name: str, content: str) -> None:
    with journal.new_file(name) as file:
        file.write_text(content)
    journal.append(Artifact(time=0, file=f"{file.parent.name}/{file.name}"))


def test_an_event_counts_as_delivered_when_mlflow_has_it_and_not_before(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", str(fresh_store / "data"))
    journal = begun(fresh_store)
    journal.append(Tags(time=0, values={"first": "1"}))
    artifact(journal, "report.txt", "content")
    journal.append(Tags(time=0, values={"last": "1"}))
    place = MlflowClient().get_run(str(journal.run_id)).info.artifact_uri
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_text("a file where the folder of artifacts has to be")

    with pytest.raises(TrackingError):
        MlflowDelivery(journal).deliver_now()
    assert journal.delivered == 2  # the start and the first tag
    assert [type(event) for event in journal.pending] == [Artifact, Tags]
    assert "last" not in MlflowClient().get_run(str(journal.run_id)).data.tags
    journal.close()

    Path(place).unlink()
    again = Journal.open(journal.folder)  # as after the process was killed
    assert again is not None
    assert again.delivered == 2
    MlflowDelivery(again).deliver_now()
    assert again.pending == []
    run = MlflowClient().get_run(str(journal.run_id))
    assert (run.data.tags["first"], run.data.tags["last"]) == ("1", "1")
    assert (Path(place) / "report.txt").read_text() == "content"
    again.remove()


def test_each_kind_of_event_that_fails_stays_pending(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", str(fresh_store / "data"))
    events = [
        Params(time=0, values={"epochs": "1"}),
        Tags(time=0, values={"a": "b"}),
        Metrics(time=0, values={"loss": 1.0}, step=0),
        End(time=0, status="FINISHED"),
    ]
    for event in events:
        journal = begun(fresh_store)
        # A run that was deleted in MLflow takes nothing.
        MlflowClient().delete_run(str(journal.run_id))
        journal.append(event)
        with pytest.raises(TrackingError):
            MlflowDelivery(journal).deliver_now()
        assert journal.delivered == 1, event
        journal.remove()


@pytest.mark.filterwarnings("ignore")  # of MLflow's own type hints, as in `fer`
def test_output_is_left_alone_while_a_model_is_delivered(
    fresh_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from fer_experiments.data.prepared import prepare
    from fer_experiments.data.seen import by_training
    from fer_experiments.models import classifier
    from fer_experiments.recipes import resolve
    from fer_experiments.tracking.lifecycle import open_run

    console.load_keras()
    config = resolve("demo", {"backbone": "tiny", "synthetic_count": 70})
    prepared = prepare(config.data)
    model = classifier.build(config.model, image_size=prepared.image_size, classes=7, seed=0)
    ours = sys.stdout
    lines = 0
    capfd.readouterr()
    with open_run("train", "tiny") as writer:
        seen = by_training(prepared, config.fit)
        writer.model(model, config=config, prepared=prepared, seen=seen)
        # The delivery's own thread is at it; where it fails, the end of the run says why.
        while writer.journal.pending and lines < 6000:
            assert sys.stdout is ours
            console.say("a line of the command")
            lines += 1
            time.sleep(0.01)
    assert MlflowClient().get_run(writer.run_id).data.tags["model_uri"]
    out = capfd.readouterr().out
    assert out == "a line of the command\n" * lines
