"""Options as they are given: as Python values, or as text in a URL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypeAlias

from mastra_storage import TABLES, InvalidArgumentError, Table
from mastra_storage_cloudflare.kv import LEAST_SECONDS_TO_EXPIRE

_LEAST = timedelta(seconds=LEAST_SECONDS_TO_EXPIRE)
_MOST = timedelta(days=1_000_000)
# Longer than the row that tells of them, which is written after them.
_PARTS_STAY = timedelta(minutes=1)
_MICROSECOND = timedelta(microseconds=1)

Retention: TypeAlias = Mapping[str, timedelta] | Mapping[str | Table, timedelta]
"""How long rows are kept, by their table or its name."""


def seconds_option(value: Any, name: str) -> float:
    """A number of seconds, 0 or more."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InvalidArgumentError(
            f"{name} must be a number of seconds, 0 or more", backend="cloudflare"
        )
    return seconds


def retention_option(value: Retention | str) -> dict[str, int]:
    """Microseconds for which rows are kept, by the name of their table.

    In a URL it is text, in days: `traces:30,evals:7`.
    """
    if isinstance(value, str):
        value = dict(map(_read_days, value.split(",")))
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(
            "retention must be a mapping of tables to timedeltas", backend="cloudflare"
        )
    kept: dict[str, int] = {}
    for given, time in value.items():
        table = given if isinstance(given, Table) else _named(given)
        if not isinstance(time, timedelta) or not _LEAST <= time <= _MOST:
            raise InvalidArgumentError(
                f"retention of {table.name!r} must be a timedelta of at least "
                f"{LEAST_SECONDS_TO_EXPIRE} seconds and at most {_MOST.days} days",
                backend="cloudflare",
            )
        kept[table.name] = time // _MICROSECOND
        if table.large:
            kept[table.parts.name] = (time + _PARTS_STAY) // _MICROSECOND
    return kept


def _named(name: str) -> Table:
    """The table of a name: nothing is to be kept for ever by a slip of the pen."""
    if name in TABLES:
        return TABLES[name]
    from mastra_storage.plugins import load_tables  # imports every adapter that is installed

    known = load_tables()
    try:
        return known[name]
    except KeyError:
        raise InvalidArgumentError(
            f"retention names {name!r}, which is no table; the tables are: {', '.join(known)}; "
            "one that no installed adapter names is given as the Table itself",
            backend="cloudflare",
        ) from None


def _read_days(part: str) -> tuple[str, timedelta]:
    name, _, days = part.partition(":")
    try:
        return name.strip(), timedelta(days=float(days))
    except (ValueError, OverflowError) as exc:
        raise InvalidArgumentError(
            f"retention in a URL is in days, as in traces:30,evals:7; not {part!r}",
            backend="cloudflare",
        ) from exc
