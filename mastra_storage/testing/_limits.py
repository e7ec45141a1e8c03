"""Limits of time, so that what hangs fails by name."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, None]])

_KIT = Path(__file__).parent
# Whose functions do not tell where a backend hangs.
_NOT_OF_A_BACKEND = {Path(asyncio.__file__).parent, _KIT, _KIT / "suite", _KIT.parent / "storage"}


class TookTooLongError(Exception):
    """What was asked of a backend did not end in time."""


async def within(seconds: float, asked: Awaitable[T]) -> T:
    """What `asked` gives; raises `TookTooLongError` after so many seconds."""
    __tracebackhide__ = True
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await asked
    finally:
        if limit.expired():
            raise TookTooLongError(
                f"not done within {seconds:g} seconds: {_where(sys.exception())}"
            )


def limited(test: F) -> F:
    """The test, which fails when it takes longer than the `time_limit` of its class."""

    @wraps(test)
    async def run(self: Any, *args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        await within(self.time_limit, test(self, *args, **kwargs))

    return run  # type: ignore[return-value]


def _where(end: BaseException | None) -> str:
    """What the error with which the time ended tells about where it was spent."""
    if end is None:
        return "it was cancelled then, and went on"
    cause = end.__cause__ if isinstance(end, TimeoutError) else None
    codes = [frame.f_code for frame, _ in traceback.walk_tb((cause or end).__traceback__)]
    called = [c.co_qualname for c in codes if Path(c.co_filename).parent not in _NOT_OF_A_BACKEND]
    where = " > ".join(called) or "a task of its own"
    return f"it waited in {where}" if cause else f"cancelled then, {where} raised {end!r}"
