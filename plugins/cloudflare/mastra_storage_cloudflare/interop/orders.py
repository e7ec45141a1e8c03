"""The list of a thread's messages, which the TypeScript store keeps in a key of its own.

Its entries have a score: in TypeScript the index of a message in the batch it was saved in,
so that it tells little about the order of a thread. The list is therefore read as a set of
ids, whose scores and positions only decide between messages of one time. It is written in the
wanted order, with times in milliseconds as scores, which every release of the TypeScript store
keeps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec import Struct

from mastra_storage_cloudflare.interop.values import FormError, unwrap

# Scores from here on are times (1973), those below are indexes in a batch.
_FIRST_TIME = 100_000_000_000
# Messages of one millisecond are told apart by thousandths.
_STEP = 0.001
# So many messages of one score keep their order; a `seq` with it fits 63 bits until 2245.
_RANKS = 1023


class Entry(Struct, frozen=True):
    """A message in the list."""

    id: str
    score: float = 0


class _Stored(Struct, gc=False):
    """An entry as it may be stored: JavaScript has null for a score that was no number."""

    id: str
    score: float | None = None


_decode = msgspec.json.Decoder(list[_Stored]).decode
_encode = msgspec.json.Encoder().encode


def read_order(value: bytes | None) -> list[Entry]:
    """The entries of a stored list."""
    if value is None:
        return []
    try:
        stored = _decode(unwrap(value))
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise FormError(f"is not a list of a thread's messages ({exc})") from exc
    return [Entry(entry.id, entry.score or 0) for entry in stored]  # as JavaScript sorts null


def write_order(entries: Sequence[Entry]) -> bytes:
    """The list as it is stored."""
    return _encode([{"id": entry.id, "score": _number(entry.score)} for entry in entries])


def listed(added: Sequence[tuple[str, int]], value: bytes | None) -> bytes | None:
    """A stored list with messages, given as ids and milliseconds in their order.

    A message that is in the list at its time already stays where it is.
    """
    entries = read_order(value)
    found = sorted(entries, key=lambda entry: entry.score)
    known = {entry.id: entry for entry in found}
    for message_id, time in added:
        old = known.get(message_id)
        if old is not None and _is_at(old, time):
            continue
        if old is not None:
            found.remove(old)
        place = bisect_right(found, time + 1 - _STEP / 2, key=lambda entry: entry.score)
        score = float(time)
        if place and found[place - 1].score >= time:
            score = min(round(found[place - 1].score + _STEP, 3), time + 1 - _STEP)
        known[message_id] = Entry(message_id, score)
        found.insert(place, known[message_id])
    return value if found == entries else write_order(found)


def unlisted(ids: Collection[str], value: bytes | None) -> bytes | None:
    """A stored list without some messages."""
    entries = read_order(value)
    left = [entry for entry in entries if entry.id not in ids]
    return value if left == entries else write_order(left)


def places(entries: Iterable[Entry]) -> dict[str, int]:
    """The `seq` of each message: its score, and among equal scores its position in the list.

    Not the position alone, which changes when messages are added before it.
    """
    found: dict[str, int] = {}
    ranks: Counter[float] = Counter()
    for entry in entries:
        if entry.id not in found:
            found[entry.id] = round(entry.score / _STEP) * _RANKS + min(ranks[entry.score], _RANKS)
            ranks[entry.score] += 1
    return found


def _is_at(entry: Entry, time: int) -> bool:
    """Whether a message stands at its time, or where TypeScript put it."""
    return entry.score < _FIRST_TIME or int(entry.score) == time


def _number(score: float) -> float | int:
    return int(score) if score == int(score) else score
