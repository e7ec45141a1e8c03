"""Reading one's own writes, in a store that others write too and whose values bear no time.

KV may go on showing for a while what was there before a write, also after it has shown the write
itself. So a store's own write stands for as long as KV shows nothing else; what is neither its
own nor from before was written by somebody else, later.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from hashlib import blake2b

from msgspec import Struct

from mastra_storage import PartialWriteError
from mastra_storage_cloudflare.batching import BatchingKV
from mastra_storage_cloudflare.kv import KV, Found, Listing, Pair

_MOST_SEEN = 20_000

# The digest of a value; `None` for no value.
_Mark = bytes | None


class _Own(Struct):
    """What was written, and until when it counts; what KV may show in its place, each until when.

    `overtaken`: whether KV has shown what somebody else wrote, later.
    """

    value: bytes | None
    mark: _Mark
    before: dict[_Mark, float]
    until: float
    overtaken: bool = False


class RecentWritesKV(KV):
    """Lays one's own recent writes over what another `KV` answers to `get`."""

    def __init__(self, kv: BatchingKV, *, seconds: float, max_bytes: int = 64 * 2**20) -> None:
        """`seconds`: how long a write counts; `max_bytes`: the oldest are forgotten beyond it."""
        self._kv = kv
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._bytes = 0
        self._own: OrderedDict[tuple[str, str], _Own] = OrderedDict()  # oldest first
        self._seen: OrderedDict[tuple[str, str], _Mark] = OrderedDict()  # oldest first

    async def open(self) -> None:
        await self._kv.open()

    async def close(self) -> None:
        self._own.clear()
        self._seen.clear()
        self._bytes = 0
        await self._kv.close()

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        found = await self._kv.get(namespace, keys)
        self._forget_old()
        moment = time.monotonic()
        for key in keys:
            mark = _mark(found[key].value) if key in found else None
            own = self._own.get((namespace, key))
            if own is not None and mark != own.mark and own.before.get(mark, moment) <= moment:
                own.overtaken = True
            if own is None or own.overtaken:
                self._see(namespace, key, mark)
            elif own.value is None:
                found.pop(key, None)
            else:
                found[key] = Found(own.value, None)
        return found

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        return await self._kv.keys(namespace, prefix, cursor=cursor, limit=limit)

    def recent_keys(self, namespace: str, prefix: str) -> set[str]:
        """The keys with a prefix that a listing may not show yet.

        They were written lately, or are being written, by callers that may be cancelled by now.
        """
        self._forget_old()
        return {
            key
            for (of, key), own in self._own.items()
            if of == namespace and own.value is not None and key.startswith(prefix)
        }.union(self._kv.puts_under(namespace, prefix))

    async def namespaces(self) -> list[str]:
        return await self._kv.namespaces()

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        failed: set[str] = set()
        try:
            await self._kv.write(namespace, pairs, deletes)
        except PartialWriteError as exc:
            failed = {key for _, (key,) in exc.failed}
            raise
        except BaseException:
            failed = {*[pair.key for pair in pairs], *deletes}
            raise
        finally:
            written = {pair.key: pair.value for pair in pairs} | dict.fromkeys(deletes)
            for key in written.keys() - failed:
                self._remember(namespace, key, written[key])

    def _remember(self, namespace: str, key: str, value: bytes | None) -> None:
        moment = time.monotonic()
        until = moment + self._seconds
        old = self._drop((namespace, key))
        before: dict[_Mark, float] = {}
        if old is not None:
            if not old.overtaken:  # else KV is past that
                before = {mark: end for mark, end in old.before.items() if end > moment}
            before[old.mark] = until
        if old is None or (namespace, key) in self._seen:
            before[self._seen.pop((namespace, key), None)] = until
        own = _Own(value, None if value is None else _mark(value), before, until)
        self._own[namespace, key] = own
        self._bytes += _size(own)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._own)))

    def _see(self, namespace: str, key: str, mark: _Mark) -> None:
        self._seen[namespace, key] = mark
        self._seen.move_to_end((namespace, key))
        while len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    def _forget_old(self) -> None:
        moment = time.monotonic()
        while self._own and next(iter(self._own.values())).until <= moment:
            self._drop(next(iter(self._own)))

    def _drop(self, name: tuple[str, str]) -> _Own | None:
        own = self._own.pop(name, None)
        if own is not None:
            self._bytes -= _size(own)
        return own


def _mark(value: bytes) -> bytes:
    return blake2b(value, digest_size=16).digest()


def _size(own: _Own) -> int:
    return 400 + len(own.value or b"")
