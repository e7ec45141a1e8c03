"""Several reads at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["together"]


async def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results of all; the first to fail cancels the others, and is raised."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failed:
        error = failed.exceptions[0]
        raise error from error.__cause__  # the group is left out, its cause is not
    return [task.result() for task in tasks]
