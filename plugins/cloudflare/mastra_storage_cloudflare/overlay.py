"""Reading one's own writes, on a store that shows them late.

For a while after a write of its own, a store answers gets and listings with what it wrote,
unless KV has something written later by somebody else. Each value's metadata carries the time
it was written, so the later one is known. Misses of others are never remembered.

It lies below the layer that batches: a bulk write is remembered at once, whatever became of the
callers whose writes went out in it.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Collection, Sequence

import msgspec
from msgspec import Struct

from mastra_storage import PartialWriteError
from mastra_storage_cloudflare.kv import KV, Entry, Found, Listing, Pair
from mastra_storage_cloudflare.listings import page_behind


class _Stamp(Struct, rename={"written": "w"}):
    written: str = "0"


# The last time there is, in microseconds since 1970.
_LATEST = 253_402_300_799_999_999

_stamp = msgspec.json.Decoder(_Stamp).decode


def written_at(metadata: str | None) -> int:
    """When a value was written, in microseconds; 0 when its metadata does not say."""
    try:
        written = int(_stamp(metadata or "{}").written)
    except (msgspec.MsgspecError, ValueError):
        return 0
    return written if 0 <= written <= _LATEST else 0


class _Own(Struct, gc=False):
    """A write of one's own: what was stored (`None`: deleted), when, and until when it counts."""

    pair: Pair | None
    moment: int
    until: float

    @property
    def written(self) -> int:
        return self.moment if self.pair is None else written_at(self.pair.metadata)

    @property
    def size(self) -> int:
        pair = self.pair
        return 200 + (0 if pair is None else len(pair.key) + len(pair.value) + len(pair.metadata))


class OverlayKV(KV):
    """Lays one's own recent writes over another `KV`."""

    def __init__(self, kv: KV, *, seconds: float = 120.0, max_bytes: int = 64 * 2**20) -> None:
        """`seconds`: how long a write counts; `max_bytes`: the oldest are forgotten beyond it."""
        self._kv = kv
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._bytes = 0
        # Oldest first; and the keys of each namespace, sorted.
        self._own: OrderedDict[tuple[str, str], _Own] = OrderedDict()
        self._keys: dict[str, list[str]] = {}

    async def open(self) -> None:
        await self._kv.open()

    async def close(self) -> None:
        self._own.clear()
        self._keys.clear()
        self._bytes = 0
        await self._kv.close()

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        found = await self._kv.get(namespace, keys)
        self._forget_old()
        for key in keys if self._own else ():
            own = self._own.get((namespace, key))
            if own is None or _is_later(found.get(key), own):
                continue
            if own.pair is None:
                found.pop(key, None)
            else:
                found[key] = Found(own.pair.value, own.pair.metadata)
        return found

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        # The cursor handed out says also behind which key the listing goes on.
        start, inner = ("", None) if cursor is None else msgspec.json.decode(cursor)
        listing = await page_behind(self._kv, namespace, prefix, start, cursor=inner, limit=limit)
        self._forget_old()
        end = listing.entries[-1].key if listing.entries else start
        cursor = msgspec.json.encode((end, listing.cursor)).decode() if listing.cursor else None
        written = self._own_keys(namespace, prefix, start, end if listing.cursor else None)
        if not written:
            return Listing(listing.entries, cursor)
        entries = {entry.key: entry for entry in listing.entries}
        for key in written:
            own = self._own[namespace, key]
            if _is_later(entries.get(key), own):
                continue
            if own.pair is None:
                entries.pop(key, None)
            else:
                entries[key] = Entry(key, own.pair.metadata)
        return Listing([entries[key] for key in sorted(entries)], cursor)

    async def namespaces(self) -> list[str]:
        return await self._kv.namespaces()

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        moment = time.time_ns() // 1000
        try:
            await self._kv.write(namespace, pairs, deletes)
        except PartialWriteError as exc:
            failed = {key for _, (key,) in exc.failed}
            stored = [pair for pair in pairs if pair.key not in failed]
            self._remember(namespace, stored, [key for key in deletes if key not in failed], moment)
            raise
        self._remember(namespace, pairs, deletes, moment)

    def own(self, namespace: str, key: str) -> Pair | None:
        """What this store itself wrote there lately; `None` when it did not, or deleted it."""
        self._forget_old()
        own = self._own.get((namespace, key))
        return own.pair if own is not None else None

    def _remember(
        self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str], moment: int
    ) -> None:
        until = time.monotonic() + self._seconds
        changed = {pair.key: _Own(pair, moment, until) for pair in pairs}
        changed |= {key: _Own(None, moment, until) for key in deletes}
        keys = self._keys.setdefault(namespace, [])
        for key, own in changed.items():
            if (namespace, key) in self._own:
                self._drop(namespace, key)
            self._own[namespace, key] = own
            self._bytes += own.size
            insort(keys, key)
        while self._bytes > self._max_bytes:
            self._drop(*next(iter(self._own)))

    def _forget_old(self) -> None:
        moment = time.monotonic()
        while self._own:
            (namespace, key), own = next(iter(self._own.items()))
            if own.until > moment:
                return
            self._drop(namespace, key)

    def _drop(self, namespace: str, key: str) -> None:
        self._bytes -= self._own.pop((namespace, key)).size
        keys = self._keys[namespace]
        del keys[bisect_left(keys, key)]

    def _own_keys(self, namespace: str, prefix: str, start: str, end: str | None) -> list[str]:
        """One's own keys with a prefix, behind `start` and up to `end`."""
        keys = self._keys.get(namespace, [])
        first = bisect_right(keys, start) if start else bisect_left(keys, prefix)
        last = first
        while last < len(keys) and keys[last].startswith(prefix):
            if end is not None and keys[last] > end:
                break
            last += 1
        return keys[first:last]


def _is_later(there: Found | Entry | None, own: _Own) -> bool:
    """Whether what KV shows was written after one's own write."""
    return there is not None and written_at(there.metadata) > own.written
