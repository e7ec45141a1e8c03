"""A page of a listing: in one request for all who ask for it at one moment, or begun anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mastra_storage_cloudflare.futures import fail, given_up
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_LIST, Listing, RefusedCursorError


class SharedListing:
    """A page of a listing that is wanted at one moment."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None  # that asks
        # One each: a caller that is cancelled leaves the others theirs.
        self._callers: list[asyncio.Future[Listing]] = []

    def wait(self) -> asyncio.Future[Listing]:
        """What is listed."""
        caller: asyncio.Future[Listing] = asyncio.get_running_loop().create_future()
        self._callers.append(caller)
        return caller

    async def send(self, keys: Callable[[], Awaitable[Listing]]) -> None:
        """Ask for it, and tell those who wait."""
        try:
            listing = await keys()
        except Exception as exc:  # noqa: BLE001  (goes to the callers, who wait)
            self._fail(exc)
        else:
            for caller in self._callers:
                if not caller.done():
                    caller.set_result(listing)

    def is_wanted(self) -> bool:
        """Whether anybody waits still."""
        return not all(caller.done() for caller in self._callers)

    def end(self, task: asyncio.Task[None]) -> None:
        """See to it that nobody waits for ever, when the task that was to ask is over."""
        error = given_up(task)
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        for caller in self._callers:
            fail(caller, error)


async def page_behind(
    kv: KV, namespace: str, prefix: str, behind: str, *, cursor: str | None, limit: int
) -> Listing:
    """The page at `cursor`, which goes on behind the key `behind`.

    KV keeps no cursor for ever, and starts nowhere but at the beginning. So without one, or where
    it is refused, the listing is begun anew, and what comes before is passed over.
    """
    if cursor is not None or not behind:
        try:
            return await kv.keys(namespace, prefix, cursor=cursor, limit=limit)
        except RefusedCursorError:
            if cursor is None:
                raise
    cursor = None
    while True:
        listing = await kv.keys(namespace, prefix, cursor=cursor, limit=MAX_KEYS_OF_LIST)
        entries = [entry for entry in listing.entries if entry.key > behind]
        if entries or listing.cursor is None:
            return Listing(entries, listing.cursor)
        cursor = listing.cursor
