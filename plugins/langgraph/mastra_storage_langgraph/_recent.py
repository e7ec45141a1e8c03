"""A cache with a bound: what was used last stays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

__all__ = ["Recent"]


class Recent(Generic[K, V]):
    """Values by keys: those last used whose sizes sum up to `bound` at most."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._held = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        self.pop(key)
        self._entries[key] = value, size
        self._held += size
        while self._held > self._bound:
            self.pop(next(iter(self._entries)))

    def pop(self, key: K) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self._held -= size

    def drop(self, which: Callable[[K], bool]) -> None:
        """Forget all whose keys are such."""
        for key in [key for key in self._entries if which(key)]:
            self.pop(key)
