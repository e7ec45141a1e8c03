"""Writing batches of traces: tried again while that can help, and halved around one that cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from mastra_storage import (
    InvalidRecordError,
    RateLimitedError,
    Storage,
    StorageError,
    TooLargeError,
    Trace,
)
from mastra_storage_opentelemetry._queue import Queue
from mastra_storage_opentelemetry.shortening import LENGTHS, shortened

_backoff = wait_exponential(multiplier=0.1, max=5) + wait_random(0, 0.1)
_LONGEST_WAIT = 60.0


class Writer:
    """Saves what is taken from a queue, and settles each of it as saved or dropped."""

    def __init__(self, storage: Storage, queue: Queue, *, attempts: int) -> None:
        self._storage = storage
        self._queue = queue
        self._log = logging.getLogger("mastra_storage.opentelemetry")
        self._retrying = AsyncRetrying(
            retry=retry_if_exception(_may_succeed_later),
            wait=_wait,
            stop=stop_after_attempt(attempts),
            reraise=True,
        )

    async def write(self, batch: list[Trace]) -> None:
        """Save a batch; cancelled, or failing with what is no `StorageError`, it is dropped."""
        left = len(batch)

        def settle(*, saved: int = 0, dropped: int = 0) -> None:
            nonlocal left
            left -= saved + dropped
            self._queue.settle(saved=saved, dropped=dropped)

        try:
            await self._save(batch, settle)
        finally:
            if left:
                self._log.warning("%d spans were not kept: the writer was stopped", left)
                settle(dropped=left)

    async def _save(self, batch: list[Trace], settle: Callable[..., None]) -> None:
        waiting = [batch]
        while waiting:
            traces = waiting.pop()
            try:
                await self._save_at_once(traces)
            except (InvalidRecordError, TooLargeError) as exc:
                if len(traces) == 1:
                    self._drop(traces, exc, settle)
                    continue
                middle = len(traces) // 2  # nothing was written: find which it is
                waiting += [traces[middle:], traces[:middle]]
            except StorageError as exc:
                self._drop(traces, exc, settle)
            else:
                settle(saved=len(traces))

    async def _save_at_once(self, traces: list[Trace]) -> None:
        """Save all of them; a single one that is too large, cut."""
        shorter = iter(LENGTHS if len(traces) == 1 else ())
        kept = traces
        while True:
            try:
                await self._retrying(self._storage.save_traces, kept)
            except TooLargeError:
                lengths = next(shorter, None)
                if lengths is None:
                    raise
                kept = [shortened(traces[0], lengths)]
            else:
                return

    def _drop(self, traces: list[Trace], error: StorageError, settle: Callable[..., None]) -> None:
        settle(dropped=len(traces))
        self._log.warning("%d spans were not kept: %s", len(traces), error)


def _may_succeed_later(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.retryable


def _wait(state: RetryCallState) -> float:
    """How long before the next attempt, in seconds: what the service asked for, or longer each."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = error.retry_after if isinstance(error, RateLimitedError) else None
    return max(_backoff(state), min(asked or 0.0, _LONGEST_WAIT))
