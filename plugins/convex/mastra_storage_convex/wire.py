"""What goes over the wire beside the columns of tables: int64, places of rows, positions.

JSON has one kind of number and Convex two. Its int64 is `{"$integer": …}` with eight bytes in
base64; any other number is a float64 and comes back with a fraction, `3.0`.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from msgspec import UNSET, Struct, UnsetType, field

from mastra_storage import Key, Position, Row

PROTOCOL = 1
"""The version of the protocol spoken with the functions."""

D = TypeVar("D")

_LEAST, _MOST = -(2**63), 2**63 - 1


class Int64(Struct, frozen=True, gc=False):
    """A number as Convex's int64 writes it."""

    data: bytes = field(name="$integer")

    def __int__(self) -> int:
        return int.from_bytes(self.data, "little", signed=True)


def int64(number: int) -> Int64:
    """The nearest number that is an int64."""
    number = min(max(number, _LEAST), _MOST)
    return Int64(number.to_bytes(8, "little", signed=True))


class Place(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """The member `row` of a document: what a `Row` has beside its key, value and fields."""

    order: Int64
    seq: Int64
    updated: Int64
    version: str
    touched: Int64 | UnsetType = UNSET
    expires_at: Int64 | UnsetType = UNSET


def place_of(row: Row) -> Place:
    """The `row` of a document that keeps `row`."""
    return Place(
        order=int64(row.order),
        seq=int64(row.seq),
        updated=int64(row.updated),
        version=row.version,
        touched=UNSET if row.touched is None else int64(row.touched),
        expires_at=UNSET if row.expires_at is None else int64(row.expires_at),
    )


class WirePosition(Struct, frozen=True):
    """A `Position`, without the hint that Convex has no use for."""

    order: Int64
    seq: Int64
    key: Key

    def position(self) -> Position:
        return Position(int(self.order), int(self.seq), self.key)


def wire_position(position: Position) -> WirePosition:
    return WirePosition(int64(position.order), int64(position.seq), position.key)


class Documents(Struct, Generic[D]):
    """What `M:list` gives: documents, how many were skipped before them, where to continue."""

    rows: list[D]
    skipped: float
    next: WirePosition | None


class Found(Struct, Generic[D]):
    """What `M:get` gives: documents for a first part of the keys asked for."""

    rows: list[D | None]


class Counted(Struct):
    """What `M:count` gives: how many match as far as it walked, and where to continue."""

    count: float
    next: WirePosition | None


class Outcome(Struct):
    """What became of one call of a `system:write`; table and key name the row it failed for."""

    status: str
    table: str = ""
    key: Key = ()


class Outcomes(Struct):
    """What `system:write` gives: an outcome for each call."""

    outcomes: list[Outcome]


class TableNames(Struct):
    """What `system:tables` gives: names of core tables in Convex, and of adapters' tables."""

    core: list[str]
    documents: list[str]
    next: str | None


class Version(Struct):
    """What `system:version` gives."""

    protocol: float
    version: Any = ""
