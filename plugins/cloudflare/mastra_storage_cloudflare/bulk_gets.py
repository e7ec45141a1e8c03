"""The gets of one moment, in bulk gets of as many keys as one takes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

from mastra_storage_cloudflare.futures import fail
from mastra_storage_cloudflare.kv import KV, MAX_KEYS_OF_GET, Found


class _Caller:
    """Who waits, and for how many bulk gets still."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        # Of its own: one that is cancelled leaves the others theirs.
        self.done: asyncio.Future[dict[str, Found]] = asyncio.get_running_loop().create_future()


class Gets:
    """Keys of a namespace that are wanted at one moment.

    A caller goes on as soon as the bulk gets that have its own keys are answered.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._callers: defaultdict[int, list[_Caller]] = defaultdict(list)
        self._found: dict[str, Found] = {}

    def wait(self, keys: Sequence[str]) -> asyncio.Future[dict[str, Found]]:
        """What is found under these keys, and under others that are wanted too."""
        places = self._places
        parts = {places.setdefault(key, len(places)) // MAX_KEYS_OF_GET for key in keys}
        caller = _Caller(len(parts))
        for part in parts:
            self._callers[part].append(caller)
        return caller.done

    def send(self, kv: KV, namespace: str) -> Iterator[asyncio.Task[dict[str, Found]]]:
        """Ask for the keys; gives the tasks that do."""
        keys = list(self._places)
        for part, callers in self._callers.items():
            start = part * MAX_KEYS_OF_GET
            task = asyncio.ensure_future(kv.get(namespace, keys[start : start + MAX_KEYS_OF_GET]))
            task.add_done_callback(partial(self._settle, callers))
            yield task

    def _settle(self, callers: Sequence[_Caller], task: asyncio.Task[dict[str, Found]]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self._found |= task.result()
        for caller in callers:
            caller.parts -= 1
            if error is not None:
                fail(caller.done, error)
            elif not caller.parts and not caller.done.done():
                caller.done.set_result(self._found)
