"""The API's budget of requests: 1,200 in five minutes, then none for five minutes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiolimiter import AsyncLimiter

from mastra_storage import RateLimitedError

SECONDS = 300
REQUESTS = 1_200

# Below this many requests left, the rest is spread over the time until there are more.
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
        self._requests = requests
        self._limiter = self._new_limiter()
        self._left: int | None = None  # less those that no answer has counted yet
        self._more_at = 0.0  # when there are more
        self._under_way = 0
        self._next = 0.0
        self._resumes_at = 0.0  # when the API takes requests again

    def _new_limiter(self) -> AsyncLimiter:
        return AsyncLimiter(max(1, self._requests // 2 - 1), SECONDS)

    def open(self) -> None:
        """Count in the event loop that runs; what a header said holds on."""
        self._limiter = self._new_limiter()

    @asynccontextmanager
    async def request(self, until: float) -> AsyncIterator[None]:
        """Around a request: waits until it may be sent; `RateLimitedError` if after `until`."""
        self._under_way += 1
        try:
            await self._acquire(until)
            yield
        finally:
            self._under_way -= 1

    async def _acquire(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        if self._left is None and self._limiter.has_capacity():
            await self._limiter.acquire()
        elif self._left is None:
            try:
                async with asyncio.timeout_at(until):
                    await self._limiter.acquire()
            except TimeoutError as exc:
                raise _used_up(None) from exc
        now = loop.time()
        at = max(self._next, self._resumes_at, now)
        if at > until:
            raise _used_up(at - now)
        pace = 0.0
        if self._left is not None:
            self._left -= 1
            pace = self._pace(at)
            self._next = at + pace
        if at > now:
            try:
                await asyncio.sleep(at - now)
            except asyncio.CancelledError:
                if self._left is not None:
                    self._left += 1
                self._next -= pace  # or those after it would wait for what is never sent
                raise

    def _pace(self, at: float) -> float:
        """The seconds from a request at this time to the next."""
        if self._left is None or self._left >= _SPARE:
            return 0.0
        return max(0.0, self._more_at - at) / (max(self._left, 0) + 1)

    def update(self, header: str | None) -> None:
        """Take note of what a `Ratelimit` header says is left."""
        found = _HEADER.search(header or "")
        if found is None:
            return
        self._left = int(found[1]) - self._under_way
        now = asyncio.get_running_loop().time()
        self._more_at = now + int(found[2])
        if pace := self._pace(now):
            self._next = max(self._next, now + pace)

    def pause(self, seconds: float | None) -> None:
        """Send nothing for a while, as a refused request was told."""
        if seconds:
            resumes_at = asyncio.get_running_loop().time() + seconds
            self._resumes_at = max(self._resumes_at, resumes_at)


def _used_up(seconds: float | None) -> RateLimitedError:
    when = "later" if seconds is None else f"in {seconds:.0f} seconds"
    return RateLimitedError(
        f"the API's requests for these five minutes are used up; try again {when}",
        retry_after=seconds,
    )
