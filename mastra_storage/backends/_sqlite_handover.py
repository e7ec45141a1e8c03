"""Calls that threads hand over to the event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_Call = tuple[Callable[..., None], tuple[Any, ...]]


class Handover:
    """Calls functions on an event loop, from threads.

    `call_soon_threadsafe` does that too. But waking the loop is a good part of a small call, and
    a pipe does it with half the system calls of asyncio's pair of sockets.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop`: the one that runs now."""
        self._loop = loop
        self._calls: deque[_Call] = deque()
        # Reading and writing; `None` when closed, or where there is no pipe.
        self._ends: tuple[int, int] | None = None
        if sys.platform != "win32":  # whose loops watch sockets alone
            self._open_pipe()

    def _open_pipe(self) -> None:
        try:
            self._ends = os.pipe()
        except OSError:
            return  # as many files are open as may be: asyncio's way needs no other
        for end in self._ends:
            os.set_blocking(end, False)
        try:
            self._loop.add_reader(self._ends[0], self._run, self._ends[0])
        except NotImplementedError:
            self._close_pipe()

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function on the loop, soon; from any thread."""
        if self._ends is None:
            with suppress(RuntimeError):  # a loop that was closed has nobody left to tell
                self._loop.call_soon_threadsafe(function, *arguments)
            return
        self._calls.append((function, arguments))
        with suppress(BlockingIOError):  # so many bytes wait that the loop is about to wake
            os.write(self._ends[1], b"\0")

    def close(self) -> None:
        """Make the calls that wait, and release the pipe, when no thread calls any more."""
        try:
            if self._ends is not None and not self._loop.is_closed():
                self._loop.remove_reader(self._ends[0])
                self._run_calls()
        finally:
            self._close_pipe()

    def __del__(self) -> None:
        self._close_pipe()  # where closing was cancelled, and all threads have ended since

    def _run(self, reading: int) -> None:
        with suppress(BlockingIOError):
            os.read(reading, 4096)
        self._run_calls()

    def _run_calls(self) -> None:
        # Those that come meanwhile have bytes of their own.
        for _ in range(len(self._calls)):
            function, arguments = self._calls.popleft()
            try:
                function(*arguments)
            except BaseException:
                self._loop.call_soon(self._run_calls)  # the others; the loop tells of this one
                raise

    def _close_pipe(self) -> None:
        for end in self._ends or ():
            os.close(end)
        self._ends = None
