"""Reading records by their keys, and remembering which were there."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from msgspec import structs

from mastra_storage import Key, Row
from mastra_storage_cloudflare.futures import all_of
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_GET, Found
from mastra_storage_cloudflare.layout import Layout
from mastra_storage_cloudflare.overlay import written_at
from mastra_storage_cloudflare.places import place_of_index
from mastra_storage_cloudflare.recall import Recall
from mastra_storage_cloudflare.touches import Touches

# How long a record that was seen is taken to be there still.
_KNOWN_SECONDS = 120.0
_MOST_KNOWN = 20_000


class _Known(NamedTuple):
    """What is remembered of a record: until when, and its row without the value."""

    until: float
    row: Row


class Reader:
    """Reads rows, with the touches that are stored or wait."""

    def __init__(self, kv: KV, touches: Touches) -> None:
        self._kv = kv
        self._touches = touches
        self.recall = Recall()
        self._known: OrderedDict[str, _Known] = OrderedDict()  # oldest first

    async def rows(self, layout: Layout, names: Sequence[str]) -> list[Row | None]:
        """The rows under these keys, `None` for those that are not there."""
        # Rows are made of one answer while the next ones are on their way.
        size = MAX_KEYS_OF_GET // (2 if layout.table.recent else 1)
        if len(names) <= size:
            return await self._rows_of(layout, names)
        parts = [names[start : start + size] for start in range(0, len(names), size)]
        rows = await all_of(*[self._rows_of(layout, part) for part in parts])
        return [*chain.from_iterable(rows)]

    async def _rows_of(self, layout: Layout, names: Sequence[str]) -> list[Row | None]:
        found = await self._found(layout, names)
        return [self._row(layout, name, found) for name in names]

    async def _found(self, layout: Layout, names: Sequence[str]) -> dict[str, Found]:
        """What is under these keys, and the touches of it."""
        if not names:
            return {}
        touched = map(layout.touched_of, names) if layout.table.recent else ()
        return await self._kv.get(layout.table.name, [*names, *touched])

    def _row(self, layout: Layout, name: str, found: Mapping[str, Found]) -> Row | None:
        if name not in found:
            self.forget(name)
            return None
        stored = found.get(layout.touched_of(name)) if layout.table.recent else None
        row = layout.row(name, found[name], written_at(stored.metadata) if stored else None)
        if row.expires_at is not None and row.expires_at <= time.time_ns() // 1000:
            return None
        self.remember(name, row)
        return self._touches.apply(row)

    async def standing(
        self, layout: Layout, start: str, found: Mapping[str, Row | None]
    ) -> list[Row]:
        """The rows read for index keys that begin with `start`, those that stand where these say.

        A row that stands elsewhere now is passed over. But one whose new index key was never
        stored, since KV left it out of a save that failed, stands where it stood before.
        """
        there = {key: row for key, row in found.items() if row is not None}
        elsewhere = {key for key, row in there.items() if not layout.stands_at(row, key, start)}
        moved = {
            key: other
            for key in elsewhere
            for other in layout.index_keys(there[key])
            if other.startswith(start)
        }
        stored = await self._kv.get(layout.table.name, [*moved.values()]) if moved else {}
        rows: dict[Key, Row] = {}
        for key, row in there.items():
            if key not in elsewhere:
                rows[row.key] = row
            elif key in moved and moved[key] not in stored:
                order, seq = place_of_index(key, start)
                rows.setdefault(row.key, structs.replace(row, order=order, seq=seq))
        return list(rows.values())

    def waiting_touch(self, layout: Layout, name: str) -> int | None:
        """The touch of a record that is not written yet."""
        key = layout.key_of(name)
        return None if key is None else self._touches.waiting(layout.table, key)

    def remember(self, name: str, row: Row) -> None:
        """Take note of the record under this key, which is there."""
        left = _KNOWN_SECONDS
        if row.expires_at is not None:
            left = min(left, (row.expires_at - time.time_ns() // 1000) / 1e6)
        time_now = time.monotonic()
        self._known[name] = _Known(time_now + left, structs.replace(row, value=b""))
        self._known.move_to_end(name)
        while self._known:
            oldest = next(iter(self._known))
            if len(self._known) <= _MOST_KNOWN and self._known[oldest].until > time_now:
                break
            del self._known[oldest]

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    def forget_prefix(self, prefix: str) -> None:
        for name in [name for name in self._known if name.startswith(prefix)]:
            del self._known[name]

    def known(self, name: str) -> Row | None:
        """A record seen lately, without its value; `None` when it was not."""
        known = self._known.get(name)
        return known.row if known is not None and known.until > time.monotonic() else None

    async def missing(self, layout: Layout, keys: Sequence[Key]) -> list[Key]:
        """Those of the keys whose records are not there; asks only about those not seen lately."""
        names = {layout.record_key(key): key for key in keys}
        unseen = [name for name in names if self.known(name) is None]
        found = await self._found(layout, unseen)
        # Of many that ask for a row at one moment, the first gets to know it for all.
        return [
            names[name]
            for name in unseen
            if self.known(name) is None and self._row(layout, name, found) is None
        ]
