"""The gets of one moment, in bulk gets of as many keys as one takes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial

from mastra_storage_cloudflare.futures import fail
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_GET, Found

# So many keys of a caller come in one bulk get. Callers whose keys came in two would go on
# between others, and what they want next would go out by itself.
_KEPT_TOGETHER = MAX_KEYS_OF_GET // 5


class _Caller:
    """Who waits, for how many bulk gets still, and what became of one that failed."""

    def __init__(self, bulks: int) -> None:
        self.bulks = bulks
        self.error: BaseException | None = None
        # Of its own: one that is cancelled leaves the others theirs.
        self.done: asyncio.Future[dict[str, Found]] = asyncio.get_running_loop().create_future()


class _Bulk:
    """A bulk get: its keys, and who waits for it."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.callers: list[_Caller] = []


class Gets:
    """Keys of a namespace that are wanted at one moment.

    A caller goes on as soon as the bulk gets that have its own keys are answered.
    """

    def __init__(self) -> None:
        self._bulks = [_Bulk()]
        self._bulk_of: dict[str, _Bulk] = {}
        self._found: dict[str, Found] = {}

    def wait(self, keys: Sequence[str]) -> asyncio.Future[dict[str, Found]]:
        """What is found under these keys, and under others that are wanted too."""
        wanted = [key for key in dict.fromkeys(keys) if key not in self._bulk_of]
        if len(wanted) <= _KEPT_TOGETHER:
            self._make_room(len(wanted))
        for key in wanted:
            self._make_room(1)
            self._bulks[-1].keys.append(key)
            self._bulk_of[key] = self._bulks[-1]
        bulks = {self._bulk_of[key] for key in keys}
        caller = _Caller(len(bulks))
        for bulk in bulks:
            bulk.callers.append(caller)
        return caller.done

    def _make_room(self, keys: int) -> None:
        if len(self._bulks[-1].keys) + keys > MAX_KEYS_OF_GET:
            self._bulks.append(_Bulk())

    def send(self, kv: KV, namespace: str) -> Iterator[asyncio.Task[dict[str, Found]]]:
        """Ask for the keys; gives the tasks that do."""
        for bulk in self._bulks:
            task = asyncio.ensure_future(kv.get(namespace, bulk.keys))
            task.add_done_callback(partial(self._settle, bulk.callers))
            yield task

    def _settle(self, callers: Sequence[_Caller], task: asyncio.Task[dict[str, Found]]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._found |= task.result()
        for caller in callers:
            caller.bulks -= 1
            caller.error = caller.error or error
            if caller.bulks:
                continue
            if caller.error is not None:
                fail(caller.done, caller.error)
            elif not caller.done.done():
                caller.done.set_result(self._found)
