"""Messages: changing, moving, deleting, and what that does to their thread."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from mastra_storage.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
)
from mastra_storage.records import MessageUpdate, Thread
from mastra_storage.schema import MESSAGES
from mastra_storage.storage import Storage
from mastra_storage.testing._waiting import until
from mastra_storage.testing.suite._base import Base, full
from mastra_storage.testing.suite._build import (
    at,
    contents,
    ids,
    members,
    messages,
    plant,
    thread_with,
)


class MessageChangeTests(Base):
    async def updated_since(self, storage: Storage, before: Thread) -> Thread | None:
        """The thread once its `updated_at` has moved, which may take a while."""
        return await until(
            lambda: storage.get_thread_by_id(before.id),
            lambda thread: thread is not None and thread.updated_at > before.updated_at,
            self.touch_delay,
        )

    async def test_update_messages_changes_what_is_given(self, storage: Storage) -> None:
        batch = messages("t", "abc")
        batch[1].metadata = {"keep": 1, "deep": {"a": 1}}
        await thread_with(storage, batch)
        changes = [
            MessageUpdate("m1", content=None, metadata={"deep": {"b": 2}}),
            MessageUpdate("nobody", content="x"),
            MessageUpdate("m0", role="system"),
        ]
        found = await storage.update_messages("t", changes)
        assert ids(found) == ["m1", "m0"]
        batch[1] = structs.replace(batch[1], content=None, metadata={"keep": 1, "deep": {"b": 2}})
        batch[0] = structs.replace(batch[0], role="system")
        assert found == [batch[1], batch[0]]
        assert await storage.get_messages("t") == batch

    async def test_update_messages_keeps_members_it_does_not_know(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "a"))
        await plant(storage.backend, MESSAGES, ("t", "m0"), reactions=[10**30])
        await storage.update_messages("t", [MessageUpdate("m0", content="b")])
        kept = await members(storage.backend, MESSAGES, "t", "m0")
        assert (kept["reactions"], kept["content"]) == ([10**30], "b")

    @full
    async def test_updates_are_checked_whole(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "ab"))
        bad: list[Any] = [
            MessageUpdate("m1", content={1}),
            MessageUpdate("", content="x"),
            MessageUpdate("m1", role=1),  # type: ignore[arg-type]
            MessageUpdate("m1", thread_id=""),
            {"id": "m1"},
        ]
        for update in bad:
            with pytest.raises(InvalidArgumentError):
                await storage.update_messages("t", [MessageUpdate("m0", content="x"), update])
        assert contents(await storage.get_messages("t")) == ["a", "b"]

    async def test_updating_in_an_unknown_thread_is_silent(self, storage: Storage) -> None:
        assert await storage.update_messages("nobody", [MessageUpdate("m0", role="user")]) == []
        await storage.delete_messages("nobody", ["m0"])

    async def test_an_update_moves_a_message_to_another_thread(self, storage: Storage) -> None:
        batch = messages("t", "abc")
        await thread_with(storage, batch)
        await thread_with(storage, id="u")
        [moved] = await storage.update_messages("t", [MessageUpdate("m1", thread_id="u")])
        assert moved == structs.replace(batch[1], thread_id="u")
        assert await storage.get_messages("u") == [moved]
        assert contents(await storage.get_messages("t")) == ["a", "c"]

    async def test_a_move_needs_a_thread_and_a_free_id(self, storage: Storage) -> None:
        for id in ("t", "u"):
            await thread_with(storage, messages(id, [id]), id=id)
        with pytest.raises(NotFoundError):
            await storage.update_messages("t", [MessageUpdate("m0", thread_id="nobody")])
        with pytest.raises(ConflictError):
            await storage.update_messages("t", [MessageUpdate("m0", thread_id="u")])
        assert contents(await storage.get_messages("t")) == ["t"]
        assert contents(await storage.get_messages("u")) == ["u"]

    @full
    async def test_moving_a_message_to_its_own_thread_changes_nothing(
        self, storage: Storage
    ) -> None:
        batch = messages("t", "ab", step=0)
        await thread_with(storage, batch)
        await storage.update_messages("t", [MessageUpdate("m0", thread_id="t")])
        assert await storage.get_messages("t") == batch

    async def test_delete_messages_deletes_those_alone(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "abcd"))
        await storage.delete_messages("t", ["m1", "nobody", "m3", "m1"])
        assert contents(await storage.get_messages("t")) == ["a", "c"]
        page = await storage.get_messages_paginated("t")
        assert page.total == 2
        assert await storage.get_messages_by_id("t", ["m1", "m3"]) == []

    async def test_every_change_of_messages_moves_updated_at(self, storage: Storage) -> None:
        before = await thread_with(storage)
        changes = (
            lambda: storage.save_messages(messages("t", "ab")),
            lambda: storage.update_messages("t", [MessageUpdate("m0", content="A")]),
            lambda: storage.delete_messages("t", ["m1"]),
        )
        for change in changes:
            await change()
            after = await self.updated_since(storage, before)
            assert after is not None
            assert after.updated_at > before.updated_at
            assert structs.replace(after, updated_at=before.updated_at) == before
            before = after

    @full
    async def test_a_move_moves_updated_at_of_both_threads(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "a"))
        await thread_with(storage, id="u")
        before = [await thread_with(storage, id=id, updated_at=at(1)) for id in ("t", "u")]
        await storage.update_messages("t", [MessageUpdate("m0", thread_id="u")])
        for thread in before:
            after = await self.updated_since(storage, thread)
            assert after is not None
            assert after.updated_at > thread.updated_at

    async def test_updated_at_never_moves_back(self, storage: Storage) -> None:
        ahead = at(100 * 365 * 86_400)
        await thread_with(storage, messages("t", "a"), updated_at=ahead)
        thread = await storage.get_thread_by_id("t")
        assert thread is not None
        assert thread.updated_at == ahead
        assert ids(await storage.list_threads(order_by="updated_at")) == ["t"]
