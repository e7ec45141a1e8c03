"""Blocking iterators, read ahead in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from typing import Any, TypeVar, cast

__all__ = ["prefetched"]

T = TypeVar("T")

_END = object()


async def prefetched(items: Iterable[T], *, ahead: int = 2) -> AsyncGenerator[T, None]:
    """The items, made in a thread, at most `ahead` of them before they are asked for.

    The thread is a daemon: one that hangs in a read (a terminal, say) keeps nobody from ending.
    """
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
