"""The messages of Convex's sync protocol, as its WebSocket carries them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

import msgspec
from msgspec import Raw, Struct

__all__ = [
    "PATH",
    "Add",
    "AuthError",
    "Chunks",
    "FatalError",
    "FrameError",
    "Other",
    "QueryFailed",
    "QueryRemoved",
    "QueryUpdated",
    "ServerMessage",
    "Transition",
    "authenticate",
    "connect",
    "decoded",
    "modify_query_set",
    "moment",
    "said",
]

# The version is that of the npm client whose protocol this is: it says what may be sent to us.
PATH = "/api/1.48.0/sync"

_BYTES_OF_TIME = 8
_MAX_BYTES_IN_CHUNKS = 256 * 1024 * 1024


class FrameError(Exception):
    """What came is not of the protocol."""


class Version(Struct, rename="camel", frozen=True):
    """Which queries, which moment and whose rights the answers are for."""

    query_set: int
    ts: str
    identity: int


START = Version(query_set=0, ts=base64.b64encode(bytes(_BYTES_OF_TIME)).decode(), identity=0)


class QueryUpdated(Struct, rename="camel", tag=True):
    query_id: int
    value: Raw


class QueryFailed(Struct, rename="camel", tag=True):
    query_id: int
    error_message: str = ""


class QueryRemoved(Struct, rename="camel", tag=True):
    query_id: int


class Transition(Struct, rename="camel", tag=True):
    start_version: Version
    end_version: Version
    modifications: list[QueryUpdated | QueryFailed | QueryRemoved]


class TransitionChunk(Struct, rename="camel", tag=True):
    """A part of a large `Transition`'s text."""

    chunk: str
    part_number: int
    total_parts: int
    transition_id: str


class AuthError(Struct, tag=True):
    """The key was refused, or could not be looked at."""


class FatalError(Struct, tag=True):
    """The server takes what we sent for a mistake."""

    error: str = ""


class Other(Struct):
    """A message that only shows that the server is there."""

    type: str


ServerMessage = Transition | AuthError | FatalError | Other

_decode = msgspec.json.Decoder(Transition | TransitionChunk | AuthError | FatalError).decode
_decode_other = msgspec.json.Decoder(Other).decode
_OURS = {"Transition", "TransitionChunk", "AuthError", "FatalError"}


class Chunks:
    """The parts of a transition that have come so far."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._of: tuple[str, int] | None = None

    def add(self, chunk: TransitionChunk) -> str | None:
        """The whole text, once `chunk` is the last of its parts."""
        of = (chunk.transition_id, chunk.total_parts)
        if not self._parts:
            self._of = of
        if of != self._of or chunk.part_number != len(self._parts):
            raise FrameError("parts of a transition came out of order")
        self._parts.append(chunk.chunk)
        if sum(map(len, self._parts)) > _MAX_BYTES_IN_CHUNKS:
            raise FrameError("a transition is too large")
        if len(self._parts) < chunk.total_parts:
            return None
        text = "".join(self._parts)
        self._parts.clear()
        return text


def decoded(text: str, chunks: Chunks) -> ServerMessage | None:
    """The message in a frame; `None` for a part of one that is not whole yet.

    Raises `FrameError` for anything else.
    """
    try:
        message = _message(text)
        if not isinstance(message, TransitionChunk):
            return message
        whole = chunks.add(message)
        if whole is None:
            return None
        message = _decode(whole)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
        raise FrameError("what came is not a message of the sync protocol") from exc
    if not isinstance(message, Transition):
        raise FrameError("the parts of a transition made something else")
    return message


def _message(text: str) -> Transition | TransitionChunk | AuthError | FatalError | Other:
    try:
        ours: Transition | TransitionChunk | AuthError | FatalError = _decode(text)
    except msgspec.ValidationError:
        other = _decode_other(text)
        if other.type in _OURS:
            raise
        return other
    return ours


def moment(version: Version) -> int:
    """The server's time of a version, as a number that only grows."""
    try:
        data = base64.b64decode(version.ts, validate=True)
    except ValueError as exc:
        raise FrameError("a version without its time") from exc
    if len(data) != _BYTES_OF_TIME:
        raise FrameError("a version without its time")
    return int.from_bytes(data, "little")


def said(error: str) -> str:
    """The code at the beginning of the server's words; the rest may hold anything."""
    found = re.match(r"[A-Za-z]\w{0,63}\b", error)
    return found[0] if found else "no reason"


# -- what we send --------------------------------------------------------------------------------


class Add(Struct, rename="camel", tag=True):
    query_id: int
    udf_path: str
    args: list[Raw]


class _Remove(Struct, rename="camel", tag="Remove"):
    query_id: int


class _ModifyQuerySet(Struct, rename="camel", tag="ModifyQuerySet"):
    base_version: int
    new_version: int
    modifications: list[Add | _Remove]


class _Connect(Struct, rename="camel", tag="Connect", omit_defaults=True):
    session_id: str
    connection_count: int
    client_ts: int
    last_close_reason: str
    max_observed_timestamp: str | None = None


class _Authenticate(Struct, rename="camel", tag="Authenticate"):
    token_type: str
    value: str
    base_version: int


def connect(session: str, count: int, reason: str, seen: int, now: float) -> str:
    """The first message. `seen`: the latest `moment` known, 0 for none; `now`: Unix seconds."""
    observed = base64.b64encode(seen.to_bytes(_BYTES_OF_TIME, "little")).decode() if seen else None
    return _text(_Connect(session, count, int(now * 1000), reason, observed))


def authenticate(key: str) -> str:
    """The second: with which rights queries run."""
    return _text(_Authenticate("Admin", key, 0))


def modify_query_set(base: int, adds: Iterable[Add], removes: Iterable[int]) -> str:
    """Which queries are followed from now on; `base`: how many such messages went before."""
    changes: list[Add | _Remove] = [*adds, *map(_Remove, removes)]
    return _text(_ModifyQuerySet(base, base + 1, changes))


def _text(message: Struct) -> str:
    return msgspec.json.encode(message).decode()
