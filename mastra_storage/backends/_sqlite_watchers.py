"""Who watches a store, and whom a change concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mastra_storage.backend import DeletePrefix, Op, Put, Query, Result
from mastra_storage.backends._sqlite_transaction import Fit
from mastra_storage.schema import Key

# A table and the first parts of the keys in it that somebody watches.
_Place = tuple[str, Key]


class _Changes:
    """What was done at one place."""

    def __init__(self) -> None:
        self.anywhere = False
        self.keys: set[Key] = set()
        self.fields: set[tuple[str, str]] = set()

    def add(self, op: Op) -> None:
        if isinstance(op, DeletePrefix):
            self.anywhere = True
            return
        self.keys.add(op.key)
        if isinstance(op, Put):
            self.fields.update(op.row.fields.items())


class Watcher:
    """One who watches: woken when rows of the query may have changed."""

    def __init__(self, query: Query) -> None:
        self.changed = asyncio.Event()
        name, values = next(iter(query.fields.items()), ("", ("",)))
        self._fields = {(name, value) for value in values}
        # Not where a row may have been left out for another reason, or have no such field.
        self._tells_apart = "" not in values and query == Query(
            table=query.table,
            prefix=query.prefix,
            fields=query.fields,
            order_by=query.order_by,
            descending=query.descending,
        )
        self._seen: frozenset[Key] | None = None

    def begin(self) -> None:
        """It looks: until it has seen what is there, everything may concern it."""
        self.changed.clear()
        self._seen = None

    def saw(self, result: Result) -> None:
        """What it has seen: of other rows, only those that get the field's value concern it."""
        if self._tells_apart and result.cursor is None:
            self._seen = frozenset(row.key for row in result.rows)

    def hear(self, changes: _Changes) -> None:
        """Wake it, if it may be concerned."""
        if (
            self._seen is None
            or changes.anywhere
            or not self._seen.isdisjoint(changes.keys)
            or not self._fields.isdisjoint(changes.fields)
        ):
            self.changed.set()


class Watchers:
    """Those who watch. One conversation's change does not wake the readers of all others."""

    def __init__(self) -> None:
        self._watchers: dict[_Place, set[Watcher]] = {}

    def __bool__(self) -> bool:
        return bool(self._watchers)

    @contextmanager
    def added(self, query: Query) -> Iterator[Watcher]:
        """One who watches the query, until the block ends."""
        watcher = Watcher(query)
        place = query.table.name, query.prefix
        of_place = self._watchers.setdefault(place, set())
        of_place.add(watcher)
        try:
            yield watcher
        finally:
            of_place.discard(watcher)
            if not of_place and self._watchers.get(place) is of_place:
                del self._watchers[place]

    def wake(self) -> None:
        """Anything may have changed."""
        for of_place in self._watchers.values():
            for watcher in of_place:
                watcher.changed.set()

    def wake_at(self, ops: Iterable[Op | Fit]) -> None:
        """These ops were carried out."""
        if not self._watchers:
            return
        changes: dict[_Place, _Changes] = {}
        for op in ops:
            if not isinstance(op, Fit):
                for place in self._concerned(op):
                    changes.setdefault(place, _Changes()).add(op)
        for place, of_place in changes.items():
            for watcher in self._watchers[place]:
                watcher.hear(of_place)

    def _concerned(self, op: Op) -> Iterator[_Place]:
        table = op.table.name
        if isinstance(op, DeletePrefix):
            for name, prefix in self._watchers:
                shared = min(len(prefix), len(op.prefix))
                if name == table and prefix[:shared] == op.prefix[:shared]:
                    yield name, prefix
            return
        for parts in range(len(op.key) + 1):
            if (place := (table, op.key[:parts])) in self._watchers:
                yield place
