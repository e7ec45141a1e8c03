"""A `KV` in this process, with switches for what the service does."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from mastra_storage_cloudflare.kv import KV, Entry, Found, Listing, Pair

from mastra_storage import StorageError


class MemoryKV(KV):
    """Pairs of one namespace. `calls` are the keys of each call, as "put a b" or "delete a"."""

    def __init__(self) -> None:
        self.pairs: dict[str, Pair] = {}
        self.calls: list[str] = []
        self.errors: list[StorageError | None] = []
        self.delay = 0.0
        self.empty_pages = False
        self.is_open = False

    async def open(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    async def _call(self, *words: str) -> None:
        self.calls.append(" ".join(words))
        await asyncio.sleep(self.delay)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        await self._call("get", *keys)
        there = [self.pairs[key] for key in keys if key in self.pairs]
        return {pair.key: Found(pair.value, pair.metadata) for pair in there}

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        await self._call("list", prefix)
        if self.empty_pages and not (cursor or "").startswith("!"):
            return Listing([], "!" + (cursor or ""))
        behind = (cursor or "").removeprefix("!")
        keys = sorted(key for key in self.pairs if key.startswith(prefix) and key > behind)
        entries = [Entry(key, self.pairs[key].metadata) for key in keys[:limit]]
        return Listing(entries, keys[limit - 1] if len(keys) > limit else None)

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        await self._call(
            *(["put", *[pair.key for pair in pairs]] if pairs else []),
            *(["delete", *deletes] if deletes else []),
        )
        self.pairs.update((pair.key, pair) for pair in pairs)
        for key in deletes:
            self.pairs.pop(key, None)

    async def namespaces(self) -> list[str]:
        return ["n"]


def pair(key: str, value: str = "value", written: int = 0) -> Pair:
    return Pair(key, value.encode(), f'{{"w":"{written}"}}')
