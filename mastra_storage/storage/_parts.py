"""Values larger than a backend holds: kept in parts, beside the row that tells of them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct, structs

from mastra_storage.backend import Delete, DeletePrefix, Op, Put
from mastra_storage.errors import StorageError
from mastra_storage.schema import PARTS_MEMBER, Key, Row, Table

Known: TypeAlias = Mapping[tuple[Table, Key], Row | None]

# Values are cut at the same size everywhere, so that a copy fits wherever it goes.
_LARGEST: Final = 900_000
# What a part costs besides its own base64.
_AROUND: Final = len(b'{"data":""}')
# No row that tells of parts is longer.
_MANIFEST_BYTES: Final = 256


class Manifest(Struct, frozen=True):
    """In how many parts a value is, how many bytes it has, and which write made it.

    The row's own version is a new one after an import; its parts stay where they are.
    """

    count: int
    bytes: int
    version: str


class _Whole(Struct, frozen=True):
    manifest: Manifest = msgspec.field(name=PARTS_MEMBER)


class _Part(Struct, frozen=True):
    data: bytes  # base64, as msgspec has bytes in JSON


_manifest = msgspec.json.Decoder(_Whole).decode
_part = msgspec.json.Decoder(_Part).decode
_encode = msgspec.json.Encoder().encode


def manifest_of(row: Row) -> Manifest | None:
    """What `row` tells of its parts; `None` when it holds its value itself."""
    if not row.table.large or len(row.value) > _MANIFEST_BYTES:
        return None
    if f'"{PARTS_MEMBER}"'.encode() not in row.value:
        return None
    try:
        return _manifest(row.value).manifest
    except msgspec.MsgspecError:
        return None  # the text stands somewhere inside


def part_keys(row: Row, manifest: Manifest) -> list[Key]:
    """The keys of a row's parts, in order."""
    return [(*row.key, f"{manifest.version}.{number:06}") for number in range(manifest.count)]


def join(row: Row, manifest: Manifest, parts: Sequence[Row]) -> Row:
    """The row with its whole value."""
    try:
        value = b"".join([_part(part.value).data for part in parts])
    except msgspec.MsgspecError as exc:
        raise _damaged(row) from exc
    if len(value) != manifest.bytes:
        raise _damaged(row)
    return structs.replace(row, value=value)


def with_parts(ops: Iterable[Op], limit: int | None, known: Known | None = None) -> list[Op]:
    """The ops, with those on parts that they imply for rows of `large` tables.

    `limit` is the backend's `max_record_bytes`. `known` has rows as they are stored: what
    replaces or deletes one of them deletes its parts by their keys, without a search.
    """
    known = known or {}
    found: list[Op] = []
    for op in ops:
        table = op.table
        if not table.large:
            found.append(op)
        elif isinstance(op, Put):
            found += _put(op, limit)
            found += _deletes(known.get((table, op.key)), unless=op.row.version)
        elif isinstance(op, DeletePrefix):
            found += [op, DeletePrefix(table.parts, op.prefix)]
        elif isinstance(op, Delete):
            old = (table, op.key)
            beside = _deletes(known[old]) if old in known else [DeletePrefix(table.parts, op.key)]
            found += [op, *beside]
        else:
            found.append(op)
    return found


def _put(op: Put, limit: int | None) -> list[Op]:
    row = op.row
    largest = _LARGEST if limit is None else min(limit, _LARGEST)
    if len(row.value) <= largest:
        return [op]
    size = (largest - _AROUND) // 4 * 3  # of what becomes base64
    pieces = [row.value[at : at + size] for at in range(0, len(row.value), size)]
    manifest = Manifest(len(pieces), len(row.value), row.version)
    parts = [
        structs.replace(
            row,
            table=row.table.parts,
            key=key,
            value=b'{"data":"' + base64.b64encode(piece) + b'"}',
            fields={},
            touched=None,
        )
        for key, piece in zip(part_keys(row, manifest), pieces, strict=True)
    ]
    # First the parts: a row that is there has them all.
    return [
        *[Put(part) for part in parts],
        structs.replace(op, row=structs.replace(row, value=_encode(_Whole(manifest)))),
    ]


def _deletes(old: Row | None, *, unless: str | None = None) -> list[Op]:
    manifest = None if old is None else manifest_of(old)
    if old is None or manifest is None or manifest.version == unless:
        return []
    return [Delete(old.table.parts, key) for key in part_keys(old, manifest)]


def _damaged(row: Row) -> StorageError:
    return StorageError(
        f"the parts of row {row.key!r} of table {row.table.name!r} do not make up its value; "
        "they were written by something else, or damaged"
    )
