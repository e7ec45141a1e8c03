"""The gets of one moment, in bulk gets of as many keys as one takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mastra_storage_cloudflare.futures import all_of, fail, given_up
from mastra_storage_cloudflare.kv import MAX_KEYS_OF_GET, Found

# So many keys of a caller come in one bulk get. Callers whose keys came in two would go on
# between others, and what they want next would go out by itself.
_KEPT_TOGETHER = MAX_KEYS_OF_GET // 5

_Get = Callable[[list[str]], Awaitable[dict[str, Found]]]


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
        self.task: asyncio.Task[None] | None = None  # that asks
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

    async def send(self, get: _Get) -> None:
        """Ask for the keys, and tell those who wait."""
        if len(self._bulks) == 1:  # as mostly: without a task of its own
            await self._ask(get, self._bulks[0])
        else:
            await all_of(*[self._ask(get, bulk) for bulk in self._bulks])

    def is_wanted(self) -> bool:
        """Whether anybody waits still."""
        return not all(caller.done.done() for bulk in self._bulks for caller in bulk.callers)

    def end(self, task: asyncio.Task[None]) -> None:
        """See to it that nobody waits for ever, when the task that was to send them is over."""
        error = given_up(task)
        if error is not None:
            for bulk in self._bulks:
                for caller in bulk.callers:
                    fail(caller.done, error)

    async def _ask(self, get: _Get, bulk: _Bulk) -> None:
        try:
            self._found |= await get(bulk.keys)
        except Exception as exc:  # noqa: BLE001  (goes to the callers, who wait)
            self._tell(bulk, exc)
        else:
            self._tell(bulk, None)

    def _tell(self, bulk: _Bulk, error: BaseException | None) -> None:
        for caller in bulk.callers:
            caller.bulks -= 1
            caller.error = caller.error or error
            if caller.bulks:
                continue
            if caller.error is not None:
                fail(caller.done, caller.error)
            elif not caller.done.done():
                caller.done.set_result(self._found)
