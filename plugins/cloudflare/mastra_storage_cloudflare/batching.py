"""Gets of one moment become bulk gets; writes that wait become bulk writes.

While a bulk write of a namespace is under way, those that come in wait and go out together in
the next. So load makes batches larger, and an idle store pays one request. The later write of
one key wins and is sent once. A key is written at most once a second, as KV asks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from mastra_storage import PartialWriteError, StorageError
from mastra_storage_cloudflare.kv import (
    KV,
    MAX_BYTES_OF_WRITE,
    MAX_KEYS_OF_GET,
    MAX_KEYS_OF_WRITE,
    Found,
    Listing,
    Pair,
)

# What a pair costs in a bulk request beside its key, value and metadata.
_PAIR_OVERHEAD = 100


class BatchingKV(KV):
    """Merges concurrent calls on another `KV` into fewer, larger ones."""

    def __init__(self, kv: KV, *, key_interval: float = 1.0) -> None:
        """`key_interval`: seconds between two writes of one key."""
        self._kv = kv
        self._key_interval = key_interval
        self._gets: dict[str, _Gets] = {}
        self._writers: dict[str, _Writer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._kv.open()

    async def close(self) -> None:
        try:
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            await self._kv.close()

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        gets = self._gets.get(namespace)
        if gets is None:
            gets = self._gets[namespace] = _Gets()
            asyncio.get_running_loop().call_soon(self._send_gets, namespace)
        gets.keys.update(dict.fromkeys(keys))
        # Shielded: a caller that is cancelled leaves the others their answer.
        found = await asyncio.shield(gets.done)
        return {key: found[key] for key in keys if key in found}

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        return await self._kv.keys(namespace, prefix, cursor=cursor, limit=limit)

    async def namespaces(self) -> list[str]:
        return await self._kv.namespaces()

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        writer = self._writers.get(namespace)
        if writer is None:
            writer = self._writers[namespace] = _Writer(self._kv, namespace, self._key_interval)
        waiter = writer.add(pairs, deletes)
        if not writer.running:
            writer.running = True
            self._start(writer.run())
        await asyncio.shield(waiter.done)

    def _send_gets(self, namespace: str) -> None:
        self._start(self._gets.pop(namespace).run(self._kv, namespace))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Gets:
    """Keys of a namespace that are wanted at one moment."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.done: asyncio.Future[dict[str, Found]] = asyncio.get_running_loop().create_future()

    async def run(self, kv: KV, namespace: str) -> None:
        keys = list(self.keys)
        chunks = [keys[i : i + MAX_KEYS_OF_GET] for i in range(0, len(keys), MAX_KEYS_OF_GET)]
        answers = await asyncio.gather(
            *[kv.get(namespace, chunk) for chunk in chunks], return_exceptions=True
        )
        found: dict[str, Found] = {}
        for answer in answers:
            if isinstance(answer, BaseException):
                self.done.set_exception(answer)
                self.done.exception()  # retrieved, even if every caller was cancelled
                return
            found |= answer
        self.done.set_result(found)


class _Waiter:
    """A call of `write`, until all its keys are written."""

    def __init__(self, keys: Iterable[str]) -> None:
        self.left = set(keys)
        self.failed: list[str] = []
        self.error: StorageError | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, key: str, error: StorageError | None) -> None:
        self.left.discard(key)
        if error is not None:
            self.failed.append(key)
            self.error = error
        if self.left or self.done.done():
            return
        if self.error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(self.error)
            self.done.exception()


class _Change:
    """What is to become of a key: a pair, or a delete; and who waits for it."""

    def __init__(self) -> None:
        self.pair: Pair | None = None
        self.waiters: list[_Waiter] = []

    def size(self) -> int:
        pair = self.pair
        if pair is None:
            return _PAIR_OVERHEAD
        return len(pair.key) + len(pair.value) + len(pair.metadata) + _PAIR_OVERHEAD


class _Writer:
    """The writes of a namespace: one bulk write at a time, the next one gathering meanwhile."""

    def __init__(self, kv: KV, namespace: str, key_interval: float) -> None:
        self._kv = kv
        self._namespace = namespace
        self._key_interval = key_interval
        self._waiting: dict[str, _Change] = {}
        self._written: dict[str, float] = {}
        self.running = False

    def add(self, pairs: Sequence[Pair], deletes: Collection[str]) -> _Waiter:
        changes: dict[str, Pair | None] = {pair.key: pair for pair in pairs}
        changes.update(dict.fromkeys(deletes))
        waiter = _Waiter(changes)
        for key, pair in changes.items():
            change = self._waiting.setdefault(key, _Change())
            change.pair = pair
            change.waiters.append(waiter)
        if not changes:
            waiter.done.set_result(None)
        return waiter

    async def run(self) -> None:
        try:
            while self._waiting:
                due = self._take_due()
                if due:
                    for chunk in _chunks(due):
                        await self._send(chunk)
                else:
                    await asyncio.sleep(self._until_due())
        finally:
            self.running = False

    def _take_due(self) -> dict[str, _Change]:
        """The waiting changes whose keys may be written again."""
        moment = time.monotonic() - self._key_interval
        self._written = {key: at for key, at in self._written.items() if at > moment}
        due = {key: c for key, c in self._waiting.items() if key not in self._written}
        for key in due:
            del self._waiting[key]
        return due

    def _until_due(self) -> float:
        first = min(self._written[key] for key in self._waiting if key in self._written)
        return max(0.0, first + self._key_interval - time.monotonic())

    async def _send(self, changes: dict[str, _Change]) -> None:
        pairs = [change.pair for change in changes.values() if change.pair is not None]
        deletes = [key for key, change in changes.items() if change.pair is None]
        errors: dict[str, StorageError] = {}
        failure: BaseException | None = None
        try:
            await self._kv.write(self._namespace, pairs, deletes)
        except PartialWriteError as exc:
            errors = {key: exc for _, (key,) in exc.failed}
        except StorageError as exc:
            errors = dict.fromkeys(changes, exc)
        except BaseException as exc:
            failure = exc
            raise
        finally:
            moment = time.monotonic()
            for key, change in changes.items():
                self._written[key] = moment
                for waiter in change.waiters:
                    if failure is not None and not waiter.done.done():
                        waiter.done.set_exception(failure)
                    else:
                        waiter.settle(key, errors.get(key))


def _chunks(changes: dict[str, _Change]) -> Iterator[dict[str, _Change]]:
    """The changes in parts that one bulk write takes."""
    chunk: dict[str, _Change] = {}
    size = 0
    for key, change in changes.items():
        if len(chunk) == MAX_KEYS_OF_WRITE or size + change.size() > MAX_BYTES_OF_WRITE:
            yield chunk
            chunk, size = {}, 0
        chunk[key] = change
        size += change.size()
    if chunk:
        yield chunk
