"""The values that the TypeScript store writes: envelopes, times, JSON in strings."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
from msgspec import Raw

from mastra_storage import StorageError

Members = dict[str, Any]
"""The members of a record, by name: `Raw` JSON, or what JSON is made of."""

_ENVELOPE = {"value", "metadata", "cacheStatus"}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Numbers from here on are no milliseconds.
_MICROSECONDS = 10**14

# An escape in JSON; the group is half of a surrogate pair without the other.
_ESCAPE = re.compile(
    rb"""\\(?: u[dD][89abAB][0-9a-fA-F]{2} \\u[dD][c-fC-F][0-9a-fA-F]{2}
          | (u[dD][89a-fA-F][0-9a-fA-F]{2})
          | . )""",
    flags=re.DOTALL | re.VERBOSE,
)

_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


class FormError(ValueError):
    """A value is not of a form that the TypeScript store writes."""


def damaged(key: str, exc: Exception) -> StorageError:
    """The error for a value under a key that cannot be what the TypeScript store wrote there."""
    return StorageError(
        f"the value under key {key!r} is not what the TypeScript store keeps there: it {exc}; "
        "repair or delete it"
    )


def members_of(value: bytes) -> Members:
    """The members of a stored record."""
    try:
        return _decode_members(unwrap(value))
    except msgspec.MsgspecError as exc:
        raise FormError(f"is not a JSON object ({exc})") from exc
    except RecursionError as exc:
        raise FormError("is nested too deep") from exc


def unwrap(value: bytes) -> bytes:
    """The value itself, out of the envelope that some releases stored it in.

    Some releases of Cloudflare's SDK stored the body of the request, `{"value": "…", "metadata":
    …}`, in place of the value.
    """
    value = _well_formed(value)
    while value.lstrip()[:1] == b"{":
        try:
            members = _decode_members(value)
        except (msgspec.MsgspecError, RecursionError):
            return value
        if "value" not in members or not members.keys() <= _ENVELOPE:
            return value
        inner = plain(members["value"])
        if not isinstance(inner, str):
            return value
        value = _well_formed(inner.encode())
    return value


def _well_formed(value: bytes) -> bytes:
    """JSON with U+FFFD for each half of a surrogate pair that stands alone.

    JavaScript leaves one where it cuts a text within a character, and `JSON.stringify` stores it.
    Whatever else takes text out of JavaScript as UTF-8 puts U+FFFD in its place.
    """
    if b"\\ud" not in value and b"\\uD" not in value:
        return value
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape[1] else escape[0], value)


def compact(members: Members) -> bytes:
    """Members as TypeScript's `JSON.stringify` writes them."""
    return msgspec.json.format(_encode(members), indent=-1)


def plain(value: Any) -> Any:
    """A member as Python has it; `None` when it is not there."""
    return msgspec.json.decode(value) if isinstance(value, Raw) else value


def is_empty(value: Any) -> bool:
    """Whether a member is not there, null, or without content."""
    return plain(value) in (None, "", [], {})


def parsed(value: Any) -> Any:
    """What the JSON in a string says; anything else as it is."""
    text = plain(value)
    if not isinstance(text, str):
        return value
    json = _well_formed(text.encode())
    try:
        msgspec.json.decode(json)
    except msgspec.MsgspecError:
        return value
    except RecursionError as exc:
        raise FormError("is nested too deep") from exc
    return Raw(json)


def parsed_container(value: Any) -> Any:
    """What a string says that is a JSON object or array; anything else as it is."""
    text = plain(value)
    return parsed(value) if isinstance(text, str) and text.lstrip()[:1] in ("{", "[") else value


def stringified(value: Any) -> str:
    """A value as JSON in a string."""
    return msgspec.json.format(_encode(value), indent=-1).decode()


def json_object(members: Members, name: str) -> Any:
    """An object that may be stored as JSON in a string, or not at all."""
    return _container(members, name, {})


def json_array(members: Members, name: str) -> Any:
    """An array that may be stored as JSON in a string, or not at all."""
    return _container(members, name, [])


def _container(members: Members, name: str, empty: Any) -> Any:
    value = members.pop(name, None)
    if is_empty(value):
        return empty
    value = parsed(value)
    found = plain(value)
    if found is None:
        return empty
    if not isinstance(found, type(empty)):
        kind = "an object" if empty == {} else "an array"
        raise FormError(f"has {name} that is neither {kind} nor one as text")
    return value


def time_text(value: Any, name: str) -> str | None:
    """A time as our records carry it; `None` when it is not there.

    TypeScript reads ISO-8601 and milliseconds alike. Its exporter of spans writes microseconds,
    numbers that milliseconds would reach in the year 5138.
    """
    found = plain(value)
    if found is None or found == "":
        return None
    try:
        if isinstance(found, str):
            time = msgspec.convert(found, datetime)
        elif isinstance(found, (int, float)) and not isinstance(found, bool):
            unit = 1 if abs(found) >= _MICROSECONDS else 1000
            time = _EPOCH + timedelta(microseconds=round(found * unit))
        else:
            raise FormError(f"has {name} that is not a time")
    except (msgspec.ValidationError, OverflowError) as exc:
        raise FormError(f"has {name} that is not a time") from exc
    if time.tzinfo is None:
        time = time.replace(tzinfo=timezone.utc)
    return time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def iso_milliseconds(value: Any) -> str:
    """One of our times as TypeScript writes it: UTC, three digits of a second, `Z`."""
    time = msgspec.convert(plain(value), datetime).astimezone(timezone.utc)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(value: Any) -> int:
    """One of our times in milliseconds since 1970."""
    return (msgspec.convert(plain(value), datetime) - _EPOCH) // timedelta(milliseconds=1)


def times(members: Members, *names: str) -> Members:
    """Times as our records carry them; the first has to be there, and stands for the others."""
    found = {name: time_text(members.pop(name, None), name) for name in names}
    first = found[names[0]]
    if first is None:
        raise FormError(f"has no {names[0]}")
    return {name: time or first for name, time in found.items()}


def optional(members: Members, *names: str) -> Members:
    """Those of the members that say something, taken out of all."""
    found = {name: members.pop(name, None) for name in names}
    return {name: value for name, value in found.items() if not is_empty(value)}
