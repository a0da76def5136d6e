"""Work on many small things with all cores."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(
    start: Callable[[], Callable[[Task], Result]], tasks: Iterable[Task], *, helpers: bool
) -> Generator[Result, None, None]:
    """What the tasks come to, in their order.

    Processes and not threads: Pillow and the parsing of numbers hold the interpreter's lock, and
    two threads took longer than one.

    Args:
        start: called once in each process; gives the function that does a task.
        tasks: read as they are needed, so that they need not fit in memory.
        helpers: let other processes do the work; worth it from a second of work on.
    """
    todo = iter(tasks)
    left: deque[Task] = deque()
    if helpers:
        # Not forked: MLflow's and TensorFlow's threads would be cut off in the child.
        cores = os.cpu_count() or 1
        pool = ProcessPoolExecutor(
            cores, mp_context=get_context("spawn"), initializer=_Helper.begin, initargs=(start,)
        )
        running: deque[Future[Result]] = deque()
        try:
            for task in todo:
                left.append(task)
                running.append(pool.submit(_Helper.do, task))
                if len(running) > 2 * cores:
                    yield running.popleft().result()
                    left.popleft()
            while running:
                yield running.popleft().result()
                left.popleft()
        except BrokenProcessPool:
            pass  # the system has no room for them, or a script without a main guard calls us
        finally:
            pool.shutdown(cancel_futures=True)
    work = start()
    for task in left:
        yield work(task)
    for task in todo:
        yield work(task)


class _Helper:
    """A helping process."""

    work: Callable[[Any], Any]

    @classmethod
    def begin(cls, start: Callable[[], Callable[[Any], Any]]) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C too and ends us
        threading.Thread(target=cls._end_with_parent, daemon=True).start()
        cls.work = staticmethod(start())

    @staticmethod
    def _end_with_parent() -> None:
        """A parent that is killed cannot end us, and the queue would never end either."""
        if parent := parent_process():
            parent.join()
            os._exit(1)

    @classmethod
    def do(cls, task: Any) -> Any:
        return cls.work(task)
