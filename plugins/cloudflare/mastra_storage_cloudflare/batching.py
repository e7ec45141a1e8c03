"""Gets of one moment become bulk gets; writes that wait become bulk writes.

While bulk gets are under way, a moment is two milliseconds: where many callers each go on from an
answer of their own, those answers come one by one. Of listings those that are the same are merged.
What is asked for runs in a task of its own, which ends when nobody waits for it any more.

While a bulk write of a namespace is under way, those that come in wait and go out together in
the next. So load makes batches larger, and an idle store pays one request. The later write of
one key wins and is sent once. A key is written at most once a second, as KV asks. What a write
deletes goes out when its pairs are stored: a row that moves is at its new place first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from copy import copy
from functools import partial
from typing import Any, TypeAlias, TypeVar

from mastra_storage import StorageError
from mastra_storage_cloudflare.bulk_gets import Gets
from mastra_storage_cloudflare.bulk_writes import Waiter, Writer
from mastra_storage_cloudflare.futures import of_this_loop
from mastra_storage_cloudflare.kv import KV, Found, Listing, Pair
from mastra_storage_cloudflare.listings import SharedListing

T = TypeVar("T")
Name = TypeVar("Name")
Asked = TypeVar("Asked", Gets, SharedListing)

# The namespace, the prefix, the cursor and the limit.
_Page: TypeAlias = tuple[str, str, str | None, int]

# Seconds from one bulk get to the next.
_GATHERING = 0.002


class BatchingKV(KV):
    """Merges concurrent calls on another `KV` into fewer, larger ones."""

    def __init__(self, kv: KV, *, key_interval: float = 1.0) -> None:
        """`key_interval`: seconds between two writes of one key."""
        self._kv = kv
        self._key_interval = key_interval
        self._gets: dict[str, Gets] = {}
        self._gets_sent = 0.0
        self._unanswered = 0
        self._listings: dict[_Page, SharedListing] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._writers: dict[str, Writer] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        if not self.is_of_this_loop():  # what was left undone in another will never be done
            self._gets, self._listings, self._writers = {}, {}, {}
            self._asking, self._writing = set(), set()
            self._unanswered = 0
            self._loop = asyncio.get_running_loop()
        await self._kv.open()

    def is_of_this_loop(self) -> bool:
        """Whether it was opened in the event loop that runs."""
        return self._loop is asyncio.get_running_loop()

    async def close(self) -> None:
        try:
            while tasks := of_this_loop(self._asking | self._writing):
                await asyncio.wait(tasks)
        finally:
            await self._kv.close()

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        if not keys:
            return {}
        gets = self._gets.get(namespace)
        if gets is None:
            gets = Gets()
            self._ask(self._gets, namespace, gets, partial(self._send_gets, namespace, gets))
        found = await self._answer(gets, gets.wait(keys))
        return {key: found[key] for key in keys if key in found}

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        page = (namespace, prefix, cursor, limit)
        listing = self._listings.get(page)
        if listing is None:
            listing = SharedListing()
            self._ask(self._listings, page, listing, partial(self._send_listing, page, listing))
        return await self._answer(listing, listing.wait())

    async def namespaces(self) -> list[str]:
        return await self._kv.namespaces()

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        writer = self._writers.get(namespace)
        if writer is None:
            writer = self._writers[namespace] = Writer(self._kv, namespace, self._key_interval)
        waiter = Waiter(namespace, [pair.key for pair in pairs], deletes)
        writer.add(waiter, pairs)
        if writer.task is None or writer.task.done():
            self._start_writing(writer)
        await waiter.done

    def puts_under(self, namespace: str, prefix: str) -> list[str]:
        """The keys with a prefix that are being put, whether or not their callers wait still."""
        writer = self._writers.get(namespace)
        return [] if writer is None else writer.puts_under(prefix)

    def _start_writing(self, writer: Writer) -> None:
        def end(task: asyncio.Task[None]) -> None:
            if writer.end(task) and writer.task is task:  # or who came has started another
                self._start_writing(writer)

        writer.task = self._start(self._writing, writer.run())
        writer.task.add_done_callback(end)

    def _ask(
        self,
        gathering: dict[Name, Asked],
        name: Name,
        asked: Asked,
        send: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Start the task that asks; until it runs, others join."""

        def end(task: asyncio.Task[None]) -> None:
            if gathering.get(name) is not asked:
                asked.end(task)
            elif asked.is_wanted():
                self._ask(gathering, name, asked, send)  # some came when it was cancelled already
            else:
                del gathering[name]

        gathering[name] = asked
        asked.task = self._start(self._asking, send())
        asked.task.add_done_callback(end)

    async def _answer(self, asked: Gets | SharedListing, answer: asyncio.Future[T]) -> T:
        """What a caller waits for, which is asked for no longer when nobody does."""
        try:
            return await answer
        except StorageError as exc:
            raise copy(exc) from exc  # one of its own for each caller
        except asyncio.CancelledError:
            if asked.task is not None and not asked.is_wanted():
                asked.task.cancel()
            raise

    async def _send_listing(self, page: _Page, listing: SharedListing) -> None:
        del self._listings[page]
        namespace, prefix, cursor, limit = page
        await listing.send(partial(self._kv.keys, namespace, prefix, cursor=cursor, limit=limit))

    async def _send_gets(self, namespace: str, gets: Gets) -> None:
        """Send the gets that are wanted by the time it runs."""
        loop = asyncio.get_running_loop()
        wait = self._gets_sent + _GATHERING - loop.time() if self._unanswered else 0.0
        if wait > 0:
            await asyncio.sleep(wait)
        del self._gets[namespace]
        self._gets_sent = loop.time()
        await gets.send(partial(self._get, namespace))

    async def _get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        self._unanswered += 1
        try:
            return await self._kv.get(namespace, keys)
        finally:
            self._unanswered -= 1

    def _start(
        self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        # Not by the loop, which may be told to run tasks at once: others are to join them.
        task = asyncio.Task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task
