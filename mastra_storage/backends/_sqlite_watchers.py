"""Who watches a store, and whom a change concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mastra_storage.backend import DeletePrefix, Op, Query
from mastra_storage.backends._sqlite_transaction import Fit
from mastra_storage.schema import Key

# A table and the first parts of the keys in it that somebody watches.
_Place = tuple[str, Key]


class Watchers:
    """Those who watch. One conversation's change does not wake the readers of all others."""

    def __init__(self) -> None:
        self._events: dict[_Place, set[asyncio.Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._events)

    @contextmanager
    def added(self, query: Query) -> Iterator[asyncio.Event]:
        """An event that is set whenever rows of the query may have changed."""
        changed = asyncio.Event()
        place = query.table.name, query.prefix
        events = self._events.setdefault(place, set())
        events.add(changed)
        try:
            yield changed
        finally:
            events.discard(changed)
            if not events and self._events.get(place) is events:
                del self._events[place]

    def wake(self) -> None:
        """Anything may have changed."""
        self._set(self._events)

    def wake_at(self, ops: Iterable[Op | Fit]) -> None:
        """These ops were carried out."""
        if self._events:
            self._set({place for op in ops for place in self._concerned(op)})

    def _set(self, places: Iterable[_Place]) -> None:
        for place in places:
            for changed in self._events[place]:
                changed.set()

    def _concerned(self, op: Op | Fit) -> Iterator[_Place]:
        table = op.table.name
        if isinstance(op, Fit):
            return
        if isinstance(op, DeletePrefix):
            for name, prefix in self._events:
                shared = min(len(prefix), len(op.prefix))
                if name == table and prefix[:shared] == op.prefix[:shared]:
                    yield name, prefix
            return
        for parts in range(len(op.key) + 1):
            if (place := (table, op.key[:parts])) in self._events:
                yield place
