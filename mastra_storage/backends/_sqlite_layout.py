"""How rows lie in SQLite: the tables, their indexes, and the SQL for each verb.

Each `Table` becomes a table `mastra_<name>` with a column for each part of the key and each
indexed field. What the engine keeps beside them has names with a leading underscore:

    _value    the record, as JSON text           _order, _seq   its place
    _updated  the record's own updated_at        _touched       the latest touch
    _version  the write that made it             _expires       when it is gone, or NULL
"""

# Names in the SQL come from `Table`, which takes none but letters, digits and `_`.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import repeat
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from mastra_storage.backend import Position, Query
from mastra_storage.errors import StorageError
from mastra_storage.schema import TABLES, Key, Row, Table

_PREFIX = "mastra_"
_BOOKKEEPING = "_value, _order, _seq, _updated, _touched, _version, _expires"
_kept = attrgetter("value", "order", "seq", "updated", "touched", "version", "expires_at")
_REPLACED = ("_value", "_order", "_updated", "_version", "_expires")
_LATER = (
    "_touched = max(coalesce(_touched, excluded._touched), coalesce(excluded._touched, _touched))"
)
_NEVER = -(2**63)
_NO_FIELDS: Mapping[str, str] = MappingProxyType({})
_TEXT, _NUMBER, _NONE = frozenset({str}), frozenset({int}), frozenset({type(None)})
# The types of `_BOOKKEEPING`.
_BOOKKEPT = [frozenset({bytes}), *[_NUMBER] * 3, _NUMBER | _NONE, _TEXT, _NUMBER | _NONE]
# SQLite's limit used to be 999.
_MOST_PARAMETERS = 900
_ALIVE = "(_expires IS NULL OR _expires > ?)"
RECENT = "_recent INTEGER GENERATED ALWAYS AS (max(_updated, coalesce(_touched, _updated)))"


class Layout:
    """The SQL of one table. Made once for each; `layout_of` keeps them."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.name = _PREFIX + table.name
        self.is_core = TABLES.get(table.name) == table
        self.key = [quoted(part) for part in table.key]
        self.fields = [name for name in table.fields if name not in table.key]
        named = [*table.key, *self.fields]
        self._bookkeeping = len(named)
        self._kinds = [_TEXT] * len(table.key) + [_TEXT | _NONE] * len(self.fields) + _BOOKKEPT
        self._fields = _fields_at([(name, named.index(name)) for name in table.fields])
        this = " AND ".join(f"{part} = ?" for part in self.key)
        columns = ", ".join([*map(quoted, named), _BOOKKEEPING])
        # Bound as bytes: what was encoded as JSON need not become text and bytes again.
        marks = ["?"] * len(named) + ["CAST(? AS TEXT)"] + ["?"] * 6
        values = f"({', '.join(marks)})"
        self._many = max(1, _MOST_PARAMETERS // len(marks))
        replaced = [*map(quoted, self.fields), *_REPLACED]
        assign = ", ".join(f"{name} = excluded.{name}" for name in replaced)
        insert = f"INSERT INTO {self.name} ({columns}) VALUES"
        seq = "CASE WHEN _order = excluded._order THEN _seq ELSE excluded._seq END"
        update = f"ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {assign}, {_LATER}, _seq ="
        updates = {True: f"{update} {seq}", False: f"{update} excluded._seq"}
        # Those that keep the place of a row that is there, and those that do not.
        self._put_one = {keep: f"{insert} {values} {updates[keep]}" for keep in updates}
        all_values = ", ".join([values] * self._many)
        self._put_many = {keep: f"{insert} {all_values} {updates[keep]}" for keep in updates}
        self.version = f"SELECT _version FROM {self.name} WHERE {this}"
        self.purge = f"DELETE FROM {self.name} WHERE _expires <= ?"
        self.delete = f"DELETE FROM {self.name} WHERE {this}"
        self.touched = f"SELECT _touched > ? FROM {self.name} WHERE {this} AND {_ALIVE}"
        self.touch = (
            f"UPDATE {self.name} SET _touched = max(?, coalesce(_touched, {_NEVER})) WHERE {this}"
        )
        # A row that is there anew was not touched yet.
        self.touch_later = f"UPDATE {self.name} SET _touched = ? WHERE {this} AND _touched < ?"
        # Read as bytes: what is decoded from JSON need not become text first.
        read = columns.replace(" _value,", " CAST(_value AS BLOB),", 1)
        self.select = f"SELECT {read} FROM {self.name}"
        self._select_bare = f"SELECT CAST(_value AS BLOB) FROM {self.name}"
        self.get = f"{self.select} WHERE {this} AND {_ALIVE}"

    def puts(
        self, rows: Sequence[Row], keep_place: bool
    ) -> Iterable[tuple[str, Iterable[Sequence[Any]]]]:
        """Statements that store rows, whether or not they are there, and their parameters.

        As many rows as one statement can take: executing one costs as much as storing a row.
        """
        parameters = self._parameters(rows)
        width = len(parameters) // len(rows)
        most = self._many * width
        many = len(parameters) - len(parameters) % most
        if many:
            yield (
                self._put_many[keep_place],
                [parameters[start : start + most] for start in range(0, many, most)],
            )
        rest = range(many, len(parameters), width)
        yield self._put_one[keep_place], [parameters[start : start + width] for start in rest]

    def delete_prefix(self, prefix: Key) -> str:
        where = " AND ".join(f"{part} = ?" for part in self.key[: len(prefix)])
        return f"DELETE FROM {self.name}" + (f" WHERE {where}" if where else "")

    def create(self) -> Iterable[str]:
        """The statements that make the table and an index for each kind of listing."""
        columns = [f"{part} TEXT NOT NULL" for part in self.key]
        columns += [f"{quoted(field)} TEXT" for field in self.fields]
        columns += ["_value TEXT NOT NULL", "_order INTEGER NOT NULL", "_seq INTEGER NOT NULL"]
        columns += ["_updated INTEGER NOT NULL", "_touched INTEGER", "_version TEXT NOT NULL"]
        columns += ["_expires INTEGER", *([RECENT] if self.table.recent else [])]
        columns += [f"PRIMARY KEY ({', '.join(self.key)})"]
        yield f"CREATE TABLE {self.name} ({', '.join(columns)})"
        yield from self.create_indexes()

    def create_indexes(self) -> Iterable[str]:
        name, key = self.name, self.key
        create = f"CREATE INDEX IF NOT EXISTS ix_{name}"
        for time in ["_order", "_recent"] if self.table.recent else ["_order"]:
            for length in self.table.ordered:
                # Fields only filter within a prefix; they are there for counts to read no row.
                fields = map(quoted, self.fields) if length else ()
                listed = [*key[:length], time, "_seq", *key[length:], *fields]
                yield f"{create}{time}_{length} ON {name} ({', '.join(listed)})"
            for field in self.table.fields if 0 in self.table.ordered else ():
                listed = [time, "_seq", *[part for part in key if part != quoted(field)]]
                where = "" if field in self.table.key else f" WHERE {quoted(field)} IS NOT NULL"
                on = f"{name} ({', '.join([quoted(field), *listed])})"
                yield f"{create}{time}_{field} ON {on}{where}"
        yield f"{create}_expires ON {name} (_expires) WHERE _expires IS NOT NULL"

    def is_missing(self, error: sqlite3.OperationalError) -> bool:
        """Whether a statement failed because the table was not there at that moment."""
        return str(error) == f"no such table: {self.name}"

    def _parameters(self, rows: Sequence[Row]) -> list[Any]:
        """Those of all the rows, one after the other."""
        columns = [[row.fields.get(name) or None for row in rows] for name in self.fields]
        fields = zip(*columns, strict=True) if columns else repeat((), len(rows))
        found: list[Any] = []
        for row, some, kept in zip(rows, fields, map(_kept, rows), strict=True):
            found += row.key
            found += some
            found += kept
        return found

    def rows(self, found: Sequence[tuple[Any, ...]]) -> list[Row]:
        """Rows from what `select` found; `StorageError` for what was never put there by `puts`."""
        for kinds, taken in zip(map(_kinds, zip(*found, strict=True)), self._kinds, strict=False):
            if not kinds <= taken:
                raise StorageError(
                    f"the table {self.name} holds what no row has; it was written by something "
                    "else, or damaged: restore the file from a backup"
                )
        # By position and at once: long threads spend most of their time here.
        table, parts, start, fields = (
            self.table,
            len(self.table.key),
            self._bookkeeping,
            self._fields,
        )
        return [
            Row(
                table,
                row[:parts],
                row[start],
                row[start + 1],
                row[start + 2],
                fields(row),
                *row[start + 3 :],
            )
            for row in found
        ]

    def bare_rows(self, found: Sequence[tuple[bytes]]) -> list[Row]:
        """Rows from what `page` finds for a bare query."""
        table = self.table
        return [Row(table, (), value, 0, 0, _NO_FIELDS, 0) for (value,) in found]

    def page(self, query: Query, now: int) -> tuple[str, list[Any]]:
        """The rows of a query, and unless it is bare one more to tell whether there is more."""
        conditions, parameters = self._conditions(query)
        conditions.append(_ALIVE)
        parameters.append(now)
        order = self._order(query)
        if query.after is not None:
            compare = "<" if query.descending else ">"
            conditions.append(f"({', '.join(order)}) {compare} ({', '.join('?' * len(order))})")
            parameters += _place(query, query.after)
        direction = " DESC" if query.descending else ""
        ordering = ", ".join(f"{name}{direction}" for name in order)
        limit = -1 if query.limit is None else query.limit + (not query.bare)
        select = self._select_bare if query.bare else self.select
        sql = f"{select} WHERE {' AND '.join(conditions)} ORDER BY {ordering} LIMIT ? OFFSET ?"
        return sql, [*parameters, limit, query.offset]

    def count(self, query: Query, now: int) -> tuple[str, list[Any]]:
        """How many rows match: all by an index alone, less the few that have expired."""
        conditions, parameters = self._conditions(query)
        every = f"SELECT count(*) FROM {self.name}"
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        expired = f"{every} INDEXED BY ix_{self.name}_expires"
        gone = f"{expired} WHERE {' AND '.join([*conditions, '_expires <= ?'])}"
        return f"SELECT ({every}{where}) - ({gone})", [*parameters, *parameters, now]

    def _conditions(self, query: Query) -> tuple[list[str], list[Any]]:
        conditions = [f"{part} = ?" for part in self.key[: len(query.prefix)]]
        parameters: list[Any] = [*query.prefix]
        for name, values in query.fields.items():
            wanted = [value for value in values if value]
            column, marks = quoted(name), ", ".join("?" * len(wanted))
            either = [f"{column} = ?"] if len(wanted) == 1 else []
            either += [f"{column} IN ({marks})"] if len(wanted) > 1 else []
            either += [f"{column} IS NULL"] if "" in values else []
            conditions.append(f"({' OR '.join(either or ['FALSE'])})")
            parameters += wanted
        for bound, compare in ((query.since, ">="), (query.until, "<=")):
            if bound is not None:
                conditions.append(f"_order {compare} ?")
                parameters.append(bound)
        return conditions, parameters

    def _order(self, query: Query) -> list[str]:
        # Parts that the prefix fixes are left out, so that an index gives the order as it is.
        rest = self.key[len(query.prefix) :]
        if query.order_by == "any":
            return rest or self.key
        return ["_recent" if query.order_by == "recent" else "_order", "_seq", *rest]


def _place(query: Query, position: Position) -> list[Any]:
    rest = list(position.key[len(query.prefix) :])
    if query.order_by == "any":
        return rest or list(position.key)
    return [position.order, position.seq, *rest]


def _fields_at(places: Sequence[tuple[str, int]]) -> Callable[[Sequence[Any]], dict[str, str]]:
    """What takes the indexed fields from their places in a row that was found."""
    if len(places) == 1:
        [(only, at)] = places
        return lambda row: {only: row[at]} if row[at] else {}
    return lambda row: {name: value for name, at in places if (value := row[at])}


def _kinds(column: Iterable[Any]) -> set[type]:
    return set(map(type, column))


@cache
def layout_of(table: Table) -> Layout:
    return Layout(table)


def quoted(name: str) -> str:
    """A name as an identifier: those of tables may be words of SQL."""
    return f'"{name}"'


def columns_of(connection: sqlite3.Connection, layout: Layout) -> list[str]:
    """The columns of a table as it is in the file; none when it is not there."""
    found = connection.execute("SELECT name FROM pragma_table_xinfo(?)", (layout.name,))
    return [name for (name,) in found]


def exists(connection: sqlite3.Connection, layout: Layout) -> bool:
    """Whether the table is there; it is made by the first write to it."""
    sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?"
    return connection.execute(sql, (layout.name,)).fetchone() is not None


def fits(connection: sqlite3.Connection, layout: Layout) -> bool:
    """Whether a table is as its definition says, or not there yet."""
    there = columns_of(connection, layout)
    wanted = {*layout.table.key, *layout.fields, *(["_recent"] if layout.table.recent else [])}
    key = tuple(name for name in there if not name.startswith("_"))[: len(layout.table.key)]
    return not there or (wanted <= {*there} and key == layout.table.key)


def tables_with_rows(connection: sqlite3.Connection) -> list[str]:
    """The names of all tables, of adapters too, that hold a row."""
    sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'mastra_*' ORDER BY 1"
    names = [name for (name,) in connection.execute(sql).fetchall()]
    return [
        name.removeprefix(_PREFIX)
        for name in names
        if connection.execute(f"SELECT EXISTS (SELECT 1 FROM {name})").fetchone()[0]
    ]
