"""`MastraStore`: LangGraph's long-term memory on any backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)
from msgspec import structs

import mastra_storage
from mastra_storage import Delete, Key, Put, Query, Row, Storage, UnsupportedError
from mastra_storage_langgraph._bridge import Bridge
from mastra_storage_langgraph._filters import matches, matches_namespace
from mastra_storage_langgraph._tasks import together
from mastra_storage_langgraph.tables import ITEMS, key_part

__all__ = ["MastraStore"]

# So many labels of a namespace have an index of their own.
_INDEXED: Final = len(ITEMS.fields)
# How many items are read at once where a filter decides which of them count.
_PAGE: Final = 200
# An item that would live on by less than this, in microseconds, is not written for it.
_REFRESH: Final = 1_000_000


class MastraStore(BaseStore):
    """Keeps LangGraph's long-term memory in a `Storage`, on any backend.

        async with open_storage("sqlite:///agent.db") as storage:
            store = MastraStore(storage)
            await store.aput(("memories", "ada"), "coffee", {"likes": "espresso"})

    - `storage`: open, and left open; the store is made in the event loop that it was opened in.
    - `ttl`: LangGraph's settings for items that expire: `default_ttl`, in minutes since an item
      was last written or read, and `refresh_on_read`. An item that has expired is gone.

    A search gives items in the order of their last change, newest first. There is no vector
    search: a search with `query` raises `UnsupportedError`, and `index` has no effect. Values
    are JSON; `InvalidRecordError` names what is not. `created_at` is that of the first put. Other
    errors are those of `mastra_storage`, and those of LangGraph for namespaces.

    `batch` and the other methods without `a` are for other threads than that of the event loop,
    where they raise `asyncio.InvalidStateError`.
    """

    supports_ttl = True

    def __init__(self, storage: Storage, *, ttl: TTLConfig | None = None) -> None:
        self._bridge = Bridge()
        storage.register(ITEMS)
        self._storage = storage
        self.ttl_config = ttl

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """See `abatch`."""
        return self._bridge.run(self.abatch(ops), "await store.aput(...)")

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations; the reads see nothing of what the same call puts.

        Of several puts of one key the last counts. All puts are one write.
        """
        given = list(ops)
        for op in given:
            validate_op_namespace(op)
        gets = [op for op in given if isinstance(op, GetOp)]
        others = [op for op in given if isinstance(op, (SearchOp, ListNamespacesOp))]
        puts = [op for op in given if isinstance(op, PutOp)]
        if len(gets) + len(others) + len(puts) != len(given):
            raise ValueError("abatch takes GetOp, SearchOp, PutOp and ListNamespacesOp")
        items, *found = await together(self._get(gets), *map(self._read, others))
        await self._put(puts)
        answers = {
            id(op): answer for op, answer in zip([*gets, *others], [*items, *found], strict=True)
        }
        return [answers.get(id(op)) for op in given]

    # -- reading -----------------------------------------------------------------------------

    async def _get(self, ops: Sequence[GetOp]) -> list[Item | None]:
        keys = list(dict.fromkeys(_key(op.namespace, op.key) for op in ops))
        refreshed = {_key(op.namespace, op.key) for op in ops if op.refresh_ttl}
        if refreshed:
            rows = await self._refresh(keys, refreshed)
        else:
            rows = await self._storage.get_rows(ITEMS, keys)
        found = dict(zip(keys, rows, strict=True))
        return [_item(Item, found[_key(op.namespace, op.key)]) for op in ops]

    async def _refresh(self, keys: Sequence[Key], which: Iterable[Key]) -> list[Row | None]:
        """The rows with these keys; some of them, if they expire, live on from now."""
        found: list[Row | None] = []
        chosen = set(which)

        def later(rows: list[Row | None]) -> list[mastra_storage.Op]:
            found[:] = rows
            return [
                Put(put)
                for row in rows
                if row is not None and row.key in chosen and (put := self._prolonged(row))
            ]

        await self._storage.change_rows([(ITEMS, key) for key in keys], later)
        return found

    def _prolonged(self, row: Row) -> Row | None:
        record = ITEMS.record_of(row)
        if row.expires_at is None or record["ttl"] is None:
            return None
        expires_at = _expiry(record["ttl"])
        new = self._storage.new_row(ITEMS, record, order=row.order, expires_at=expires_at)
        return new if (new.expires_at or 0) - row.expires_at >= _REFRESH else None

    async def _read(self, op: SearchOp | ListNamespacesOp) -> Any:
        if isinstance(op, ListNamespacesOp):
            return await self._namespaces(op)
        if op.query:
            raise UnsupportedError(
                "MastraStore has no vector search: leave out `query`, and filter by members of the "
                "value instead"
            )
        rows = await self._search(op)
        if op.refresh_ttl and any(row.expires_at is not None for row in rows):
            keys = [row.key for row in rows]
            await self._refresh(keys, keys)
        return [_item(SearchItem, row) for row in rows]

    async def _search(self, op: SearchOp) -> list[Row]:
        prefix = tuple(op.namespace_prefix)
        query = Query(table=ITEMS, fields=_under(prefix), descending=True)
        if not op.filter and len(prefix) <= _INDEXED:
            query = structs.replace(query, offset=op.offset, limit=op.limit)
            return await self._storage.find_rows(query)
        end = op.offset + op.limit
        found: list[Row] = []
        query = structs.replace(query, limit=_PAGE)
        while len(found) < end and (rows := await self._storage.find_rows(query)):
            found += [row for row in rows if _is_wanted(ITEMS.record_of(row), prefix, op.filter)]
            if len(rows) < _PAGE:
                break
            query = structs.replace(query, after=query.position(rows[-1]))
        return found[op.offset : end]

    async def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        known: tuple[str, ...] = ()
        for condition in conditions:
            if condition.match_type == "prefix":
                path = condition.path
                known = max(known, path[: path.index("*") if "*" in path else None], key=len)
        query = Query(table=ITEMS, fields=_under(known), order_by="any")
        rows = await self._storage.find_rows(query)
        all_labels = {tuple(ITEMS.record_of(row)["labels"]) for row in rows}
        found = {
            labels[: op.max_depth]
            for labels in all_labels
            if all(matches_namespace(condition, labels) for condition in conditions)
        }
        return sorted(found)[op.offset : op.offset + op.limit]

    # -- writing -----------------------------------------------------------------------------

    async def _put(self, ops: Sequence[PutOp]) -> None:
        last = {_key(op.namespace, op.key): op for op in ops}
        if not last:
            return

        def changed(rows: list[Row | None]) -> list[mastra_storage.Op]:
            found: list[mastra_storage.Op] = []
            for op, row in zip(last.values(), rows, strict=True):
                if op.value is not None:
                    found.append(Put(self._row(op, row)))
                elif row is not None:
                    found.append(Delete(ITEMS, row.key))
            return found

        await self._storage.change_rows([(ITEMS, key) for key in last], changed)

    def _row(self, op: PutOp, old: Row | None) -> Row:
        now = datetime.now(timezone.utc)
        namespace, key = _key(op.namespace, op.key)
        created_at = now.isoformat() if old is None else ITEMS.record_of(old)["created_at"]
        record = {
            "namespace": namespace,
            "key": key,
            **{name: values[0] for name, values in _under_all(op.namespace).items()},
            "labels": list(op.namespace),
            "name": op.key,
            "value": dict(op.value or {}),
            "created_at": created_at,
            "updated_at": now.isoformat(),
            "ttl": op.ttl,
        }
        return self._storage.new_row(ITEMS, record, expires_at=_expiry(op.ttl))


def _key(namespace: Sequence[str], key: str) -> Key:
    # No label has a period in it.
    return key_part(".".join(namespace)), key_part(key)


def _under(prefix: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The filter by the longest beginning of a namespace that has an index."""
    labels = prefix[:_INDEXED]
    return {f"under{len(labels)}": (key_part(".".join(labels)),)} if labels else {}


def _under_all(namespace: Sequence[str]) -> dict[str, tuple[str, ...]]:
    fields: dict[str, tuple[str, ...]] = {}
    for count in range(1, min(len(namespace), _INDEXED) + 1):
        fields |= _under(namespace[:count])
    return fields


def _is_wanted(
    record: Mapping[str, Any], prefix: tuple[str, ...], filter: Mapping[str, Any] | None
) -> bool:
    value = record["value"]
    return tuple(record["labels"][: len(prefix)]) == prefix and all(
        matches(value.get(name), wanted) for name, wanted in (filter or {}).items()
    )


def _item(kind: type[Item], row: Row | None) -> Item | None:
    if row is None:
        return None
    record = ITEMS.record_of(row)
    return kind(
        namespace=tuple(record["labels"]),
        key=record["name"],
        value=record["value"],
        created_at=datetime.fromisoformat(record["created_at"]),
        updated_at=datetime.fromisoformat(record["updated_at"]),
    )


def _expiry(ttl: float | None) -> datetime | None:
    return None if ttl is None else datetime.now(timezone.utc) + timedelta(minutes=ttl)
