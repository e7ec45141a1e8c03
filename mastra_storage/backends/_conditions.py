"""`if_version`, for the backends that see the stored row before they replace it."""

from __future__ import annotations

from msgspec import UNSET

from mastra_storage.backend import Delete, Put
from mastra_storage.errors import ConflictError

__all__ = ["check_version"]


def check_version(op: Put | Delete, stored: str | None) -> bool:
    """Raise `ConflictError` unless the row is as `op.if_version` asks; `stored` is its version.

    Gives whether `op` is a put that was carried out already: then there is nothing to do.
    """
    if op.if_version is None:
        return False
    if isinstance(op, Put) and op.row.version == stored:
        return True
    if op.if_version is UNSET and stored is not None:
        raise ConflictError(f"there is already a row {op.key!r} in table {op.table.name!r}")
    if op.if_version is not UNSET and op.if_version != stored:
        raise ConflictError(f"the row {op.key!r} of table {op.table.name!r} has changed")
    return False
