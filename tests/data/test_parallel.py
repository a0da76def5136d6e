import os
import signal
from functools import partial

import pytest

from fer_experiments.data.parallel import in_order

# What processes of their own can import: `start` gives a function that does a task.
POWERS = partial(partial, pow, 2)


@pytest.mark.parametrize("helpers", [False, True])
def test_results_come_in_the_order_of_the_tasks(helpers: bool) -> None:
    assert list(in_order(POWERS, range(50), helpers=helpers)) == [2**n for n in range(50)]


@pytest.mark.parametrize("helpers", [False, True])
def test_no_tasks_no_results(helpers: bool) -> None:
    assert list(in_order(POWERS, [], helpers=helpers)) == []


@pytest.mark.parametrize("helpers", [False, True])
def test_an_error_in_a_task_or_in_the_tasks_arrives(helpers: bool) -> None:
    with pytest.raises(TypeError):
        list(in_order(POWERS, [1, "two"], helpers=helpers))

    def tasks():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(in_order(POWERS, tasks(), helpers=helpers))


@pytest.mark.parametrize("helpers", [False, True])
def test_tasks_are_read_as_they_are_needed(helpers: bool) -> None:
    read = []

    def tasks():
        for n in range(1000):
            read.append(n)
            yield n

    results = in_order(POWERS, tasks(), helpers=helpers)
    assert next(results) == 1
    assert len(read) <= 2 * (os.cpu_count() or 1) + 1
    results.close()


def test_without_helpers_left_the_work_is_done_here() -> None:
    # A process that cannot even import what it shall do breaks the pool.
    work = partial(_here, os.getpid())
    assert list(in_order(work, range(20), helpers=True)) == list(range(20))


def _here(parent: int):
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return int
