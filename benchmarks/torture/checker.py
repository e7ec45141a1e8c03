"""What may not be: lost, duplicated, reordered, resurrected, torn, hung, or a foreign error.

The rules are those of the storage and of what its backend declares. An acknowledged write holds
until the next one of its register; one that was not acknowledged may have happened or not, but
once it was seen it stays. What a watch shows are reads, one after the other.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from mastra_storage import Capabilities
from torture.calls import since_start
from torture.history import History, Sight, message, token
from torture.journal import FINAL, Entry
from torture.order import Order
from torture.plan import Call, lane_of
from torture.registers import Found, Registers, Seen
from torture.verdict import Verdict

# Errors that faults may lead to; `PartialWriteError` only where writes are not atomic.
_EXPECTED = {"UnavailableError", "RateLimitedError", "StorageError", "NotFoundError"}
_EXPECTED |= {"ConflictError", "PartialWriteError"}
_SAVED_WHILE_DELETED = "messages stayed that one store saved while another deleted their thread"

Read = tuple[Call, Entry]


class Checker:
    """Looks at operations in the order in which they began, and at what was there at the end."""

    def __init__(
        self,
        capabilities: Capabilities,
        *,
        window: float,
        deadline: float,
        late: float = 0.0,
        steady: bool = False,
    ) -> None:
        """What may be: all in seconds.

        - `window`: how long another store's writes may not be seen yet.
        - `deadline`: how long a call may take.
        - `late`: how long `updated_at` may be behind, of a process that lives on.
        - `steady`: whether nothing failed and nobody was killed, so that nothing of it is lost.
        """
        self.verdict = Verdict()
        self._capabilities = capabilities
        self._deadline = deadline * 1e9
        self._late = late * 1e9
        self._steady = steady
        self._history = History()
        self._order = Order(self._history, keeps_place=capabilities.atomic)
        late = 0 if capabilities.strong_reads else round(window * 1e9)
        self._registers = Registers(self._history, capabilities, late, self.verdict)
        self._lanes: set[int] = set()
        self._lived: defaultdict[str, int] = defaultdict(int)  # until when at least

    def check(
        self, operations: Sequence[Read], watches: Iterable[Sequence[Read]], final: Sequence[Read]
    ) -> Verdict:
        """All operations, what each watch showed, and what was there after all came to rest."""
        self._lanes = {entry.lane for _, entry in operations}
        for call, entry in operations:
            self._lived[entry.store] = max(self._lived[entry.store], entry.begun)
            self._history.add(call, entry)
            self._outcome(call, entry)
        seen: Seen = {}
        reads = [
            (call, entry)
            for call, entry in operations
            if call.kind.startswith("read_") and entry.acknowledged
        ]
        due: list[tuple[int, Any]] = [(each.entry.begun, each) for each in self._history.sights]
        due += [(entry.begun, (call, entry)) for call, entry in reads]
        for _, item in sorted(due, key=lambda each: each[0]):
            if isinstance(item, Sight):
                self._registers.one(item, seen)
            else:
                call, entry = item
                self._read(call, entry, seen)
        for watch in watches:
            self._watch(watch)
        group: Found = {}
        for call, entry in final:
            group.update(self._read(call, entry, seen))
        self._registers.whole(group, math.inf, "at the end")
        self._doomed(final)
        return self.verdict

    # -- outcomes ----------------------------------------------------------------------------

    def _outcome(self, call: Call, entry: Entry) -> None:
        verdict = self.verdict
        verdict.kinds[call.kind] += 1
        verdict.outcomes[entry.outcome] += 1
        where = f"{call.kind} {token(entry)}"
        if entry.outcome == "hung" or (
            entry.ended is not None and entry.ended - entry.begun > self._deadline
        ):
            verdict.violation("hung", f"{where} on {call.thread!r}: {entry.result}")
        elif entry.outcome == "cancelled" and call.patience is None:
            verdict.violation("foreign error", f"{where} was cancelled by nobody")
        elif entry.outcome not in {"ok", "killed", "cancelled", "hung", *_EXPECTED}:
            verdict.violation("foreign error", f"{where}: {entry.outcome} {entry.result}")
        elif entry.outcome == "PartialWriteError" and self._capabilities.atomic:
            verdict.violation("torn", f"{where}: {entry.result}")

    # -- watches -----------------------------------------------------------------------------

    def _watch(self, shown: Iterable[Read]) -> None:
        """What one watch showed, until it ended or failed: it does not go back."""
        seen: Seen = {}
        for call, entry in shown:
            if entry.acknowledged:
                self.verdict.shown += 1
                before = seen if self._capabilities.strong_reads else {}
                self._read(call, entry, before, ordered=True)
            elif entry.outcome not in _EXPECTED:
                self.verdict.violation(
                    "foreign error",
                    f"{call.kind} of {call.thread!r}: {entry.outcome} {entry.result}",
                )

    # -- reads -------------------------------------------------------------------------------

    def _read(self, call: Call, entry: Entry, seen: Seen, *, ordered: bool = False) -> Found:
        """Check what a read saw; gives it by register."""
        result = entry.result
        if call.thread.startswith("doomed"):
            return {}
        if call.kind.endswith("_thread"):
            found = self._thread(call, entry)
        elif call.kind.endswith("_run"):
            if call.thread.startswith("run-shared"):
                self._last_writer(call.thread, result)
                return {}
            found = {("run", call.thread): result}
        elif call.kind == "read_traces":
            found = {("trace", each): value for each, value in result}
            if not call.size:
                for each in self._history.ids["", entry.lane]:
                    found.setdefault(("trace", each), None)
            self._once(call, entry, [each for each, _ in result])
        else:
            rows = result["seen"] if call.kind == "read_pages" else result
            found = self._messages(call, entry, rows)
        self._registers.all(found, entry, seen, ordered=ordered)
        return found

    def _messages(self, call: Call, entry: Entry, rows: list[list[str]]) -> Found:
        ids = [each for each, _ in rows]
        found: Found = {message(call.thread, i): v for i, v in rows}
        where = f"{call.kind} {token(entry)}"
        self._once(call, entry, ids)
        if call.kind == "read_ids":
            for each in call.ids:
                found.setdefault(message(call.thread, each), None)
            if ids != [each for each in call.ids if each in ids]:
                self.verdict.violation("reordered", f"{where}: {ids} of {call.ids}")
        else:
            for complaint in self._order.complaints(call.thread, ids, entry):
                self.verdict.violation("reordered", f"{where}: {complaint}")
            for each in self._expected(call, entry, ids):
                found.setdefault(message(call.thread, each), None)
        if call.kind in ("read_messages", "read_last", "watch_messages"):
            self._registers.whole(found, entry.ended or math.inf, where)
        if call.kind == "read_pages" and entry.result["total"] != len(rows):
            self._total(entry, found)
        return found

    def _expected(self, call: Call, entry: Entry, ids: list[str]) -> Iterable[str]:
        """Messages that this read had to give if they are there."""
        newest_only = call.kind in ("read_last", "watch_messages") and len(ids) >= call.size
        for lane in self._writers(call, entry):
            known = self._history.ids.get((call.thread, lane), {})
            if newest_only:
                yield from self._order.behind(call.thread, known, ids[0], entry)
            else:
                yield from known

    def _writers(self, call: Call, entry: Entry) -> Iterable[int]:
        """The lanes whose messages are looked for; at the end all, else some of many."""
        owner = lane_of(call.thread)
        if owner is not None:
            return [owner]
        if call.kind.startswith("watch_"):
            return sorted(self._lanes)[:2]
        if entry.lane < 0:
            return self._lanes
        return {entry.lane, (entry.lane + 1) % (max(self._lanes) + 1)}

    def _total(self, entry: Entry, found: Found) -> None:
        """A total that is not the number of the rows: fine if writes were still under way."""
        uncertain = any(
            not write.acknowledged
            for register in found
            for write in self._history.writes[register]
            if write.begun < (entry.ended or 0)
        )
        if not uncertain:
            total = entry.result["total"]
            self.verdict.violation(
                "wrong total", f"{token(entry)}: {total} of {len(entry.result['seen'])}"
            )

    def _once(self, call: Call, entry: Entry, ids: list[str]) -> None:
        twice = [each for each, count in Counter(ids).items() if count > 1]
        if twice:
            self.verdict.violation(
                "duplicated", f"{call.kind} {token(entry)}: {twice} in {call.thread!r}"
            )

    def _thread(self, call: Call, entry: Entry) -> Found:
        result, thread = entry.result, call.thread
        members = result["metadata"] if result else {}
        known = self._history.members[thread]
        found: Found = {("member", thread, member): members.get(member) for member in known}
        if not thread.startswith("shared"):
            found["thread", thread] = result and result["title"]
        elif result is None:
            self.verdict.violation("lost", f"{token(entry)}: the thread {thread!r} is gone")
        if result is not None:
            self._touched(thread, entry, result["updated"])
        return found

    def _touched(self, thread: str, entry: Entry, updated: int) -> None:
        """`updated_at` is not before what was acknowledged before this read.

        It may be written late, and then be lost with the process that would have written it.
        """
        late = 0 if self._steady and entry.store == FINAL else self._late
        for change in self._history.touches[thread]:
            due = math.inf if change.ended is None else change.ended + late
            written = self._steady or self._was_there(change, due, entry)
            if written and due < entry.begun and updated < since_start(change.wall):
                self.verdict.violation(
                    "lost", f"{token(entry)}: updated_at of {thread!r} is before {token(change)}"
                )
                return

    def _was_there(self, change: Entry, due: float, entry: Entry) -> bool:
        """Whether the process of a change surely lived until its touch was due, for this read."""
        if not self._capabilities.strong_reads:
            return change.store == entry.store
        return not self._late or due < self._lived[change.store]

    # -- what all lanes write ----------------------------------------------------------------

    def _last_writer(self, run: str, value: str | None) -> None:
        """A run that all write holds what nobody overwrote since."""
        entries = self._history.runs[run]
        found = next((entry for entry in entries if token(entry) == value), None)
        if found is None:
            if any(entry.acknowledged for entry in entries):
                self.verdict.violation("lost", f"run {run} is {value}, which nobody wrote")
            return
        ended = found.ended if found.acknowledged and found.ended else math.inf
        later = [token(e) for e in entries if e.acknowledged and e.begun > ended]
        if later:
            self.verdict.violation("lost", f"run {run} is {value}, but {later[0]} came later")

    def _doomed(self, final: Sequence[Read]) -> None:
        """Of a thread that was deleted nothing is left, whatever was saved meanwhile."""
        rows = {call.thread: e.result for call, e in final if call.kind == "read_messages"}
        for thread, changes in self._history.doomed.items():
            deleted = any(k == "delete_doomed" and e.acknowledged for k, e in changes)
            if not deleted or not rows.get(thread):
                continue
            if self._capabilities.atomic:
                self.verdict.violation("resurrected", f"{len(rows[thread])} messages of {thread!r}")
            else:
                self.verdict.anomalies[_SAVED_WHILE_DELETED] += 1
