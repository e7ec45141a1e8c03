"""Which records stood first in a listing, so that they are read while it is listed anew.

It spares whoever reads a conversation again and again a round trip each time. Only a hint: what
there is, and in which order, the listing says. A record that has moved or gone meanwhile costs a
key in a bulk get, and nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from mastra_storage_cloudflare.kv import MAX_KEYS_OF_GET

_MOST_KEYS = 20_000


class _First(NamedTuple):
    """The first index keys of a listing, in order, and whether it has no others."""

    keys: list[str]
    whole: bool


_NONE = _First([], whole=False)


class Recall:
    """The first index keys of listings that were read, of each as many as a bulk get takes."""

    def __init__(self) -> None:
        # By what the keys of a listing begin with; what was used longest ago comes first.
        self._first: OrderedDict[str, _First] = OrderedDict()
        self._count = 0

    def first(self, start: str, count: int | None) -> list[str]:
        """The first `count` keys, or all; none when a listing would show others beside them."""
        known = self._first.get(start, _NONE)
        enough = known.whole or (count is not None and count <= len(known.keys))
        return known.keys[:count] if enough else []

    def listed(self, start: str, keys: Sequence[str], *, whole: bool) -> None:
        """Take note of the first keys of a listing, or of all."""
        known = self._first.get(start, _NONE)
        if whole or not keys:
            self._set(start, _First([*keys], whole))
        else:
            behind = known.keys[bisect_right(known.keys, keys[-1]) :]
            self._set(start, _First([*keys, *behind], known.whole))

    def put(self, start: str, key: str) -> None:
        """Take note of a key that was written into a listing."""
        known = self._first.get(start)
        if known is None:
            return
        at = bisect_left(known.keys, key)
        if (at < len(known.keys) or known.whole) and known.keys[at : at + 1] != [key]:
            self._set(start, _First([*known.keys[:at], key, *known.keys[at:]], known.whole))

    def deleted(self, start: str, key: str) -> None:
        """Take note of a key that was deleted from a listing."""
        known = self._first.get(start, _NONE)
        if key in known.keys:
            self._set(start, _First([one for one in known.keys if one != key], known.whole))

    def _set(self, start: str, first: _First) -> None:
        self._count -= len(self._first.pop(start, _NONE).keys)
        keys = first.keys[:MAX_KEYS_OF_GET]
        self._first[start] = _First(keys, first.whole and len(keys) == len(first.keys))
        self._count += len(keys)
        while self._count > _MOST_KEYS or len(self._first) > _MOST_KEYS:
            _, oldest = self._first.popitem(last=False)
            self._count -= len(oldest.keys)
