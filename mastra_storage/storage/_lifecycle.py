"""The life of a storage, and what every public method of it shares."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from mastra_storage.arguments import missing_verbs
from mastra_storage.backend import Backend, Capabilities
from mastra_storage.errors import InvalidArgumentError, StorageError, UnavailableError
from mastra_storage.schema import TABLES, Table
from mastra_storage.storage._locks import Locks

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Lifecycle")


def operation(
    method: Callable[Concatenate[S, P], Awaitable[T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Mark a public method: errors and log lines get its name and the backend's."""
    name = method.__name__.lstrip("_")

    @wraps(method)
    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        started = time.perf_counter()
        outcome = "failed"
        try:
            self._check_open()
            result = await method(self, *args, **kwargs)
        except StorageError as exc:
            outcome = type(exc).__name__
            self._located(exc, name)
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        else:
            outcome = "ok"
            return result
        finally:
            if self._log.isEnabledFor(logging.DEBUG):
                milliseconds = (time.perf_counter() - started) * 1e3
                self._log.debug("%s: %s, %.2f ms", name, outcome, milliseconds)

    return run


def stream(
    method: Callable[Concatenate[S, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[S, P], AsyncGenerator[T, None]]:
    """Mark a public method that gives an async generator: as `operation`, for its errors."""
    name = method.__name__

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, None]:
        try:
            return located(self, method(self, *args, **kwargs))
        except StorageError as exc:
            self._located(exc, name)
            raise

    async def located(self: S, source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        try:
            async with aclosing(source):
                self._check_open()
                async for item in source:
                    yield item
        except StorageError as exc:
            self._located(exc, name)
            raise

    return run


async def together(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines concurrently; the first to fail cancels the others, and is raised."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failed:
        error = failed.exceptions[0]
        raise error from error.__cause__  # the group is left out, its cause is not
    return [task.result() for task in tasks]


def name_of(backend: Backend) -> str:
    """What errors and log lines call a backend."""
    return str(getattr(backend, "name", type(backend).__name__))


class Lifecycle:
    """A backend that is opened and closed, and the tables known to it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._name = name_of(backend)
        self._opened = False
        if not isinstance(getattr(backend, "capabilities", None), Capabilities):
            raise InvalidArgumentError(
                f"{self._name} is no backend: it declares no `capabilities`", backend=self._name
            )
        for verb in missing_verbs(backend, watch=backend.capabilities.watch):
            raise InvalidArgumentError(
                f"{self._name} is no backend: it has no `{verb}`", backend=self._name
            )
        self._tables: dict[str, Table] = dict(TABLES)
        self._opening: object | None = None  # the attempt that is being made
        self._closed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._locks = Locks()
        self._last_seq = 0
        self._token = os.urandom(6).hex()
        self._writes = 0
        self._log = logging.getLogger(f"mastra_storage.{self._name}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._name}{'' if self._opened else ', not open'}>"

    @property
    def capabilities(self) -> Capabilities:
        """What the backend promises."""
        return self.backend.capabilities

    async def open(self) -> None:
        """Open the backend, for use in this event loop. `async with` does it."""
        if self._opened or self._opening is not None:
            state = "already open" if self._opened else "being opened already"
            raise self._located(InvalidArgumentError(f"the storage is {state}"), "open")
        attempt = self._opening = object()
        try:
            await self.backend.open()
            if self._opening is not attempt:
                raise UnavailableError("the storage was closed while it opened", retryable=False)
        except BaseException as exc:
            if self._opening in (attempt, None):  # nobody has opened it anew meanwhile
                await self.backend.close()
            if isinstance(exc, StorageError):
                self._located(exc, "open")
            raise
        finally:
            if self._opening is attempt:
                self._opening = None
        # Once more: a process that forked since then has the same storage twice.
        self._token = os.urandom(6).hex()
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._opened = True

    async def close(self) -> None:
        """Close the backend; safe to call twice."""
        self._opened, self._opening = False, None
        self._closed.set()
        await self.backend.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def register(self, table: Table) -> None:
        """Make a table of an adapter's own known to `insert`, `load` and `clear_table`.

        Raises `InvalidArgumentError` when another table has its name.
        """
        if not isinstance(table, Table):
            raise InvalidArgumentError(f"register takes a Table, not {type(table).__name__}")
        if self._tables.setdefault(table.name, table) != table:
            raise InvalidArgumentError(
                f"there is already another table {table.name!r}", backend=self._name
            )

    def _check_open(self) -> None:
        if not self._opened:
            why = ": it was closed" if self._closed.is_set() else ""
            raise UnavailableError(
                f"the storage is not open{why}; use it inside `async with`", retryable=False
            )
        if asyncio.get_running_loop() is not self._loop:
            raise UnavailableError(
                "the storage was opened in another event loop; open one in each", retryable=False
            )

    def _located(self, error: StorageError, operation: str) -> StorageError:
        """The error, with what its raiser did not know."""
        error.backend = error.backend or self._name
        error.operation = error.operation or operation
        return error
