"""Writing rows: values as they are, lists of messages and threads by changes of what is there.

As in TypeScript a thread's `updatedAt` is in its record, so that touching it rewrites that.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TypeVar

from mastra_storage import (
    MESSAGES,
    THREADS,
    Delete,
    DeletePrefix,
    Key,
    NotFoundError,
    Op,
    Put,
    Row,
    Table,
    TooLargeError,
    Touch,
    UnsupportedError,
)
from mastra_storage_cloudflare.interop.edits import Edit, Edits
from mastra_storage_cloudflare.interop.layout import Places, check_key, check_table
from mastra_storage_cloudflare.interop.orders import listed, unlisted
from mastra_storage_cloudflare.interop.recent import RecentWritesKV
from mastra_storage_cloudflare.interop.records import touched, value_of
from mastra_storage_cloudflare.interop.rows import Name, Rows
from mastra_storage_cloudflare.kv import MAX_VALUE_BYTES, Pair

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Writes:
    """Carries out ops."""

    def __init__(self, kv: RecentWritesKV, places: Places, rows: Rows) -> None:
        self._kv = kv
        self._places = places
        self._rows = rows
        self._edits = Edits(kv)

    async def close(self) -> None:
        await self._edits.close()

    async def carry_out(self, ops: Sequence[Op]) -> None:
        """Puts, lists of messages and touches, then deletes."""
        self._check(ops)
        puts = [op.row for op in ops if isinstance(op, Put)]
        touches = [op for op in ops if isinstance(op, Touch)]
        deletes = [op for op in ops if isinstance(op, (Delete, DeletePrefix))]
        owners = await self._owners(puts, touches)
        values = {id(row): _value(row, owners) for row in puts}
        for table, rows in _by_table((row.table, row) for row in puts):
            place = self._places.main(table)
            await self._put(table, {place.name(table, row.key): values[id(row)] for row in rows})
        await asyncio.gather(
            self._list(row for row in puts if row.table == MESSAGES),
            *[self._touch(op) for op in touches if Delete(op.table, op.key) not in deletes],
        )
        for table, gone in _by_table((op.table, op) for op in deletes):
            await self._delete(table, gone)

    # -- before anything is written ------------------------------------------------------------

    def _check(self, ops: Sequence[Op]) -> None:
        """Refuse what this layout cannot hold."""
        for op in ops:
            table = op.table
            check_table(table)
            if isinstance(op, (Put, Delete)) and op.if_version is not None:
                raise UnsupportedError("KV has no compare-and-set; nothing was written")
            if isinstance(op, Touch) and table != THREADS:
                raise UnsupportedError("only threads are touched in the layout of TypeScript")
            if isinstance(op, Put):
                check_key(self._places.main(table), table, op.key)
                if op.row.expires_at is not None:
                    raise UnsupportedError(
                        "the layout of the TypeScript store has no records that expire; "
                        "nothing was written"
                    )

    async def _owners(self, puts: Sequence[Row], touches: Sequence[Touch]) -> dict[str, str]:
        """The resource ids of the threads concerned.

        A thread that is touched has to be there: `NotFoundError`.
        """
        owners = {row.key[0]: row.fields["resource_id"] for row in puts if row.table == THREADS}
        touched = {op.key[0] for op in touches}
        unowned = {row.key[0] for row in puts if row.table == MESSAGES and not row.fields}
        wanted = [(thread,) for thread in sorted((touched | unowned) - owners.keys())]
        found = await self._rows.get(THREADS, wanted) if wanted else []
        owners |= {row.key[0]: row.fields["resource_id"] for row in found if row is not None}
        for thread in touched - owners.keys():
            raise NotFoundError(f"there is no row {(thread,)!r} in table 'threads' to touch")
        return owners

    # -- puts and touches ----------------------------------------------------------------------

    async def _put(self, table: Table, values: Mapping[str, bytes]) -> None:
        namespace = self._places.main(table).namespace
        if table == THREADS:
            # A thread may be touched at the same time: its changes wait for each other.
            await asyncio.gather(
                *[
                    self._edits.apply(namespace, name, partial(_replaced, value))
                    for name, value in values.items()
                ]
            )
        else:
            pairs = [Pair(name, value, "") for name, value in values.items()]
            await self._kv.write(namespace, pairs, [])

    async def _list(self, rows: Iterable[Row]) -> None:
        """Add messages to the lists of their threads."""
        place = self._places.main(MESSAGES)
        added: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: (row.order, row.seq, row.key)):
            added[row.key[0]].append((row.key[1], row.order // 1000))
        await asyncio.gather(
            *[
                self._edits.apply(
                    place.namespace, place.order_name(thread), partial(listed, messages)
                )
                for thread, messages in added.items()
            ]
        )

    async def _touch(self, op: Touch) -> None:
        place = self._places.main(THREADS)
        old = None
        if len(await self._places.of(THREADS)) > 1:
            # A thread in an old place goes on where threads are written now.
            [row] = await self._rows.get(THREADS, [op.key])
            old = None if row is None else value_of(row)
        edit = partial(touched, _EPOCH + timedelta(microseconds=op.at), old)
        await self._edits.apply(place.namespace, place.name(THREADS, op.key), edit)

    # -- deletes -------------------------------------------------------------------------------

    async def _delete(self, table: Table, ops: Sequence[Delete | DeletePrefix]) -> None:
        prefixes = [op.key if isinstance(op, Delete) else op.prefix for op in ops]
        located = await asyncio.gather(*[self._rows.located(table, key) for key in prefixes])
        names = {name for found in located for name in found}
        if table == MESSAGES:
            await self._unlist(prefixes)
        main = self._places.main(table)
        if table == THREADS:
            mine = {name for name in names if name.place == main}
            await asyncio.gather(
                *[self._edits.apply(main.namespace, name.key, _removed) for name in mine]
            )
            names -= mine
        for namespace in {name.place.namespace for name in names}:
            keys = [name.key for name in names if name.place.namespace == namespace]
            await self._kv.write(namespace, [], keys)

    async def _unlist(self, prefixes: Sequence[Key]) -> None:
        """Take messages out of the lists of their threads, or remove whole lists."""
        edits: list[tuple[Name, Edit]] = []
        ids: dict[str, set[str]] = defaultdict(set)
        for prefix in prefixes:
            if len(prefix) == len(MESSAGES.key):
                ids[prefix[0]].add(prefix[1])
            else:
                edits += [(name, _removed) for name in await self._rows.lists(prefix)]
        for thread, gone in ids.items():
            edits += [(n, partial(unlisted, gone)) for n in await self._rows.lists((thread,))]
        await asyncio.gather(
            *[self._edits.apply(name.place.namespace, name.key, edit) for name, edit in edits]
        )


def _value(row: Row, owners: Mapping[str, str]) -> bytes:
    """The value that is stored for a row."""
    value = value_of(row, owner=owners.get(row.key[0]) if row.table == MESSAGES else None)
    if len(value) > MAX_VALUE_BYTES:
        raise TooLargeError(
            f"the record {row.key!r} of table {row.table.name!r} is {len(value):,} bytes in the "
            f"layout of the TypeScript store, more than the {MAX_VALUE_BYTES:,} that KV holds"
        )
    return value


def _by_table(items: Iterable[tuple[Table, T]]) -> list[tuple[Table, list[T]]]:
    """Items by their tables, in the order these come."""
    found: dict[str, tuple[Table, list[T]]] = {}
    for table, item in items:
        found.setdefault(table.name, (table, []))[1].append(item)
    return list(found.values())


def _replaced(value: bytes, old: bytes | None) -> bytes:
    return value


def _removed(old: bytes | None) -> None:
    return None
