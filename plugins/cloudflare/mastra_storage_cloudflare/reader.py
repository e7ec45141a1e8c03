"""Reading records by their keys, and remembering which were there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import structs

from mastra_storage import Key, Row
from mastra_storage_cloudflare.kv import KV
from mastra_storage_cloudflare.layout import Layout, place_of_index
from mastra_storage_cloudflare.overlay import written_at
from mastra_storage_cloudflare.touches import Touches

# How long a record that was seen is taken to be there still.
_KNOWN_SECONDS = 120.0
_MOST_KNOWN = 20_000


class Known(NamedTuple):
    """What is remembered of a record: until when, its index keys, its stored touch."""

    until: float
    index_keys: list[str]
    touched: int | None


class Reader:
    """Reads rows, with the touches that are stored or wait."""

    def __init__(self, kv: KV, touches: Touches) -> None:
        self._kv = kv
        self._touches = touches
        self._known: dict[str, Known] = {}  # oldest first

    async def rows(self, layout: Layout, names: Sequence[str]) -> list[Row | None]:
        """The rows under these keys, `None` for those that are not there."""
        if not names:
            return []
        touched = [layout.touched_of(name) for name in names] if layout.table.recent else []
        found = await self._kv.get(layout.table.name, [*names, *touched])
        rows: list[Row | None] = []
        for at, name in enumerate(names):
            if name not in found:
                self.forget(name)
                rows.append(None)
                continue
            stored = found.get(touched[at]) if touched else None
            row = layout.row(name, found[name], written_at(stored.metadata) if stored else None)
            if row.expires_at is not None and row.expires_at <= time.time_ns() // 1000:
                rows.append(None)
                continue
            self.remember(layout, row)
            rows.append(self._touches.apply(row))
        return rows

    async def standing(
        self, layout: Layout, start: str, found: Mapping[str, Row | None]
    ) -> list[Row]:
        """The rows read for index keys that begin with `start`, those that stand where these say.

        A row that stands elsewhere now is passed over. But one whose new index key was never
        stored, since KV left it out of a save that failed, stands where it stood before.
        """
        moved: dict[str, str] = {}
        for key, row in found.items():
            own = layout.index_keys(row) if row is not None else []
            if key not in own:
                moved.update((key, other) for other in own if other.startswith(start))
        stored = await self._kv.get(layout.table.name, [*moved.values()]) if moved else {}
        rows: dict[Key, Row] = {}
        for key, row in found.items():
            if row is None:
                continue
            if key in moved and moved[key] not in stored:
                order, seq = place_of_index(key, start)
                rows.setdefault(row.key, structs.replace(row, order=order, seq=seq))
            elif key in layout.index_keys(row):
                rows[row.key] = row
        return list(rows.values())

    def waiting_touch(self, layout: Layout, name: str) -> int | None:
        """The touch of a record that is not written yet."""
        key = layout.key_of(name)
        return None if key is None else self._touches.waiting(layout.table, key)

    def remember(self, layout: Layout, row: Row) -> None:
        """Take note of a record that is there."""
        name = layout.record_key(row.key)
        self._known.pop(name, None)
        left = _KNOWN_SECONDS
        if row.expires_at is not None:
            left = min(left, (row.expires_at - time.time_ns() // 1000) / 1e6)
        self._known[name] = Known(time.monotonic() + left, layout.index_keys(row), row.touched)
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    def forget_prefix(self, prefix: str) -> None:
        for name in [name for name in self._known if name.startswith(prefix)]:
            del self._known[name]

    def known(self, name: str) -> Known | None:
        """A record seen lately; `None` when it was not."""
        known = self._known.get(name)
        return known if known is not None and known.until > time.monotonic() else None

    async def missing(self, layout: Layout, keys: Sequence[Key]) -> list[Key]:
        """Those of the keys whose records are not there; asks only about those not seen lately."""
        names = {layout.record_key(key): key for key in keys}
        unseen = [name for name in names if self.known(name) is None]
        rows = await self.rows(layout, unseen)
        return [names[name] for name, row in zip(unseen, rows, strict=True) if row is None]
