"""How rows lie in KV: keys, the metadata beside each value, and the ordered index keys.

The key of a record is `{prefix}mastra_{table}:{parts}`, its value the record's JSON. Place,
indexed fields and version are in the key's metadata, so that a pair is the record and its
place at once, and a listing sorts and filters without reading a value.

Where a listing would grow with the table, a second key sorts newest first: the one with
`{prefix}mastra_{table}.newest{n}:{parts}:{time}:{parts}` all rows with the same n parts, the one
with `.by_{field}:{value}:` the rows of one field. A touch is a key of its own, `.touched:`, with
the time in its metadata.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from hashlib import blake2b
from urllib.parse import unquote

import msgspec
from msgspec import structs

from mastra_storage import InvalidRecordError, Key, Query, Row, StorageError, Table, TooLargeError
from mastra_storage_cloudflare.kv import (
    LEAST_SECONDS_TO_EXPIRE,
    MAX_KEY_BYTES,
    MAX_METADATA_BYTES,
    Found,
    Pair,
)
from mastra_storage_cloudflare.places import PLACE_CHARS, Place, newest_first, place_of

# A part of a key or a field that is longer than there is room for is replaced by its hash,
# marked by what no escaped text holds.
_HASH = "%~"
_DIGEST_BYTES = 42
_FIELD_BYTES = 100

_MOST_BYTES_OF_CHAR = 4  # in UTF-8

# In seconds since 1970: KV takes no later time, in 32 bits. Such keys stay; their rows end in time.
_LATEST_EXPIRATION = 2**31 - 1

_members = msgspec.json.Decoder(dict[str, object]).decode


class Layout:
    """The keys of one table under one prefix."""

    def __init__(self, prefix: str, table: Table) -> None:
        self.table = table
        self._base = f"{prefix}mastra_{table.name}"
        # What the name, a field's name and value, and a place leave, shared by the parts.
        room = MAX_KEY_BYTES - len(self._base.encode()) - _FIELD_BYTES - 112
        self._part_bytes = room // len(table.key)
        if self._part_bytes < _DIGEST_BYTES:
            raise InvalidRecordError(
                f"KV has keys of {MAX_KEY_BYTES} bytes: too few for the name and {len(table.key)} "
                f"key parts of table {table.name!r}"
            )

    # -- keys --------------------------------------------------------------------------------

    def record_key(self, key: Key) -> str:
        return f"{self._base}:{self._joined(key)}"

    def _joined(self, key: Key) -> str:
        text = ":".join(key)
        short = len(text) * _MOST_BYTES_OF_CHAR <= self._part_bytes
        plain = "%" not in text and "\0" not in text
        if short and plain and text.count(":") == len(key) - 1:
            return text
        return ":".join([escape(part, self._part_bytes) for part in key])

    def record_prefix(self, prefix: Key) -> str:
        return f"{self._base}:{self._joined((*prefix, ''))}"

    def touched_key(self, key: Key) -> str:
        return f"{self._base}.touched:{self._joined(key)}"

    def touched_of(self, record_key: str) -> str:
        """The key of the touches of a record."""
        return f"{self._base}.touched:{record_key[len(self._base) + 1 :]}"

    def prefixes(self, prefix: Key) -> list[str]:
        """Prefixes of all keys of the rows under a prefix: records first, then what is beside."""
        if not prefix:
            return [f"{self._base}:", f"{self._base}."]
        beside = [self.newest_prefix(prefix)] if len(prefix) in self.table.listings else []
        return [self.record_prefix(prefix), *beside]

    def newest_prefix(self, prefix: Key) -> str:
        """Before the index keys of the rows under a prefix of the key, newest first."""
        return f"{self._base}.newest{len(prefix)}:{self._joined((*prefix, ''))}"

    def field_prefix(self, name: str, value: str) -> str:
        """Before the index keys of the rows with a field's value, newest first."""
        return f"{self._base}.by_{name}:{escape(value, _FIELD_BYTES)}:"

    def index_keys(self, row: Row) -> list[str]:
        """The index keys beside a record."""
        return [key for _, key in self.index_entries(row)]

    def index_entries(self, row: Row) -> Iterator[tuple[str, str]]:
        """The index keys beside a record, each behind what all of its listing begin with."""
        place = newest_first(row.order, row.seq)
        for listing in self.table.listings:
            if isinstance(listing, int):
                start, rest = self.newest_prefix(row.key[:listing]), row.key[listing:]
            elif value := row.fields.get(listing):
                start, rest = self.field_prefix(listing, value), row.key
            else:
                continue
            yield start, f"{start}{place}:{self._joined(rest)}"

    def stands_at(self, row: Row, index_key: str, start: str) -> bool:
        """Whether a row found by an index key that begins with `start` has that key still."""
        if not index_key.startswith(newest_first(row.order, row.seq), len(start)):
            return False
        # Under a prefix the row was looked up by that prefix; its fields may have changed.
        return start.startswith(f"{self._base}.newest") or start in [
            own for own, _ in self.index_entries(row)
        ]

    def record_key_of_index(self, index_key: str, start: str, prefix: Key) -> str:
        """The key of the record that an index key beginning with `start` is beside."""
        return self.record_keys_of_index([index_key], start, prefix)[0]

    def record_keys_of_index(self, index_keys: Iterable[str], start: str, prefix: Key) -> list[str]:
        before, skipped = self.record_prefix(prefix), len(start) + PLACE_CHARS + 1
        return [before + key[skipped:] for key in index_keys]

    # -- rows --------------------------------------------------------------------------------

    def pairs(self, row: Row) -> list[Pair]:
        """The record and its index keys, as they are written."""
        name = self.record_key(row.key)
        metadata = self._metadata(row, name)
        expiration = _expiration(row.expires_at)
        record = Pair(name, row.value, metadata, expiration)
        return [record, *[Pair(key, b"1", metadata, expiration) for key in self.index_keys(row)]]

    def _metadata(self, row: Row, name: str) -> str:
        place = Place(
            order=str(row.order),
            seq=str(row.seq),
            written=str(time.time_ns() // 1000),
            version=row.version,
            updated="" if row.updated == row.order else str(row.updated),
            expires="" if row.expires_at is None else str(row.expires_at),
            fields=tuple(shorten(row.fields.get(name, "")) for name in self.table.fields),
            key=row.key if self.key_of(name) is None else (),
        )
        metadata = msgspec.json.encode(place)
        if len(metadata) > MAX_METADATA_BYTES and self.table.record is not None:
            # A record holds its own key.
            metadata = msgspec.json.encode(structs.replace(place, key=()))
        if len(metadata) > MAX_METADATA_BYTES:
            raise TooLargeError(
                f"the key and indexed fields of row {row.key!r} of table {self.table.name!r} need "
                f"{len(metadata)} bytes of key metadata, of which KV has {MAX_METADATA_BYTES}"
            )
        return metadata.decode()

    def row(self, name: str, found: Found, touched: int | None) -> Row:
        """The row of a record that was read."""
        place = place_of(found)
        if place is None:
            raise StorageError(
                f"the value under key {name!r} was not written by mastra-storage: its key has no "
                "metadata of ours; remove it, or open the store with interop='mastra' if "
                "the TypeScript store wrote it"
            )
        fields = {n: v for n, v in zip(self.table.fields, place.fields, strict=False) if v}
        key = self.key_of(name) or place.key
        if not key or (fields and any(map(is_short, fields.values()))):
            key, fields = self._from_value(name, found.value)
        order = int(place.order)
        return Row(
            table=self.table,
            key=key,
            value=found.value,
            order=order,
            seq=int(place.seq),
            fields=fields,
            updated=int(place.updated) if place.updated else order,
            touched=touched,
            version=place.version,
            expires_at=int(place.expires) if place.expires else None,
        )

    def key_of(self, name: str) -> Key | None:
        """The parts in a record's key; `None` when one of them is a hash."""
        text = name[len(self._base) + 1 :]
        if "%" not in text:
            return tuple(text.split(":"))
        return None if _HASH in text else tuple(map(unquote, text.split(":")))

    def _from_value(self, name: str, value: bytes) -> tuple[Key, dict[str, str]]:
        """The key and fields of a record whose key could not hold them, from the record itself."""
        if self.table.record is not None:
            kind = self.table.record
            names = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
        else:
            names = {}
        members = _members(value)
        found = {n: members.get(names.get(n, n)) for n in (*self.table.key, *self.table.fields)}
        texts = {n: v for n, v in found.items() if isinstance(v, str)}
        key = tuple([texts[part] for part in self.table.key if part in texts])
        if len(key) < len(self.table.key) or self.record_key(key) != name:
            raise StorageError(f"the record under key {name!r} does not hold its own key")
        return key, {n: texts[n] for n in self.table.fields if texts.get(n)}

    def touch(self, key: Key, at: int, expires_at: int | None) -> Pair:
        """The time of a touch, as it is written: it is in the metadata alone."""
        return Pair(self.touched_key(key), b"1", f'{{"w":"{at}"}}', _expiration(expires_at))

    def row_matches(self, row: Row, query: Query) -> bool:
        """Whether a row is one of those a query asks for."""
        since, until = query.since, query.until
        return (
            row.key[: len(query.prefix)] == query.prefix
            and (since is None or row.order >= since)
            and (until is None or row.order <= until)
            and all(row.fields.get(n, "") in values for n, values in query.fields.items())
        )

    def matching(self, query: Query) -> Callable[[Place], bool]:
        """Whether the row at a place is one of those a query asks for, its prefix aside."""
        since, until = query.since, query.until
        # Keys that were written when only bytes were counted hold some as they are that are hashed
        # now.
        wanted = {name: {*map(shorten, values), *values} for name, values in query.fields.items()}

        def matches(place: Place) -> bool:
            order = int(place.order)
            if place.has_expired():
                return False
            if (since is not None and order < since) or (until is not None and order > until):
                return False
            if not wanted:
                return True
            fields = dict(zip(self.table.fields, place.fields, strict=False))
            return all(fields.get(name, "") in values for name, values in wanted.items())

        return matches


@cache
def layout_of(prefix: str, table: Table) -> Layout:
    return Layout(prefix, table)


def _expiration(expires_at: int | None) -> int | None:
    """When KV is to drop a key, in seconds since 1970; `None` when it need not, or cannot."""
    if expires_at is None:
        return None
    # KV refuses to drop a key sooner than in a minute. Another one is for clocks that differ.
    # Until then the row's place says that it has expired.
    soonest = int(time.time()) + 2 * LEAST_SECONDS_TO_EXPIRE
    expiration = max(-(-expires_at // 1_000_000), soonest)
    return expiration if expiration <= _LATEST_EXPIRATION else None


def escape(part: str, most: int) -> str:
    """A part of a key without the separator, or a hash of it when it has more than `most` bytes.

    workerd lists no keys by a prefix that has a zero character in it.
    """
    escaped = part.replace("%", "%25").replace(":", "%3A").replace("\0", "%00")
    fits = len(escaped) * _MOST_BYTES_OF_CHAR <= most or len(escaped.encode()) <= most
    return escaped if fits else _HASH + _digest(part)


def shorten(value: str) -> str:
    """An indexed field as metadata holds it: as it is, or a hash of it."""
    # As JSON: what it escapes takes up to six bytes for one.
    if len(msgspec.json.encode(value)) <= _FIELD_BYTES + 2 and not value.startswith(_HASH):
        return value
    return _HASH + _digest(value)


def is_short(value: str) -> bool:
    return value.startswith(_HASH)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=20).hexdigest()
