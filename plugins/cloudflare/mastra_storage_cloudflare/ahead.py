"""Reading records while their listing is under way."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from mastra_storage import Query, Row
from mastra_storage_cloudflare.futures import all_of
from mastra_storage_cloudflare.kv import MAX_KEYS_OF_GET
from mastra_storage_cloudflare.layout import Layout
from mastra_storage_cloudflare.reader import Reader

T = TypeVar("T")


class Ahead:
    """The records that stood first in a listing lately, for a query that asks for the first."""

    def __init__(self, reader: Reader, layout: Layout, query: Query, start: str | None) -> None:
        """`start`: what the index keys of the listing begin with; `None`: it has none."""
        self._reader = reader
        self._layout = layout
        self._start = start if start is not None and _asks_for_first(layout, query, start) else None
        self._names: list[str] = []
        self._read: dict[str, Row] = {}
        if self._start is not None:
            keys = reader.recall.first(self._start, query.limit)
            self._names = layout.record_keys_of_index(keys, self._start, query.prefix)

    async def during(self, listing: Coroutine[Any, Any, T]) -> T:
        """What `listing` gives; the first time, the records are read meanwhile."""
        names, self._names = self._names, []
        if not names:
            return await listing
        listed, rows = await all_of(listing, self._reader.rows(self._layout, names))
        found = zip(names, rows, strict=True)
        self._read = {name: row for name, row in found if row is not None}
        return listed  # type: ignore[no-any-return]

    async def rows(
        self, names: Sequence[str], shown: Sequence[str], is_current: Callable[[Row, str], bool]
    ) -> list[Row | None]:
        """The rows under these keys, read anew where the listing shows another than was read."""
        found: list[Row | None] = []
        for name, shows in zip(names, shown, strict=True):
            row = self._read.get(name)
            found.append(row if row is not None and is_current(row, shows) else None)
        left = [at for at, row in enumerate(found) if row is None]
        rows = await self._reader.rows(self._layout, [names[at] for at in left])
        for at, row in zip(left, rows, strict=True):
            found[at] = row
        return found

    def listed(self, keys: Sequence[str], *, whole: bool) -> None:
        """Take note of the first index keys of the listing, or of all."""
        if self._start is not None:
            self._reader.recall.listed(self._start, sorted(keys), whole=whole)

    def sorted(self, rows: Sequence[Row], *, whole: bool) -> None:
        """Take note of the first rows of the listing, newest first, or of all."""
        if self._start is None:
            return
        first = rows[: MAX_KEYS_OF_GET + 1]
        entries = [entry for row in first for entry in self._layout.index_entries(row)]
        self.listed([key for start, key in entries if start == self._start], whole=whole)


def is_exact(layout: Layout, query: Query, start: str) -> bool:
    """Whether a query asks for all rows of a listing, as far as its fields say."""
    return len(query.fields) == (0 if start == layout.newest_prefix(query.prefix) else 1)


def _asks_for_first(layout: Layout, query: Query, start: str) -> bool:
    """Whether a query asks for the newest rows of a listing, or for all."""
    return (
        query.order_by == "created"
        and is_exact(layout, query, start)
        and query.after is None
        and query.since is None
        and query.until is None
        and not query.offset
        and (query.limit is None or (query.descending and query.limit > 0))
    )
