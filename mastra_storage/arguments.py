"""The checks of what methods are called with; `InvalidArgumentError` for what cannot be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

from mastra_storage.backend import Backend
from mastra_storage.errors import InvalidArgumentError, InvalidRecordError
from mastra_storage.validation import check_id, encode, json_object, optional_time, utf8

Direction: TypeAlias = Literal["asc", "desc"]
"""The oldest first, or the newest first."""

# More than any store holds; still a 64-bit integer when another count is added to it.
_MAX_COUNT = 2**62


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
        utf8(value, name)
    except InvalidRecordError as exc:
        raise InvalidArgumentError(exc.message) from None
    return str.__str__(value)


def time_argument(value: Any, name: str) -> datetime | None:
    try:
        return optional_time(value, name)
    except InvalidRecordError as exc:
        raise InvalidArgumentError(exc.message) from None


def count_argument(value: Any, name: str, *, least: int = 0) -> int:
    """A whole number of at least `least`; one beyond all counts is lowered to 2**62."""
    if type(value) is not int or value < least:
        shown = type(value).__name__
        if type(value) in (bool, float) or (type(value) is int and value > -(10**20)):
            shown = str(value)
        elif type(value) is int:
            shown = "an integer of more than 20 digits"
        raise InvalidArgumentError(
            f"{name} must be a whole number of at least {least}, not {shown}"
        )
    return min(value, _MAX_COUNT)


def list_argument(values: Any, name: str) -> list[Any]:
    """Several things, not one."""
    if isinstance(values, (str, bytes, Mapping, Struct)) or not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{name} must be a list, not one {type(values).__name__}")
    return list(values)


def object_argument(value: Any, name: str) -> dict[str, Any] | None:
    """A filter by members of a free-form object, as JSON reads back what was given.

    `None` and `{}` are no filter, and give `None`.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"{name} must be a mapping or None, not {type(value).__name__}")
    try:
        found: dict[str, Any] = msgspec.json.decode(encode(json_object(dict(value), name), name))
    except InvalidRecordError as exc:
        raise InvalidArgumentError(exc.message) from None
    return found or None


def descending_argument(direction: Any) -> bool:
    return choice_argument(direction, "direction", get_args(Direction)) == "desc"


def choice_argument(value: Any, name: str, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        shown = repr(value) if isinstance(value, str) else type(value).__name__
        raise InvalidArgumentError(
            f"{name} must be one of {', '.join(map(repr, choices))}, not {shown}"
        )
    return str.__str__(value)


def missing_verbs(backend: Any, *, watch: bool = False) -> list[str]:
    """What the engine calls of a backend, or of a class of them, that `backend` does not have."""
    lifetime = [name for name in ("open", "close") if not callable(getattr(backend, name, None))]
    verbs = ("get", "query", "write", *(["watch"] if watch else []))
    return lifetime + [name for name in verbs if not _has_own(backend, name)]


def _has_own(backend: Any, verb: str) -> bool:
    found = getattr(backend, verb, None)
    # What a subclass of `Backend` inherits does nothing, and would say that it did.
    return callable(found) and getattr(found, "__func__", found) is not getattr(Backend, verb)
