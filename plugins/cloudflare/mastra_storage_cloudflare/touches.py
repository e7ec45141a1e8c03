"""Touches: acknowledged at once, merged, and written within a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from msgspec import structs

from mastra_storage import Key, Row, StorageError, Table
from mastra_storage_cloudflare.futures import of_this_loop
from mastra_storage_cloudflare.kv import KV, Pair
from mastra_storage_cloudflare.layout import layout_of

# Seconds until touches are written, and at most, where that fails time after time.
_DELAY = 1.0
_LONGEST_DELAY = 60.0

_log = logging.getLogger("mastra_storage.cloudflare")


class Touches:
    """The touches that wait to be written: of each row the latest."""

    def __init__(self, kv: KV, prefix: str, retention: Mapping[str, int]) -> None:
        """`retention`: the microseconds for which rows are kept, by the name of their table."""
        self._kv = kv
        self._prefix = prefix
        self._retention = retention
        self._waiting: dict[tuple[Table, Key], int] = {}
        self._flushing: list[asyncio.Task[None]] = []  # the one that does it

    def add(self, table: Table, key: Key, at: int) -> None:
        self._waiting[table, key] = max(at, self._waiting.get((table, key), at))
        if all(task.done() for task in of_this_loop(self._flushing)):
            self._flushing = [asyncio.get_running_loop().create_task(self._flush_later())]

    def wait(self) -> bool:
        """Whether any is not written yet."""
        return bool(self._waiting)

    def drop(self, table: Table, prefix: Key) -> dict[Key, int]:
        """Forget the touches of rows that are being deleted; gives them."""
        under = [key for of, key in self._waiting if of == table and key[: len(prefix)] == prefix]
        return {key: self._waiting.pop((table, key)) for key in under}

    def apply(self, row: Row) -> Row:
        """The row with the touch that waits, if it is later than the one it has."""
        waiting = self._waiting.get((row.table, row.key))
        if waiting is None or (row.touched is not None and row.touched >= waiting):
            return row
        return structs.replace(row, touched=waiting)

    def waiting(self, table: Table, key: Key) -> int | None:
        """The touch of a row that is not written yet."""
        return self._waiting.get((table, key))

    async def close(self) -> None:
        """Write what waits."""
        for flushing in of_this_loop(self._flushing):
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)
        try:
            await self._flush()
        finally:
            self._waiting.clear()

    async def _flush_later(self) -> None:
        delay = _DELAY
        while self._waiting:
            await asyncio.sleep(delay)
            try:
                await self._flush()
            except StorageError as exc:
                delay = min(2 * delay, _LONGEST_DELAY)
                _log.debug("touches wait for %.0f s: %s", delay, type(exc).__name__)
            else:
                delay = _DELAY

    async def _flush(self) -> None:
        """Write the touches that wait; those that could not be written wait on."""
        sending = dict(self._waiting)
        pairs: dict[str, list[Pair]] = {}
        for (table, key), at in sending.items():
            kept_for = self._retention.get(table.name)
            expires_at = None if kept_for is None else at + kept_for
            pair = layout_of(self._prefix, table).touch(key, at, expires_at)
            pairs.setdefault(table.name, []).append(pair)
        for name, of_table in pairs.items():
            await self._kv.write(name, of_table, ())
        for touched, at in sending.items():
            if self._waiting.get(touched) == at:
                del self._waiting[touched]
