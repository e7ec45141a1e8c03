"""Threads: saving, reading, listing, changing, deleting."""

from __future__ import annotations

from datetime import timedelta, timezone
from uuid import UUID

import pytest

from mastra_storage.errors import InvalidArgumentError, NotFoundError
from mastra_storage.records import Message, Thread
from mastra_storage.schema import THREADS
from mastra_storage.storage import Storage
from mastra_storage.testing._waiting import until
from mastra_storage.testing.suite._base import Base
from mastra_storage.testing.suite._build import (
    at,
    contents,
    ids,
    members,
    messages,
    plant,
    thread_with,
)


class ThreadTests(Base):
    async def test_a_saved_thread_reads_back_as_it_was(self, storage: Storage) -> None:
        thread = Thread(
            id="t",
            resource_id="r",
            title="Tïtle",
            metadata={"a": [1, None], "b": {"c": True}},
            created_at=at(0.000001),
            updated_at=at(5),
        )
        assert await storage.save_thread(thread) == thread
        assert await storage.get_thread_by_id("t") == thread

    async def test_a_thread_has_the_defaults_of_the_contract(self, storage: Storage) -> None:
        saved = await storage.save_thread(Thread(resource_id="r"))
        found = await storage.get_thread_by_id(saved.id)
        assert found == saved
        assert UUID(found.id)
        assert (found.title, found.metadata, found.updated_at) == ("", {}, found.created_at)

    async def test_times_come_back_in_utc(self, storage: Storage) -> None:
        local = at().astimezone(timezone(timedelta(hours=5, minutes=30)))
        saved = await thread_with(storage, created_at=local)
        found = await storage.get_thread_by_id("t")
        assert found is not None
        assert saved.created_at == found.created_at == local
        assert found.created_at.utcoffset() == timedelta(0)

    async def test_an_unknown_thread_is_none(self, storage: Storage) -> None:
        assert await storage.get_thread_by_id("nobody") is None
        assert await storage.get_threads_by_resource_id("nobody") == []

    async def test_a_thread_of_another_resource_is_none(self, storage: Storage) -> None:
        thread = await thread_with(storage)
        assert await storage.get_thread_by_id("t", resource_id="r") == thread
        assert await storage.get_thread_by_id("t", resource_id="other") is None

    async def test_saving_replaces_the_whole_thread(self, storage: Storage) -> None:
        await thread_with(storage, title="old", metadata={"old": 1}, resource_id="before")
        new = Thread(id="t", resource_id="r", created_at=at(-10), updated_at=at(60))
        await storage.save_thread(new)
        assert await storage.get_thread_by_id("t") == new
        assert await storage.get_threads_by_resource_id("before") == []
        assert await storage.get_threads_by_resource_id("r") == [new]

    async def test_saving_a_thread_again_keeps_its_messages(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "ab"))
        await thread_with(storage, title="new")
        assert contents(await storage.get_messages("t")) == ["a", "b"]

    async def test_threads_of_a_resource_come_newest_first(self, storage: Storage) -> None:
        for number, owner in enumerate(["r", "other", "r", "r"]):
            await thread_with(storage, id=f"t{number}", resource_id=owner, created_at=at(number))
        assert ids(await storage.get_threads_by_resource_id("r")) == ["t3", "t2", "t0"]

    async def test_threads_of_equal_times_keep_the_order_of_saving(self, storage: Storage) -> None:
        for id in ("b", "c", "a"):
            await thread_with(storage, id=id)
        assert ids(await storage.list_threads(direction="asc")) == ["b", "c", "a"]
        assert ids(await storage.list_threads()) == ["a", "c", "b"]
        await thread_with(storage, id="b", title="replaced")
        assert ids(await storage.list_threads(direction="asc")) == ["b", "c", "a"]

    async def test_threads_are_listed_by_creation_or_last_update(self, storage: Storage) -> None:
        for id, created, updated in (("a", 0, 50), ("b", 1, 2), ("c", 2, 30)):
            await thread_with(storage, id=id, created_at=at(created), updated_at=at(updated))
        listed = {
            (order, direction): ids(await storage.list_threads(order_by=order, direction=direction))
            for order in ("created_at", "updated_at")
            for direction in ("asc", "desc")
        }
        assert listed == {
            ("created_at", "asc"): ["a", "b", "c"],
            ("created_at", "desc"): ["c", "b", "a"],
            ("updated_at", "asc"): ["b", "c", "a"],
            ("updated_at", "desc"): ["a", "c", "b"],
        }

    async def test_a_message_moves_its_thread_up_in_the_list(self, storage: Storage) -> None:
        for id in ("a", "b"):
            await thread_with(storage, id=id, created_at=at(0 if id == "a" else 1))
        await storage.save_message(Message(thread_id="a", role="user", content="hi"))
        listed = await until(
            lambda: storage.list_threads(order_by="updated_at"),
            lambda page: ids(page) == ["a", "b"],
            self.touch_delay,
        )
        assert ids(listed) == ["a", "b"]

    async def test_threads_are_filtered_by_metadata(self, storage: Storage) -> None:
        for id, metadata in (
            ("a", {"tag": "x", "n": 1}),
            ("b", {"tag": "x", "n": True}),
            ("c", {"tag": "y", "n": 1}),
            ("d", {}),
        ):
            await thread_with(storage, id=id, metadata=metadata, created_at=at(ord(id)))
        page = await storage.list_threads(metadata={"tag": "x"})
        assert (ids(page), page.total) == (["b", "a"], 2)
        assert ids(await storage.list_threads(metadata={"tag": "x", "n": 1})) == ["a"]
        assert ids(await storage.list_threads(metadata={"missing": None})) == []
        first = await storage.list_threads(metadata={"n": 1}, per_page=1)
        assert (ids(first), first.total, first.has_more) == (["c"], 2, True)
        second = await storage.list_threads(metadata={"n": 1}, per_page=1, cursor=first.next_cursor)
        assert (ids(second), second.total, second.has_more) == (["a"], 2, False)
        assert ids(await storage.list_threads(metadata={"n": 1}, per_page=1, page=1)) == ["a"]
        assert len(await storage.list_threads(metadata={})) == 4

    async def test_update_thread_changes_what_is_given(self, storage: Storage) -> None:
        old = await thread_with(storage, title="old", metadata={"keep": 1, "deep": {"a": 1}})
        new = await storage.update_thread("t", title="new", metadata={"deep": {"b": 2}})
        assert (new.title, new.metadata) == ("new", {"keep": 1, "deep": {"b": 2}})
        assert (new.created_at, new.resource_id) == (old.created_at, "r")
        assert new.updated_at > old.updated_at
        assert await storage.get_thread_by_id("t") == new
        again = await storage.update_thread("t", metadata={"keep": None})
        assert (again.title, again.metadata) == ("new", {"keep": None, "deep": {"b": 2}})

    async def test_update_thread_keeps_members_it_does_not_know(self, storage: Storage) -> None:
        await thread_with(storage)
        await plant(storage.backend, THREADS, ("t",), colour={"hue": 1.0})
        await storage.update_thread("t", title="new")
        kept = await members(storage.backend, THREADS, "t")
        assert (kept["colour"], kept["title"]) == ({"hue": 1.0}, "new")

    async def test_update_thread_never_moves_updated_at_back(self, storage: Storage) -> None:
        ahead = at(100 * 365 * 86_400)
        await thread_with(storage, updated_at=ahead)
        assert (await storage.update_thread("t", title="new")).updated_at == ahead

    async def test_an_unknown_thread_is_neither_updated_nor_deleted(self, storage: Storage) -> None:
        with pytest.raises(NotFoundError):
            await storage.update_thread("nobody", title="x")
        with pytest.raises(NotFoundError):
            await storage.delete_thread("nobody")

    async def test_deleting_a_thread_takes_its_messages_along(self, storage: Storage) -> None:
        others = ["a:b", "a/b", "aa"]
        for id in ["a", *others]:
            await thread_with(storage, messages(id, [id]), id=id)
        await storage.delete_thread("a")
        assert await storage.get_thread_by_id("a") is None
        assert await storage.get_messages("a") == []
        assert await storage.get_messages_by_id("a", ["m0"]) == []
        for id in others:
            assert contents(await storage.get_messages(id)) == [id]

    async def test_a_deleted_thread_starts_anew(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "ab"))
        await storage.delete_thread("t")
        with pytest.raises(NotFoundError):
            await storage.save_message(Message(thread_id="t", role="user", content="late"))
        with pytest.raises(NotFoundError):
            await storage.delete_thread("t")
        thread = await thread_with(storage)
        assert await storage.get_messages("t") == []
        assert await storage.get_thread_by_id("t") == thread

    async def test_thread_arguments_are_checked(self, storage: Storage) -> None:
        for bad in ("", 42, None, b"t", "x" * 257):
            with pytest.raises(InvalidArgumentError):
                await storage.get_thread_by_id(bad)  # type: ignore[arg-type]
            with pytest.raises(InvalidArgumentError):
                await storage.delete_thread(bad)  # type: ignore[arg-type]
        for arguments in (
            {"order_by": "title"},
            {"direction": "up"},
            {"resource_id": ""},
            {"metadata": {"n": float("nan")}},
        ):
            with pytest.raises(InvalidArgumentError):
                await storage.list_threads(**arguments)
        with pytest.raises(InvalidArgumentError):
            await storage.get_thread_by_id("t", resource_id="")
        await thread_with(storage)
        with pytest.raises(InvalidArgumentError):
            await storage.update_thread("t", title=1)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            await storage.update_thread("t", metadata={"x": {1, 2}})
