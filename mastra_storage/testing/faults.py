"""A backend that fails, stalls or is cancelled where a test says so."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

from mastra_storage.backend import Backend, Op, Query, Result
from mastra_storage.errors import UnavailableError
from mastra_storage.schema import Key, Row, Table
from mastra_storage.testing._wrapper import Wrapper

__all__ = ["FaultyBackend", "Verb"]

T = TypeVar("T")

Verb: TypeAlias = Literal["open", "close", "get", "query", "write", "watch", "tables"]


@dataclass
class _Fault:
    """What happens at the calls of a verb from the `nth` that matches on, `times` times."""

    verb: Verb
    act: Callable[[], Awaitable[None]]
    nth: int
    times: int
    after: bool
    matching: Callable[..., bool]

    def takes(self, args: tuple[Any, ...]) -> bool:
        """Count a call; whether it is one that the fault is for."""
        if self.times == 0 or not self.matching(*args):
            return False
        self.nth -= 1
        if self.nth > 0:
            return False
        self.times -= 1
        return True


class FaultyBackend(Wrapper):
    """Any backend, with faults that a test scripts beforehand.

        faulty = FaultyBackend(SqliteBackend(path))
        faulty.fail("write")                                 # the next write
        faulty.fail("write", after=True)                     # is stored, but its answer is lost
        faulty.fail("query", nth=3, error=RateLimitedError("slow down"))
        faulty.fail("get", matching=lambda table, keys: table.name == "threads")
        faulty.delay("write", seconds=0.1)
        faulty.cancel("write")                               # cancels the task that calls

    A fault is for the `nth` call of its verb from now on (or the nth whose arguments are
    `matching`) and the `times - 1` that follow it; it happens before the call takes effect, or
    `after` it. Several faults of one call happen in the order they were scripted. `calls`
    counts the calls of each verb.
    """

    def __init__(self, wrapped: Backend) -> None:
        super().__init__(wrapped)
        self.calls: Counter[Verb] = Counter()
        self._faults: list[_Fault] = []

    def fail(
        self,
        verb: Verb,
        *,
        error: BaseException | None = None,
        nth: int = 1,
        times: int = 1,
        after: bool = False,
        matching: Callable[..., bool] | None = None,
    ) -> None:
        """Raise `error` (default: an `UnavailableError`) in calls of `verb`."""

        async def act() -> None:
            raise error or UnavailableError(f"a planted fault: {verb} failed")

        self._plant(verb, act, nth, times, after, matching)

    def delay(
        self,
        verb: Verb,
        *,
        seconds: float,
        nth: int = 1,
        times: int = 1,
        after: bool = False,
        matching: Callable[..., bool] | None = None,
    ) -> None:
        """Let calls of `verb` take `seconds` longer."""
        self._plant(verb, lambda: asyncio.sleep(seconds), nth, times, after, matching)

    def cancel(
        self,
        verb: Verb,
        *,
        nth: int = 1,
        times: int = 1,
        after: bool = False,
        matching: Callable[..., bool] | None = None,
    ) -> None:
        """Cancel the task that calls `verb`, while it waits for the call."""

        async def act() -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine always runs in a task
            task.cancel()
            await asyncio.sleep(0)

        self._plant(verb, act, nth, times, after, matching)

    def heal(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    async def open(self) -> None:
        await self._call("open", self.wrapped.open)

    async def close(self) -> None:
        await self._call("close", self.wrapped.close)

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return await self._call("get", self.wrapped.get, table, keys)

    async def query(self, query: Query) -> Result:
        return await self._call("query", self.wrapped.query, query)

    async def write(self, ops: Sequence[Op]) -> None:
        await self._call("write", self.wrapped.write, ops)

    async def watch(self, query: Query) -> AsyncIterator[Result]:
        """Faults of `watch` happen at every result, before or after it is given."""
        source = cast(AsyncGenerator[Result, None], self.wrapped.watch(query))
        async with aclosing(source) as results:
            async for result in results:
                self.calls["watch"] += 1
                before, after = self._due("watch", (query,))
                await _happen(before)
                yield result
                await _happen(after)

    async def tables(self) -> list[str]:
        return await self._call("tables", self.wrapped.tables)

    def _plant(
        self,
        verb: Verb,
        act: Callable[[], Awaitable[None]],
        nth: int,
        times: int,
        after: bool,
        matching: Callable[..., bool] | None,
    ) -> None:
        self._faults.append(_Fault(verb, act, nth, times, after, matching or (lambda *args: True)))

    async def _call(self, verb: Verb, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        self.calls[verb] += 1
        before, after = self._due(verb, args)
        await _happen(before)
        result = await call(*args)
        await _happen(after)
        return result

    def _due(self, verb: Verb, args: tuple[Any, ...]) -> tuple[list[_Fault], list[_Fault]]:
        due = [fault for fault in self._faults if fault.verb == verb and fault.takes(args)]
        return [f for f in due if not f.after], [f for f in due if f.after]


async def _happen(faults: Sequence[_Fault]) -> None:
    for fault in faults:
        await fault.act()
