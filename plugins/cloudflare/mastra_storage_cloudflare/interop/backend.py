"""`InteropBackend`: rows in the layout of the TypeScript store `@mastra/cloudflare`."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self, cast

from mastra_storage import (
    TABLES,
    WORKFLOW_SNAPSHOT,
    Backend,
    Capabilities,
    InvalidArgumentError,
    Key,
    Op,
    Query,
    Result,
    Row,
    Table,
    UnsupportedError,
    select,
)
from mastra_storage_cloudflare.batching import BatchingKV
from mastra_storage_cloudflare.interop.layout import Places, check_table
from mastra_storage_cloudflare.interop.recent import RecentWritesKV
from mastra_storage_cloudflare.interop.rows import Rows
from mastra_storage_cloudflare.interop.walks import walk
from mastra_storage_cloudflare.interop.writes import Writes
from mastra_storage_cloudflare.kv import KV, MAX_VALUE_BYTES
from mastra_storage_cloudflare.options import Retention, seconds_option


class InteropBackend(Backend):
    """Rows in the layout of the TypeScript store, so that it and this one share their data.

    - `prefix`: the TypeScript store's `namespacePrefix` or `keyPrefix`.
    - `titled`: whether namespaces are found by their titles, as over REST, and not bound.
    - `consistency_seconds`: how long a store's own writes are laid over what KV answers.
    """

    name = "cloudflare"
    capabilities = Capabilities(max_record_bytes=MAX_VALUE_BYTES, poll_interval=5.0)

    def __init__(
        self,
        kv: KV,
        *,
        prefix: str = "",
        titled: bool = True,
        consistency_seconds: float = 120.0,
        key_interval: float = 1.0,
    ) -> None:
        batching = BatchingKV(kv, key_interval=key_interval)
        self._kv = RecentWritesKV(
            batching, seconds=seconds_option(consistency_seconds, "consistency_seconds")
        )
        self._places = Places(self._kv, prefix, titled=titled)
        self._rows = Rows(self._kv, self._places)
        self._writes = Writes(self._kv, self._places, self._rows)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        from mastra_storage_cloudflare.backend import CloudflareBackend

        return cast(Self, CloudflareBackend.from_url(url, **{"interop": "mastra", **options}))

    async def open(self) -> None:
        await self._kv.open()

    async def close(self) -> None:
        try:
            await self._writes.close()
            await self._places.close()
        finally:
            await self._kv.close()

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        check_table(table)
        return await self._rows.get(table, keys)

    async def query(self, query: Query) -> Result:
        if TABLES.get(query.table.name) != query.table:
            # A copy asks for all tables that are known, also those that this layout cannot have.
            return Result(rows=[], total=0 if query.count else None)
        if query.limit == 0 and not query.count:
            return Result(rows=[])
        whole = query.count or query.offset or query.table == WORKFLOW_SNAPSHOT
        if query.order_by == "any" and not whole:
            return await walk(self._kv, self._places, self._rows, query)
        return select(await self._rows.all(query.table, query.prefix), query)

    async def write(self, ops: Sequence[Op]) -> None:
        await self._writes.carry_out(ops)

    def watch(self, query: Query) -> AsyncIterator[Result]:
        raise UnsupportedError("KV cannot watch; the engine polls")

    async def tables(self) -> list[str]:
        unread = await self._places.unread()
        if unread:
            # Not an error, which would keep all the others from being copied.
            warnings.warn(
                "the TypeScript store has records that this library does not read, and a copy "
                f"leaves where they are, in the namespaces of: {', '.join(unread)}",
                stacklevel=2,
            )
        return [table.name for table in TABLES.values() if await self._rows.any(table)]


def interop_backend(
    interop: str, kv: KV, *, retention: Retention | None = None, **options: Any
) -> InteropBackend:
    """The backend that `interop` names, on a transport."""
    if interop != "mastra":
        raise InvalidArgumentError(
            f"interop must be 'mastra', not {interop!r}", backend=InteropBackend.name
        )
    if retention:
        raise UnsupportedError(
            "the layout of the TypeScript store has no records that expire: give no retention",
            backend=InteropBackend.name,
        )
    return InteropBackend(kv, **options)


def title_prefix(prefix: str) -> str:
    """What stands before `mastra_…` in the titles of the TypeScript store's namespaces."""
    return f"{prefix}_" if prefix else ""
