"""Sides that run each in a process of its own, as their users run them.

What one of them keeps in memory, or leaves there for the garbage collector, is not the others'
business; in one process it would make all of them slower.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from _measure import Absent, Failure
from _sides import Side

P = ParamSpec("P")
T = TypeVar("T")


class Apart:
    """A side in a process of its own."""

    def __init__(self, kind: type[Side], connection: Connection) -> None:
        self.kind = kind
        self.name = kind.name
        self._connection = connection

    async def do(
        self,
        work: Callable[Concatenate[Side, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What `work(side, …)`, a function of a module, gives over there.

        Raises `Absent` as it does, and `Failure` for whatever else is raised there.
        """
        found: T = await asyncio.to_thread(self._ask, (work, args, kwargs))
        return found

    def _ask(self, asked: Any) -> Any:
        try:
            self._connection.send(asked)
            found, absent, failure = self._connection.recv()
        except (EOFError, OSError):
            raise Failure("its process ended") from None
        if absent:
            raise Absent
        if failure:
            raise Failure(failure)
        return found


@asynccontextmanager
async def apart(kinds: Sequence[type[Side]], directory: Path) -> AsyncIterator[list[Apart]]:
    """These sides, open, each in its process."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_started(kind, directory)) for kind in kinds]


@asynccontextmanager
async def _started(kind: type[Side], directory: Path) -> AsyncIterator[Apart]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(kind, there, directory), daemon=True)
    process.start()
    there.close()
    try:
        side = Apart(kind, here)
        await side.do(_open, directory)
        yield side
        with suppress(Failure):  # which its measurements say already
            await side.do(_close)
    finally:
        here.close()
        process.join()


async def _open(side: Side, directory: Path) -> None:
    await side.open(directory)


async def _close(side: Side) -> None:
    await side.close()


def _serve(kind: type[Side], connection: Connection, directory: Path) -> None:
    asyncio.run(_answer(kind(), connection))


async def _answer(side: Side, connection: Connection) -> None:
    while True:
        try:
            work, args, kwargs = await asyncio.to_thread(connection.recv)
        except EOFError:
            return
        found, absent, failure = None, False, ""
        try:
            found = await work(side, *args, **kwargs)
        except Absent:
            absent = True
        except Exception as exc:  # noqa: BLE001  (the report names it)
            traceback.print_exc()
            failure = type(exc).__name__
        connection.send((found, absent, failure))
