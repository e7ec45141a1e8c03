"""What the operations of all lanes wrote: for each register, who wrote what, and in which order.

A register is a place of one value: a message, a member of a thread's metadata, a run, a trace.
One lane writes it, one operation after the other, so its writes have an order; those that were
not acknowledged may have happened or not.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from msgspec import Struct

from torture.journal import Entry
from torture.plan import MEMBERS, Call

Register = tuple[str, ...]
Operation = tuple[int, int]

# Errors after which nothing of the operation can have happened.
WITHOUT_EFFECT = {"NotFoundError", "ConflictError"}


class Write(Struct, frozen=True, kw_only=True):
    """One write of a register. `value` is the token, or `None` for a deletion.

    `how` is "put", "change" (of what is there) or "gone"; `source` is where a moved message came
    from. `ended` is infinite for what was not acknowledged.
    """

    operation: Operation
    begun: int
    ended: float
    how: str
    value: str | None
    position: int = 0
    source: Register | None = None

    @property
    def acknowledged(self) -> bool:
        return self.ended < math.inf


class Sight(Struct, frozen=True, kw_only=True):
    """A register as an operation saw it; `value` is `None` when nothing was there."""

    register: Register
    value: str | None
    entry: Entry


def message(thread: str, message_id: str) -> Register:
    return ("message", thread, message_id)


def token(entry: Entry) -> str:
    return f"{entry.lane}.{entry.number}"


class History:
    """The writes of all registers, from the operations and what became of them."""

    def __init__(self) -> None:
        self.writes: dict[Register, list[Write]] = defaultdict(list)
        self.of_operation: dict[Operation, list[Register]] = {}
        self.ids: dict[tuple[str, int], dict[str, None]] = defaultdict(dict)
        self.members: dict[str, set[str]] = defaultdict(set)
        self.sights: list[Sight] = []
        self.touches: dict[str, list[Entry]] = defaultdict(list)
        self.runs: dict[str, list[Entry]] = defaultdict(list)
        self.doomed: dict[str, list[tuple[str, Entry]]] = defaultdict(list)

    def add(self, call: Call, entry: Entry) -> None:
        """Take note of an operation; those of a lane come in their order."""
        if call.kind.startswith("read_"):
            return
        if call.kind.endswith("_doomed"):
            self.doomed[call.thread].append((call.kind, entry))
            return
        if entry.outcome in WITHOUT_EFFECT:
            if entry.outcome == "NotFoundError" and call.kind != "move_messages":
                self._see(("thread", call.thread), None, entry)
            return
        if call.kind == "persist" and call.thread.startswith("run-shared"):
            self.runs[call.thread].append(entry)
            return
        registers: list[Register] = []
        for register, write in self._effects(call, entry):
            self.writes[register].append(write)
            registers.append(register)
            if register[0] == "member":
                self.members[register[1]].add(register[2])
        self.of_operation[entry.lane, entry.number] = registers
        changed = entry.result != []  # a change that found nothing touches nothing
        if entry.acknowledged and changed and call.kind not in ("persist", "save_traces"):
            for thread in filter(None, (call.thread, call.target)):
                self.touches[thread].append(entry)

    def _see(self, register: Register, value: str | None, entry: Entry) -> None:
        self.sights.append(Sight(register=register, value=value, entry=entry))

    def _effects(self, call: Call, entry: Entry) -> Iterator[tuple[Register, Write]]:
        thread, value = call.thread, token(entry)
        match call.kind:
            case "save_messages":
                for position, each in enumerate(call.ids):
                    self.ids[thread, entry.lane][each] = None
                    yield message(thread, each), _write(entry, "put", value, position)
            case "update_messages":
                for each in self._found(call, entry):
                    yield message(thread, each), _write(entry, "change", value)
            case "move_messages":
                for each in self._found(call, entry):
                    self.ids[call.target, entry.lane][each] = None
                    source = message(thread, each)
                    yield source, _write(entry, "gone", None)
                    yield (
                        message(call.target, each),
                        _write(entry, "change", value, source=source),
                    )
            case "delete_messages":
                for each in call.ids:
                    yield message(thread, each), _write(entry, "gone", None)
            case "save_thread":
                yield ("thread", thread), _write(entry, "put", value)
                for member in MEMBERS:
                    kept = value if member == "a" else None
                    how = "put" if kept else "gone"
                    yield ("member", thread, member), _write(entry, how, kept)
            case "delete_thread":
                yield ("thread", thread), _write(entry, "gone", None)
                for member in MEMBERS:
                    yield ("member", thread, member), _write(entry, "gone", None)
                for each in self.ids[thread, entry.lane]:
                    yield message(thread, each), _write(entry, "gone", None)
            case "update_thread":
                yield ("member", thread, call.member), _write(entry, "change", value)
            case "persist":
                yield ("run", thread), _write(entry, "put", value)
            case "save_traces":
                for position, each in enumerate(call.ids):
                    self.ids["", entry.lane][each] = None
                    yield ("trace", each), _write(entry, "put", value, position)

    def _found(self, call: Call, entry: Entry) -> Iterable[str]:
        """The messages that a change found; those it did not find were seen to be gone."""
        if not entry.acknowledged:
            return call.ids
        for each in call.ids:
            if each not in entry.result:
                self._see(message(call.thread, each), None, entry)
        return list(entry.result)


def _write(
    entry: Entry, how: str, value: str | None, position: int = 0, source: Register | None = None
) -> Write:
    known = entry.acknowledged and entry.ended is not None
    return Write(
        operation=(entry.lane, entry.number),
        begun=entry.begun,
        ended=entry.ended if known and entry.ended is not None else math.inf,
        how=how,
        value=value,
        position=position,
        source=source,
    )
