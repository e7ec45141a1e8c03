"""The tables of the saver and the store, and the places of checkpoints.

A checkpoint is a row of its own, without the values of its channels; it names the rows of
`VALUES` that have them, most of which earlier checkpoints wrote. So no value is written twice.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from mastra_storage import InvalidArgumentError, Key, Row, StorageError, Table

T = TypeVar("T")

__all__ = ["CHECKPOINTS", "ITEMS", "SAVER_TABLES", "VALUES", "WRITES", "Place", "key_part"]

CHECKPOINTS = Table(
    name="langgraph_checkpoints",
    key=("thread_id", "checkpoint_ns", "checkpoint_id"),
    fields=("run_id",),
    ordered=(0, 2),
    listings=(2,),
)
"""A row for each checkpoint, see `_saved.Saved`; not large, for values have rows of their own."""

VALUES = Table(
    name="langgraph_values",
    key=("thread_id", "chain", "link"),
    ordered=(),
    large=True,
)
"""Values of channels. The rows of one `chain` are versions of one list, each with what is new."""

WRITES = Table(
    name="langgraph_writes",
    key=("thread_id", "checkpoint", "call"),
    ordered=(1,),
    large=True,
)
"""What tasks wrote on top of a checkpoint, named with its namespace: a row for each call."""

ITEMS = Table(
    name="langgraph_items",
    key=("namespace", "key"),
    fields=("under1", "under2", "under3", "under4"),
    listings=("under1", "under2", "under3", "under4"),
    large=True,
)
"""The items of the store. `under2` is the namespace's first two labels, and so on."""

SAVER_TABLES = (CHECKPOINTS, VALUES, WRITES)

_MAX_PART_BYTES: Final = 256
# 100 ns steps between the beginnings of the calendar of UUIDs and of 1970.
_UUID_EPOCH: Final = 0x01B21DD213814000


class Place(NamedTuple):
    """A thread and a namespace within it, as parts of keys."""

    thread: str
    ns: str

    @classmethod
    def of(cls, config: Any) -> Place:
        """Where `config` points to. `InvalidArgumentError` without a thread id."""
        configurable = config.get("configurable") or {}
        if configurable.get("thread_id") is None:
            raise InvalidArgumentError(
                "the config names no thread: give it as {'configurable': {'thread_id': ...}}"
            )
        thread, ns = configurable["thread_id"], configurable.get("checkpoint_ns") or ""
        return cls(key_part(str(thread)), key_part(ns))

    def checkpoint(self, checkpoint_id: str) -> Key:
        """The key of a checkpoint here."""
        return (self.thread, self.ns, key_part(checkpoint_id))


def checkpoint_part(ns: str, checkpoint_id: str) -> str:
    """A checkpoint of a thread as one part of a key."""
    return key_part(f"{checkpoint_id}@{ns}")


def key_part(text: str) -> str:
    """A text as a part of a key: as it is, or its hash when it is too long for one."""
    if len(text) <= _MAX_PART_BYTES // 4 or len(text.encode()) <= _MAX_PART_BYTES:
        return text
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def decoded(row: Row, decode: Callable[[bytes], T]) -> T:
    """What a row holds. `StorageError` when it is something else."""
    try:
        return decode(row.value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise StorageError(
            f"the row {row.key!r} of table {row.table.name!r} does not hold what LangGraph's "
            "adapter writes; it was written by something else, or damaged"
        ) from exc


def order_of(checkpoint_id: str) -> int:
    """The place of a checkpoint among others, in microseconds, told by its id alone.

    Ids are UUIDs that begin with their time. Of any other id it is the first six bytes, so that
    those are in the order of their text.
    """
    try:
        number = UUID(checkpoint_id)
    except ValueError:
        return int.from_bytes(checkpoint_id.encode()[:6].ljust(6, b"\0"))
    if number.version == 6:
        ticks = (number.int >> 80) << 12 | (number.int >> 64) & 0xFFF
        return max(0, (ticks - _UUID_EPOCH) // 10)
    if number.version == 7:
        return (number.int >> 80) * 1000
    return int.from_bytes(number.bytes[:6])
