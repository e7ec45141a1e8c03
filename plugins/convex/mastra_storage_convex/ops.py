"""Ops as `system:write` takes them, and what their outcomes mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from mastra_storage import (
    ConflictError,
    DeletePrefix,
    InvalidRecordError,
    Key,
    NotFoundError,
    Op,
    Put,
    StorageError,
    TooLargeError,
    Touch,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage_convex._answers import DEPLOY, TransactionTooLargeError
from mastra_storage_convex.layout import CONVEX_NAMES, DocumentLayout, layout_of
from mastra_storage_convex.wire import Outcome, int64

_NAMES = {convex: name for name, convex in CONVEX_NAMES.items()}


class EncodedOp(Struct, frozen=True):
    """An op, and its JSON for `system:write`."""

    op: Op
    json: bytes


class BusyError(UnavailableError):
    """Too many deletions of a table are under way; nothing was written."""


def encoded(op: Op) -> EncodedOp:
    """An op with its JSON; raises `InvalidRecordError` when it has none."""
    try:
        return EncodedOp(op, msgspec.json.encode(_plain(op)))
    except UnicodeEncodeError as exc:
        table, key = subject(op)
        raise InvalidRecordError(
            f"the row {key!a} of table {table!r} holds a lone surrogate, which is not valid "
            "Unicode text"
        ) from exc


def _plain(op: Op) -> dict[str, Any]:
    """An op, ready for JSON."""
    layout = layout_of(op.table)
    name = layout.module
    if isinstance(op, Put):
        put = {
            "op": "put",
            "table": name,
            "doc": layout.write(op.row),
            "keepPlace": op.keep_place,
        }
        if op.if_version is not None:
            put["ifVersion"] = None if op.if_version is UNSET else op.if_version
        return put
    if isinstance(op, DeletePrefix):
        return {"op": "deletePrefix", "table": name, "prefix": layout.key(op.prefix)}
    if isinstance(op, Touch):
        return {"op": "touch", "table": name, "key": layout.key(op.key), "at": int64(op.at)}
    delete = {"op": "delete", "table": name, "key": layout.key(op.key)}
    if op.if_version is not None:
        delete["ifVersion"] = op.if_version
    return delete


def subject(op: Op) -> tuple[str, Key]:
    """The table's name and the key (or first parts of it) that an op is about."""
    return op.table.name, op.prefix if isinstance(op, DeletePrefix) else op.key


def failure_of(outcome: Outcome, ops: Iterable[EncodedOp]) -> StorageError | None:
    """The error that the outcome of a call stands for; none when it was carried out."""
    if outcome.status == "ok":
        return None
    table, key = outcome.table, outcome.key
    if table == DocumentLayout.module and key:
        table, key = key[0], key[1:]
    else:
        table = _NAMES.get(table, table)
    if outcome.status == "missing":
        return NotFoundError(f"there is no row {key!r} in table {table!r} to touch")
    if outcome.status == "conflict":
        absent = any(
            isinstance(found.op, Put)
            and found.op.if_version is UNSET
            and subject(found.op) == (table, key)
            for found in ops
        )
        if absent:
            return ConflictError(f"there is already a row {key!r} in table {table!r}")
        return ConflictError(f"the row {key!r} of table {table!r} has changed")
    if outcome.status == "large":
        return TooLargeError(
            f"the record {key!r} of table {table!r} is larger than a document of Convex can be "
            "with its keys and fields; keep large content elsewhere and refer to it"
        )
    if outcome.status == "full":
        return TransactionTooLargeError("a write was more than one transaction of Convex may be")
    if outcome.status == "busy":
        return BusyError(
            f"too many deletions of table {table!r} are still under way in the deployment; "
            "try again later"
        )
    return UnsupportedError(f"system:write gives outcomes that this version cannot read; {DEPLOY}")
