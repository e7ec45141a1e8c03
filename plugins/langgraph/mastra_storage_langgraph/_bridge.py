"""From other threads into the event loop, which does the work."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

__all__ = ["Bridge"]


class Bridge:
    """Runs coroutines in the event loop of a storage, for callers in other threads."""

    def __init__(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "there is no running event loop; make this inside `async with`, where its storage "
                "is open"
            ) from None

    def run(self, work: Coroutine[Any, Any, T], instead: str) -> T:
        """The result of `work`.

        Raises `asyncio.InvalidStateError` in the loop's own thread, which would wait for itself,
        naming what to use `instead`; `RuntimeError` when the loop no longer runs.
        """
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            work.close()
            raise asyncio.InvalidStateError(
                f"the thread of the event loop would wait for itself here; use `{instead}`"
            )
        if not self._loop.is_running():
            work.close()
            raise RuntimeError(
                f"the event loop of the storage does not run; keep it running, or use `{instead}`"
            )
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
