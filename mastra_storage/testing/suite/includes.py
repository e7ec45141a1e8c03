"""Include windows, and who may read what."""

from __future__ import annotations

import pytest

from mastra_storage.errors import InvalidArgumentError
from mastra_storage.records import Include, Message
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base, full
from mastra_storage.testing.suite._build import at, contents, messages, thread_with


class IncludeTests(Base):
    async def test_include_alone_gives_its_window(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(7)))
        found = await storage.get_messages("t", last=0, include=[Include("m4", previous=2, next=1)])
        assert contents(found) == [2, 3, 4, 5]
        found = await storage.get_messages("t", last=0, include=[Include("m0", previous=9)])
        assert contents(found) == [0]

    @full
    async def test_windows_are_merged_and_in_order(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(8), step=0))
        found = await storage.get_messages(
            "t",
            last=2,
            include=[Include("m6", previous=1), Include("m1", next=1), Include("m2", previous=2)],
        )
        assert contents(found) == [0, 1, 2, 5, 6, 7]

    async def test_a_window_is_of_its_targets_own_thread(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(3)))
        await thread_with(storage, messages("u", "abc", start=0.5), id="u")
        found = await storage.get_messages(
            "t", last=2, include=[Include("m1", thread_id="u", previous=1)]
        )
        assert contents(found) == ["a", 1, "b", 2]

    @full
    async def test_an_unknown_target_is_left_out(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(3)))
        windows = [Include("nobody", previous=2), Include("m0", thread_id="nobody", next=2)]
        assert contents(await storage.get_messages("t", last=1, include=windows)) == [2]
        assert await storage.get_messages("nobody", include=[Include("m0")]) == []

    @full
    async def test_dates_do_not_limit_windows(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(5)))
        found = await storage.get_messages("t", from_date=at(4), include=[Include("m1", next=1)])
        assert contents(found) == [1, 2, 4]

    async def test_include_is_checked(self, storage: Storage) -> None:
        for bad in (
            Include(""),
            Include("m0", previous=-1),
            Include("m0", next=0.5),  # type: ignore[arg-type]
            Include("m0", thread_id=7),  # type: ignore[arg-type]
        ):
            with pytest.raises(InvalidArgumentError):
                await storage.get_messages("t", include=[bad])

    async def test_a_thread_of_another_resource_gives_nothing(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(3)))
        assert len(await storage.get_messages("t", resource_id="r")) == 3
        assert await storage.get_messages("t", resource_id="other") == []
        window = [Include("m0", next=1)]
        assert await storage.get_messages("t", resource_id="other", include=window) == []
        page = await storage.get_messages_paginated("t", resource_id="other")
        assert (page.items, page.total, page.has_more) == ([], 0, False)
        assert await storage.get_messages("nobody", resource_id="r") == []

    async def test_a_message_of_another_resource_is_left_out(self, storage: Storage) -> None:
        batch = messages("t", range(5))
        for number, owner in ((1, "r"), (2, "other"), (4, "other")):
            batch[number].resource_id = owner
        await thread_with(storage, batch)
        assert contents(await storage.get_messages("t", resource_id="r")) == [0, 1, 3]
        assert contents(await storage.get_messages("t", resource_id="r", last=2)) == [1, 3]
        page = await storage.get_messages_paginated("t", resource_id="r", per_page=2)
        assert (contents(page), page.total, page.has_more) == ([0, 1], 3, True)
        windows = [Include("m2"), Include("m3", previous=1, next=1)]
        found = await storage.get_messages("t", resource_id="r", last=0, include=windows)
        assert contents(found) == [1, 3]
        assert await storage.get_messages("t", resource_id="other") == []

    @full
    async def test_windows_of_other_threads_are_checked_too(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "a"))
        await thread_with(storage, messages("mine", "b"), id="mine")
        await thread_with(storage, messages("theirs", "c"), id="theirs", resource_id="other")
        windows = [Include("m0", thread_id="mine"), Include("m0", thread_id="theirs")]
        found = await storage.get_messages("t", resource_id="r", include=windows)
        assert sorted(contents(found)) == ["a", "b"]
        found = await storage.get_messages("t", include=windows)
        assert sorted(contents(found)) == ["a", "b", "c"]

    @full
    async def test_access_follows_a_thread_to_its_new_resource(self, storage: Storage) -> None:
        await thread_with(storage)
        await storage.save_message(Message(thread_id="t", role="user", content="hi"))
        await thread_with(storage, resource_id="heir")
        assert contents(await storage.get_messages("t", resource_id="heir")) == ["hi"]
        assert await storage.get_messages("t", resource_id="r") == []
