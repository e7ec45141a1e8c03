"""Deleting rows with all the keys beside their records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mastra_storage import (
    Delete,
    DeletePrefix,
    Key,
    Op,
    PartialWriteError,
    Row,
    StorageError,
    Table,
    UnsupportedError,
)
from mastra_storage_cloudflare.batching import BatchingKV
from mastra_storage_cloudflare.futures import all_of
from mastra_storage_cloudflare.kv import KV, Pair
from mastra_storage_cloudflare.layout import Layout, layout_of
from mastra_storage_cloudflare.queries import list_all
from mastra_storage_cloudflare.reader import Reader
from mastra_storage_cloudflare.touches import Touches


class _Deletes:
    """The deletes of one table, and what is found of the rows.

    `names`: the keys under a prefix. `rows`: those that are deleted singly, as they were seen
    lately, and as they are; their places say which keys are beside them.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.prefixes: list[Key] = []
        self.keys: list[Key] = []
        self.names: dict[Key, list[str]] = {}
        self.rows: list[Row] = []

    def owners(self) -> dict[str, Key]:
        """Every key that is to go, and whose it is."""
        found = {name: prefix for prefix, names in self.names.items() for name in names}
        for key in self.keys:
            name = self.layout.record_key(key)
            found[name] = key
            if self.layout.table.recent:
                found[self.layout.touched_of(name)] = key
        for row in self.rows:
            found.update(dict.fromkeys(self.layout.index_keys(row), row.key))
        return found


class Deletes:
    """The deletes of a write: `find` what they are about, then `carry_out`."""

    def __init__(
        self, kv: BatchingKV, reader: Reader, touches: Touches, prefix: str, ops: Sequence[Op]
    ) -> None:
        self._kv = kv
        self._reader = reader
        self._touches = touches
        self._tables: dict[Table, _Deletes] = {}
        for op in ops:
            if isinstance(op, Delete) and op.if_version is not None:
                raise UnsupportedError("KV has no compare-and-set; nothing was deleted")
            if isinstance(op, (Delete, DeletePrefix)):
                of_table = self._tables.setdefault(op.table, _Deletes(layout_of(prefix, op.table)))
                key = op.key if isinstance(op, Delete) else op.prefix
                whole = len(key) == len(op.table.key)
                (of_table.keys if whole else of_table.prefixes).append(key)

    async def find(self) -> None:
        """List what is under prefixes; get to know where the rows stand that go singly."""
        if not self._tables:
            return
        # While there is a listing to wait for, asking anew where rows stand takes no time.
        anew = any(of_table.prefixes for of_table in self._tables.values())
        await all_of(
            *[self._list(of_table) for of_table in self._tables.values()],
            *[self._locate(of_table, anew=anew) for of_table in self._tables.values()],
        )

    async def _list(self, deletes: _Deletes) -> None:
        prefixes = list(dict.fromkeys(deletes.prefixes))
        found = await all_of(*[self._keys_under(deletes.layout, prefix) for prefix in prefixes])
        deletes.names = dict(zip(prefixes, found, strict=True))

    async def _keys_under(self, layout: Layout, prefix: Key) -> list[str]:
        """All keys of the rows under a prefix: records, index keys and touches."""

        async def listed(start: str) -> list[str]:
            # A caller that was cancelled may have left a write that is not stored yet.
            coming = self._kv.puts_under(layout.table.name, start)
            there = [entry.key async for entry in list_all(self._kv, layout.table.name, start)]
            return coming + there

        listings = await all_of(*map(listed, layout.prefixes(prefix)))
        return [key for keys in listings for key in keys]

    async def _locate(self, deletes: _Deletes, *, anew: bool) -> None:
        if not deletes.layout.table.listings:
            return  # no keys beside the record that its place would tell
        known = {
            name: self._reader.known(name) for name in map(deletes.layout.record_key, deletes.keys)
        }
        unseen = [name for name, row in known.items() if anew or row is None]
        read = await self._reader.rows(deletes.layout, unseen)
        deletes.rows = [row for row in (*known.values(), *read) if row is not None]

    async def carry_out(self) -> None:
        for deletes in self._tables.values():
            await self._delete(deletes)

    async def _delete(self, deletes: _Deletes) -> None:
        table = deletes.layout.table
        dropped: dict[Key, int] = {}
        for prefix in (*deletes.prefixes, *deletes.keys):
            dropped |= self._touches.drop(table, prefix)
        self._forget(deletes)
        try:
            await write_keys(self._kv, deletes.layout, {}, deletes.owners())
        except StorageError:
            # Who tries again is to find every key of a row, also if its record is gone by now.
            for row in deletes.rows:
                self._reader.remember(deletes.layout.record_key(row.key), row)
            for key, at in dropped.items():
                self._touches.add(table, key, at)
            raise
        self._forget(deletes)  # once more: it may have been read while it was being deleted

    def _forget(self, deletes: _Deletes) -> None:
        for prefix in deletes.prefixes:
            self._reader.forget_prefix(deletes.layout.record_prefix(prefix))
        for key in deletes.keys:
            self._reader.forget(deletes.layout.record_key(key))
        for row in deletes.rows:
            for start, index_key in deletes.layout.index_entries(row):
                self._reader.recall.deleted(start, index_key)


async def write_keys(
    kv: KV, layout: Layout, pairs: Mapping[str, Pair], owners: Mapping[str, Key]
) -> None:
    """Write pairs and delete all other keys of `owners`, which says whose keys they are."""
    deletes = [name for name in owners if name not in pairs]
    try:
        await kv.write(layout.table.name, list(pairs.values()), deletes)
    except PartialWriteError as exc:
        failed = dict.fromkeys(owners[name] for _, (name,) in exc.failed)
        raise PartialWriteError(
            exc.message, failed=[(layout.table.name, key) for key in failed]
        ) from exc
