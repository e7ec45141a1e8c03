"""What a plugin writes: a `Backend` of four verbs, `get · query · write · watch`.

All meaning (validation, selection, merging, paging, cursors, access checks) is in `Storage`;
a backend keeps `Row`s and finds them again. docs/writing-a-backend.md shows a whole one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, Self, TypeAlias

from msgspec import UNSET, Struct, UnsetType, field

from mastra_storage.errors import UnsupportedError
from mastra_storage.schema import Key, Row, Table

__all__ = [
    "ABSENT",
    "Backend",
    "Capabilities",
    "Delete",
    "DeletePrefix",
    "Op",
    "Position",
    "Put",
    "Query",
    "Result",
    "Touch",
    "select",
]


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a backend promises. Declared, never guessed; the conformance kit tests each.

    - `atomic`: a write of up to `max_atomic_rows` ops (`None`: of any size) happens wholly or
      not at all, also across tables.
    - `compare_and_set`: `if_version` of `Put` and `Delete` is honoured.
    - `watch`: the backend has a `watch` of its own; elsewhere the engine polls, every
      `poll_interval` seconds.
    - `strong_reads`: a read sees every write acknowledged before it, by any store.
    - `max_record_bytes`: the largest value of a row in bytes; `None` when there is no limit.
    """

    atomic: bool = False
    compare_and_set: bool = False
    watch: bool = False
    strong_reads: bool = False
    max_atomic_rows: int | None = None
    max_record_bytes: int | None = None
    poll_interval: float = 1.0


ABSENT: Final = UNSET
"""As `Put.if_version`: only if there is no such row."""


class Put(Struct, frozen=True, gc=False):
    """Store a row, in place of the one with its key if there is one.

    - A row that replaces another of the same `order` keeps that one's `seq`, and so its place,
      unless `keep_place` is false. (A backend that would need an extra read for it may keep
      the place only when it knows the old row.)
    - All else is the new row's, also `expires_at`. (A `Touch` leaves that as it is.)
    - `touched` is never lowered: the stored row has the later of the old row's and this one's.
    - `if_version`: `None` stores always; `ABSENT` only if there is no such row; a version only
      if the row there has it. Otherwise `ConflictError`. A row that already has the version of
      the row being put is this very write, retried: a success.
    """

    row: Row
    if_version: str | UnsetType | None = None
    keep_place: bool = True

    @property
    def table(self) -> Table:
        """The row's table."""
        return self.row.table

    @property
    def key(self) -> Key:
        """The row's key."""
        return self.row.key


class Delete(Struct, frozen=True, gc=False):
    """Remove a row; no error when it is not there, unless `if_version` names a version."""

    table: Table
    key: Key
    if_version: str | None = None


class DeletePrefix(Struct, frozen=True):
    """Remove all rows whose key starts with the parts of `prefix`; `()` empties the table."""

    table: Table
    prefix: Key


class Touch(Struct, frozen=True, gc=False):
    """Raise a row's `touched` to `at` microseconds, without rewriting the row.

    `NotFoundError` when the row is not there, before any op of the same write took effect.
    """

    table: Table
    key: Key
    at: int


Op: TypeAlias = Put | Delete | DeletePrefix | Touch


class Position(Struct, frozen=True):
    """A place in the order of a query, to continue from.

    `order` is the row's `order`, or its `recent` in a query by that. `hint` is the backend's
    own: text that helps it to resume, handed back unchanged, of up to 1,024 characters.
    """

    order: int
    seq: int
    key: Key
    hint: str = ""


class Query(Struct, frozen=True, kw_only=True):
    """Which rows, in which order, and how many of them.

    - `prefix`: only rows whose key starts with these parts.
    - `fields`: only rows whose indexed field has one of these values; a row without the field
      counts as having the empty string, and no values match no row.
    - `since`, `until`: only rows whose `order` is in this range; both ends belong to it.
    - `order_by`: "created" is `(order, seq, key)`, "recent" is `(recent, seq, key)`, and "any"
      is whatever order costs the backend least, stable enough to walk a whole table by
      `Result.cursor`. `descending` is the exact reverse.
    - `after`: only rows behind this position, in the direction of the query.
    - `offset`, `limit`: skip so many (behind `after`), give at most so many (`None`: all).
    - `count`: also say how many rows match, whatever `after`, `offset` and `limit` are.
    - `bare`: only the values of the rows are wanted, in their order, and no cursor behind `limit`
      rows. A backend may give anything for the rest, when that costs it less.
    """

    table: Table
    prefix: Key = ()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None
    order_by: Literal["created", "recent", "any"] = "created"
    descending: bool = False
    after: Position | None = None
    offset: int = 0
    limit: int | None = None
    count: bool = False
    bare: bool = False

    def position(self, row: Row, hint: str = "") -> Position:
        """The place of `row` in this query's order."""
        return Position(
            row.recent if self.order_by == "recent" else row.order, row.seq, row.key, hint
        )


class Result(Struct, frozen=True, kw_only=True):
    """What a query found.

    `cursor` is where to continue, and `None` when nothing is left behind the last row. A
    backend may stop early, giving fewer rows than `limit` and a cursor; the engine goes on.
    """

    rows: list[Row]
    total: int | None = None
    cursor: Position | None = None


class Backend(Protocol):
    """A store of rows. `name` is what errors and log lines call it, its URL scheme as a rule;
    without one they name its class.

    Errors are those of `mastra_storage.errors`; anything foreign is mapped at the backend's
    edge, with `raise … from`. All methods may be called concurrently between `open` and
    `close`, and cancelled at any await without harm to other calls.
    """

    name: str
    capabilities: Capabilities

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """A backend for a URL; `options` override those in the URL's query. No I/O.

        `mastra_storage.plugins.url_options` reads a query and refuses unknown options.
        """
        ...

    async def open(self) -> None:
        """Get ready. Raises when the store cannot be used."""
        ...

    async def close(self) -> None:
        """Finish what was acknowledged and release everything. Safe to call twice."""
        ...

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        """The rows with these keys, in the order asked; `None` for one that is not there."""
        ...

    async def query(self, query: Query) -> Result:
        """The rows that match."""
        ...

    async def write(self, ops: Sequence[Op]) -> None:
        """Carry out the ops, in the order given; returns when all are stored.

        Atomic as `capabilities` say. Elsewhere ops reach different tables in the order given,
        deletes last, so that a crash leaves extra rows and never loses one.
        """
        ...

    def watch(self, query: Query) -> AsyncIterator[Result]:
        """The result of `query` now, then the newest after each change.

        Only called when `capabilities.watch` says so. A slow reader skips states. Repeats are
        allowed; the engine drops them. Ends when the backend is closed.
        """
        ...

    async def tables(self) -> list[str]:
        """The names of the tables that hold rows, so that a copy can tell that it has all.

        A backend without it can be neither copied nor exported.
        """
        raise UnsupportedError(
            "the backend has no `tables`, so that nobody could tell whether a copy or an export of "
            "it has everything"
        )


def select(rows: Iterable[Row], query: Query) -> Result:
    """Answer `query` from all `rows` of its table, in memory.

    The reference meaning of `Query`; backends that cannot sort or filter by themselves use it.
    """
    found = [row for row in rows if _matches(row, query)]
    found.sort(key=lambda row: _rank(query.position(row)), reverse=query.descending)
    total = len(found) if query.count else None
    if query.after is not None:
        after = _rank(query.after)
        if query.descending:
            found = [row for row in found if _rank(query.position(row)) < after]
        else:
            found = [row for row in found if _rank(query.position(row)) > after]
    end = None if query.limit is None else query.offset + query.limit
    page = found[query.offset : end]
    more = end is not None and end < len(found) and page
    return Result(rows=page, total=total, cursor=query.position(page[-1]) if more else None)


def _rank(position: Position) -> tuple[int, int, Key]:
    return position.order, position.seq, position.key


def _matches(row: Row, query: Query) -> bool:
    return (
        row.key[: len(query.prefix)] == query.prefix
        and (query.since is None or row.order >= query.since)
        and (query.until is None or row.order <= query.until)
        and all(row.fields.get(name, "") in values for name, values in query.fields.items())
    )
