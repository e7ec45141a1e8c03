"""Defects to plant, one at a time: a campaign that does not find each of them is worth nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import cast

from msgspec import structs

from mastra_storage import (
    MESSAGES,
    THREADS,
    Backend,
    Capabilities,
    Delete,
    DeletePrefix,
    Key,
    Op,
    Put,
    Query,
    Result,
    Row,
    StorageError,
    Table,
    Touch,
    UnavailableError,
)
from mastra_storage.testing import FaultyBackend as Wrapper


class LostTouch(Wrapper):
    """A message leaves its thread's `updated_at` as it was."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write([op for op in ops if not isinstance(op, Touch)])


class LostPlace(Wrapper):
    """Messages of one time come in any order."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write(
            [
                Put(structs.replace(op.row, seq=random.getrandbits(62)), op.if_version)
                if isinstance(op, Put) and op.row.table == MESSAGES
                else op
                for op in ops
            ]
        )


class LostRow(Wrapper):
    """Of a batch of more than four, now and then the last row is not stored."""

    async def write(self, ops: Sequence[Op]) -> None:
        puts = [op for op in ops if isinstance(op, Put)]
        lost = puts[-1] if len(puts) > 4 and random.random() < 0.2 else None
        await super().write([op for op in ops if op is not lost])


class Resurrection(Wrapper):
    """A deleted row comes back when something else is written."""

    def __init__(self, wrapped: Backend) -> None:
        super().__init__(wrapped)
        self._deleted: list[Row] = []

    async def write(self, ops: Sequence[Op]) -> None:
        keys = [op.key for op in ops if isinstance(op, Delete) and op.table == MESSAGES]
        rows = [row for row in await self.get(MESSAGES, keys) if row] if keys else []
        await super().write(ops)
        if not keys and self._deleted and random.random() < 0.05:
            await super().write([Put(self._deleted.pop())])
        self._deleted += rows


class LeftBehind(Wrapper):
    """The messages of a deleted thread stay, and are there when it is made again."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write([op for op in ops if not isinstance(op, DeletePrefix)])


class TornBatch(Wrapper):
    """A batch is written in two halves."""

    async def write(self, ops: Sequence[Op]) -> None:
        half = len(ops) // 2 if len(ops) > 2 else len(ops)
        await super().write(ops[:half])
        await asyncio.sleep(0.001)
        if ops[half:]:
            await super().write(ops[half:])


class SwallowedError(Wrapper):
    """A write that failed is acknowledged."""

    async def write(self, ops: Sequence[Op]) -> None:
        try:
            if random.random() < 0.02:
                raise UnavailableError("one more failure than the weather brings")
            await super().write(ops)
        except StorageError as exc:
            if not exc.retryable:
                raise


class EarlyAnswer(Wrapper):
    """A write is acknowledged before it is stored."""

    def __init__(self, wrapped: Backend) -> None:
        super().__init__(wrapped)
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, ops: Sequence[Op]) -> None:
        task = asyncio.create_task(self._later(ops))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(self, ops: Sequence[Op]) -> None:
        await asyncio.sleep(0.01)
        try:
            await super().write(ops)
        except StorageError:
            return


class RepeatedRow(Wrapper):
    """The last row of a page is the first of the next one, too."""

    async def query(self, query: Query) -> Result:
        result = await super().query(query)
        if query.after is None or not result.rows:
            return result
        [row] = await self.get(query.table, [query.after.key])
        return structs.replace(result, rows=[*([row] if row else []), *result.rows])


class LostUpdate(Wrapper):
    """Changes are not compared with what others wrote meanwhile."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write(
            [Put(op.row) if isinstance(op, Put) and op.row.table == THREADS else op for op in ops]
        )


class ForeignError(Wrapper):
    """Now and then an error comes out that is none of the library's."""

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        if random.random() < 0.02:
            raise TimeoutError("nobody mapped this one")
        return await super().get(table, keys)


class Hang(Wrapper):
    """Now and then a write never ends."""

    async def write(self, ops: Sequence[Op]) -> None:
        if random.random() < 0.01:
            await asyncio.Event().wait()
        await super().write(ops)


class Silence(Wrapper):
    """After a few answers a watch shows no more of them."""

    async def watch(self, query: Query) -> AsyncGenerator[Result, None]:
        source = cast(AsyncGenerator[Result, None], self.wrapped.watch(query))
        async with aclosing(source) as results:
            shown = 0
            async for result in results:
                shown += 1
                if shown <= 3:
                    yield result


class OldNews(Wrapper):
    """Now and then a watch shows once more what it showed before."""

    async def watch(self, query: Query) -> AsyncGenerator[Result, None]:
        source = cast(AsyncGenerator[Result, None], self.wrapped.watch(query))
        async with aclosing(source) as results:
            shown: list[Result] = []
            async for result in results:
                yield result
                shown = [*shown[-4:], result]
                if random.random() < 0.2:
                    yield shown[0]
                    yield result


PLANTS: dict[str, Callable[[Backend], Backend]] = {
    "lost-touch": LostTouch,
    "lost-place": LostPlace,
    "lost-row": LostRow,
    "resurrection": Resurrection,
    "left-behind": LeftBehind,
    "torn-batch": TornBatch,
    "swallowed-error": SwallowedError,
    "early-answer": EarlyAnswer,
    "repeated-row": RepeatedRow,
    "lost-update": LostUpdate,
    "foreign-error": ForeignError,
    "hang": Hang,
    "silence": Silence,
    "old-news": OldNews,
}
# Where the capability is not declared, it is no defect.
_BREAKS = {
    "torn-batch": "atomic",
    "lost-update": "compare_and_set",
    "silence": "watch",
    "old-news": "watch",
}


def breaks(name: str, capabilities: Capabilities) -> bool:
    """Whether that defect breaks what such a backend promises."""
    return name not in _BREAKS or getattr(capabilities, _BREAKS[name]) is True


def planted(backend: Backend, name: str | None) -> Backend:
    """The backend, with the defect of that name in front of it."""
    return backend if name is None else PLANTS[name](backend)
