"""Writing: places and versions of rows, and changes that lose nobody else's."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from msgspec import structs

from mastra_storage.arguments import list_argument
from mastra_storage.backend import ABSENT, Delete, DeletePrefix, Op, Put, Touch
from mastra_storage.errors import ConflictError, InvalidRecordError, NotFoundError, TooLargeError
from mastra_storage.records import now, to_microseconds
from mastra_storage.schema import THREADS, Key, Row, Table
from mastra_storage.storage._lifecycle import Lifecycle
from mastra_storage.storage._locks import Name

T = TypeVar("T")

# How often a change is tried again when other writers keep changing the same row.
_CHANGE_ATTEMPTS = 20
# `seq` counts thousandths of a microsecond, so that a batch of 1,024 stays within one.
_SEQ_BITS = 10
# How many records of a batch are checked and encoded before others may run.
_RECORDS_AT_ONCE = 500


class Writing(Lifecycle):
    """The writing half of the engine."""

    def _now(self) -> int:
        """The time of a change in microseconds."""
        return to_microseconds(now())

    def _seqs(self, count: int) -> range:
        """`count` consecutive places for rows that are saved now."""
        first = max(time.time_ns() // 1000, (self._last_seq >> _SEQ_BITS) + 1) << _SEQ_BITS
        self._last_seq = first + count - 1
        return range(first, first + count)

    def _version(self) -> str:
        """A token for one write, of which there is never a second."""
        self._writes += 1
        return f"{self._token}{self._writes:x}"

    async def _rows(
        self, table: Table, records: Iterable[T], name: str = "records"
    ) -> tuple[list[T], list[Row]]:
        """Records that are saved together, checked, and the rows that keep them.

        `name` is what the caller's argument is called.
        """
        records = list_argument(records, name)
        version = self._version()
        seqs = self._seqs(len(records))
        rows: list[Row] = []
        for start in range(0, len(records), _RECORDS_AT_ONCE):
            if start:
                await asyncio.sleep(0)  # a large batch lets others run
            some = slice(start, start + _RECORDS_AT_ONCE)
            try:
                records[some] = checked = table.check_all(records[some])
                rows += table.rows(checked, seqs[some], version=version)
            except InvalidRecordError:
                for position in range(start, len(records) if len(records) > 1 else 0):
                    _check_alone(table, records, position)
                raise
        return records, rows

    def _first_row(self, table: Table, record: Any) -> Row:
        """The row of a record that is saved for the first time."""
        [seq] = self._seqs(1)
        return table.row(table.check(record), seq=seq, version=self._version())

    async def _write(self, *ops: Op) -> None:
        """Write, with no change of the same rows by this store under way."""
        if self.capabilities.compare_and_set:
            await self._write_held(ops)
            return
        names = [Name(op.table.name, op.key) for op in ops if isinstance(op, Put | Delete)]
        under = [Name(op.table.name, op.prefix) for op in ops if isinstance(op, DeletePrefix)]
        async with self._locks.hold(names, under):
            await self._write_held(ops)

    async def _write_held(self, ops: Sequence[Op]) -> None:
        """Write, the rows being held where that is needed."""
        limit = self.capabilities.max_record_bytes
        if limit is not None:
            for op in ops:
                if isinstance(op, Put) and len(op.row.value) > limit:
                    raise TooLargeError(
                        f"the record {op.key!r} of table {op.table.name!r} is "
                        f"{len(op.row.value):,} bytes of JSON, more than the {limit:,} that "
                        "this backend holds; keep large content elsewhere and refer to it"
                    )
        try:
            await self.backend.write(ops)
        except NotFoundError as exc:
            threads = [op.key[0] for op in ops if isinstance(op, Touch) and op.table == THREADS]
            if not threads:
                raise
            raise no_thread(*threads) from exc
        if self._log.isEnabledFor(logging.DEBUG):
            tables = {op.table.name for op in ops}
            self._log.debug("wrote %d ops to %s", len(ops), ", ".join(sorted(tables)))

    async def _save(self, table: Table, records: Iterable[T], name: str = "records") -> list[T]:
        """Store records in place of those with their keys; gives them as stored."""
        records, rows = await self._rows(table, records, name)
        if rows:
            await self._write(*[Put(row) for row in unique(rows)])
        return records

    async def _change(self, table: Table, key: Key, change: Callable[[Row | None], Row]) -> Row:
        """Read a row, change it, store it, with nobody's change in between lost.

        `change` gets the row as it is and gives the row as it shall be; it raises to give up.
        """

        async def prepare() -> tuple[list[Op], Row]:
            [old] = await self.backend.get(table, [key])
            row = change(old)
            return [Put(row, self._expecting(old))], row

        async with self._locks.hold([Name(table.name, key)]):
            return await self._compare_and_set(prepare)

    def _expecting(self, old: Row | None) -> Any:
        """The `if_version` of an op on a row that was read as `old`."""
        if not self.capabilities.compare_and_set:
            return None
        return ABSENT if old is None else old.version

    async def _compare_and_set(self, prepare: Callable[[], Awaitable[tuple[list[Op], T]]]) -> T:
        """Write what `prepare` makes of what it read, anew while other stores get in between."""
        attempt = 1
        while True:
            ops, result = await prepare()
            try:
                if ops:
                    await self._write_held(ops)
            except ConflictError:
                if attempt == _CHANGE_ATTEMPTS:
                    raise
                await asyncio.sleep(random.uniform(0, min(1.0, 0.005 * 2**attempt)))
                attempt += 1
                self._log.debug("another store was first; attempt %d", attempt)
            else:
                return result


def _check_alone(table: Table, records: Sequence[Any], position: int) -> None:
    """Raise `InvalidRecordError`, saying which it is, for a record that cannot be stored."""
    try:
        table.row(table.check(records[position]), seq=0, version="")
    except InvalidRecordError as exc:
        exc.message = f"record {position} of {len(records)}: {exc.message}"
        raise


def no_thread(*thread_ids: str) -> NotFoundError:
    """The error for a thread that is not there; one of several, where a write says no more."""
    if len(thread_ids) == 1:
        what = f"there is no thread {thread_ids[0]!r}"
    else:
        what = f"one of the threads {', '.join(map(repr, thread_ids))} is not there"
    return NotFoundError(f"{what}; check the id, or save the thread first")


def unique(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows without those that a later one of the same key replaces in place."""
    found: dict[Key, Row] = {row.key: row for row in rows}
    if len(found) == len(rows):
        return rows
    found.clear()
    for row in rows:
        earlier = found.get(row.key)
        if earlier is not None and earlier.order == row.order:
            row = structs.replace(row, seq=earlier.seq)
        found[row.key] = row
    return list(found.values())
