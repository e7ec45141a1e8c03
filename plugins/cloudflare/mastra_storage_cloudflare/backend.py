"""`cloudflare://`: rows in Workers KV."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Self, cast
from urllib.parse import urlsplit

from msgspec import structs

from mastra_storage import (
    Backend,
    Capabilities,
    Delete,
    InvalidArgumentError,
    Key,
    NotFoundError,
    Op,
    Put,
    Query,
    Result,
    Row,
    Table,
    Touch,
    UnsupportedError,
    url_options,
)
from mastra_storage_cloudflare.batching import BatchingKV
from mastra_storage_cloudflare.deletes import Deletes, write_keys
from mastra_storage_cloudflare.futures import all_of
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_GET, MAX_VALUE_BYTES, Pair
from mastra_storage_cloudflare.layout import Layout, layout_of
from mastra_storage_cloudflare.options import Retention, retention_option, seconds_option
from mastra_storage_cloudflare.overlay import OverlayKV, written_at
from mastra_storage_cloudflare.places import place_of
from mastra_storage_cloudflare.queries import find, list_all
from mastra_storage_cloudflare.reader import Reader
from mastra_storage_cloudflare.touches import Touches


class CloudflareBackend(Backend):
    """Rows in the KV namespaces that a transport reaches: the REST API, or a Worker's bindings.

    - `prefix`: before every key, so that environments can share an account.
    - `retention`: how long the rows of a table are kept, by the table's name; in a URL as days,
      `traces:30,evals:7`.
    - `consistency_seconds`: how long a store's own writes are laid over what KV answers.
    """

    name = "cloudflare"
    capabilities = Capabilities(max_record_bytes=MAX_VALUE_BYTES, poll_interval=5.0)

    def __init__(
        self,
        kv: KV,
        *,
        prefix: str = "",
        retention: Retention | str | None = None,
        consistency_seconds: float = 120.0,
        key_interval: float = 1.0,
    ) -> None:
        seconds = seconds_option(consistency_seconds, "consistency_seconds")
        self._overlay = OverlayKV(kv, seconds=seconds)
        self._kv = BatchingKV(self._overlay, key_interval=key_interval)
        self._prefix = prefix
        self._retention = retention_option(retention or {})
        self._touches = Touches(self._kv, prefix, self._retention)
        self._reader = Reader(self._kv, self._touches)

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        from mastra_storage_cloudflare.interop import interop_backend, title_prefix
        from mastra_storage_cloudflare.rest import BASE_URL, RestKV

        allowed = ("api_token", "namespace_prefix", "base_url", "retention", "consistency_seconds")
        found = url_options(url, options, allowed=(*allowed, "interop"))
        account_id = urlsplit(url).netloc
        api_token = found.pop("api_token", None) or os.environ.get("CLOUDFLARE_API_TOKEN")
        if not account_id:
            raise InvalidArgumentError(
                "the URL has no account; it looks like cloudflare://ACCOUNT_ID", backend=cls.name
            )
        if not api_token:
            raise InvalidArgumentError(
                "there is no API token; set CLOUDFLARE_API_TOKEN, or in Python give api_token=",
                backend=cls.name,
            )
        prefix = found.pop("namespace_prefix", "")
        base_url = found.pop("base_url", None) or os.environ.get("CLOUDFLARE_BASE_URL") or BASE_URL
        interop = found.pop("interop", None)
        titles = prefix if interop is None else title_prefix(prefix)
        kv = RestKV(account_id, api_token, prefix=titles, base_url=base_url)
        if interop is not None:
            return cast(Self, interop_backend(interop, kv, prefix=prefix, **found))
        return cls(kv, prefix=prefix, **found)

    async def open(self) -> None:
        await self._kv.open()

    async def close(self) -> None:
        try:
            if self._touches.wait() and not self._kv.is_of_this_loop():
                await self._kv.open()  # they need connections of this loop
            await self._touches.close()
        finally:
            await self._kv.close()

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        layout = self._layout(table)
        return await self._reader.rows(layout, [layout.record_key(key) for key in keys])

    async def query(self, query: Query) -> Result:
        return await find(self._kv, self._reader, self._layout(query.table), query)

    def watch(self, query: Query) -> AsyncIterator[Result]:
        raise UnsupportedError("KV cannot watch; the engine polls")

    async def tables(self) -> list[str]:
        names = await self._kv.namespaces()
        return [name for name in names if await self._holds_rows(name)]

    async def _holds_rows(self, name: str) -> bool:
        async for _ in list_all(self._kv, name, f"{self._prefix}mastra_{name}:"):
            return True
        return False

    # -- writing -----------------------------------------------------------------------------

    async def write(self, ops: Sequence[Op]) -> None:
        touches = [op for op in ops if isinstance(op, Touch)]
        puts = [op for op in ops if isinstance(op, Put)]
        deletes = Deletes(self._kv, self._reader, self._touches, self._prefix, ops)
        if puts:
            await self._check_touched(touches)
            for table in _tables(op.table for op in puts):
                await self._put(self._layout(table), [op for op in puts if op.table == table])
            await deletes.find()
        else:
            # What is to be deleted is listed while it is asked whether what is touched is there.
            await all_of(self._check_touched(touches), deletes.find())
        await deletes.carry_out()
        gone = {(op.table, op.key) for op in ops if isinstance(op, Delete)}
        for op in touches:
            if (op.table, op.key) not in gone:
                self._touches.add(op.table, op.key, op.at)

    async def _check_touched(self, touches: Sequence[Touch]) -> None:
        for table in _tables(op.table for op in touches):
            keys = [op.key for op in touches if op.table == table]
            for key in await self._reader.missing(self._layout(table), keys):
                raise NotFoundError(f"there is no row {key!r} in table {table.name!r} to touch")

    async def _put(self, layout: Layout, puts: Sequence[Put]) -> None:
        pairs: dict[str, Pair] = {}
        owners: dict[str, Key] = {}
        names = [layout.record_key(put.row.key) for put in puts]
        rows = [self._placed(layout, name, put) for name, put in zip(names, puts, strict=True)]
        for name, row in zip(names, rows, strict=True):
            if known := self._reader.known(name):
                owners.update(dict.fromkeys(layout.index_keys(known), row.key))
            for pair in layout.pairs(row):
                pairs[pair.key], owners[pair.key] = pair, row.key
        touched = [row for row in rows if row.touched is not None]
        for pair, key in await self._raised_touches(layout, touched) if touched else ():
            pairs[pair.key], owners[pair.key] = pair, key
        await write_keys(self._kv, layout, pairs, owners)
        for name, row in zip(names, rows, strict=True):
            self._reader.remember(name, row)
        for row in rows[-MAX_KEYS_OF_GET:]:
            for start, index_key in layout.index_entries(row):
                self._reader.recall.put(start, index_key)

    async def _raised_touches(self, layout: Layout, rows: Sequence[Row]) -> list[tuple[Pair, Key]]:
        """The touches that rows bring with them, where they are later than what is stored."""
        raised: list[tuple[Pair, Key]] = []
        for row in rows:
            known = self._reader.known(layout.record_key(row.key))
            stored = known.touched if known else None
            if row.touched is not None and (stored is None or stored < row.touched):
                raised.append((layout.touch(row.key, row.touched, row.expires_at), row.key))
        names = [pair.key for pair, _ in raised]
        found = await self._kv.get(layout.table.name, names) if names else {}
        return [
            (pair, key)
            for pair, key in raised
            if pair.key not in found
            or written_at(found[pair.key].metadata) < written_at(pair.metadata)
        ]

    def _placed(self, layout: Layout, name: str, put: Put) -> Row:
        """The row as it is stored: in the place of the one it replaces, if that is known."""
        row = put.row
        if put.if_version is not None:
            raise UnsupportedError("KV has no compare-and-set; nothing was written")
        old = self._overlay.own(layout.table.name, name)
        place = None if old is None else place_of(old)
        if place is not None and place.has_expired():
            place = None
        if put.keep_place and place is not None and int(place.order) == row.order:
            row = structs.replace(row, seq=int(place.seq))
        kept_for = self._retention.get(layout.table.name)
        if row.expires_at is None and kept_for is not None:
            row = structs.replace(row, expires_at=time.time_ns() // 1000 + kept_for)
        return row

    def _layout(self, table: Table) -> Layout:
        return layout_of(self._prefix, table)


def _tables(tables: Iterable[Table]) -> list[Table]:
    """The tables in the order they come, each once."""
    return list(dict.fromkeys(tables))
