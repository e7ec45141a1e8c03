"""What may not be: lost, duplicated, reordered, resurrected, torn, hung, or a foreign error.

The rules are those of the storage and of what its backend declares. An acknowledged write holds
until the next one of its register; one that was not acknowledged may have happened or not, but
once it was seen it stays. What a backend without compare-and-set or strong reads cannot rule out
is counted as an anomaly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, field

from mastra_storage import Capabilities
from torture.calls import since_start
from torture.history import History, Register, Sight, Write, message, token
from torture.journal import Entry
from torture.order import Order
from torture.plan import Call

# Errors that faults may lead to; `PartialWriteError` only where writes are not atomic.
_EXPECTED = {"UnavailableError", "RateLimitedError", "StorageError", "NotFoundError"}
_EXPECTED |= {"ConflictError", "PartialWriteError"}
_CHANGED_TWICE = "a change was lost that two stores made of one record at once"
_SAVED_WHILE_DELETED = "messages stayed that one store saved while another deleted their thread"
_HALF_SEEN = "what a call that failed had stored was seen by one read and not by a later one"


class Finding(Struct, frozen=True):
    """Something that may not be: its kind, and the history that shows it."""

    kind: str
    what: str


class Verdict(Struct):
    """What the checker found, and how much it has looked at."""

    violations: list[Finding] = field(default_factory=list)
    anomalies: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sights: int = 0

    @property
    def by_kind(self) -> Counter[str]:
        return Counter(finding.kind for finding in self.violations)


class Checker:
    """Looks at operations in the order in which they began, and at what was there at the end."""

    def __init__(self, capabilities: Capabilities, *, window: float, deadline: float) -> None:
        """`window`: seconds for which another store's writes may not be seen yet."""
        self._capabilities = capabilities
        self._window = 0 if capabilities.strong_reads else round(window * 1e9)
        self._deadline = deadline * 1e9
        self._history = History()
        self._order = Order(self._history, keeps_place=capabilities.atomic)
        self._seen: dict[Register, tuple[int, float]] = {}
        self._lanes: set[int] = set()
        self.verdict = Verdict()

    def check(
        self, operations: Sequence[tuple[Call, Entry]], final: Sequence[tuple[Call, Entry]]
    ) -> Verdict:
        """All operations; `final` are reads of everything after all has come to rest."""
        self._lanes = {entry.lane for _, entry in operations}
        for call, entry in operations:
            self._history.add(call, entry)
            self._outcome(call, entry)
        reads = [
            (call, entry)
            for call, entry in operations
            if call.kind.startswith("read_") and entry.acknowledged
        ]
        due: list[tuple[int, Any]] = [(each.entry.begun, each) for each in self._history.sights]
        due += [(entry.begun, (call, entry)) for call, entry in reads]
        for _, item in sorted(due, key=lambda each: each[0]):
            if isinstance(item, Sight):
                self._sight(item)
            else:
                self._read(*item)
        group: dict[Register, str | None] = {}
        for call, entry in final:
            group.update(self._read(call, entry))
        self._whole(group, math.inf, "at the end")
        self._doomed(final)
        return self.verdict

    def _violation(self, kind: str, what: str) -> None:
        self.verdict.violations.append(Finding(kind, what))

    # -- outcomes ----------------------------------------------------------------------------

    def _outcome(self, call: Call, entry: Entry) -> None:
        verdict = self.verdict
        verdict.kinds[call.kind] += 1
        verdict.outcomes[entry.outcome] += 1
        where = f"{call.kind} {token(entry)}"
        if entry.outcome == "hung" or (
            entry.ended is not None and entry.ended - entry.begun > self._deadline
        ):
            self._violation("hung", f"{where} on {call.thread!r}: {entry.result}")
        elif entry.outcome == "cancelled" and call.patience is None:
            self._violation("foreign error", f"{where} was cancelled by nobody")
        elif entry.outcome not in {"ok", "killed", "cancelled", "hung", *_EXPECTED}:
            self._violation("foreign error", f"{where}: {entry.outcome} {entry.result}")
        elif entry.outcome == "PartialWriteError" and self._capabilities.atomic:
            self._violation("torn", f"{where}: {entry.result}")

    # -- reads -------------------------------------------------------------------------------

    def _read(self, call: Call, entry: Entry) -> dict[Register, str | None]:
        """Check what a read saw; gives it by register."""
        result = entry.result
        if call.thread.startswith("doomed"):
            return {}
        if call.kind == "read_thread":
            return self._thread(call, entry)
        if call.kind == "read_run":
            if call.thread.startswith("run-shared"):
                self._last_writer(call.thread, result)
                return {}
            return self._sights(entry, {("run", call.thread): result})
        if call.kind == "read_traces":
            found: dict[Register, str | None] = {("trace", each): value for each, value in result}
            if not call.size:
                for each in self._history.ids["", entry.lane]:
                    found.setdefault(("trace", each), None)
            self._once(call, entry, [each for each, _ in result])
            return self._sights(entry, found)
        rows = result["seen"] if call.kind == "read_pages" else result
        return self._messages(call, entry, rows)

    def _messages(
        self, call: Call, entry: Entry, rows: list[list[str]]
    ) -> dict[Register, str | None]:
        ids = [each for each, _ in rows]
        found: dict[Register, str | None] = {message(call.thread, i): v for i, v in rows}
        self._once(call, entry, ids)
        if call.kind == "read_ids":
            for each in call.ids:
                found.setdefault(message(call.thread, each), None)
            if ids != [each for each in call.ids if each in ids]:
                self._violation("reordered", f"{call.kind} {token(entry)}: {ids} of {call.ids}")
        else:
            for complaint in self._order.complaints(call.thread, ids, entry):
                self._violation("reordered", f"{call.kind} {token(entry)}: {complaint}")
            for each in self._expected(call, entry, ids):
                found.setdefault(message(call.thread, each), None)
        self._sights(entry, found)
        if call.kind in ("read_messages", "read_last"):
            self._whole(found, entry.ended or math.inf, f"{call.kind} {token(entry)}")
        if call.kind == "read_pages" and entry.result["total"] != len(rows):
            self._total(call, entry, found)
        return found

    def _expected(self, call: Call, entry: Entry, ids: list[str]) -> Iterable[str]:
        """Messages that this read had to give if they are there."""
        neighbour = (entry.lane + 1) % (max(self._lanes) + 1)
        lanes = self._lanes if entry.lane < 0 else {entry.lane, neighbour}
        for lane in lanes:
            known = self._history.ids.get((call.thread, lane), {})
            if call.kind != "read_last" or len(ids) < call.size:
                yield from known
            else:
                yield from self._order.behind(call.thread, known, ids[0], entry)

    def _total(self, call: Call, entry: Entry, found: dict[Register, str | None]) -> None:
        """A total that is not the number of the rows: fine if writes were still under way."""
        uncertain = any(
            not write.acknowledged
            for register in found
            for write in self._history.writes[register]
            if write.begun < (entry.ended or 0)
        )
        if not uncertain:
            total = entry.result["total"]
            self._violation(
                "wrong total", f"{token(entry)}: {total} of {len(entry.result['seen'])}"
            )

    def _once(self, call: Call, entry: Entry, ids: list[str]) -> None:
        twice = [each for each, count in Counter(ids).items() if count > 1]
        if twice:
            self._violation("duplicated", f"{call.kind} {token(entry)}: {twice} in {call.thread!r}")

    def _thread(self, call: Call, entry: Entry) -> dict[Register, str | None]:
        result, thread = entry.result, call.thread
        members = result["metadata"] if result else {}
        known = [r for r in self._history.writes if r[0] == "member" and r[1] == thread]
        found = {register: members.get(register[2]) for register in known}
        if not thread.startswith("shared"):
            found["thread", thread] = result and result["title"]
        elif result is None:
            self._violation("lost", f"{token(entry)}: the thread {thread!r} is gone")
        if result is not None:
            self._touched(thread, entry, result["updated"])
        return self._sights(entry, found)

    def _touched(self, thread: str, entry: Entry, updated: int) -> None:
        """`updated_at` is not before what was acknowledged before this read."""
        for change in self._history.touches[thread]:
            known = change.ended is not None and change.ended < entry.begun
            if not self._capabilities.strong_reads:  # and touches are written late
                known = known and change.store == entry.store
            if known and updated < since_start(change.wall):
                self._violation(
                    "lost", f"{token(entry)}: updated_at of {thread!r} is before {token(change)}"
                )
                return

    # -- registers ---------------------------------------------------------------------------

    def _sights(
        self, entry: Entry, found: dict[Register, str | None]
    ) -> dict[Register, str | None]:
        for register, value in found.items():
            self._sight(Sight(register=register, value=value, entry=entry))
        return found

    def _sight(self, sight: Sight) -> None:
        """A register holds what was acknowledged last, or what came after it."""
        self.verdict.sights += 1
        register, entry = sight.register, sight.entry
        writes = self._history.writes.get(register, [])
        ended = entry.ended or math.inf
        own = not writes or entry.lane in (writes[0].operation[0], -1)
        least, since = self._seen.get(register, (-1, 0.0)) if own else (-1, 0.0)
        if since > entry.begun - self._window:
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
            if own and possible[0] > self._seen.get(register, (-1, 0.0))[0]:
                self._seen[register] = possible[0], ended
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
        if shared and not self._capabilities.compare_and_set:
            self.verdict.anomalies[_CHANGED_TWICE] += 1
            return
        unsure = least > must and not writes[least].acknowledged
        if unsure and not self._capabilities.atomic and any(n >= must for n in might):
            self.verdict.anomalies[_HALF_SEEN] += 1
            return
        told = " ".join(
            f"{'.'.join(map(str, write.operation))}:{write.how}"
            + ("" if write.acknowledged else "?")
            for write in writes[-8:]
        )
        self._violation(
            kind,
            f"{'/'.join(sight.register)} is {sight.value} in {token(sight.entry)}; "
            f"written: {told}; seen up to {least}, acknowledged up to {must}",
        )

    def _whole(self, found: dict[Register, str | None], ended: float, where: str) -> None:
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
                    self._violation("torn", f"{where}: {value} without {'/'.join(register)}")

    def _reached(
        self, register: Register, value: str | None, operation: tuple[int, int], ended: float
    ) -> bool:
        """Whether a register holds what an operation wrote, or something later."""
        for write in self._history.writes[register]:
            if write.operation < operation:
                continue
            if write.value == value and write.begun < ended:
                return True
            missed = write.how == "change" and not write.acknowledged and value is None
            if write.operation == operation and missed:
                return True  # it found nothing to change there
        return False

    def _last_writer(self, run: str, value: str | None) -> None:
        """A run that all write holds what nobody overwrote since."""
        entries = self._history.runs[run]
        found = next((entry for entry in entries if token(entry) == value), None)
        if found is None:
            if any(entry.acknowledged for entry in entries):
                self._violation("lost", f"run {run} is {value}, which nobody wrote")
            return
        ended = found.ended if found.acknowledged and found.ended else math.inf
        later = [token(e) for e in entries if e.acknowledged and e.begun > ended]
        if later:
            self._violation("lost", f"run {run} is {value}, but {later[0]} came later")

    def _doomed(self, final: Sequence[tuple[Call, Entry]]) -> None:
        """Of a thread that was deleted nothing is left, whatever was saved meanwhile."""
        rows = {call.thread: e.result for call, e in final if call.kind == "read_messages"}
        for thread, changes in self._history.doomed.items():
            deleted = any(k == "delete_doomed" and e.acknowledged for k, e in changes)
            if not deleted or not rows.get(thread):
                continue
            if self._capabilities.atomic:
                self._violation("resurrected", f"{len(rows[thread])} messages of {thread!r}")
            else:
                self.verdict.anomalies[_SAVED_WHILE_DELETED] += 1
