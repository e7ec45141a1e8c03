"""Where a row stands: in the metadata of its record's key, and in its index keys."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

from mastra_storage import Key
from mastra_storage_cloudflare.kv import Entry, Found, Pair

PLACE_CHARS = 32
"""Hexadecimal digits of a place in an index key."""

_INDEX = re.compile(f"[0-9a-f]{{{PLACE_CHARS}}}:")

# Remembered by the metadata that says them, in all stores together: a listing has 1,000 at most.
_PLACES = 2_048

_SIGN = 2**63
_MAX = 2**64 - 1

# A whole number of at most 63 bits or so, as text: JavaScript would round numbers of that size.
_Number: TypeAlias = Annotated[str, Meta(pattern=r"^-?[0-9]{1,19}$")]
_OptionalNumber: TypeAlias = Annotated[str, Meta(pattern=r"^(-?[0-9]{1,19})?$")]


class Place(Struct, frozen=True, gc=False, omit_defaults=True, rename={
    "order": "o", "seq": "s", "written": "w", "version": "v", "updated": "u", "expires": "e",
    "fields": "f", "key": "k",
}):  # fmt: skip
    """What the metadata of a record's key says."""

    order: _Number
    seq: _Number
    written: _Number = "0"
    version: str = ""
    updated: _OptionalNumber = ""
    expires: _OptionalNumber = ""
    fields: tuple[str, ...] = ()
    key: Key = ()

    def has_expired(self) -> bool:
        """Whether the row is gone, though KV may have it still."""
        return bool(self.expires) and int(self.expires) <= time.time_ns() // 1000


# The metadata of a listed key comes once more with its value.
_decoded = lru_cache(_PLACES)(msgspec.json.Decoder(Place).decode)


def place_of(entry: Entry | Found | Pair) -> Place | None:
    """The place in a key's metadata; `None` when it is not ours."""
    try:
        return _decoded(entry.metadata or "")
    except msgspec.MsgspecError:
        return None


def newest_first(order: int, seq: int) -> str:
    """A place as text that sorts in the reverse of time."""
    return f"{_MAX - (order + _SIGN):016x}{_MAX - seq:016x}"


def is_index(key: str, start: str) -> bool:
    """Whether a key that begins with `start` is an index key."""
    return _INDEX.match(key, len(start)) is not None


def place_text(index_key: str, start: str) -> str:
    """The place in an index key, as text that sorts in the reverse of time."""
    return index_key[len(start) : len(start) + PLACE_CHARS]


def place_of_index(index_key: str, start: str) -> tuple[int, int]:
    """The order and seq in an index key."""
    text = place_text(index_key, start)
    return _MAX - int(text[:16], 16) - _SIGN, _MAX - int(text[16:], 16)
