"""The rules of a register: it holds what was acknowledged last, or what came after it.

What a backend without compare-and-set or strong reads cannot rule out is counted as an anomaly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mastra_storage import Capabilities
from torture.history import History, Operation, Register, Sight, Write, token
from torture.journal import Entry
from torture.places import TIMEOUT
from torture.verdict import Verdict

_CHANGED_TWICE = "a change was lost that two stores made of one record at once"
_PASSED_OVER = "a message was missed by a read while another store saved it anew"
_HALF_SEEN = "what a call that failed had stored was seen by one read and not by a later one"

Found = dict[Register, str | None]
# For each register which of its writes was seen, and when that was.
Seen = dict[Register, tuple[int, float]]


class Registers:
    """Compares what was seen in registers with what may be in them."""

    def __init__(
        self, history: History, capabilities: Capabilities, window: float, verdict: Verdict
    ) -> None:
        """`window`: nanoseconds for which another store's writes may not be seen yet."""
        self._history = history
        self._capabilities = capabilities
        self._window = window
        self._verdict = verdict
        self._told: set[tuple[str, Register, int]] = set()

    def all(self, found: Found, entry: Entry, seen: Seen, *, ordered: bool = False) -> None:
        """Each register that an operation saw."""
        for register, value in found.items():
            self.one(Sight(register=register, value=value, entry=entry), seen, ordered=ordered)

    def one(self, sight: Sight, seen: Seen, *, ordered: bool = False) -> None:
        """One register. `seen` is what was seen of all before, and must be seen from then on.

        `ordered`: all of it was seen before this, also what was seen after this had begun.
        """
        self._verdict.sights += 1
        register, entry = sight.register, sight.entry
        writes = self._history.writes.get(register, [])
        ended = entry.ended or math.inf
        own = not writes or entry.lane in (writes[0].operation[0], -1)
        least, since = seen.get(register, (-1, 0.0)) if own else (-1, 0.0)
        if not ordered and since > entry.begun - self._window:
            least = -1  # it may be seen by one read, and not yet by the next
        must = max(
            (n for n, write in enumerate(writes) if write.ended < self._horizon(write, entry)),
            default=-1,
        )
        might = [
            n
            for n, write in enumerate(writes)
            if write.value == sight.value and write.begun < ended
        ]
        if sight.value is None:
            might = [-1, *might]
        possible = [n for n in might if n >= max(must, least)]
        if possible:
            if own and possible[0] > seen.get(register, (-1, 0.0))[0]:
                seen[register] = possible[0], ended
            return
        self._report(sight, writes, must, least, might)

    def _horizon(self, write: Write, entry: Entry) -> float:
        """Up to when a write has to have been acknowledged for a read to see it."""
        late = 0 if write.operation[0] == entry.lane and entry.lane >= 0 else self._window
        return entry.begun - late

    def _report(
        self, sight: Sight, writes: Sequence[Write], must: int, least: int, might: Sequence[int]
    ) -> None:
        newest = max(must, least)
        shared = sight.register[0] == "member" and sight.register[1].startswith("shared")
        if not might:
            kind = "invented"
        elif newest >= 0 and writes[newest].value is None and sight.value is not None:
            kind = "resurrected"
        else:
            kind = "lost"
        if shared and might and not self._capabilities.compare_and_set:
            self._anomaly(_CHANGED_TWICE, sight.register, newest)
            return
        if might and not self._capabilities.strong_reads and self._saved_anew(sight, writes):
            self._anomaly(_PASSED_OVER, sight.register, newest)
            return
        unsure = least > must and not writes[least].acknowledged
        if unsure and not self._capabilities.atomic and any(n >= must for n in might):
            self._anomaly(_HALF_SEEN, sight.register, newest)
            return
        told = " ".join(
            f"{'.'.join(map(str, write.operation))}:{write.how}"
            + ("" if write.acknowledged else "?")
            for write in writes[-8:]
        )
        self._verdict.violation(
            kind,
            f"{'/'.join(sight.register)} is {sight.value} in {token(sight.entry)}; "
            f"written: {told}; seen up to {least}, acknowledged up to {must}",
        )

    def _saved_anew(self, sight: Sight, writes: Sequence[Write]) -> bool:
        """Whether another store put a message that is not seen, lately or without an end.

        It may have moved from one index key to another: not all that a read sees is of one age.
        What a watch shows was read at some time before that, within the time of a call.
        """
        ended = sight.entry.ended or math.inf
        lately = self._window + TIMEOUT * 1e9
        return (
            sight.value is None
            and sight.entry.lane < 0
            and any(
                write.how == "put" and write.begun < ended < write.ended + lately
                for write in writes
            )
        )

    def _anomaly(self, kind: str, register: Register, write: int) -> None:
        """Count a write once, however often it was missed."""
        if (kind, register, write) not in self._told:
            self._told.add((kind, register, write))
            self._verdict.anomalies[kind] += 1

    def whole(self, found: Mapping[Register, str | None], ended: float, where: str) -> None:
        """An operation of which something is seen happened wholly."""
        if not self._capabilities.atomic:
            return
        visible = {value for value in found.values() if value is not None}
        for value in visible:
            lane, _, number = value.partition(".")
            if not number.isdigit():
                continue
            operation = (int(lane), int(number))
            for register in self._history.of_operation.get(operation, ()):
                if register in found and not self._reached(
                    register, found[register], operation, ended
                ):
                    self._verdict.violation(
                        "torn", f"{where}: {value} without {'/'.join(register)}"
                    )

    def _reached(
        self, register: Register, value: str | None, operation: Operation, ended: float
    ) -> bool:
        """Whether a register holds what an operation wrote, or something later."""
        for write in self._history.writes[register]:
            if write.operation < operation:
                continue
            if write.value == value and write.begun < ended:
                return True
            unsure = write.how == "change" and not write.acknowledged
            moved = write.source is not None
            if write.operation == operation and unsure and (value is None or moved):
                return True  # it found nothing to change there, or to move from where it was
        return False
