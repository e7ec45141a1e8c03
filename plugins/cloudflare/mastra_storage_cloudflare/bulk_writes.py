"""The writes of a namespace: one bulk write at a time, the next one gathering meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import chain

from mastra_storage import PartialWriteError, StorageError, TooLargeError
from mastra_storage_cloudflare.futures import fail, given_up
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_WRITE, Pair

# What a pair costs in a bulk request beside its key, value and metadata.
_PAIR_OVERHEAD = 100
MERGED_BYTES = 25_000_000
"""How many bytes go out together; a pair that is larger goes alone.

The API takes four times as much, but on a slow line not in the time that it is waited for.
"""
# So often a bulk write is taken apart to find those that are refused; a few of 10,000 are found,
# and where all are refused, as by a proxy, that costs no more requests.
_MOST_REFUSALS = 64


class Waiter:
    """A call of `write`, until all its keys are written."""

    def __init__(self, namespace: str, puts: Iterable[str], deletes: Iterable[str]) -> None:
        self.puts = set(puts)
        self.deletes = set(deletes)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._namespace = namespace
        self._count = len(self.puts) + len(self.deletes)
        self._errors: dict[str, BaseException] = {}
        self._finish_if_settled()

    @property
    def failed(self) -> bool:
        return bool(self._errors)

    def settle(self, key: str, error: BaseException | None) -> None:
        """Take note that a key was written, or that it could not be."""
        self.puts.discard(key)
        self.deletes.discard(key)
        if error is not None:
            self._errors[key] = error
        self._finish_if_settled()

    def _finish_if_settled(self) -> None:
        if self.puts or self.deletes or self.done.done():
            return
        if self._errors:
            fail(self.done, self._failure())
        else:
            self.done.set_result(None)

    def _failure(self) -> BaseException:
        """An error of this call's own, about its keys alone."""
        cause = next(iter(self._errors.values()))
        failure = cause
        if isinstance(cause, PartialWriteError) or (
            len(self._errors) < self._count and isinstance(cause, StorageError)
        ):
            failure = PartialWriteError(
                f"KV did not store {len(self._errors)} of the {self._count} keys of this write "
                f"({cause.message}); try again",
                failed=[(self._namespace, (key,)) for key in self._errors],
            )
        elif isinstance(cause, StorageError):
            failure = copy(cause)
        if failure is not cause:
            failure.__cause__ = cause
        return failure


class _Change:
    """What is to become of a key: a pair, or a delete; and who waits for it."""

    def __init__(self) -> None:
        self.pair: Pair | None = None
        self.waiters: list[Waiter] = []

    def is_ready(self) -> bool:
        """Whether it may go out: a delete not before what the same call puts is stored."""
        return self.pair is not None or not self.waiters[-1].puts

    def is_wanted(self) -> bool:
        """Whether anybody waits for it still."""
        return not all(waiter.done.done() for waiter in self.waiters)

    def settle(self, key: str, error: BaseException | None) -> None:
        for waiter in self.waiters:
            waiter.settle(key, error)

    def size(self, key: str) -> int:
        """How many bytes it takes in a request, in which JSON is written as a JSON string."""
        pair = self.pair
        named = _PAIR_OVERHEAD + len(key.encode())
        if pair is None:
            return named
        escapes = pair.value.count(b'"') + pair.value.count(b"\\")
        return len(pair.value) + escapes + len(pair.metadata) + named


class Writer:
    """The writes of a namespace: one bulk write at a time, the next one gathering meanwhile."""

    def __init__(self, kv: KV, namespace: str, key_interval: float) -> None:
        self._kv = kv
        self._namespace = namespace
        self._key_interval = key_interval
        self._waiting: dict[str, _Change] = {}
        self._due: dict[str, _Change] = {}
        self._written: dict[str, float] = {}
        self.task: asyncio.Task[None] | None = None  # that writes
        self._refusals = 0

    def add(self, waiter: Waiter, pairs: Sequence[Pair]) -> None:
        changes: dict[str, Pair | None] = dict.fromkeys(waiter.deletes)
        changes.update((pair.key, pair) for pair in pairs)
        for key, pair in changes.items():
            change = self._waiting.setdefault(key, _Change())
            change.pair = pair
            change.waiters.append(waiter)

    def puts_under(self, prefix: str) -> list[str]:
        """The keys with a prefix that are being put, or wait for it; they are not listed yet."""
        changes = chain(self._waiting.items(), self._due.items())
        return [key for key, change in changes if change.pair and key.startswith(prefix)]

    async def run(self) -> None:
        while self._waiting:
            due = self._due = self._take_due()
            for chunk in _chunks(due):
                await self._send(chunk)
            self._due = {}
            if not due:
                await asyncio.sleep(self._until_due())

    def end(self, task: asyncio.Task[None]) -> bool:
        """See to it that nobody waits for ever, when the task that was to write is over.

        Whether another is needed: for those who came when it was cancelled already.
        """
        error = given_up(task)
        if error is None:
            return False
        failed, self._due = self._due, {}
        if task.cancelled():
            self._waiting = {key: one for key, one in self._waiting.items() if one.is_wanted()}
        else:
            failed |= self._waiting
            self._waiting = {}
        for key, change in failed.items():
            change.settle(key, error)
        return bool(self._waiting)

    def _take_due(self) -> dict[str, _Change]:
        """The waiting changes that are ready and whose keys may be written again."""
        moment = time.monotonic() - self._key_interval
        self._written = {key: at for key, at in self._written.items() if at > moment}
        due = {
            key: change
            for key, change in self._waiting.items()
            if key not in self._written and change.is_ready()
        }
        for key in due:
            del self._waiting[key]
        return due

    def _until_due(self) -> float:
        first = min(self._written[key] for key in self._waiting if key in self._written)
        return max(0.0, first + self._key_interval - time.monotonic())

    async def _send(self, changes: dict[str, _Change]) -> None:
        """Write, and tell those who wait what became of it."""
        pairs = {key: change.pair for key, change in changes.items() if change.pair is not None}
        self._refusals = 0
        await self._attempt(changes, pairs)
        deletes = {key: None for key in changes if key not in pairs}
        for key in list(deletes):
            if changes[key].waiters[-1].failed:
                del deletes[key]
                changes[key].settle(key, PartialWriteError("what was to be stored first was not"))
        await self._attempt(changes, deletes)

    async def _attempt(self, changes: dict[str, _Change], part: Mapping[str, Pair | None]) -> None:
        """Write a part of the changes: pairs, or deletes."""
        if not part:
            return
        pairs = [pair for pair in part.values() if pair is not None]
        [error] = await asyncio.gather(
            self._kv.write(self._namespace, pairs, [] if pairs else [*part]),
            return_exceptions=True,
        )
        refused = type(error) is StorageError or isinstance(error, TooLargeError)
        self._refusals += refused
        if refused and len(part) > 1 and self._refusals < _MOST_REFUSALS:
            # One of them is refused as it is. The others shall not fail with it.
            items, half = [*part.items()], len(part) // 2
            await self._attempt(changes, dict(items[:half]))
            await self._attempt(changes, dict(items[half:]))
            return
        failed = set(part) if error is not None else set()
        if isinstance(error, PartialWriteError):
            failed = {key for _, (key,) in error.failed}
        moment = time.monotonic()
        for key in part:
            self._written[key] = moment
            changes[key].settle(key, error if key in failed else None)


def _chunks(changes: dict[str, _Change]) -> Iterator[dict[str, _Change]]:
    """The changes in parts that one bulk write takes."""
    chunk: dict[str, _Change] = {}
    size = 0
    for key, change in changes.items():
        added = change.size(key)
        if chunk and (len(chunk) == MAX_KEYS_OF_WRITE or size + added > MERGED_BYTES):
            yield chunk
            chunk, size = {}, 0
        chunk[key] = change
        size += added
    if chunk:
        yield chunk
