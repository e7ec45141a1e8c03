"""The checks a record passes before anything of it is written.

`msgspec` alone would turn NaN into null, sets into lists and datetimes into text without a
word; `freeform` walks over the free-form values and refuses what JSON cannot hold as given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from operator import attrgetter
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from mastra_storage.errors import InvalidRecordError
from mastra_storage.freeform import NotJsonError, check_json, find_surrogate, surely_json
from mastra_storage.records import EPOCH, Record

MAX_ID_BYTES = 256

R = TypeVar("R", bound=Record)
encode_json = msgspec.json.Encoder().encode


def check_record(record: R) -> R:
    """The record, its times in UTC; `InvalidRecordError` when a field cannot be stored.

    The caller's record is not changed.
    """
    changed = {}
    for name, check, _ in _checks(type(record)):
        value = getattr(record, name)
        checked = check(value, name)
        if checked is not value:
            changed[name] = checked
    return msgspec.structs.replace(record, **changed) if changed else record


def check_records(records: Sequence[R]) -> list[R]:
    """Several records of one type, each as `check_record` gives it."""
    if len(records) == 1:
        return [check_record(records[0])]
    found = list(records)
    changed: dict[int, dict[str, Any]] = {}
    # Field by field: mostly all values of one are of a form that need not be looked at singly.
    columns = zip(*map(msgspec.structs.astuple, records), strict=True)
    for values, (name, check, passes) in zip(columns, _checks(type(records[0])), strict=True):
        if passes(values):
            continue
        for position, value in enumerate(values):
            checked = check(value, name)
            if checked is not value:
                changed.setdefault(position, {})[name] = checked
    for position, members in changed.items():
        found[position] = msgspec.structs.replace(found[position], **members)
    return found


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
        check_json(found)
    except NotJsonError as exc:
        raise _refused(exc) from None
    return found


def record_from(kind: type[R], members: Mapping[str, Any]) -> R:
    """A record from a mapping: snake_case or camelCase names, times as datetimes or ISO-8601.

    Raises `InvalidRecordError` for a member that the record does not have, or one it needs.
    """
    names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    times = {name for name, check, _ in _checks(kind) if check in (_time, optional_time)}
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
        return msgspec.convert(value, type(EPOCH))
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise _field_error(name, "is not an ISO-8601 time") from None


def check_members(kind: type[Record], members: Mapping[str, Any]) -> dict[str, Any]:
    """Some members of a record, each checked as it would be in the whole.

    An object may be given as any `Mapping`.
    """
    checks = {name: check for name, check, _ in _checks(kind)}
    checked = {}
    for name, value in members.items():
        check = checks[name]
        if check is json_object and isinstance(value, Mapping):
            value = dict(value)
        checked[name] = check(value, name)
    return checked


def encode(value: Any, field: str | None = None) -> bytes:
    """A checked record, mapping or `field` value as JSON bytes."""
    try:
        return encode_json(value)
    except UnicodeEncodeError:
        # Raised anew without its cause: a UnicodeEncodeError carries the whole text.
        members = msgspec.structs.asdict(value) if isinstance(value, Struct) else value
        raise _refused(find_surrogate(members), field) from None
    except (TypeError, ValueError):
        # The walk leaves nothing of the kind; not chained, for it may quote what was written.
        raise _field_error(field or "the record", "holds a value that JSON does not have") from None


def encode_all(values: Sequence[Any]) -> list[bytes]:
    """Several records or mappings, each as `encode` gives it."""
    with suppress(UnicodeEncodeError, TypeError, ValueError):  # it is named below
        return [*map(encode_json, values)]
    return [*map(encode, values)]


def check_id(value: Any, name: str, *, empty: bool = False) -> str:
    """A text that can be part of a key."""
    if not isinstance(value, str):
        raise _field_error(name, f"must be a str, not {type(value).__name__}")
    if not value and not empty:
        raise _field_error(name, "must not be empty")
    if len(value) * 4 > MAX_ID_BYTES or not value.isascii():
        size = len(utf8(value, name))
        if size > MAX_ID_BYTES:
            raise _field_error(name, f"is {size} bytes of UTF-8, more than {MAX_ID_BYTES}")
    return value if type(value) is str else str.__str__(value)


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
    if value.tzinfo is timezone.utc and type(value) is type(EPOCH):
        return value
    if value.utcoffset() is None:
        raise _field_error(
            name, "is a naive datetime; give it a time zone, such as datetime.now(timezone.utc)"
        )
    try:
        value = value.astimezone(timezone.utc)
    except OverflowError:
        raise _field_error(name, "is outside the years 1 to 9999 in UTC") from None
    return value if type(value) is type(EPOCH) else _plain(value)


def _plain(value: datetime) -> datetime:
    """A UTC time of a subclass, such as pendulum's, as the plain one that JSON can hold.

    `datetime` itself may be a subclass: freezegun puts one into every module. `EPOCH` is not.
    """
    names = ("year", "month", "day", "hour", "minute", "second", "microsecond")
    return EPOCH.replace(**{name: getattr(value, name) for name in names})


def optional_time(value: Any, name: str) -> datetime | None:
    return None if value is None else _time(value, name)


def _json(value: Any, name: str) -> Any:
    try:
        check_json(value)
    except NotJsonError as exc:
        raise _refused(exc, name) from None
    return value


def json_object(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise _field_error(name, f"must be a dict, not {type(value).__name__}")
    return _json(value, name) if value else value


def _array(value: Any, name: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _field_error(name, f"must be a list, not {type(value).__name__}")
    return _json(value, name) if value else value


def _choice(*choices: str) -> Callable[[Any, str], Any]:
    def check(value: Any, name: str) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise _field_error(name, f"must be one of {', '.join(map(repr, choices))}")
        return value

    return check


_Check = Callable[[Any, str], Any]
_Passes = Callable[[Sequence[Any]], bool]


def _of_types(*types: type) -> _Passes:
    """Whether all values are of these types, of which every value passes its check."""
    taken = frozenset(types)
    return lambda values: taken.issuperset(map(type, values))


def _short_ids(values: Sequence[Any]) -> bool:
    return (
        _TEXTS(values)
        and all(values)
        and all(map(str.isascii, values))
        and max(map(len, values)) <= MAX_ID_BYTES
    )


def _utc(values: Sequence[Any]) -> bool:
    kinds = {*map(type, values)}
    return kinds == {type(EPOCH)} and {*map(_zone, values)} == {timezone.utc}


_zone = attrgetter("tzinfo")
_NONES, _TEXTS = _of_types(type(None)), _of_types(str)
_OPTIONAL_TEXTS = _of_types(str, type(None))


def _containers(kind: type) -> _Passes:
    of_kind = _of_types(kind)
    return lambda values: of_kind(values) and surely_json(values)


# The check of each kind of field, and when all values of a field surely pass it as they are.
_CHECKS: dict[tuple[str, bool], tuple[_Check, _Passes]] = {
    ("id", False): (check_id, _short_ids),
    ("id", True): (_optional_id, _NONES),
    ("text", False): (_text, _TEXTS),
    ("text", True): (_optional_text, _OPTIONAL_TEXTS),
    ("time", False): (_time, _utc),
    ("time", True): (optional_time, _NONES),
    ("json", False): (_json, surely_json),
    ("object", False): (json_object, _containers(dict)),
    ("array", False): (_array, _containers(list)),
}


@cache
def _checks(record: type[Record]) -> list[tuple[str, _Check, _Passes]]:
    """The check of each field of a kind of record, from its annotations."""
    checks: list[tuple[str, _Check, _Passes]] = []
    hints = get_type_hints(record, include_extras=True)
    for name in record.__struct_fields__:
        hint = hints[name]
        if get_origin(hint) is Literal:
            checks.append((name, _choice(*get_args(hint)), _of_types()))
        else:
            value_type, kind = get_args(hint)
            checks.append((name, *_CHECKS[kind, type(None) in get_args(value_type)]))
    return checks


def utf8(value: str, name: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise _field_error(
            name, "holds a lone surrogate, which is not valid Unicode text"
        ) from None


def _field_error(name: str, reason: str) -> InvalidRecordError:
    return InvalidRecordError(f"{name} {reason}", field=name)


def _refused(exc: NotJsonError, field: str | None = None) -> InvalidRecordError:
    return _field_error(exc.path_from(field) or "the record", exc.reason)
