"""The checks a record passes before anything of it is written.

`msgspec` alone would turn NaN into null, sets into lists and datetimes into text without a
word; one walk over the free-form values refuses what JSON cannot hold as given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from enum import Enum
from functools import cache
from math import isfinite
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from mastra_storage.errors import InvalidArgumentError, InvalidRecordError
from mastra_storage.records import Record

MAX_ID_BYTES = 256
MAX_DEPTH = 100

# Python refuses to read integers of more decimal digits than this.
_MAX_INT_BITS = 14_280
_MAX_PLAIN_INT = 2**64

R = TypeVar("R", bound=Record)
Part = str | int

encode_json = msgspec.json.Encoder().encode


class _NotJsonError(Exception):
    """Something in a free-form value is not JSON; collects the path on its way up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[Part] = []


def check_record(record: R) -> R:
    """The record, its times in UTC; `InvalidRecordError` when a field cannot be stored.

    The caller's record is not changed.
    """
    changed: dict[str, Any] = {}
    for name, check in _checks(type(record)):
        value = getattr(record, name)
        checked = check(value, name)
        if checked is not value:
            changed[name] = checked
    return msgspec.structs.replace(record, **changed) if changed else record


def check_mapping(
    record: Mapping[str, Any], *, key: Iterable[str], fields: Iterable[str]
) -> dict[str, Any]:
    """A plain mapping that JSON holds as given, with text where a table's key and fields are."""
    found = dict(record)
    for name in key:
        found[name] = check_id(found.get(name), name, empty=True)
    for name in fields:
        if found.get(name) is not None:
            found[name] = check_id(found[name], name, empty=True)
    try:
        _walk(found, 0)
    except _NotJsonError as exc:
        raise _refused(exc) from None
    return found


def record_from(kind: type[R], members: Mapping[str, Any]) -> R:
    """A record from a mapping: snake_case or camelCase names, times as datetimes or ISO-8601.

    Raises `InvalidRecordError` for a member that the record does not have, or one it needs.
    """
    names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    times = {name for name, check in _checks(kind) if check in (_time, _optional_time)}
    given: dict[str, Any] = {}
    for member, value in members.items():
        name = names.get(member, member)
        if name not in kind.__struct_fields__ or name in given:
            reason = "is given twice" if name in given else f"is not a member of {kind.__name__}"
            raise _field_error(str(member), reason)
        if name in times and isinstance(value, str):
            value = _parse_time(value, name)
        given[name] = value
    try:
        return kind(**given)
    except TypeError as exc:
        raise InvalidRecordError(f"{kind.__name__}: {exc}") from None


def _parse_time(value: str, name: str) -> datetime:
    try:
        return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        raise _field_error(name, "is not an ISO-8601 time") from None


def check_members(kind: type[Record], members: Mapping[str, Any]) -> dict[str, Any]:
    """Some members of a record, each checked as it would be in the whole."""
    checks = dict(_checks(kind))
    return {name: checks[name](value, name) for name, value in members.items()}


def encode(value: Any, field: str | None = None) -> bytes:
    """A checked record, mapping or `field` value as JSON bytes."""
    try:
        return encode_json(value)
    except UnicodeEncodeError:
        # Raised anew without its cause: a UnicodeEncodeError carries the whole text.
        members = msgspec.structs.asdict(value) if isinstance(value, Struct) else value
        raise _refused(_find_surrogate(members), field) from None


def check_id(value: Any, name: str, *, empty: bool = False) -> str:
    """A text that can be part of a key."""
    if not isinstance(value, str):
        raise _field_error(name, f"must be a str, not {type(value).__name__}")
    if not value and not empty:
        raise _field_error(name, "must not be empty")
    if len(value) * 4 > MAX_ID_BYTES or not value.isascii():
        size = len(_utf8(value, name))
        if size > MAX_ID_BYTES:
            raise _field_error(name, f"is {size} bytes of UTF-8, more than {MAX_ID_BYTES}")
    return value if type(value) is str else str.__str__(value)


def id_argument(value: Any, name: str) -> str:
    """An id given as an argument, checked as a record's would be."""
    try:
        return check_id(value, name)
    except InvalidRecordError as exc:
        raise InvalidArgumentError(exc.message) from None


def filter_argument(value: Any, name: str) -> str | None:
    """A filter of a listing: a text, or `None` for no filter."""
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(
            f"{name} must be a non-empty str or None, not "
            f"{'an empty str' if value == '' else type(value).__name__}"
        )
    try:
        _utf8(value, name)
    except InvalidRecordError as exc:
        raise InvalidArgumentError(exc.message) from None
    return str.__str__(value)


def time_argument(value: Any, name: str) -> datetime | None:
    try:
        return _optional_time(value, name)
    except InvalidRecordError as exc:
        raise InvalidArgumentError(exc.message) from None


def count_argument(value: Any, name: str, *, least: int = 0) -> int:
    """A whole number of at least `least`."""
    if type(value) is not int or value < least:
        shown = value if isinstance(value, (int, float)) else type(value).__name__
        raise InvalidArgumentError(
            f"{name} must be a whole number of at least {least}, not {shown}"
        )
    return value


def list_argument(values: Any, name: str) -> list[Any]:
    """Several things, not one."""
    if isinstance(values, (str, bytes, Mapping, Struct)) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{name} must be a list, not one {type(values).__name__}")
    return list(values)


def object_argument(value: Any, name: str) -> dict[str, Any] | None:
    """A filter by members of a free-form object; `None` and `{}` are no filter."""
    try:
        return (
            _object(dict(value) if isinstance(value, Mapping) else value, name) if value else None
        )
    except InvalidRecordError as exc:
        raise InvalidArgumentError(exc.message) from None


def choice_argument(value: Any, name: str, choices: Sequence[str]) -> str:
    if value not in choices:
        shown = repr(value) if isinstance(value, str) else type(value).__name__
        raise InvalidArgumentError(
            f"{name} must be one of {', '.join(map(repr, choices))}, not {shown}"
        )
    return str(value)


# -- the fields of a record ----------------------------------------------------------------


def _text(value: Any, name: str) -> str:
    # Lone surrogates are found by the encoder, for free.
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise _field_error(name, f"must be a str, not {type(value).__name__}")


def _optional_text(value: Any, name: str) -> str | None:
    return None if value is None else _text(value, name)


def _optional_id(value: Any, name: str) -> str | None:
    return None if value is None else check_id(value, name)


def _time(value: Any, name: str) -> datetime:
    if not isinstance(value, datetime):
        raise _field_error(name, f"must be a datetime, not {type(value).__name__}")
    if value.tzinfo is timezone.utc:
        return value
    if value.utcoffset() is None:
        raise _field_error(
            name, "is a naive datetime; give it a time zone, such as datetime.now(timezone.utc)"
        )
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise _field_error(name, "is outside the years 1 to 9999 in UTC") from None


def _optional_time(value: Any, name: str) -> datetime | None:
    return None if value is None else _time(value, name)


def _json(value: Any, name: str) -> Any:
    try:
        _walk_item(value, 0)
    except _NotJsonError as exc:
        raise _refused(exc, name) from None
    return value


def _object(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise _field_error(name, f"must be a dict, not {type(value).__name__}")
    return _json(value, name) if value else value


def _array(value: Any, name: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _field_error(name, f"must be a list, not {type(value).__name__}")
    return _json(value, name) if value else value


def _choice(*choices: str) -> Callable[[Any, str], Any]:
    def check(value: Any, name: str) -> Any:
        if value not in choices:
            raise _field_error(name, f"must be one of {', '.join(map(repr, choices))}")
        return value

    return check


_CHECKS: dict[tuple[str, bool], Callable[[Any, str], Any]] = {
    ("id", False): check_id,
    ("id", True): _optional_id,
    ("text", False): _text,
    ("text", True): _optional_text,
    ("time", False): _time,
    ("time", True): _optional_time,
    ("json", False): _json,
    ("object", False): _object,
    ("array", False): _array,
}


@cache
def _checks(record: type[Record]) -> list[tuple[str, Callable[[Any, str], Any]]]:
    """The check of each field of a kind of record, from its annotations."""
    checks = []
    hints = get_type_hints(record, include_extras=True)
    for name in record.__struct_fields__:
        hint = hints[name]
        if get_origin(hint) is Literal:
            checks.append((name, _choice(*get_args(hint))))
        else:
            value_type, kind = get_args(hint)
            checks.append((name, _CHECKS[kind, type(None) in get_args(value_type)]))
    return checks


# -- the walk over free-form JSON ------------------------------------------------------------

_PLAIN = frozenset({str, bool, type(None)})


def _walk_item(value: Any, depth: int) -> None:
    """Refuse what JSON cannot hold as given. `depth` counts the containers around `value`."""
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind is int:
        if not -_MAX_PLAIN_INT < value < _MAX_PLAIN_INT and value.bit_length() > _MAX_INT_BITS:
            raise _NotJsonError("is an integer of more than 4,300 digits")
    elif kind is float:
        if not isfinite(value):
            raise _NotJsonError(f"is {value}, which JSON does not have")
    elif isinstance(value, (dict, list, tuple)):
        _walk(value, depth)
    elif not (isinstance(value, Enum) and isinstance(value, (str, int))):
        raise _NotJsonError(f"is of type {kind.__name__}, which JSON does not have")


def _walk(container: Any, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise _NotJsonError(f"is nested deeper than {MAX_DEPTH} levels")
    at: Part = ""
    try:
        if isinstance(container, dict):
            for at, item in container.items():
                if not isinstance(at, str):
                    raise _NotJsonError(f"has a key of type {type(at).__name__}, not str")
                if type(item) not in _PLAIN:
                    _walk_item(item, depth + 1)
        else:
            for at, item in enumerate(container):  # noqa: B007
                if type(item) not in _PLAIN:
                    _walk_item(item, depth + 1)
    except _NotJsonError as exc:
        exc.path.append(at if isinstance(at, (str, int)) else "*")
        raise


def _find_surrogate(value: Any) -> _NotJsonError:
    """Where the lone surrogate is that made the encoder fail."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for part, item in items:
        if (isinstance(part, str) and _is_broken(part)) or (
            isinstance(item, str) and _is_broken(item)
        ):
            found = _NotJsonError("holds a lone surrogate, which is not valid Unicode text")
            found.path.append("*" if isinstance(part, str) and _is_broken(part) else part)
            return found
        if isinstance(item, (dict, list, tuple)):
            found = _find_surrogate(item)
            if found.path:
                found.path.append(part)
                return found
    return _NotJsonError("holds text that is not valid Unicode")


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _utf8(value: str, name: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise _field_error(
            name, "holds a lone surrogate, which is not valid Unicode text"
        ) from None


def _field_error(name: str, reason: str) -> InvalidRecordError:
    return InvalidRecordError(f"{name} {reason}", field=name)


def _refused(exc: _NotJsonError, field: str | None = None) -> InvalidRecordError:
    """The error for what the walk found in a field, or in a whole record."""
    path = field or ""
    for part in reversed(exc.path):
        if not path:
            path = str(part)
        else:
            path += f"[{part}]" if isinstance(part, int) or not part.isidentifier() else f".{part}"
    return _field_error(path or "the record", exc.reason)
