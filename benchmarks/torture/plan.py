"""What a lane does: operations out of a seed, the same every time.

A lane is one caller that does one thing after the other. It owns threads, messages, runs and
traces, which nobody else writes; and there are threads and runs that all lanes share. Every value
it writes is a token, `LANE.NUMBER` of the operation, so that a value read tells who wrote it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec import Struct

THREADS_OF_A_LANE = 3
SHARED_THREADS = 4
SHARED_RUNS = 3
RUNS_OF_A_LANE = 3
MEMBERS = ("a", "b", "c")
# So many messages have one and the same time, so that only their places keep them in order.
MESSAGES_OF_A_MOMENT = 7
# Threads of this many messages are not added to but emptied.
_FULL = 60
# A doomed thread is made, written to by all lanes, and deleted, after so many operations of its
# founder.
_DOOM_PERIOD = 20
_FOUNDERS = 3

_KINDS = {
    "save_messages": 16,
    "save_message": 14,
    "save_shared": 8,
    "replace_messages": 5,
    "update_messages": 8,
    "move_messages": 5,
    "delete_messages": 5,
    "save_thread": 2,
    "delete_thread": 1.2,
    "update_thread": 5,
    "update_shared": 4,
    "save_doomed": 2,
    "persist": 5,
    "persist_shared": 2,
    "save_traces": 4,
    "read_thread": 5,
    "read_messages": 6,
    "read_last": 6,
    "read_pages": 3,
    "read_ids": 4,
    "read_shared": 3,
    "read_shared_thread": 2,
    "read_run": 2,
    "read_traces": 1,
}


class Call(Struct, frozen=True, omit_defaults=True):
    """One operation.

    `ids` are those of messages or traces, `target` the thread that messages move to. `patience`
    is when the call is cancelled: after so many turns of the event loop when negative, after so
    many seconds when positive.
    """

    kind: str
    thread: str = ""
    ids: tuple[str, ...] = ()
    target: str = ""
    member: str = ""
    size: int = 0
    patience: float | None = None


def own_thread(lane: int, number: int) -> str:
    return f"lane/{lane}:{'tüv'[number % 3]}%{number}"


def lane_of(thread: str) -> int | None:
    """Whose thread it is, if it is a lane's own."""
    kind, _, rest = thread.partition("/")
    return int(rest.partition(":")[0]) if kind == "lane" else None


def shared_thread(number: int) -> str:
    return f"shared:{number}"


def doomed_thread(lane: int, round_: int) -> str:
    return f"doomed:{lane}:{round_}"


def own_run(lane: int, number: int) -> str:
    return f"run-{lane}-{number}"


def shared_run(number: int) -> str:
    return f"run-shared-{number}"


def resource(lane: int) -> str:
    return f"resource-{lane}"


class _Lane:
    """What a lane believes to be there, as if everything it did had succeeded."""

    def __init__(self, seed: int, lane: int, lanes: int, cancel: float) -> None:
        self.random = random.Random(f"torture {seed} {lane}")
        self.lane = lane
        self.lanes = lanes
        self.cancel = cancel
        self.threads = [own_thread(lane, n) for n in range(THREADS_OF_A_LANE)]
        self.messages: dict[str, list[str]] = {}
        self.shared: dict[str, list[str]] = {shared_thread(n): [] for n in range(SHARED_THREADS)}
        self.saved = 0
        self.traces = 0
        self.doomed = 0
        self.made = 0

    def calls(self, count: int) -> list[Call]:
        calls: list[Call] = []
        while len(calls) < count:
            if self.made % _DOOM_PERIOD == 5 + self.lane and self.lane < _FOUNDERS:
                kind = "delete_doomed" if self.doomed % 2 else "found_doomed"
                thread = doomed_thread(self.lane, self.doomed // 2)
                self.doomed += 1
                call = Call(kind, thread)
            else:
                [kind] = self.random.choices([*_KINDS], [*_KINDS.values()])
                call = getattr(self, f"_{kind}")()
            calls.append(self._impatient(call))
            self.made += 1
        return calls

    def _impatient(self, call: Call) -> Call:
        if self.random.random() >= self.cancel:
            return call
        turns = self.random.random() < 0.5
        patience = -self.random.randrange(1, 40) if turns else 10 ** self.random.uniform(-4, -0.7)
        return Call(call.kind, call.thread, call.ids, call.target, call.member, call.size, patience)

    # -- one method for each kind ------------------------------------------------------------

    def _thread(self) -> str:
        return self.random.choice(self.threads)

    def _there(self) -> str | None:
        """A thread that should be there."""
        found = [thread for thread in self.threads if thread in self.messages]
        return self.random.choice(found) if found else None

    def _some(self, ids: Sequence[str], most: int) -> tuple[str, ...]:
        return tuple(self.random.sample(ids, min(len(ids), self.random.randint(1, most))))

    def _new(self, count: int) -> tuple[str, ...]:
        first, self.saved = self.saved, self.saved + count
        return tuple(f"m{self.lane}-{n}" for n in range(first, first + count))

    def _save(self, count: int) -> Call:
        thread = self._there()
        if thread is None or self.random.random() < 0.02:
            return self._save_thread()
        if len(self.messages[thread]) > _FULL:
            return self._delete_messages(20)
        ids = self._new(count)
        self.messages[thread] += ids
        return Call("save_messages", thread, ids, size=self._size())

    def _size(self) -> int:
        return int(10 ** self.random.uniform(0, 4.5)) if self.random.random() < 0.1 else 0

    def _save_messages(self) -> Call:
        return self._save(self.random.randint(2, 9))

    def _save_message(self) -> Call:
        return self._save(1)

    def _replace_messages(self) -> Call:
        thread = self._there()
        if thread is None or not self.messages[thread]:
            return self._save_thread()
        return Call("save_messages", thread, self._some(self.messages[thread], 3))

    def _save_shared(self) -> Call:
        thread = shared_thread(self.random.randrange(SHARED_THREADS))
        mine = self.shared[thread]
        if len(mine) > 20:
            ids = self._some(mine, 15)
            self.shared[thread] = [each for each in mine if each not in ids]
            return Call("delete_messages", thread, ids)
        if mine and self.random.random() < 0.3:
            return Call("update_messages", thread, self._some(mine, 2))
        ids = self._new(self.random.randint(1, 3))
        mine += ids
        return Call("save_messages", thread, ids)

    def _update_messages(self) -> Call:
        thread = self._there()
        if thread is None or not self.messages[thread]:
            return self._save_thread()
        return Call("update_messages", thread, self._some(self.messages[thread], 4))

    def _move_messages(self) -> Call:
        thread = self._there()
        target = self._thread()
        if thread is None or thread == target or not self.messages[thread]:
            return self._update_messages()
        ids = self._some(self.messages[thread], 3)
        if target in self.messages:  # elsewhere it is refused: that is a test, too
            self.messages[thread] = [each for each in self.messages[thread] if each not in ids]
            self.messages[target] += ids
        return Call("move_messages", thread, ids, target)

    def _delete_messages(self, most: int = 4) -> Call:
        thread = self._there()
        if thread is None or not self.messages[thread]:
            return self._save_thread()
        ids = self._some(self.messages[thread], most)
        self.messages[thread] = [each for each in self.messages[thread] if each not in ids]
        return Call("delete_messages", thread, ids)

    def _save_thread(self) -> Call:
        thread = self._thread()
        self.messages.setdefault(thread, [])
        return Call("save_thread", thread)

    def _delete_thread(self) -> Call:
        thread = self._thread()
        self.messages.pop(thread, None)
        return Call("delete_thread", thread)

    def _update_thread(self) -> Call:
        return Call("update_thread", self._thread(), member=self.random.choice(MEMBERS))

    def _update_shared(self) -> Call:
        thread = shared_thread(self.random.randrange(SHARED_THREADS))
        return Call("update_thread", thread, member=f"lane-{self.lane}")

    def _save_doomed(self) -> Call:
        founder = self.random.randrange(min(_FOUNDERS, self.lanes))
        # About the one that is there when this call's turn comes.
        round_ = self.made // (2 * _DOOM_PERIOD) + self.random.randrange(2)
        return Call("save_doomed", doomed_thread(founder, round_), self._new(2))

    def _persist(self) -> Call:
        run = own_run(self.lane, self.random.randrange(RUNS_OF_A_LANE))
        return Call("persist", run, size=self._size())

    def _persist_shared(self) -> Call:
        return Call("persist", shared_run(self.random.randrange(SHARED_RUNS)))

    def _save_traces(self) -> Call:
        count = self.random.randint(1, 6)
        first = max(0, self.traces - 2) if self.random.random() < 0.2 else self.traces
        self.traces = max(self.traces, first + count)
        return Call(
            "save_traces", ids=tuple(f"trace-{self.lane}-{n}" for n in range(first, first + count))
        )

    def _read_thread(self) -> Call:
        return Call("read_thread", self._thread())

    def _read_messages(self) -> Call:
        return Call("read_messages", self._thread())

    def _read_last(self) -> Call:
        return Call("read_last", self._thread(), size=self.random.choice((1, 3, 10, 20)))

    def _read_pages(self) -> Call:
        return Call("read_pages", self._thread(), size=self.random.choice((3, 7, 20)))

    def _read_ids(self) -> Call:
        thread = self._thread()
        known = self.messages.get(thread) or [f"m{self.lane}-0"]
        return Call("read_ids", thread, (*self._some(known, 5), f"m{self.lane}-{self.saved}"))

    def _read_shared(self) -> Call:
        return Call("read_messages", shared_thread(self.random.randrange(SHARED_THREADS)))

    def _read_shared_thread(self) -> Call:
        return Call("read_thread", shared_thread(self.random.randrange(SHARED_THREADS)))

    def _read_run(self) -> Call:
        return Call("read_run", own_run(self.lane, self.random.randrange(RUNS_OF_A_LANE)))

    def _read_traces(self) -> Call:
        return Call("read_traces", size=20)


def watched(seed: str, lanes: Sequence[int]) -> list[Call]:
    """What to watch of some lanes and of what all share, in any order."""
    chosen = random.Random(f"watch {seed} {lanes}")
    lane, other = chosen.choice(lanes), chosen.choice(lanes)
    calls = [
        Call("watch_messages", own_thread(lane, 0), size=100),
        Call("watch_messages", own_thread(other, 1), size=10),
        Call("watch_messages", shared_thread(chosen.randrange(SHARED_THREADS)), size=20),
        Call("watch_thread", own_thread(lane, 1)),
        Call("watch_thread", shared_thread(chosen.randrange(SHARED_THREADS))),
        Call("watch_run", own_run(other, chosen.randrange(RUNS_OF_A_LANE))),
    ]
    return chosen.sample(calls, len(calls))


def plan(seed: int, lane: int, lanes: int, count: int, cancel: float = 0.06) -> list[Call]:
    """The `count` operations of a lane. `cancel` is the share of them that are cancelled."""
    return _Lane(seed, lane, lanes, cancel).calls(count)
