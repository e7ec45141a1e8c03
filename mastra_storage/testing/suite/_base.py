"""What all parts of the kit share: fixtures, sizes, gating, waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import iscoroutinefunction
from typing import Any, TypeAlias, TypeVar

import pytest
import pytest_asyncio

from mastra_storage.backend import Backend
from mastra_storage.storage import Storage
from mastra_storage.testing._limits import limited, within
from mastra_storage.testing._waiting import EVENTUALLY, settling

F = TypeVar("F", bound=Callable[..., Any])

MakeBackend: TypeAlias = Callable[[], Backend]
OpenStore: TypeAlias = Callable[[], Awaitable[Storage]]


def full(test: F) -> F:
    """Mark a test that writes much or takes long: `check URL` runs it only with `--full`."""
    test.kit_full = True  # type: ignore[attr-defined]
    return test


def limits_itself(test: F) -> F:
    """Mark a test that takes long and limits the time of each of its steps."""
    test.kit_limits_itself = True  # type: ignore[attr-defined]
    return test


def require(backend: Backend, capability: str) -> None:
    """Skip the test unless the backend declares `capability`."""
    if not getattr(backend.capabilities, capability):
        pytest.skip(f"{backend.name} does not declare {capability}")


class Base:
    """Sizes that an author may change, the one fixture to give, and those made of it."""

    pytestmark = pytest.mark.asyncio(loop_scope="function")

    time_limit = 300.0
    """How many seconds a test may take, and opening and closing a store.

    One that hangs fails then, and says in which call. Raise it where reads are late for minutes;
    lower it on a store of this machine.
    """

    many = 1_100
    """How many rows are "more than a thousand"; lower it where writes are dear."""

    very_many = 10_100
    """How many rows are "more than ten thousand"."""

    writers = 50
    """How many calls run at the same time in the tests of concurrency."""

    eventually = EVENTUALLY
    """Within how many seconds another store sees a write, where `strong_reads` is not declared."""

    touch_delay = 2.0
    """Within how many seconds a thread's `updated_at` must have moved after a message's write."""

    watch_delay = 15.0
    """Within how many seconds a watcher sees a change."""

    machine_examples = 30
    """How many random sequences of calls are compared with those on memory."""

    machine_shrinks = True
    """Whether a sequence that differs is made as short as can be, by many more runs."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        for name, test in list(vars(cls).items()):
            is_test = name.startswith("test_") and iscoroutinefunction(test)
            if is_test and not hasattr(test, "kit_limits_itself"):
                setattr(cls, name, limited(test))

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        """Gives a function that makes an unopened backend on one store, empty at first.

        Each test gets an empty store. Within a test, all backends made are on the same one.
        """
        pytest.fail(f"{type(self).__name__} must have a fixture make_backend", pytrace=False)

    @pytest_asyncio.fixture(loop_scope="function")
    async def open_store(self, make_backend: MakeBackend) -> AsyncIterator[OpenStore]:
        """Opens another `Storage` on the same data, until the end of the test."""
        async with AsyncExitStack() as stack:

            async def open_store() -> Storage:
                return await stack.enter_async_context(self.opened(make_backend()))

            yield open_store

    @asynccontextmanager
    async def opened(self, backend: Backend) -> AsyncIterator[Storage]:
        """A `Storage` on `backend`, opened and closed within the limit of time."""
        storage = Storage(backend)
        await within(self.time_limit, storage.open())
        try:
            yield storage
        finally:
            await within(self.time_limit, storage.close())

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage(self, open_store: OpenStore) -> Storage:
        return await open_store()

    @pytest.fixture
    def backend(self, storage: Storage) -> Backend:
        return storage.backend

    def settling(self, backend: Backend) -> float:
        """Within how many seconds another store sees what was acknowledged."""
        return settling(backend, self.eventually)
