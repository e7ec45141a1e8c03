"""Options as they are given: as Python values, or as text in a URL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from mastra_storage import InvalidArgumentError
from mastra_storage_cloudflare.kv import LEAST_SECONDS_TO_EXPIRE

_LEAST = timedelta(seconds=LEAST_SECONDS_TO_EXPIRE)
_MOST = timedelta(days=1_000_000)


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


def retention_option(value: Mapping[str, timedelta] | str) -> dict[str, int]:
    """Microseconds for which rows are kept, by the name of their table.

    In a URL it is text, in days: `traces:30,evals:7`.
    """
    kept = dict(_read_days(part) for part in value.split(",")) if isinstance(value, str) else value
    for name, time in kept.items():
        if not isinstance(time, timedelta) or not _LEAST <= time <= _MOST:
            raise InvalidArgumentError(
                f"retention of {name!r} must be a timedelta of at least "
                f"{LEAST_SECONDS_TO_EXPIRE} seconds and at most {_MOST.days} days",
                backend="cloudflare",
            )
    return {name: time // timedelta(microseconds=1) for name, time in kept.items()}


def _read_days(part: str) -> tuple[str, timedelta]:
    name, _, days = part.partition(":")
    try:
        return name.strip(), timedelta(days=float(days))
    except (ValueError, OverflowError) as exc:
        raise InvalidArgumentError(
            f"retention in a URL is in days, as in traces:30,evals:7; not {part!r}",
            backend="cloudflare",
        ) from exc
