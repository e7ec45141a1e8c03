"""Changing values that TypeScript rewrites whole: the list of a thread's messages, a thread.

KV has no compare-and-set, and takes one write a second to a key. So changes of one value wait
for each other: those that come while one is being written become one read and one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import TypeAlias

from mastra_storage import StorageError
from mastra_storage_cloudflare.futures import fail, given_up, of_this_loop
from mastra_storage_cloudflare.interop.values import FormError, damaged
from mastra_storage_cloudflare.kv import KV, Pair

Edit: TypeAlias = Callable[[bytes | None], bytes | None]
"""What becomes of a value; `None` stands for no value."""

_Waiting = list[tuple[Edit, "asyncio.Future[None]"]]


class Edits:
    """The changes that are being made, of each value one after the other."""

    def __init__(self, kv: KV) -> None:
        self._kv = kv
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._under_way: dict[tuple[str, str], _Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def apply(self, namespace: str, key: str, edit: Edit) -> None:
        """Change a value; returns when it is stored."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get((namespace, key))
        if waiting is None:
            waiting = self._waiting[namespace, key] = []
            self._start(namespace, key)
        waiting.append((edit, done))
        # Shielded: what others wait for too goes on when this caller is cancelled.
        try:
            await asyncio.shield(done)
        except StorageError as exc:
            raise copy(exc) from exc  # one of its own for each caller

    async def close(self) -> None:
        """Wait for the changes that are being made."""
        while tasks := of_this_loop(self._tasks):
            await asyncio.wait(tasks)

    async def _run(self, namespace: str, key: str) -> None:
        """Make the changes of a value for as long as there are any."""
        while waiting := self._waiting[namespace, key]:
            self._waiting[namespace, key] = []
            self._under_way[namespace, key] = waiting
            [error] = await asyncio.gather(
                self._write(namespace, key, [edit for edit, _ in waiting]), return_exceptions=True
            )
            del self._under_way[namespace, key]
            for _, done in waiting:
                if error is None:
                    done.set_result(None)
                else:
                    fail(done, error)
        del self._waiting[namespace, key]

    def _start(self, namespace: str, key: str) -> None:
        # Not by the loop, which may be told to run tasks at once: an edit is to join it.
        task = asyncio.Task(self._run(namespace, key))
        self._tasks.add(task)
        task.add_done_callback(partial(self._end, namespace, key))

    def _end(self, namespace: str, key: str, task: asyncio.Task[None]) -> None:
        """See to it that nobody waits for ever, when the task that was to write is over."""
        self._tasks.discard(task)
        error = given_up(task)
        if error is None:
            return
        for _, done in self._under_way.pop((namespace, key), ()):
            fail(done, error)
        if self._waiting.get((namespace, key)):
            self._start(namespace, key)
        else:
            self._waiting.pop((namespace, key), None)

    async def _write(self, namespace: str, key: str, edits: list[Edit]) -> None:
        found = await self._kv.get(namespace, [key])
        old = found[key].value if key in found else None
        new = old
        try:
            for edit in edits:
                new = edit(new)
        except FormError as exc:
            raise damaged(key, exc) from exc
        if new is None and old is not None:
            await self._kv.write(namespace, [], [key])
        elif new is not None and new != old:
            await self._kv.write(namespace, [Pair(key, new, "")], [])
