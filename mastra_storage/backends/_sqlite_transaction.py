"""What the ops of a write do to the tables, inside the transaction that the writer began."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mastra_storage.backend import Delete, DeletePrefix, Op, Put, Touch
from mastra_storage.backends._conditions import check_version
from mastra_storage.backends._sqlite_layout import (
    RECENT,
    Layout,
    columns_of,
    exists,
    layout_of,
    quoted,
)
from mastra_storage.errors import ConflictError, NotFoundError, UnsupportedError
from mastra_storage.schema import Key, Row, Table

# A row that was touched less than so many microseconds ago is touched later, with others.
TOUCH_AGAIN = 500_000


class Fit(NamedTuple):
    """Bring an adapter's table, if it is there, to the definition that it has now."""

    table: Table


class LateTouch(NamedTuple):
    """A touch that is to be written with those that follow it."""

    layout: Layout
    key: Key
    at: int


class Transaction:
    """Carries out writes of one or several callers.

    Rows that are put one after another, whoever puts them, are stored by one statement.
    """

    def __init__(self, connection: sqlite3.Connection, moment: int) -> None:
        """`moment`: now, in microseconds; rows that have expired by then are not there."""
        self.late: list[LateTouch] = []
        self.size = 0  # bytes of values stored
        self._connection = connection
        self._moment = moment
        self._layouts: dict[int, Layout] = {}
        self._rows: list[Row] = []
        self._keep_place = True

    def apply(self, ops: Sequence[Op | Fit]) -> None:
        """Carry out one write, whose failure ends the transaction."""
        for op in ops:
            if type(op) is Put and op.if_version is None:
                self._put(op)
            else:
                self._execute(op)

    def apply_apart(self, ops: Sequence[Op | Fit]) -> ConflictError | NotFoundError | None:
        """Carry out one write of several; gives why nothing was done, if so."""
        late = len(self.late)
        savepoint = not self._cannot_fail_halfway(ops)
        if savepoint:
            self.flush()
            self._connection.execute("SAVEPOINT job")
        try:
            self.apply(sorted(ops, key=_touches_first) if not savepoint else ops)
            if savepoint:
                self.flush()
        except (ConflictError, NotFoundError) as exc:
            del self.late[late:]
            if savepoint:
                self._rows.clear()
                self._connection.execute("ROLLBACK TO job")
            return exc
        finally:
            if savepoint and self._connection.in_transaction:
                self._connection.execute("RELEASE job")
        return None

    def flush(self) -> None:
        """Store the rows that were put."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        self.size += sum([len(row.value) for row in rows])
        layout = self._layout(rows[0].table)
        if not self._is_there(layout):
            self._execute_all(layout.create())
        for statement, parameters in layout.puts(rows, self._keep_place):
            self._connection.executemany(statement, parameters)

    def write_late(self, touches: Iterable[LateTouch]) -> None:
        """Write touches of rows that may be gone by now, or made anew."""
        for layout, key, at in touches:
            self._connection.execute(layout.touch_later, (at, *key, at))

    def _cannot_fail_halfway(self, ops: Sequence[Op | Fit]) -> bool:
        """Whether only one touch can fail, and nothing of the write happens before it."""
        touched = [op.table.name for op in ops if isinstance(op, Touch)]
        return len(touched) <= 1 and all(
            isinstance(op, Touch)
            or (isinstance(op, Put) and op.if_version is None and op.table.name not in touched)
            for op in ops
        )

    def _execute(self, op: Op | Fit) -> None:
        table = op.table
        if not isinstance(op, Touch) or (self._rows and self._rows[0].table.name == table.name):
            self.flush()
        if isinstance(op, Touch):
            self._touch(layout_of(table), op)
            return
        layout = self._layout(table)
        there = self._is_there(layout)
        if isinstance(op, Put):
            if not check_version(op, self._version(layout, op.key) if there else None):
                self._put(op)
        elif isinstance(op, Delete):
            self._delete(layout, op, there)
        elif there and isinstance(op, Fit):
            self._fit(layout)
        elif there and isinstance(op, DeletePrefix):
            self._delete_prefix(layout, op.prefix)

    def _put(self, put: Put) -> None:
        row = put.row
        rows = self._rows
        if rows and (row.table is not rows[0].table or put.keep_place != self._keep_place):
            self.flush()
            rows = self._rows
        self._keep_place = put.keep_place
        rows.append(row)

    def _touch(self, layout: Layout, touch: Touch) -> None:
        key, at = touch.key, touch.at
        found = None
        if self._is_there(layout):
            asked = (self._moment - TOUCH_AGAIN, *key, self._moment)
            found = self._connection.execute(layout.touched, asked).fetchone()
        if found is None:
            raise NotFoundError(f"there is no row {key!r} in {layout.table.name!r} to touch")
        if found[0]:
            self.late.append(LateTouch(layout, key, at))
        else:
            self._connection.execute(layout.touch, (at, *key))

    def _delete(self, layout: Layout, delete: Delete, there: bool) -> None:
        if delete.if_version is not None:
            check_version(delete, self._version(layout, delete.key) if there else None)
        if there:
            self._connection.execute(layout.delete, delete.key)

    def _delete_prefix(self, layout: Layout, prefix: Key) -> None:
        if prefix or layout.is_core:
            self._connection.execute(layout.delete_prefix(prefix), prefix)
        else:
            self._connection.execute(f"DROP TABLE {layout.name}")

    def _fit(self, layout: Layout) -> None:
        """Add the fields that a table's definition has gained; its key cannot change."""
        there = columns_of(self._connection, layout)
        given = [name for name in there if not name.startswith("_")]
        if given[: len(layout.table.key)] != list(layout.table.key):
            raise UnsupportedError(
                f"the table {layout.table.name!r} of this file has another key than the adapter "
                "asks for; give the new table a new name"
            )
        added = [f"{quoted(field)} TEXT" for field in layout.fields if field not in there]
        if layout.table.recent and "_recent" not in there:
            added.append(RECENT)
        self._execute_all(f"ALTER TABLE {layout.name} ADD COLUMN {column}" for column in added)
        self._execute_all(layout.create_indexes())

    def _layout(self, table: Table) -> Layout:
        """The layout of a table, from which what has expired is gone."""
        layout = self._layouts.get(id(table))
        if layout is None:
            layout = self._layouts[id(table)] = layout_of(table)
            if self._is_there(layout):
                self._connection.execute(layout.purge, (self._moment,))
        return layout

    def _is_there(self, layout: Layout) -> bool:
        return layout.is_core or exists(self._connection, layout)

    def _execute_all(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._connection.execute(statement)

    def _version(self, layout: Layout, key: Key) -> str | None:
        found = self._connection.execute(layout.version, key).fetchone()
        return None if found is None else found[0]


def tables_of(ops: Sequence[Op | Fit]) -> list[Table]:
    """The tables that the ops are about."""
    return list({id(table): table for table in [op.table for op in ops]}.values())


def _touches_first(op: Op | Fit) -> bool:
    return not isinstance(op, Touch)
