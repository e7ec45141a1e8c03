"""Locks on rows, for changes of one store that must not run into each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from mastra_storage.schema import Key


class Name(NamedTuple):
    """A row, or all rows under a prefix of their key."""

    table: str
    key: Key


class Locks:
    """Rows and prefixes, each held by one task at a time.

    All that a task asks for is taken at once, so that no two wait for each other.
    """

    def __init__(self) -> None:
        self._rows: set[Name] = set()
        self._prefixes: set[Name] = set()
        self._waiting: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._rows) + len(self._prefixes)

    def hold(self, rows: Iterable[Name], prefixes: Iterable[Name] = ()) -> Hold:
        """Hold rows, and all rows under prefixes, in an `async with`."""
        return Hold(self, set(rows), set(prefixes))

    async def take(self, rows: set[Name], prefixes: set[Name]) -> None:
        """Take rows and prefixes as soon as nobody else has them."""
        while self._is_taken(rows, prefixes):
            freed = asyncio.get_running_loop().create_future()
            self._waiting.append(freed)
            await freed
        self._rows |= rows
        self._prefixes |= prefixes

    def give_back(self, rows: set[Name], prefixes: set[Name]) -> None:
        self._rows -= rows
        self._prefixes -= prefixes
        waiting, self._waiting = self._waiting, []
        for freed in waiting:
            if not freed.done():
                freed.set_result(None)

    def _is_taken(self, rows: set[Name], prefixes: set[Name]) -> bool:
        if not self._rows.isdisjoint(rows):
            return True
        if not prefixes and not self._prefixes:
            return False
        return (
            any(_covers(held, row) for held in self._prefixes for row in rows)
            or any(_covers(prefix, row) for prefix in prefixes for row in self._rows)
            or any(_overlap(held, prefix) for held in self._prefixes for prefix in prefixes)
        )


class Hold:
    """Rows and prefixes, held while the block of an `async with` runs."""

    # By hand, for `asynccontextmanager` takes several times as long, in every write.
    def __init__(self, locks: Locks, rows: set[Name], prefixes: set[Name]) -> None:
        self._locks = locks
        self._rows = rows
        self._prefixes = prefixes

    async def __aenter__(self) -> None:
        await self._locks.take(self._rows, self._prefixes)

    async def __aexit__(self, *_: object) -> None:
        self._locks.give_back(self._rows, self._prefixes)


def _covers(prefix: Name, row: Name) -> bool:
    return prefix.table == row.table and row.key[: len(prefix.key)] == prefix.key


def _overlap(one: Name, other: Name) -> bool:
    return _covers(one, other) or _covers(other, one)
