"""What is kept of Strands besides threads and messages, and how its keys become keys of rows.

A key of Strands is a path of any length. A row of `NAMES` has its first three parts as parts of
its own key, and the others as a fourth, so that what is under `session/ID/` is found without
reading the names under other sessions.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from mastra_storage import Key, Table

__all__ = ["DATA", "NAMES", "SESSIONS"]

_MOST_BYTES: Final = 256  # of a part of a row's key

NAMES = Table(name="strands_names", key=("first", "second", "third", "rest"), ordered=())
"""The keys of all values, to be listed without reading those."""

DATA = Table(name="strands_data", key=("path",), ordered=(), large=True)
"""The values. What is here has its name in `NAMES`."""

SESSIONS = Table(name="strands_sessions", key=("session_id", "part"), ordered=(), large=True)
"""What sessions hold besides messages: themselves, their agents, their orchestrators."""


def name_key(key: str) -> Key:
    """The key in `NAMES` of a normal key."""
    parts = [_part(part) for part in key.split("/", len(NAMES.key) - 1)]
    return (*parts, *[""] * (len(NAMES.key) - len(parts)))


def name_prefix(prefix: str) -> Key:
    """What the keys in `NAMES` begin with of all keys that begin with a normal prefix."""
    whole = prefix.split("/")[:-1]
    return tuple([_part(part) for part in whole[: len(NAMES.key) - 1]])


def data_key(key: str) -> Key:
    """The key in `DATA` of a normal key."""
    return (_part(key),)


def _part(text: str) -> str:
    """The text, or a hash of one too long; a slash at the beginning tells them apart."""
    data = text.encode(errors="surrogatepass")
    return text if len(data) <= _MOST_BYTES else "/" + hashlib.sha256(data).hexdigest()


def name_record(key: str) -> dict[str, Any]:
    """What `NAMES` keeps for a normal key."""
    return dict(zip(NAMES.key, name_key(key), strict=True)) | {"name": key}


def data_record(key: str, data: bytes) -> dict[str, Any]:
    """What `DATA` keeps for a normal key: text where the bytes are text, as snapshots are."""
    record = {"path": data_key(key)[0], "name": key}
    try:
        return record | {"text": data.decode()}
    except UnicodeDecodeError:
        return record | {"base64": base64.b64encode(data).decode()}


def data_of(record: Mapping[str, Any]) -> bytes:
    """The bytes that a record of `DATA` keeps."""
    text: str | None = record.get("text")
    return base64.b64decode(record["base64"]) if text is None else text.encode()
