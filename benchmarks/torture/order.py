"""The order of messages: by time, and of one time by when they were saved first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torture.calls import moment
from torture.history import History, Register, message
from torture.journal import Entry

Birth = tuple[int, int]


class Order:
    """Tells which messages stand in the wrong order, as far as the history leaves no doubt."""

    def __init__(self, history: History, *, keeps_place: bool) -> None:
        """`keeps_place`: whether a message that is replaced surely stays where it is."""
        self._history = history
        self._keeps_place = keeps_place

    def complaints(self, thread: str, ids: Sequence[str], entry: Entry) -> Iterator[str]:
        """What is wrong with the order of these messages, as an operation read them."""
        ended = entry.ended or entry.begun
        latest: dict[tuple[str, object], tuple[Birth, str]] = {}
        previous = ""
        for each in ids:
            if previous and moment(previous) > moment(each):
                yield f"{previous} is later than {each} behind it"
            previous = each
            births = self._births(message(thread, each), ended)
            if not births:
                continue
            group = (each.partition("-")[0], moment(each))
            before = latest.get(group)
            if before is not None and before[0] > max(births):
                yield f"{before[1]} was saved behind {each}, and stands before it"
            if before is None or min(births) > before[0]:
                latest[group] = (min(births), each)

    def behind(self, thread: str, known: Iterable[str], first: str, entry: Entry) -> Iterator[str]:
        """Those of the known messages that surely stand behind `first`, if they are there."""
        ended = entry.ended or entry.begun
        mine = first.partition("-")[0]
        edge = max(self._births(message(thread, first), ended), default=None)
        for each in known:
            if moment(each) > moment(first):
                yield each
            elif moment(each) == moment(first) and each.partition("-")[0] == mine and edge:
                births = self._births(message(thread, each), ended)
                if births and min(births) > edge:
                    yield each

    def _births(self, register: Register, until: float) -> set[Birth]:
        """Which saves may have given a message its place, of those begun by then."""
        births: set[Birth] = set()
        absent = True
        for write in self._history.writes.get(register, ()):
            if write.begun >= until:
                break
            if write.how == "gone":
                absent = True
                if write.acknowledged:
                    births = set()
            elif write.source is not None:
                births = births | self._births(write.source, write.begun)
                absent = absent and not write.acknowledged
            elif write.how == "put":
                if absent or not self._keeps_place:
                    births = births | {(write.operation[1], write.position)}
                absent = absent and not write.acknowledged
        return births
