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
    for table, time in value.items():
        name = table.name if isinstance(table, Table) else _table_name(table)
        if not isinstance(time, timedelta) or not _LEAST <= time <= _MOST:
            raise InvalidArgumentError(
                f"retention of {name!r} must be a timedelta of at least "
                f"{LEAST_SECONDS_TO_EXPIRE} seconds and at most {_MOST.days} days",
                backend="cloudflare",
            )
        kept[name] = time // timedelta(microseconds=1)
    return kept


def _table_name(name: str) -> str:
    """A name that is one of a table, so that nothing is kept for ever by a slip of the pen."""
    if name in TABLES:
        return name
    from mastra_storage.plugins import load_tables  # imports every adapter that is installed

    known = load_tables()
    if name not in known:
        raise InvalidArgumentError(
            f"retention names {name!r}, which is no table; the tables are: {', '.join(known)}; "
            "one that no installed adapter names is given as the Table itself",
            backend="cloudflare",
        )
    return name


def _read_days(part: str) -> tuple[str, timedelta]:
    name, _, days = part.partition(":")
    try:
        return name.strip(), timedelta(days=float(days))
    except (ValueError, OverflowError) as exc:
        raise InvalidArgumentError(
            f"retention in a URL is in days, as in traces:30,evals:7; not {part!r}",
            backend="cloudflare",
        ) from exc
