"""The API's budget of requests: 1,200 in five minutes, then none for five minutes."""

from __future__ import annotations

import asyncio
import re

from aiolimiter import AsyncLimiter

# A little less than what is allowed: other clients of the token use it too.
_REQUESTS, _SECONDS = 1_150, 300
# Below this many requests left, the rest is spread over the time until there are more.
_SPARE = 100

_HEADER = re.compile(r"r=(\d+);\s*t=(\d+)")


class RateBudget:
    """Lets requests through as fast as the API allows, and never into its block."""

    def __init__(self) -> None:
        self._limiter = AsyncLimiter(_REQUESTS, _SECONDS)
        self._pace = 0.0
        self._next = 0.0

    async def acquire(self) -> None:
        """Wait until a request may be sent."""
        await self._limiter.acquire()
        now = asyncio.get_running_loop().time()
        if self._pace or self._next > now:
            at = max(self._next, now)
            self._next = at + self._pace
            await asyncio.sleep(at - now)

    def update(self, header: str | None) -> None:
        """Take note of what a `Ratelimit` header says is left."""
        found = _HEADER.search(header or "")
        if found is None:
            return
        left, seconds = int(found[1]), int(found[2])
        self._pace = seconds / (left + 1) if left < _SPARE else 0.0

    def pause(self, seconds: float | None) -> None:
        """Send nothing for a while, as a refused request was told."""
        if seconds:
            self._next = max(self._next, asyncio.get_running_loop().time() + seconds)
