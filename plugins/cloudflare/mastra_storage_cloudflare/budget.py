"""The API's budget of requests: 1,200 in five minutes, then none for five minutes."""

from __future__ import annotations

import asyncio
import re

from aiolimiter import AsyncLimiter

from mastra_storage import RateLimitedError

SECONDS = 300
REQUESTS = 1_200

# Below this many requests left, the rest is spread over the time until there are more. It is
# more than can be under way at once, each of which takes one that no answer has counted yet.
_SPARE = 100

_HEADER = re.compile(r"r=(\d+);\s*t=(\d+)")


class RateBudget:
    """Lets requests through as fast as the API allows, and never into its block.

    The `Ratelimit` header of an answer says how many are left to all clients of the token.
    Until one came, requests are counted here: half of what is allowed may go out at once, the
    other half in the time that follows, so that no five minutes see more than all.
    """

    def __init__(self, requests: int = REQUESTS) -> None:
        """`requests`: how many the API takes in five minutes."""
        self._limiter = AsyncLimiter(max(1, requests // 2 - 1), SECONDS)
        self._told = False
        self._pace = 0.0
        self._next = 0.0

    async def acquire(self, until: float) -> None:
        """Wait until a request may be sent; `RateLimitedError` when that is after `until`."""
        loop = asyncio.get_running_loop()
        if not self._told:
            try:
                async with asyncio.timeout_at(until):
                    await self._limiter.acquire()
            except TimeoutError as exc:
                raise _used_up(None) from exc
        now = loop.time()
        at = max(self._next, now)
        if at > until:
            raise _used_up(at - now)
        if self._pace or at > now:
            self._next = at + self._pace
            await asyncio.sleep(at - now)

    def update(self, header: str | None) -> None:
        """Take note of what a `Ratelimit` header says is left."""
        found = _HEADER.search(header or "")
        if found is None:
            return
        self._told = True
        left, seconds = int(found[1]), int(found[2])
        self._pace = seconds / (left + 1) if left < _SPARE else 0.0
        if self._pace:
            self._next = max(self._next, asyncio.get_running_loop().time() + self._pace)

    def pause(self, seconds: float | None) -> None:
        """Send nothing for a while, as a refused request was told."""
        if seconds:
            self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


def _used_up(seconds: float | None) -> RateLimitedError:
    when = "later" if seconds is None else f"in {seconds:.0f} seconds"
    return RateLimitedError(
        f"the API's requests for these five minutes are used up; try again {when}",
        retry_after=seconds,
    )
