"""Several runs written to one store at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from mlflow.tracking import MlflowClient

from fer_experiments.tracking.delivery import MlflowDelivery
from fer_experiments.tracking.journal import Journal

AT_ONCE = 4


# MLflow registers its source for folders twice; `fer` shows no warnings.
@pytest.mark.filterwarnings("ignore:The specified dataset source can be interpreted:UserWarning")
def test_runs_that_log_the_same_images_for_the_first_time_at_once(
    fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_DATA_HOME", str(fresh_store / "data"))
    journals = [
        Journal.create(name="a", tags={}, adopt=None, parent=None, experiment="at once")
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
            journals[i].append(
                "dataset", name="faces", digest=digest, source="drawn", split="train", arrays=arrays
            )
            barrier.wait(timeout=60)  # else a delivery that failed would keep the others waiting
            deliveries[i].deliver_now()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(log, range(AT_ONCE)))
    for journal in journals:
        run = MlflowClient().get_run(str(journal.run_id))
        assert sorted(used.dataset.digest for used in run.inputs.dataset_inputs) == digests
