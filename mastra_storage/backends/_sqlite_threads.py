"""Threads for what blocks. Handing over to one is most of what a small read costs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from mastra_storage.backends._sqlite_handover import Handover

A = TypeVar("A")
T = TypeVar("T")


class _Job(NamedTuple):
    work: Callable[[Any], Any]
    argument: Any
    done: asyncio.Future[Any]


class Threads:
    """A few threads, started as they are needed.

    An executor's two futures, lock and semaphore would cost half as much again for each call.
    """

    def __init__(self, most: int, name: str, handover: Handover) -> None:
        self._most = most
        self._name = name
        self._handover = handover
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0

    @property
    def are_idle(self) -> bool:
        """Whether nothing that was submitted is under way."""
        return not self._under_way

    def submit(self, work: Callable[[A], T], argument: A) -> asyncio.Future[T]:
        """Call `work` in a thread; a caller that is cancelled leaves it to run to its end."""
        done = asyncio.get_running_loop().create_future()
        self._under_way += 1
        if self._under_way > len(self._threads) < self._most:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(_Job(work, argument, done))
        return done

    def stop(self) -> None:
        """Finish what was submitted, and end the threads. Blocks."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            result = error = None
            try:
                result = job.work(job.argument)
            except Exception as exc:  # noqa: BLE001  (goes to the caller, who waits)
                error = exc
            self._handover.call(self._settle, job.done, result, error)
            del job, result, error  # not to be kept alive until the next one comes

    def _settle(self, done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        self._under_way -= 1
        if done.done():
            return  # its caller was cancelled
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
