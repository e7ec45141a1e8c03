"""What is followed, by whom, and what it gives at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from copy import copy
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct

from mastra_storage import StorageError
from mastra_storage_convex._frames import QueryFailed, QueryRemoved, QueryUpdated

__all__ = ["Call", "Failed", "Feed", "Queries"]

T = TypeVar("T")


class Call(NamedTuple):
    """A query: the path of its function, and its arguments as JSON text."""

    path: str
    args: str


class Failed(Struct, frozen=True):
    """What a query answers that failed: the server's words."""

    message: str


class _Followed(Generic[T]):
    """A query that feeds follow, and the last answer to it, of whatever WebSocket."""

    def __init__(self, id: int, call: Call) -> None:
        self.id = id
        self.call = call
        self.feeds: set[Feed[T]] = set()
        self.last: T | None = None


class Feed(Generic[T]):
    """The queries that one watcher follows, and word of each change of their answers."""

    def __init__(self, queries: Queries[T]) -> None:
        self._queries = queries
        self._calls: set[Call] = set()
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self._ended = False

    def answer(self, call: Call) -> T | Failed | None:
        """What `call` gives, which is followed from now on; `None` while that is not known.

        All answers that are known at one moment are of one state of the data.
        """
        self._calls.add(call)
        return self._queries.answer(call, self)

    def keep(self, calls: Collection[Call]) -> None:
        """Follow no others any more."""
        for call in self._calls.difference(calls):
            self._queries.leave(call, self)
        self._calls.intersection_update(calls)

    async def wait(self) -> bool:
        """Until an answer has changed; false once the client is closed.

        Raises the `StorageError` that ended the conversation for good.
        """
        await self._changed.wait()
        if not self._ended:
            self._changed.clear()
        if isinstance(self._failure, StorageError):
            raise copy(self._failure) from self._failure  # one of its own for each watcher
        if self._failure is not None:
            raise self._failure
        return not self._ended

    def wake(self) -> None:
        """Let `wait` return."""
        self._changed.set()

    def end(self, failure: BaseException | None = None) -> None:
        """Let `wait` raise `failure`, or say that all is over."""
        self._ended = True
        self._failure = failure
        self._changed.set()


class Queries(Generic[T]):
    """The queries that any feed follows, and their answers of one moment."""

    def __init__(self, build: Callable[[bytes, T | None], T]) -> None:
        """`build` makes an answer of its JSON text and of the answer before it."""
        self._build = build
        self._followed: dict[Call, _Followed[T]] = {}
        self._by_id: dict[int, _Followed[T]] = {}
        self._answers: dict[int, T | Failed] = {}
        self._ids = 0
        self.changed = asyncio.Event()
        """Set when it changes what is followed."""

    def __len__(self) -> int:
        return len(self._followed)

    def wanted(self) -> dict[int, Call]:
        """What is followed, by the ids that the server knows it by."""
        return {number: followed.call for number, followed in self._by_id.items()}

    def answer(self, call: Call, feed: Feed[T]) -> T | Failed | None:
        """What `call` gives, which `feed` follows from now on."""
        followed = self._followed.get(call)
        if followed is None:
            self._ids += 1
            followed = _Followed(self._ids, call)
            self._followed[call] = self._by_id[followed.id] = followed
            self.changed.set()
        followed.feeds.add(feed)
        return self._answers.get(followed.id)

    def leave(self, call: Call, feed: Feed[T]) -> None:
        """Let `feed` not follow `call` any more."""
        followed = self._followed[call]
        followed.feeds.discard(feed)
        if not followed.feeds:
            del self._followed[call], self._by_id[followed.id]
            self._answers.pop(followed.id, None)
            self.changed.set()

    def take(self, changes: Iterable[QueryUpdated | QueryFailed | QueryRemoved]) -> None:
        """Take over what has changed at one moment, and wake those who follow it."""
        woken: set[Feed[T]] = set()
        for change in changes:
            followed = self._by_id.get(change.query_id)
            if followed is None or isinstance(change, QueryRemoved):
                continue
            if isinstance(change, QueryFailed):
                self._answers[followed.id] = Failed(change.error_message)
            else:
                followed.last = self._build(bytes(change.value), followed.last)
                self._answers[followed.id] = followed.last
            woken |= followed.feeds
        for feed in woken:
            feed.wake()

    def forget(self) -> None:
        """Know no answer any more: who knows what has changed meanwhile."""
        self._answers.clear()
