"""What all domains of `Storage` share: lifecycle, the four verbs, changes, pages."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from msgspec import structs

from mastra_storage.backend import ABSENT, Backend, Capabilities, Op, Position, Put, Query, Touch
from mastra_storage.cursor import decode_cursor, encode_cursor, fingerprint
from mastra_storage.errors import (
    ConflictError,
    InvalidArgumentError,
    InvalidRecordError,
    NotFoundError,
    StorageError,
    TooLargeError,
    UnavailableError,
)
from mastra_storage.records import Page, now, to_microseconds
from mastra_storage.schema import TABLES, Key, Row, Table
from mastra_storage.validation import (
    count_argument,
    filter_argument,
    list_argument,
    time_argument,
)

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Engine")

# How often a change is tried again when other writers keep changing the same row.
_CHANGE_ATTEMPTS = 20
# How many rows a scan reads at a time when the engine itself has to filter.
_SCAN_BATCH = 500
# `seq` counts thousandths of a microsecond, so that a batch of 1,024 stays within one.
_SEQ_BITS = 10
_MAX_OFFSET = 2**62


def operation(
    method: Callable[Concatenate[S, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Mark a public method: errors and log lines get its name and the backend's."""
    name = method.__name__.lstrip("_")

    @wraps(method)
    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        started = time.perf_counter()
        outcome = "cancelled"
        try:
            self._check_open()
            result = await method(self, *args, **kwargs)
        except StorageError as exc:
            outcome = type(exc).__name__
            self._located(exc, name)
            raise
        else:
            outcome = "ok"
            return result
        finally:
            if self._log.isEnabledFor(logging.DEBUG):
                milliseconds = (time.perf_counter() - started) * 1e3
                self._log.debug("%s: %s, %.2f ms", name, outcome, milliseconds)

    return run


async def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines concurrently; the first to fail cancels the others, and is raised."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


class Engine:
    """The part of `Storage` that is not about one kind of record."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._tables: dict[str, Table] = dict(TABLES)
        self._opened = False
        self._changing: dict[tuple[str, Key], tuple[asyncio.Lock, int]] = {}
        self._last_seq = 0
        self._token = secrets.token_hex(6)
        self._writes = 0
        self._log = logging.getLogger(f"mastra_storage.{backend.name}")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} on {self.backend.name}{'' if self._opened else ', not open'}>"
        )

    @property
    def capabilities(self) -> Capabilities:
        """What the backend promises."""
        return self.backend.capabilities

    async def open(self) -> None:
        """Open the backend. `async with` does it."""
        if self._opened:
            raise self._located(InvalidArgumentError("the storage is already open"), "open")
        try:
            await self.backend.open()
        except BaseException as exc:
            await self.backend.close()
            if isinstance(exc, StorageError):
                self._located(exc, "open")
            raise
        self._opened = True

    async def close(self) -> None:
        """Close the backend; safe to call twice."""
        self._opened = False
        await self.backend.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def register(self, table: Table) -> None:
        """Make a table of an adapter's own known to `insert`, `load` and `clear_table`.

        Raises `InvalidArgumentError` when another table has its name.
        """
        if self._tables.setdefault(table.name, table) != table:
            raise InvalidArgumentError(
                f"there is already another table {table.name!r}", backend=self.backend.name
            )

    def _check_open(self) -> None:
        if not self._opened:
            raise UnavailableError(
                "the storage is not open; use it inside `async with`", retryable=False
            )

    def _located(self, error: StorageError, operation: str) -> StorageError:
        """The error, with what its raiser did not know."""
        error.backend = error.backend or self.backend.name
        error.operation = error.operation or operation
        return error

    # -- writing -----------------------------------------------------------------------------

    def _seqs(self, count: int) -> range:
        """`count` consecutive places for rows that are saved now."""
        first = max(time.time_ns() // 1000, (self._last_seq >> _SEQ_BITS) + 1) << _SEQ_BITS
        self._last_seq = first + count - 1
        return range(first, first + count)

    def _version(self) -> str:
        """A token for one write, of which there is never a second."""
        self._writes += 1
        return f"{self._token}{self._writes:x}"

    def _rows(self, table: Table, records: Iterable[T]) -> tuple[list[T], list[Row]]:
        """Records that are saved together, checked, and the rows that keep them."""
        records = list_argument(records, "records")
        version = self._version()
        rows = []
        for position, seq in enumerate(self._seqs(len(records))):
            try:
                records[position] = record = table.check(records[position])
                rows.append(table.row(record, seq=seq, version=version))
            except InvalidRecordError as exc:
                if len(records) > 1:
                    exc.message = f"record {position} of {len(records)}: {exc.message}"
                raise
        return records, rows

    async def _write(self, *ops: Op) -> None:
        limit = self.capabilities.max_record_bytes
        if limit is not None:
            for op in ops:
                if isinstance(op, Put) and len(op.row.value) > limit:
                    raise TooLargeError(
                        f"the record {op.row.key!r} of table {op.row.table.name!r} is "
                        f"{len(op.row.value):,} bytes of JSON, more than the {limit:,} that "
                        "this backend holds; keep large content elsewhere and refer to it"
                    )
        try:
            await self.backend.write(ops)
        except NotFoundError as exc:
            # Only what is touched has to be there, and only threads are touched.
            raise no_thread(*[op.key[0] for op in ops if isinstance(op, Touch)]) from exc
        if self._log.isEnabledFor(logging.DEBUG):
            tables = {op.row.table.name if isinstance(op, Put) else op.table.name for op in ops}
            self._log.debug("wrote %d ops to %s", len(ops), ", ".join(sorted(tables)))

    async def _save(self, table: Table, records: Iterable[T]) -> list[T]:
        """Store records in place of those with their keys; gives them as stored."""
        records, rows = self._rows(table, records)
        if rows:
            await self._write(*[Put(row) for row in unique(rows)])
        return records

    async def _get(self, table: Table, *key: str) -> Row | None:
        [row] = await self.backend.get(table, [key])
        return row

    async def _change(self, table: Table, key: Key, change: Callable[[Row | None], Row]) -> Row:
        """Read a row, change it, store it, with nobody's change in between lost.

        `change` gets the row as it is and gives the row as it shall be; it raises to give up.
        """

        async def prepare() -> tuple[list[Op], Row]:
            old = await self._get(table, *key)
            row = change(old)
            return [Put(row, self._expecting(old))], row

        async with self._locks(table, [key]):
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
                    await self._write(*ops)
            except ConflictError:
                if attempt == _CHANGE_ATTEMPTS:
                    raise
                await asyncio.sleep(random.uniform(0, min(1.0, 0.005 * 2**attempt)))
                attempt += 1
                self._log.debug("another store was first; attempt %d", attempt)
            else:
                return result

    @asynccontextmanager
    async def _locks(self, table: Table, keys: Iterable[Key]) -> AsyncIterator[None]:
        """Keep other changes of these rows by this store waiting."""
        async with AsyncExitStack() as stack:
            for key in sorted(set(keys)):
                await stack.enter_async_context(self._lock(table, key))
            yield

    @asynccontextmanager
    async def _lock(self, table: Table, key: Key) -> AsyncIterator[None]:
        name = (table.name, key)
        lock, users = self._changing.get(name, (asyncio.Lock(), 0))
        self._changing[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._changing.pop(name)
            if users > 1:
                self._changing[name] = (lock, users - 1)

    def _now(self, floor: int = 0) -> int:
        """The time of a change in microseconds, never before `floor`."""
        return max(to_microseconds(now()), floor)

    # -- reading -----------------------------------------------------------------------------

    def _listing(
        self,
        table: Table,
        fields: Mapping[str, str | None],
        from_date: datetime | None,
        to_date: datetime | None,
        *,
        prefix: Key = (),
    ) -> Query:
        """The rows of a table, newest first, with the filters that are not `None`."""
        since, until = time_argument(from_date, "from_date"), time_argument(to_date, "to_date")
        wanted = {name: filter_argument(value, name) for name, value in fields.items()}
        return Query(
            table=table,
            prefix=prefix,
            fields={name: (value,) for name, value in wanted.items() if value is not None},
            since=None if since is None else to_microseconds(since),
            until=None if until is None else to_microseconds(until),
            descending=True,
        )

    async def _all(self, query: Query) -> list[Row]:
        """All rows of a query, however many steps the backend takes."""
        rows: list[Row] = []
        async for batch in self._batches(query):
            rows += batch
        return rows

    async def _batches(self, query: Query) -> AsyncIterator[list[Row]]:
        """The rows of a query as the backend gives them, up to its limit."""
        left = query.limit
        while left is None or left > 0:
            result = await self.backend.query(structs.replace(query, limit=left))
            if left is not None:
                left -= len(result.rows)
            if result.rows:
                yield result.rows
            if result.cursor is None:
                return
            query = structs.replace(query, after=result.cursor, offset=0)

    async def _page(
        self,
        query: Query,
        *,
        page: int,
        per_page: int | None,
        cursor: str | None,
        count: bool,
        accept: Callable[[Any], bool] | None = None,
        accept_id: Any = None,
    ) -> Page[Any]:
        """One page of a listing, as records.

        `accept` filters by what only the record itself holds, at the price of a scan;
        `accept_id` is its part in the identity of the query.
        """
        page = count_argument(page, "page")
        if per_page is not None:
            per_page = count_argument(per_page, "per_page")
        mark = fingerprint(query, accept_id)
        after: Position | None = None
        if cursor is not None:
            if page:
                raise InvalidArgumentError("give either page or cursor, not both")
            page, after = decode_cursor(cursor, mark)
        offset, limit = 0, per_page
        if after is None and per_page is not None:
            offset = min(page * per_page, _MAX_OFFSET)
        elif after is None and page:
            limit = 0  # everything is on page 0
        query = structs.replace(query, after=after, offset=offset, count=count)
        if accept is None:
            rows, total, end = await self._find(query, limit)
        else:
            rows, total, end = await self._scan(query, limit, accept)
        return Page(
            items=[query.table.record_of(row) for row in rows],
            total=total,
            page=page,
            per_page=per_page,
            has_more=end is not None,
            next_cursor=encode_cursor(mark, page + 1, end) if end is not None else None,
        )

    async def _find(
        self, query: Query, limit: int | None
    ) -> tuple[list[Row], int | None, Position | None]:
        """Rows that the backend alone can find, their total, and where to continue."""
        rows: list[Row] = []
        total: int | None = None
        while limit != 0 or query.count:
            left = None if limit is None else limit - len(rows)
            result = await self.backend.query(structs.replace(query, limit=left))
            total = total if result.total is None else result.total
            rows += result.rows
            if result.cursor is None or (limit is not None and len(rows) >= limit):
                return rows, total, result.cursor
            query = structs.replace(query, after=result.cursor, offset=0, count=False)
        return rows, total, None

    async def _scan(
        self, query: Query, limit: int | None, accept: Callable[[Any], bool]
    ) -> tuple[list[Row], int | None, Position | None]:
        """Rows that `accept` takes, found by reading all that could be."""
        skip, query = query.offset, structs.replace(query, offset=0, limit=None)
        counted, after, count = 0, query.after, query.count
        rows: list[Row] = []
        last: Position | None = None
        end: Position | None = None
        query = structs.replace(
            query, after=None if count else after, count=False, limit=_SCAN_BATCH
        )
        while True:
            result = await self.backend.query(query)
            for row in result.rows:
                if not accept(query.table.record_of(row)):
                    continue
                counted += 1
                position = query.position(row, query.after.hint if query.after else "")
                if count and after is not None and not behind(position, after, query):
                    continue
                if skip:
                    skip -= 1
                elif limit is None or len(rows) < limit:
                    rows.append(row)
                    last = position
                elif rows:
                    end = last
            if result.cursor is None or (end is not None and not count):
                return rows, counted if count else None, end
            query = structs.replace(query, after=result.cursor)


def holds(members: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether `members` has all of `wanted`, with values equal as JSON has it: true is not 1."""
    return all(
        name in members
        and members[name] == value
        and isinstance(members[name], bool) == isinstance(value, bool)
        for name, value in wanted.items()
    )


def no_thread(*thread_ids: str) -> NotFoundError:
    """The error for a thread that is not there; one of several, where a write says no more."""
    if len(thread_ids) == 1:
        return NotFoundError(f"there is no thread {thread_ids[0]!r}; save the thread first")
    return NotFoundError(
        f"one of the threads {', '.join(map(repr, thread_ids))} is not there; save it first"
    )


def behind(position: Position, other: Position, query: Query) -> bool:
    """Whether `position` comes after `other` in the direction of `query`."""
    here, there = (position.order, position.seq, position.key), (other.order, other.seq, other.key)
    return here < there if query.descending else here > there


def unique(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that a later one of the same key replaces in place."""
    found: dict[Key, Row] = {}
    for row in rows:
        earlier = found.get(row.key)
        if earlier is not None and earlier.order == row.order:
            row = structs.replace(row, seq=earlier.seq)
        found[row.key] = row
    return list(found.values())
