"""What all parts of the kit share: fixtures, sizes, gating, waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeAlias, TypeVar

import pytest
import pytest_asyncio

from mastra_storage.backend import Backend
from mastra_storage.storage import Storage
from mastra_storage.testing._waiting import EVENTUALLY, settling

F = TypeVar("F", bound=Callable[..., Any])

MakeBackend: TypeAlias = Callable[[], Backend]
OpenStore: TypeAlias = Callable[[], Awaitable[Storage]]


def full(test: F) -> F:
    """Mark a test that writes much or takes long: `check URL` runs it only with `--full`."""
    test.kit_full = True  # type: ignore[attr-defined]
    return test


def require(backend: Backend, capability: str) -> None:
    """Skip the test unless the backend declares `capability`."""
    if not getattr(backend.capabilities, capability):
        pytest.skip(f"{backend.name} does not declare {capability}")


class Base:
    """Sizes that an author may change, the one fixture to give, and those made of it."""

    pytestmark = pytest.mark.asyncio(loop_scope="function")

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
                return await stack.enter_async_context(Storage(make_backend()))

            yield open_store

    @pytest_asyncio.fixture(loop_scope="function")
    async def storage(self, open_store: OpenStore) -> Storage:
        return await open_store()

    @pytest.fixture
    def backend(self, storage: Storage) -> Backend:
        return storage.backend

    def settling(self, backend: Backend) -> float:
        """Within how many seconds another store sees what was acknowledged."""
        return settling(backend, self.eventually)
