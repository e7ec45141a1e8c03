"""The checks of tables, keys, ops and queries that adapters give."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from mastra_storage.arguments import choice_argument, count_argument
from mastra_storage.backend import Delete, DeletePrefix, Op, Position, Put, Query, Touch
from mastra_storage.errors import InvalidArgumentError
from mastra_storage.schema import Key, Table
from mastra_storage.validation import check_id

T = TypeVar("T")

_INT64 = range(-(2**63), 2**63)


@cache
def _orders() -> tuple[str, ...]:
    return get_args(get_type_hints(Query)["order_by"])


def key_argument(table: Table, key: Key) -> Key:
    """A key as rows of `table` have it; raises `InvalidArgumentError` for another."""
    instance(table, "table", Table)
    if not isinstance(key, tuple) or len(key) != len(table.key):
        raise InvalidArgumentError(
            f"a key of table {table.name!r} is a tuple of {', '.join(table.key)}"
        )
    return _key_parts(table, key)


def op_argument(op: Op) -> Op:
    """An op on rows that its table can have; raises `InvalidArgumentError` for another."""
    instance(op, "an op", Put, Delete, DeletePrefix, Touch)
    if isinstance(op, DeletePrefix):
        _check_prefix(instance(op.table, "table", Table), op.prefix, "prefix")
    else:
        key_argument(op.table, op.key)
    if isinstance(op, Touch):
        order_argument(instance(op.at, "at", int), "at")
    return op


def query_argument(query: Query) -> Query:
    """A query that rows of its table can answer; raises `InvalidArgumentError` for another."""
    table = instance(instance(query, "query", Query).table, "query.table", Table)
    _check_prefix(table, query.prefix, "query.prefix")
    for name, values in query.fields.items():
        if name not in table.fields:
            raise InvalidArgumentError(
                f"query.fields: table {table.name!r} indexes "
                f"{', '.join(table.fields) or 'no field'}, not {name!r}"
            )
        if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
            raise InvalidArgumentError(f"query.fields: {name} takes a tuple of str")
    for end in ("since", "until"):
        order_argument(getattr(query, end), f"query.{end}")
    choice_argument(query.order_by, "query.order_by", _orders())
    if query.order_by == "recent" and not table.recent:
        raise InvalidArgumentError(f"query.order_by: table {table.name!r} is not `recent`")
    if query.after is not None:
        instance(query.after, "query.after", Position)
    count_argument(query.offset, "query.offset")
    if query.limit is not None:
        count_argument(query.limit, "query.limit")
    return query


def order_argument(order: int | None, name: str) -> int | None:
    """A place among rows, or `None`."""
    if order is not None and (type(order) is not int or order not in _INT64):
        raise InvalidArgumentError(f"{name} must be an int of 64 bits, in microseconds")
    return order


def instance(value: T, name: str, *kinds: type) -> T:
    """The value, which is of one of these kinds."""
    if not isinstance(value, kinds):
        wanted = ", ".join(kind.__name__ for kind in kinds)
        raise InvalidArgumentError(f"{name} must be of type {wanted}, not {kind_of(value)}")
    return value


def kind_of(value: Any) -> str:
    """What a value is called in errors, which do not repeat it."""
    return type(value).__name__


def _check_prefix(table: Table, prefix: Key, name: str) -> None:
    if not isinstance(prefix, tuple) or len(prefix) > len(table.key):
        raise InvalidArgumentError(
            f"{name} has the first parts of a key of table {table.name!r}, a tuple of "
            f"{', '.join(table.key)}"
        )
    _key_parts(table, prefix)


def _key_parts(table: Table, parts: Key) -> Key:
    return tuple(
        [check_id(part, name, empty=True) for part, name in zip(parts, table.key, strict=False)]
    )
