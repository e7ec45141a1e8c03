"""Blocking work in daemon threads: one that hangs, in a terminal or a pipe, keeps nobody waiting.

The interpreter does not end before the threads of `asyncio.to_thread`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar, cast

__all__ = ["in_thread", "prefetched"]

T = TypeVar("T")

_END = object()


async def in_thread(work: Callable[[], T]) -> T:
    """What `work` gives or raises, called in a thread of its own."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return  # its caller was cancelled
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001  # raised where it is awaited
            error = exc
        with suppress(RuntimeError):  # the loop was closed: nobody is left to tell
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True, name="mastra-storage-work").start()
    return await done


async def prefetched(items: Iterable[T], *, ahead: int = 2) -> AsyncGenerator[T, None]:
    """The items, made in a thread, at most `ahead` of them before they are asked for."""
    loop = asyncio.get_running_loop()
    made: asyncio.Queue[tuple[Any, BaseException | None]] = asyncio.Queue()
    room = threading.Semaphore(ahead - 1)
    stopped = threading.Event()

    def give(item: Any, error: BaseException | None = None) -> None:
        if not stopped.is_set():
            with suppress(RuntimeError):  # the loop was closed: nobody is left to read
                loop.call_soon_threadsafe(made.put_nowait, (item, error))

    def run() -> None:
        try:
            for item in items:
                give(item)
                room.acquire()
                if stopped.is_set():
                    return
        except BaseException as exc:  # noqa: BLE001  # raised where the items are read
            give(_END, exc)
        else:
            give(_END)

    threading.Thread(target=run, daemon=True, name="mastra-storage-read").start()
    try:
        while True:
            item, error = await made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            room.release()
            yield cast(T, item)
    finally:
        stopped.set()
        room.release()
