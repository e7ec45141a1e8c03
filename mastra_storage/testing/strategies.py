"""Hypothesis strategies for what records hold."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from hypothesis import strategies as st

__all__ = ["ids", "json_values", "texts", "times"]

_CHARACTERS = st.characters(codec="utf-8")


def texts(*, max_size: int = 20) -> st.SearchStrategy[str]:
    """Any text that is valid Unicode, NUL and line breaks included."""
    return st.text(_CHARACTERS, max_size=max_size)


def ids() -> st.SearchStrategy[str]:
    """Any text that can be an id: not empty, at most 256 bytes of UTF-8."""
    return st.text(_CHARACTERS, min_size=1, max_size=64)


def times() -> st.SearchStrategy[datetime]:
    """Times in UTC, of all years, with microseconds."""
    return st.datetimes(timezones=st.just(timezone.utc))


def json_values(*, max_leaves: int = 20) -> st.SearchStrategy[Any]:
    """Any JSON value: nested, with numbers of any size and any text as keys."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.integers(-(10**40), 10**40)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts()
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(), inner, max_size=4),
        max_leaves=max_leaves,
    )
