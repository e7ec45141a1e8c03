"""Locks on rows, for changes of one store that must not run into each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
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

    @asynccontextmanager
    async def hold(
        self, rows: Iterable[Name], prefixes: Iterable[Name] = ()
    ) -> AsyncIterator[None]:
        """Hold rows, and all rows under prefixes, as soon as nobody else does."""
        wanted, under = set(rows), set(prefixes)
        while self._is_taken(wanted, under):
            freed = asyncio.get_running_loop().create_future()
            self._waiting.append(freed)
            await freed
        self._rows |= wanted
        self._prefixes |= under
        try:
            yield
        finally:
            self._rows -= wanted
            self._prefixes -= under
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


def _covers(prefix: Name, row: Name) -> bool:
    return prefix.table == row.table and row.key[: len(prefix.key)] == prefix.key


def _overlap(one: Name, other: Name) -> bool:
    return _covers(one, other) or _covers(other, one)
