"""A backend with a planted fault, or an untrue declaration, does not pass the kit."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from kit_runs import ChangesTouchedRows, failures
from msgspec import structs

from mastra_storage.backend import Capabilities, DeletePrefix, Op, Put, Query, Result, Touch
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.errors import TooLargeError
from mastra_storage.schema import Key, Row, Table

pytestmark = pytest.mark.once  # the kit itself passes on every Python

# -- planted faults -------------------------------------------------------------------------


class DropsTheLastRow(MemoryBackend):
    """Of a batch of several rows, the last is not stored."""

    async def write(self, ops: Sequence[Op]) -> None:
        puts = [op for op in ops if isinstance(op, Put)]
        await super().write([op for op in ops if len(puts) < 2 or op is not puts[-1]])


class SwapsEqualTimes(MemoryBackend):
    """Of two neighbours with equal times, the later comes first."""

    async def query(self, query: Query) -> Result:
        result = await super().query(query)
        rows = result.rows
        for n in range(1, len(rows), 2):
            if rows[n - 1].order == rows[n].order:
                rows[n - 1 : n + 1] = rows[n], rows[n - 1]
        return result


class LosesARowPastAThousand(MemoryBackend):
    """Of more than a thousand rows found, one is missing."""

    async def query(self, query: Query) -> Result:
        result = await super().query(query)
        del result.rows[1_000:1_001]
        return result


class AcknowledgesBeforeStoring(MemoryBackend):
    """Writes return before others can see them, and what is unseen at closing is lost.

    The writer itself reads what it wrote, and errors are raised in time: only a second store
    can tell.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._pending: list[Op] = []

    async def write(self, ops: Sequence[Op]) -> None:
        self._store()
        before = {
            name: {first: dict(rows) for first, rows in partitions.items()}
            for name, partitions in self._memory.tables.items()
        }
        await super().write(ops)  # raises what there is to raise
        self._memory.tables = before
        self._pending = list(ops)
        asyncio.get_running_loop().call_later(0.01, self._store)

    def _store(self) -> None:
        ops, self._pending = self._pending, []
        for op in ops:
            self._apply(op, [])
        if ops:
            self._wake()

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        self._store()
        return await super().get(table, keys)

    async def query(self, query: Query) -> Result:
        self._store()
        return await super().query(query)

    async def tables(self) -> list[str]:
        self._store()
        return await super().tables()

    async def close(self) -> None:
        self._pending.clear()
        await super().close()


class DeletesTooMuch(MemoryBackend):
    """Deleting the rows of "a" deletes those of "a:b" too."""

    async def write(self, ops: Sequence[Op]) -> None:
        found: list[Op] = []
        for op in ops:
            if isinstance(op, DeletePrefix) and len(op.prefix) == 1:
                firsts = [*self._memory.tables.get(op.table.name, {}), op.prefix[0]]
                starting = {first for first in firsts if first.startswith(op.prefix[0])}
                found += [DeletePrefix(op.table, (first,)) for first in starting]
            else:
                found.append(op)
        await super().write(found)


class LeavesOutTheLastInstant(MemoryBackend):
    """A range of time does not hold its end."""

    async def query(self, query: Query) -> Result:
        if query.until is not None:
            query = structs.replace(query, until=query.until - 1)
        return await super().query(query)


class MovesReplacedRows(MemoryBackend):
    """A row that is replaced goes behind others of its time."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write(
            [structs.replace(op, keep_place=False) if isinstance(op, Put) else op for op in ops]
        )


class LowersTouches(ChangesTouchedRows):
    """A row is as recently touched as it was touched last."""

    def touched(self, row: Row, touch: Touch) -> Row:
        return structs.replace(row, touched=touch.at)


class ForgetsTheEndOfTouchedRows(ChangesTouchedRows):
    """A row that was touched is there for ever."""

    def touched(self, row: Row, touch: Touch) -> Row:
        return structs.replace(row, expires_at=None)


class StoresOtherRows(MemoryBackend):
    """Stores rows otherwise than they were put."""

    @abstractmethod
    def other(self, row: Row, old: Row | None) -> Row:
        """What is stored for a row."""

    async def write(self, ops: Sequence[Op]) -> None:
        found: list[Op] = []
        for op in ops:
            if isinstance(op, Put):
                [old] = await self.get(op.row.table, [op.row.key])
                op = structs.replace(op, row=self.other(op.row, old))
            found.append(op)
        await super().write(found)


class KeepsTheEndOfReplacedRows(StoresOtherRows):
    """A row that is replaced by one without an end is gone when the old one would be."""

    def other(self, row: Row, old: Row | None) -> Row:
        if old is None or row.expires_at is not None:
            return row
        return structs.replace(row, expires_at=old.expires_at)


class KeepsTimesAsFloats(StoresOtherRows):
    """Large numbers are rounded, as a float is."""

    def other(self, row: Row, old: Row | None) -> Row:
        return structs.replace(row, order=int(float(row.order)))


class CutsKeys(MemoryBackend):
    """Keys that are equal for 250 characters are one."""

    def _partition(self, table: Table, key: Key) -> dict[Key, Row]:
        return super()._partition(table, tuple(part[:250] for part in key))

    def _set(self, table: Table, key: Key, row: Row | None) -> Row | None:
        return super()._set(table, tuple(part[:250] for part in key), row)

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return await super().get(table, [tuple(part[:250] for part in key) for key in keys])


class EmptiesOtherTables(MemoryBackend):
    """Emptying a table empties those whose names begin as its own does."""

    async def write(self, ops: Sequence[Op]) -> None:
        found = list(ops)
        for op in ops:
            if isinstance(op, DeletePrefix) and not op.prefix:
                starting = [n for n in self._memory.tables if n.startswith(op.table.name)]
                found += [DeletePrefix(structs.replace(op.table, name=n), ()) for n in starting]
        await super().write(found)


class SortsAsUTF16(MemoryBackend):
    """Rows of one place are in the order that JavaScript gives their keys."""

    async def query(self, query: Query) -> Result:
        result = await super().query(query)
        if query.order_by == "created":
            result.rows.sort(
                key=lambda row: (row.order, row.seq, [k.encode("utf-16-be") for k in row.key]),
                reverse=query.descending,
            )
        return result


class ShowsHalfOfAWrite(MemoryBackend):
    """Checks the whole, and then stores the ops of a write one by one."""

    async def write(self, ops: Sequence[Op]) -> None:
        for op in ops:
            await super().write([op])
            await asyncio.sleep(0)


class SaysNothingAtFirst(MemoryBackend):
    """A watcher learns of changes alone."""

    async def watch(self, query: Query) -> AsyncIterator[Result]:
        first = True
        async for result in super().watch(query):
            if not first:
                yield result
            first = False


# -- untrue declarations --------------------------------------------------------------------


class NotAtomic(MemoryBackend):
    """What a failing write did before it failed stays."""

    async def write(self, ops: Sequence[Op]) -> None:
        touches = [op for op in ops if isinstance(op, Touch)]
        for op in [*touches, *ops]:
            await super().write([op])


class AtomicUpToAHundred(NotAtomic):
    """Atomic, but for fewer rows than it says."""

    async def write(self, ops: Sequence[Op]) -> None:
        write = super().write if len(ops) > 100 else super(NotAtomic, self).write
        await write(ops)


class DoesNotCompare(MemoryBackend):
    """Stores, whatever version is there."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write([Put(op.row) if isinstance(op, Put) else op for op in ops])


class WatchesItselfAlone(MemoryBackend):
    """A watcher does not see what other backends write."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._changed = asyncio.Event()

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write(ops)
        self._notify()

    async def close(self) -> None:
        await super().close()
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def watch(self, query: Query) -> AsyncIterator[Result]:
        while not self._closed.is_set():
            changed = self._changed
            yield await self.query(query)
            await changed.wait()


class HoldsLessThanItSays(MemoryBackend):
    """Refuses records that are smaller than the largest it declares."""

    capabilities = structs.replace(MemoryBackend.capabilities, max_record_bytes=100_000)

    async def write(self, ops: Sequence[Op]) -> None:
        if any(isinstance(op, Put) and len(op.row.value) > 99_999 for op in ops):
            raise TooLargeError("too large after all")
        await super().write(ops)


class HasALimitUndeclared(HoldsLessThanItSays):
    """Declares no largest record, and has one."""

    capabilities = MemoryBackend.capabilities


class HoldsWhatItSays(MemoryBackend):
    """No mutant: a `max_record_bytes` that is true, and small enough to be tried."""

    capabilities = structs.replace(MemoryBackend.capabilities, max_record_bytes=100_000)


class LagsAndSaysSo(AcknowledgesBeforeStoring):
    """No mutant: other stores see writes late, as declared, but nothing is lost at closing."""

    capabilities = Capabilities(poll_interval=0.02)

    async def close(self) -> None:
        self._store()
        await super().close()


# -- the runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [HoldsWhatItSays, LagsAndSaysSo])
def test_a_backend_without_a_fault_passes(backend: type[MemoryBackend]) -> None:
    assert failures(backend, full=True) == {}


@pytest.mark.parametrize(
    ("mutant", "caught"),
    [
        (
            DropsTheLastRow,
            {
                "messages: a batch is stored whole and in order",
                "verbs: all rows of a write are stored",
                "scale: many messages of a thread",
                "machine: random calls give what they give on memory",
            },
        ),
        (
            SwapsEqualTimes,
            {
                "messages: equal times never mix two turns",
                "threads: threads of equal times keep the order of saving",
                "queries: filters and orders",
                "scale: cursors walk many messages",
            },
        ),
        (
            LosesARowPastAThousand,
            {
                "scale: many messages of a thread",
                "scale: many threads of a resource",
                "scale: many traces",
            },
        ),
        (
            AcknowledgesBeforeStoring,
            {
                "capabilities: strong reads see every acknowledged write",
                "faults: what was acknowledged is there for others",
                "faults: what was acknowledged is there after reopening",
            },
        ),
    ],
)
def test_a_planted_fault_is_caught(mutant: type[MemoryBackend], caught: set[str]) -> None:
    assert caught <= failures(mutant, full=True).keys()


@pytest.mark.parametrize(
    ("mutant", "caught"),
    [
        (
            DeletesTooMuch,
            {
                "threads: deleting a thread takes its messages along",
                "verbs: delete prefix takes whole parts",
            },
        ),
        (LeavesOutTheLastInstant, {"messages: date ranges include both ends"}),
        (MovesReplacedRows, {"messages: replacing a message keeps its place"}),
        (LowersTouches, {"verbs: touch raises and never lowers"}),
        (KeepsTheEndOfReplacedRows, {"verbs: put replaces a row whole"}),
        (ForgetsTheEndOfTouchedRows, {"verbs: a touch changes nothing else of a row"}),
        (KeepsTimesAsFloats, {"verbs: numbers are kept exactly"}),
        (CutsKeys, {"verbs: long keys are told apart"}),
        (EmptiesOtherTables, {"verbs: delete prefix takes whole parts"}),
        (SortsAsUTF16, {"queries: equal places are in the order of keys"}),
        (ShowsHalfOfAWrite, {"capabilities: atomic a write is seen whole"}),
        (SaysNothingAtFirst, {"live: messages are watched (own)"}),
        (NotAtomic, {"capabilities: atomic a refused op undoes the whole write"}),
        (DoesNotCompare, {"capabilities: compare and set lets one of many writers win"}),
        (WatchesItselfAlone, {"live: a declared watch sees what another store writes"}),
        (HoldsLessThanItSays, {"capabilities: records up to the declared size are kept"}),
        (HasALimitUndeclared, {"capabilities: records up to the declared size are kept"}),
    ],
)
def test_a_quick_run_catches_these_too(mutant: type[MemoryBackend], caught: set[str]) -> None:
    assert caught <= failures(mutant, full=False).keys()


def test_a_number_of_atomic_rows_that_is_too_high_is_caught() -> None:
    assert failures(AtomicUpToAHundred, full=True).keys() == {
        "capabilities: atomic holds up to the declared number of rows"
    }
