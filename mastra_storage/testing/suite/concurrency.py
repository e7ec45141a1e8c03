"""Many calls at the same time, from one store and from two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from mastra_storage.errors import NotFoundError
from mastra_storage.records import Message, MessageUpdate, Thread
from mastra_storage.storage import Storage
from mastra_storage.testing._waiting import until
from mastra_storage.testing.suite._base import Base, OpenStore, full, require
from mastra_storage.testing.suite._build import at, contents, ids, messages, thread_with

_FEW = 4


class ConcurrencyTests(Base):
    async def two(self, open_store: OpenStore) -> list[Storage]:
        """Two stores of the same data, or one twice where only that can be promised."""
        one = await open_store()
        return [one, await open_store() if one.capabilities.compare_and_set else one]

    async def all_keys_stay(
        self,
        stores: list[Storage],
        writers: int,
        change: Callable[[Storage, dict[str, int]], Awaitable[object]],
        read: Callable[[Storage], Awaitable[dict[str, int]]],
    ) -> None:
        """Let each of `writers` add a key of its own; all must be there in the end."""
        expected = {f"k{n}": n for n in range(writers)}
        await asyncio.gather(*[change(stores[n % 2], {name: n}) for n, name in enumerate(expected)])
        for store in stores:
            found = await until(
                lambda: read(store),  # noqa: B023 - awaited before the next turn
                lambda found: found == expected,
                self.settling(store.backend),
            )
            assert found == expected

    async def thread_changes(self, open_store: OpenStore, writers: int) -> None:
        async def read(store: Storage) -> dict[str, int]:
            thread = await store.get_thread_by_id("t")
            return {} if thread is None else thread.metadata

        stores = await self.two(open_store)
        await thread_with(stores[0])
        await self.all_keys_stay(
            stores, writers, lambda store, new: store.update_thread("t", metadata=new), read
        )

    async def test_concurrent_changes_of_a_thread_are_all_kept(self, open_store: OpenStore) -> None:
        await self.thread_changes(open_store, _FEW)

    @full
    async def test_many_concurrent_changes_of_a_thread_are_all_kept(
        self, open_store: OpenStore
    ) -> None:
        await self.thread_changes(open_store, self.writers)

    @full
    async def test_concurrent_changes_of_a_message_are_all_kept(
        self, open_store: OpenStore
    ) -> None:
        async def read(store: Storage) -> dict[str, int]:
            [message] = await store.get_messages("t")
            return message.metadata

        stores = await self.two(open_store)
        await thread_with(stores[0], messages("t", "a"))
        await self.all_keys_stay(
            stores,
            _FEW,
            lambda store, new: store.update_messages("t", [MessageUpdate("m0", metadata=new)]),
            read,
        )

    async def test_concurrent_changes_of_a_new_resource_are_all_kept(
        self, open_store: OpenStore
    ) -> None:
        async def read(store: Storage) -> dict[str, int]:
            resource = await store.get_resource("r")
            return {} if resource is None else resource.metadata

        await self.all_keys_stay(
            await self.two(open_store),
            _FEW,
            lambda store, new: store.update_resource("r", metadata=new),
            read,
        )

    async def saves_by_two(self, open_store: OpenStore, writers: int) -> None:
        stores = [await open_store(), await open_store()]
        await thread_with(stores[0])
        for store in stores:
            await until(
                lambda: store.get_thread_by_id("t"),  # noqa: B023
                lambda thread: thread is not None,
                self.settling(store.backend),
            )
        batch = messages("t", range(writers))
        await asyncio.gather(*[stores[n % 2].save_message(m) for n, m in enumerate(batch)])
        for store in stores:
            found = await until(
                lambda: store.get_messages("t"),  # noqa: B023
                lambda found: len(found) == len(batch),
                self.settling(store.backend),
            )
            assert found == batch
            assert contents(await store.get_messages("t", last=2)) == [writers - 2, writers - 1]

    async def test_two_stores_write_one_thread_at_once(self, open_store: OpenStore) -> None:
        await self.saves_by_two(open_store, _FEW)

    @full
    async def test_two_stores_write_one_thread_many_times(self, open_store: OpenStore) -> None:
        await self.saves_by_two(open_store, 4 * self.writers)

    @full
    async def test_concurrent_batches_stay_together(self, storage: Storage) -> None:
        await thread_with(storage)
        turns = [
            [
                Message(id=f"{turn}/{n}", thread_id="t", role="user", content=n, created_at=at())
                for n in range(3)
            ]
            for turn in range(self.writers)
        ]
        await asyncio.gather(*[storage.save_messages(turn) for turn in turns])
        found = await storage.get_messages("t")
        assert len(found) == 3 * self.writers
        assert contents(found) == [0, 1, 2] * self.writers

    async def test_a_failing_write_fails_nobody_else(self, storage: Storage) -> None:
        await thread_with(storage)
        batch = messages("t", range(4))
        outcomes = await asyncio.gather(
            storage.save_message(batch[0]),
            storage.save_message(Message(thread_id="nobody", role="user", content="x")),
            storage.save_message(batch[1]),
            storage.delete_thread("nobody"),
            storage.save_message(batch[2]),
            storage.update_thread("nobody", title="x"),
            storage.save_message(batch[3]),
            return_exceptions=True,
        )
        failed = [isinstance(outcome, NotFoundError) for outcome in outcomes]
        assert failed == [False, True, False, True, False, True, False]
        assert await storage.get_messages("t") == batch
        assert await storage.get_messages("nobody") == []

    async def test_reads_and_writes_of_one_moment_do_not_mix_up(self, storage: Storage) -> None:
        await storage.batch_insert("threads", [Thread(id=id, resource_id=id) for id in "abc"])
        found = await asyncio.gather(
            *[storage.get_thread_by_id(id) for id in "abc"],
            *[storage.list_threads(resource_id=id) for id in "abc"],
        )
        assert ids(thread for thread in found[:3] if isinstance(thread, Thread)) == list("abc")
        assert [ids(page) for page in found[3:]] == [[id] for id in "abc"]

    async def test_a_thread_deleted_while_it_is_written_leaves_nothing(
        self, storage: Storage
    ) -> None:
        require(storage.backend, "atomic")
        await thread_with(storage, messages("t", "ab"))
        outcomes = await asyncio.gather(
            *[storage.save_message(Message(thread_id="t", role="user", content=n)) for n in "cd"],
            storage.delete_thread("t"),
            *[storage.save_message(Message(thread_id="t", role="user", content=n)) for n in "ef"],
            return_exceptions=True,
        )
        assert outcomes[2] is None
        assert all(isinstance(o, (Message, NotFoundError, type(None))) for o in outcomes), outcomes
        assert await storage.get_thread_by_id("t") is None
        assert await storage.get_messages("t") == []
