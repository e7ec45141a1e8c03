"""The walk over free-form values, which refuses what JSON cannot hold as given."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from enum import Enum
from math import hypot, isfinite
from typing import Any

MAX_DEPTH = 100

# Python refuses to read integers of more decimal digits than this.
_MAX_INT_BITS = 14_280
_MAX_PLAIN_INT = 2**64

# So many parts of a path are shown at its beginning and at its end.
_SHOWN_PARTS = 5

Part = str | int


class NotJsonError(Exception):
    """Something in a free-form value is not JSON; collects the path on its way up."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[Part] = []

    def path_from(self, field: str | None) -> str:
        """Where it is, as `field.member[2]`; without a field, as `member[2]`.

        Of a long path the middle is left out.
        """
        path = field or ""
        parts: list[Part | None] = [*reversed(self.path)]
        if len(parts) > 2 * _SHOWN_PARTS:
            parts[_SHOWN_PARTS:-_SHOWN_PARTS] = [None]
        for part in parts:
            if part is None:
                path += "…"
            elif not path:
                path = str(part)
            elif isinstance(part, int) or not part.isidentifier():
                path += f"[{part}]"
            else:
                path += f".{part}"
        return path


PLAIN: frozenset[type] = frozenset({str, bool, type(None)})
"""Types of which JSON holds every value."""


_NUMBERS: frozenset[type] = frozenset({int, float})
_CONTAINERS: frozenset[type] = frozenset({dict, list})
_KINDS = _NUMBERS | _CONTAINERS

# So many values are looked at at a glance; what holds itself would grow for ever.
_MOST_AT_A_GLANCE = 1_000_000


def surely_json(values: Iterable[Any]) -> bool:
    """Whether JSON holds all these values as given; `False` says that each has to be walked.

    It goes level by level through all of them, in a few long loops instead of many short ones.
    """
    level = values
    seen = 0
    for _ in range(MAX_DEPTH + 1):
        rest = [item for item in level if type(item) not in PLAIN]
        kinds = {*map(type, rest)}
        if not kinds <= _KINDS:
            return False
        numbers, containers = _among(rest, kinds, _NUMBERS), _among(rest, kinds, _CONTAINERS)
        if numbers and not _are_plain(numbers):
            return False
        if not containers:
            return True
        inside = sum(map(len, containers))
        seen += inside
        if seen > _MOST_AT_A_GLANCE:
            return False
        # Of a dict that has text alone for keys, CPython (3.11 to 3.14) visits only the values.
        # Where it has others, or anything is left out, the numbers differ.
        level = gc.get_referents(*containers)
        if len(level) != inside:
            return False
    return False


def _among(values: list[Any], kinds: set[type], wanted: frozenset[type]) -> list[Any]:
    """Those of the values, which are of these kinds, that are of a wanted one."""
    if kinds <= wanted:
        return values
    return [] if kinds.isdisjoint(wanted) else [v for v in values if type(v) in wanted]


def _are_plain(numbers: Sequence[float]) -> bool:
    """Whether none is not finite, or of more digits than a float can have."""
    try:
        return isfinite(hypot(*numbers))
    except OverflowError:
        return False


def check_json(value: Any, depth: int = 0) -> None:
    """Refuse what JSON cannot hold as given. `depth` counts the containers around `value`."""
    kind = type(value)
    if kind in PLAIN:
        return
    if kind is int:
        if not -_MAX_PLAIN_INT < value < _MAX_PLAIN_INT and value.bit_length() > _MAX_INT_BITS:
            raise NotJsonError("is an integer of some 4,300 digits or more")
    elif kind is float:
        if not isfinite(value):
            raise NotJsonError(f"is {value}, which JSON does not have")
    elif isinstance(value, (dict, list, tuple)):
        _walk(value, depth)
    elif isinstance(value, Enum) and type(value.value) in (str, int):
        check_json(value.value, depth)
    else:
        raise NotJsonError(f"is of type {kind.__name__}, which JSON does not have{_way_out(kind)}")


def _way_out(kind: type) -> str:
    """How a value of a type may be given all the same, where there is a usual way."""
    if hasattr(kind, "model_dump"):
        return "; give its model_dump(mode='json')"
    if (
        kind.__module__ in ("datetime", "decimal", "uuid")
        or kind in (bytes, set, frozenset)
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__struct_fields__")
    ):
        return "; msgspec.to_builtins() gives what JSON has in its place"
    return ""


def _walk(container: Any, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise NotJsonError(f"is nested deeper than {MAX_DEPTH} levels")
    at: Part = ""
    try:
        # The commonest kinds first: nearly all of saving a message is spent here.
        if isinstance(container, dict):
            for at, item in container.items():
                if type(at) is not str and not isinstance(at, str):
                    raise NotJsonError(f"has a key of type {type(at).__name__}, not str")
                kind = type(item)
                if kind in PLAIN or (kind is int and -_MAX_PLAIN_INT < item < _MAX_PLAIN_INT):
                    continue
                if kind is dict or kind is list:
                    _walk(item, depth + 1)
                else:
                    check_json(item, depth + 1)
        else:
            for at, item in enumerate(container):  # noqa: B007
                kind = type(item)
                if kind in PLAIN:
                    continue
                if kind is dict or kind is list:
                    _walk(item, depth + 1)
                else:
                    check_json(item, depth + 1)
    except NotJsonError as exc:
        exc.path.append(_part(at))
        raise


def _part(at: Any) -> Part:
    """A key or index as it can be shown in a path."""
    if isinstance(at, str):
        return "*" if _is_broken(at) else at
    return at if isinstance(at, int) and -_MAX_PLAIN_INT < at < _MAX_PLAIN_INT else "*"


def find_surrogate(value: Any) -> NotJsonError:
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
            found = NotJsonError("holds a lone surrogate, which is not valid Unicode text")
            found.path.append(_part(part))
            return found
        if isinstance(item, (dict, list, tuple)):
            found = find_surrogate(item)
            if found.path:
                found.path.append(part)
                return found
    return NotJsonError("holds text that is not valid Unicode")


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
