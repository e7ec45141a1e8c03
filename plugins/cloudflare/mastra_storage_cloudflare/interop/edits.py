"""Changing values that TypeScript rewrites whole: the list of a thread's messages, a thread.

KV has no compare-and-set, and takes one write a second to a key. So changes of one value wait
for each other: those that come while one is being written become one read and one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import TypeAlias

from mastra_storage import StorageError
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
        self._tasks: set[asyncio.Task[None]] = set()

    async def apply(self, namespace: str, key: str, edit: Edit) -> None:
        """Change a value; returns when it is stored."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get((namespace, key))
        if waiting is None:
            waiting = self._waiting[namespace, key] = []
            task = asyncio.get_running_loop().create_task(self._run(namespace, key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiting.append((edit, done))
        # Shielded: what others wait for too goes on when this caller is cancelled.
        try:
            await asyncio.shield(done)
        except StorageError as exc:
            raise copy(exc) from exc  # one of its own for each caller

    async def close(self) -> None:
        """Wait for the changes that are being made."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, namespace: str, key: str) -> None:
        """Make the changes of a value for as long as there are any."""
        while waiting := self._waiting[namespace, key]:
            self._waiting[namespace, key] = []
            [error] = await asyncio.gather(
                self._write(namespace, key, [edit for edit, _ in waiting]), return_exceptions=True
            )
            for _, done in waiting:
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)
                    done.exception()  # retrieved, even if every caller was cancelled
        del self._waiting[namespace, key]

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
