"""What `make_backend` must give, before anything else can be tested."""

from __future__ import annotations

import pytest

from mastra_storage.backend import Backend, Query
from mastra_storage.schema import TABLES
from mastra_storage.storage import Storage
from mastra_storage.testing._waiting import until
from mastra_storage.testing._wrapper import Wrapper
from mastra_storage.testing.suite._base import Base, MakeBackend, OpenStore
from mastra_storage.testing.suite._build import thread_with


def innermost(backend: Backend) -> Backend:
    """The backend that wrappers of the kit are around."""
    while isinstance(backend, Wrapper):
        backend = backend.wrapped
    return backend


class StoreTests(Base):
    async def test_each_call_of_make_backend_makes_a_new_backend(
        self, make_backend: MakeBackend
    ) -> None:
        one, other = make_backend(), make_backend()
        assert innermost(one) is not innermost(other), (
            "make_backend gave the same object twice: one store would be tested, never two"
        )

    async def test_backends_of_one_test_are_on_the_same_store(self, open_store: OpenStore) -> None:
        one, other = await open_store(), await open_store()
        await thread_with(one)
        found = await until(
            lambda: other.get_thread_by_id("t"),
            lambda thread: thread is not None,
            self.settling(other.backend),
        )
        assert found is not None, "what one backend wrote, the next of make_backend does not find"

    @pytest.mark.parametrize("turn", ["first", "second"])
    async def test_each_test_begins_with_an_empty_store(self, storage: Storage, turn: str) -> None:
        """The second turn finds what the first has left, where tests share a store."""
        for table in TABLES.values():
            query = Query(table=table, order_by="any", limit=1)
            found = await until(
                lambda: storage.backend.query(query),  # noqa: B023 - awaited before the next turn
                lambda found: not found.rows,
                self.settling(storage.backend),
            )
            assert not found.rows, f"at the start of a test, table {table.name} has rows already"
        await thread_with(storage)
