"""What a search of the store asks of items, and a listing of namespaces."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from langgraph.store.base import MatchCondition

__all__ = ["matches", "matches_namespace"]

_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def matches(value: Any, wanted: Any) -> bool:
    """Whether a value is as a filter wants it.

    A dict of operators is a condition, another dict wants members, a list wants elements of the
    same number, anything else equality. Raises `ValueError` for an unknown operator.
    """
    if isinstance(wanted, Mapping):
        if any(str(name).startswith("$") for name in wanted):
            return all(_holds(value, name, other) for name, other in wanted.items())
        return isinstance(value, Mapping) and all(
            matches(value.get(name), other) for name, other in wanted.items()
        )
    if isinstance(wanted, (list, tuple)):
        return (
            isinstance(value, list)
            and len(value) == len(wanted)
            and all(map(matches, value, wanted))
        )
    return _equal(value, wanted)


def _holds(value: Any, name: str, other: Any) -> bool:
    if name == "$eq":
        return _equal(value, other)
    if name == "$ne":
        return not _equal(value, other)
    if name not in _ORDERS:
        known = ", ".join(["$eq", "$ne", *_ORDERS])
        raise ValueError(f"there is no filter operator {name!r}; the operators are {known}")
    # As in SQL, what has no order beside the other value is neither before nor after it.
    both = (str, str) if isinstance(other, str) else ((int, float), (int, float))
    if not isinstance(value, both[0]) or not isinstance(other, both[1]):
        return False
    return _ORDERS[name](value, other)


def _equal(value: Any, wanted: Any) -> bool:
    """Whether two values are the same JSON, in which true is not 1."""
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        return value.keys() == wanted.keys() and all(
            _equal(value[name], other) for name, other in wanted.items()
        )
    if isinstance(wanted, (list, tuple)) and isinstance(value, list):
        return len(value) == len(wanted) and all(map(_equal, value, wanted))
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def matches_namespace(condition: MatchCondition, labels: Sequence[str]) -> bool:
    """Whether a namespace begins or ends as a condition says, in which `*` is any one label."""
    path = condition.path
    if condition.match_type not in ("prefix", "suffix"):
        raise ValueError(
            f"a namespace is matched by 'prefix' or 'suffix', not {condition.match_type!r}"
        )
    if len(labels) < len(path):
        return False
    part = labels[: len(path)] if condition.match_type == "prefix" else labels[-len(path) :]
    return not path or all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))
