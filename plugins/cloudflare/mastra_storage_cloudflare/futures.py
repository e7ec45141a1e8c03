"""Waiting for several at once, and answers that several wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from mastra_storage import UnavailableError

T = TypeVar("T")


def of_this_loop(tasks: Iterable[asyncio.Task[T]]) -> list[asyncio.Task[T]]:
    """Those that can be waited for, without what an event loop left behind that is gone."""
    loop = asyncio.get_running_loop()
    return [task for task in tasks if task.get_loop() is loop]


async def all_of(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """What coroutines give that run together; when all have ended, the first error is raised."""
    outcomes = await asyncio.gather(*coroutines, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Let the one who waits for `future` have the error, if it waits still."""
    if isinstance(error, asyncio.CancelledError):
        future.cancel()
    elif not future.done():
        future.set_exception(error)
        future.exception()  # retrieved, even if that one is cancelled before it wakes


def given_up(task: asyncio.Task[Any]) -> BaseException | None:
    """The error for those who wait still for what a task was to do, which is over."""
    if task.cancelled():
        return UnavailableError("the task that was at it was cancelled; try again")
    return task.exception()
