"""A bounded queue between the threads that end spans and the loop that keeps them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from mastra_storage import Trace


class Queue:
    """Traces on their way, and what became of each. All methods may be called on any thread.

    `limit` bounds those that wait and those being written. Each trace that was offered is
    counted once, in the end: as saved or as dropped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: deque[Trace] = deque()
        self._taken = 0
        self._closed = False
        self.accepted = 0
        self.saved = 0
        self.dropped = 0

    @property
    def pending(self) -> int:
        """How many wait or are being written."""
        with self._lock:
            return len(self._waiting) + self._taken

    @property
    def settled(self) -> int:
        """How many of those accepted were saved or dropped since."""
        with self._lock:
            return self.accepted - len(self._waiting) - self._taken

    @property
    def waiting(self) -> int:
        """How many nobody has taken yet."""
        return len(self._waiting)

    def offer(self, traces: Sequence[Trace]) -> int:
        """Put in what there is room for; gives how many were, the others count as dropped."""
        with self._lock:
            room = 0 if self._closed else self._limit - len(self._waiting) - self._taken
            taken = traces[: max(room, 0)]
            self._waiting.extend(taken)
            self.accepted += len(taken)
            self.dropped += len(traces) - len(taken)
            return len(taken)

    def refuse(self, count: int) -> None:
        """Count what could not even be offered as dropped."""
        with self._lock:
            self.dropped += count

    def take(self, count: int) -> list[Trace]:
        """The oldest, up to `count`; each is to be settled."""
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            self._taken += len(batch)
            return batch

    def settle(self, *, saved: int = 0, dropped: int = 0) -> None:
        """Say what became of traces that were taken."""
        with self._lock:
            self._taken -= saved + dropped
            self.saved += saved
            self.dropped += dropped

    def close(self) -> None:
        """Take no more."""
        with self._lock:
            self._closed = True
