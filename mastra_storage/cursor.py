"""Page cursors: opaque text that says which query it belongs to and where to continue it."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Any

import msgspec

from mastra_storage.backend import Position, Query
from mastra_storage.errors import InvalidArgumentError
from mastra_storage.schema import Key

_CHECK_BYTES = 6


def fingerprint(query: Query, accept_id: Any = None) -> str:
    """What makes two queries one listing, pages and counts aside."""
    identity = (
        query.table.name,
        query.prefix,
        sorted(query.fields.items()),
        query.since,
        query.until,
        query.order_by,
        query.descending,
        accept_id,
    )
    return blake2b(msgspec.json.encode(identity, order="sorted"), digest_size=8).hexdigest()


def encode_cursor(mark: str, page: int, position: Position) -> str:
    payload = msgspec.json.encode(
        (mark, page, position.order, position.seq, position.key, position.hint)
    )
    return _sealed(payload)


def decode_cursor(cursor: Any, mark: str) -> tuple[int, Position]:
    """The page number and position in a cursor of the query that `mark` identifies."""
    if not isinstance(cursor, str):
        raise InvalidArgumentError(f"cursor must be a str or None, not {type(cursor).__name__}")
    try:
        payload = urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4))[_CHECK_BYTES:]
        if cursor != _sealed(payload):
            raise ValueError("something in it was changed")
        found, page, order, seq, key, hint = msgspec.json.decode(
            payload, type=tuple[str, int, int, int, Key, str]
        )
    except (ValueError, msgspec.MsgspecError):
        raise InvalidArgumentError(
            "cursor is damaged; pass `next_cursor` of a page unchanged, or none to start again"
        ) from None
    if found != mark:
        raise InvalidArgumentError(
            "cursor belongs to another query; filters and direction must stay the same"
        )
    return page, Position(order, seq, key, hint)


def _sealed(payload: bytes) -> str:
    """The payload as text, behind a check by which damage is noticed."""
    check = blake2b(payload, digest_size=_CHECK_BYTES).digest()
    return urlsafe_b64encode(check + payload).decode().rstrip("=")
