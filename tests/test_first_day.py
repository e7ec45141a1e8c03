"""What is wrong on the first day of a backend: the first test of the kit that fails names it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from kit_runs import ChangesTouchedRows, first_failure
from msgspec import structs

from mastra_storage.backend import Op, Put, Query, Result, Touch
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.errors import ConflictError
from mastra_storage.schema import Key, Row, Table

pytestmark = pytest.mark.once  # the kit itself passes on every Python


class DropsTheLastRow(MemoryBackend):
    """Of several rows in one write, the last is not stored."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write(ops[:-1] if len(ops) > 1 and isinstance(ops[-1], Put) else ops)


class CutsVersions(MemoryBackend):
    """A version has room for sixteen characters."""

    async def write(self, ops: Sequence[Op]) -> None:
        found: list[Op] = []
        for op in ops:
            if isinstance(op, Put):
                op = structs.replace(op, row=structs.replace(op.row, version=op.row.version[:16]))
            found.append(op)
        await super().write(found)


class AnswersBackwards(MemoryBackend):
    """Rows come in another order than they were asked for."""

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return (await super().get(table, keys))[::-1]


class IgnoresSeq(MemoryBackend):
    """Rows of one order are in the order of their keys."""

    async def query(self, query: Query) -> Result:
        found = await super().query(query)
        rows = sorted(found.rows, key=lambda row: (row.order, row.key), reverse=query.descending)
        return structs.replace(found, rows=rows)


class ForgetsTheFieldsOfTouchedRows(ChangesTouchedRows):
    """A row that was touched has no indexed fields any more."""

    def touched(self, row: Row, touch: Touch) -> Row:
        return structs.replace(row, fields={})


class JoinsKeys(MemoryBackend):
    """The parts of a key are joined, and kept as one."""

    mark: str

    def joined(self, key: Key) -> Key:
        """The first of all keys that are the same when they are joined."""
        known: dict[str, Key] = vars(self._memory).setdefault("joined", {})
        return known.setdefault(self.mark.join(key), key)

    def _partition(self, table: Table, key: Key) -> dict[Key, Row]:
        return super()._partition(table, self.joined(key) if len(key) > 1 else key)

    def _set(self, table: Table, key: Key, row: Row | None) -> Row | None:
        return super()._set(table, self.joined(key), row)

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return await super().get(table, [self.joined(key) for key in keys])


class JoinsKeysWithBars(JoinsKeys):
    mark = "|"


class JoinsKeysWithNul(JoinsKeys):
    mark = "\0"


class CountsThePage(MemoryBackend):
    """The total is how many rows were given."""

    async def query(self, query: Query) -> Result:
        found = await super().query(query)
        return structs.replace(found, total=len(found.rows)) if query.count else found


class AlwaysHasMore(MemoryBackend):
    """A page that is full has a cursor, also when it is the last."""

    async def query(self, query: Query) -> Result:
        found = await super().query(query)
        full = query.limit is not None and 0 < query.limit == len(found.rows)
        return structs.replace(found, cursor=query.position(found.rows[-1])) if full else found


class TellsTheValue(MemoryBackend):
    """A conflict shows what is stored."""

    async def write(self, ops: Sequence[Op]) -> None:
        try:
            await super().write(ops)
        except ConflictError as exc:
            values = [op.row.value for op in ops if isinstance(op, Put)]
            raise ConflictError(f"there is another row: {values}") from exc


class KeepsWhatItHasRead(MemoryBackend):
    """A row that was read is remembered until the same backend writes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._read: dict[tuple[str, Key], Row | None] = {}

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        new = [key for key in keys if (table.name, key) not in self._read]
        for key, row in zip(new, await super().get(table, new), strict=True):
            self._read[table.name, key] = row
        return [self._read[table.name, key] for key in keys]

    async def write(self, ops: Sequence[Op]) -> None:
        self._read.clear()
        await super().write(ops)


class GoesOnWhenCancelled(MemoryBackend):
    """A read that is cancelled while it waits gives its rows all the same."""

    async def query(self, query: Query) -> Result:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)
        return await super().query(query)


@pytest.mark.parametrize(
    ("mutant", "rule"),
    [
        (DropsTheLastRow, "verbs: all rows of a write are stored"),
        (CutsVersions, "verbs: a row comes back as it was put"),
        (AnswersBackwards, "verbs: get gives rows in the order asked"),
        (IgnoresSeq, "verbs: rows of one order are in the order of seq"),
        (ForgetsTheFieldsOfTouchedRows, "verbs: a touch changes nothing else of a row"),
        (JoinsKeysWithBars, "verbs: no character is taken for the end of a part"),
        (JoinsKeysWithNul, "verbs: no character is taken for the end of a part"),
        (CountsThePage, "queries: a count is of all rows that match"),
        (AlwaysHasMore, "queries: a cursor says whether rows are left"),
        (TellsTheValue, "capabilities: a conflict says something and nothing of the value"),
        (KeepsWhatItHasRead, "capabilities: strong reads keep no row that others change"),
        (GoesOnWhenCancelled, "cancellation: a cancelled verb raises the cancellation"),
    ],
)
def test_the_first_test_that_fails_names_the_fault(mutant: type[MemoryBackend], rule: str) -> None:
    assert first_failure(mutant)[0] == rule
