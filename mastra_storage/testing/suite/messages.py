"""Messages: saving, order, reading."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from mastra_storage.errors import (
    InvalidArgumentError,
    InvalidRecordError,
    NotFoundError,
)
from mastra_storage.records import Message, MessageUpdate
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base, full
from mastra_storage.testing.suite._build import (
    at,
    contents,
    ids,
    messages,
    thread_with,
)


class MessageTests(Base):
    async def test_a_saved_message_reads_back_as_it_was(self, storage: Storage) -> None:
        await thread_with(storage)
        message = Message(
            id="m",
            thread_id="t",
            role="assistant",
            content=[{"type": "tool-call", "args": {"$in": [1, None]}}],
            type="tool",
            resource_id="r",
            metadata={"model": "x"},
            created_at=at(0.000001),
        )
        assert await storage.save_message(message) == message
        assert await storage.get_messages("t") == [message]
        plain = await storage.save_message(Message(thread_id="t", role="user", content="hi"))
        assert await storage.get_messages_by_id("t", [plain.id]) == [plain]
        assert (plain.type, plain.resource_id, plain.metadata) == ("text", None, {})

    async def test_a_batch_is_stored_whole_and_in_order(self, storage: Storage) -> None:
        batch = messages("t", range(5), step=0)
        await thread_with(storage)
        assert await storage.save_messages(batch) == batch
        assert await storage.get_messages("t") == batch

    async def test_an_empty_batch_is_fine(self, storage: Storage) -> None:
        assert await storage.save_messages([]) == []
        await thread_with(storage)
        assert await storage.update_messages("t", []) == []
        await storage.delete_messages("t", [])
        assert await storage.get_messages_by_id("t", []) == []

    async def test_a_batch_may_be_of_several_threads(self, storage: Storage) -> None:
        for id in ("t", "u"):
            await thread_with(storage, id=id)
        first, second = messages("t", "ab"), messages("u", "cd")
        await storage.save_messages([first[0], second[0], first[1], second[1]])
        assert contents(await storage.get_messages("t")) == ["a", "b"]
        assert contents(await storage.get_messages("u")) == ["c", "d"]

    async def test_one_bad_message_refuses_the_whole_batch(self, storage: Storage) -> None:
        await thread_with(storage)
        batch = messages("t", "abc")
        for bad in (
            structs.replace(batch[1], content=float("inf")),
            structs.replace(batch[1], created_at=at().replace(tzinfo=None)),
            structs.replace(batch[1], id=""),
            {"id": "x", "thread_id": "t"},
        ):
            with pytest.raises(InvalidRecordError):
                await storage.save_messages([batch[0], bad, batch[2]])  # type: ignore[list-item]
        assert await storage.get_messages("t") == []

    async def test_saving_to_an_unknown_thread_is_refused(self, storage: Storage) -> None:
        await thread_with(storage)
        with pytest.raises(NotFoundError):
            await storage.save_messages(messages("nobody", "a"))
        with pytest.raises(NotFoundError):
            await storage.save_messages([*messages("t", "a"), *messages("nobody", "b")])
        assert await storage.get_messages("t") == []
        assert await storage.get_messages("nobody") == []

    async def test_messages_come_in_order_of_time_not_of_saving(self, storage: Storage) -> None:
        batch = messages("t", "abcd")
        await thread_with(storage)
        await storage.save_messages([batch[3], batch[1]])
        await storage.save_messages([batch[2], batch[0]])
        assert contents(await storage.get_messages("t")) == ["a", "b", "c", "d"]

    async def test_equal_times_never_mix_two_turns(self, storage: Storage) -> None:
        await thread_with(storage)
        for turn in ("z", "a"):
            await storage.save_messages(
                [
                    Message(id=f"{turn}{n}", thread_id="t", role=role, content=n, created_at=at())
                    for n, role in ((2, "user"), (1, "assistant"))
                ]
            )
        order = ["z2", "z1", "a2", "a1"]
        assert ids(await storage.get_messages("t")) == order
        assert ids(await storage.get_messages("t", last=3)) == order[1:]
        newest_first = await storage.get_messages_paginated("t", direction="desc")
        assert ids(newest_first) == order[::-1]

    @full
    async def test_microseconds_decide_the_order(self, storage: Storage) -> None:
        await thread_with(storage)
        await storage.save_messages(messages("t", "abc", step=-0.000001))
        assert contents(await storage.get_messages("t")) == ["c", "b", "a"]

    async def test_replacing_a_message_keeps_its_place(self, storage: Storage) -> None:
        batch = messages("t", "abc", step=0)
        await thread_with(storage, batch)
        await storage.save_message(structs.replace(batch[0], content="A", metadata={"n": 1}))
        await storage.update_messages("t", [MessageUpdate("m1", content="B")])
        assert contents(await storage.get_messages("t")) == ["A", "B", "c"]

    async def test_a_message_with_a_new_time_moves(self, storage: Storage) -> None:
        batch = messages("t", "abc")
        await thread_with(storage, batch)
        await storage.save_message(structs.replace(batch[0], created_at=at(60)))
        assert contents(await storage.get_messages("t")) == ["b", "c", "a"]
        page = await storage.get_messages_paginated("t")
        assert (contents(page), page.total) == (["b", "c", "a"], 3)

    @full
    async def test_the_last_of_an_id_in_a_batch_counts(self, storage: Storage) -> None:
        batch = messages("t", "abc", step=0)
        await thread_with(storage)
        await storage.save_messages([*batch, structs.replace(batch[0], content="A")])
        assert contents(await storage.get_messages("t")) == ["A", "b", "c"]

    async def test_ids_are_of_their_thread_alone(self, storage: Storage) -> None:
        for id in ("t", "u"):
            await thread_with(storage, messages(id, [id]), id=id)
        await storage.update_messages("t", [MessageUpdate("m0", content="changed")])
        await storage.delete_messages("t", ["m0"])
        assert await storage.get_messages("t") == []
        assert contents(await storage.get_messages("u")) == ["u"]

    async def test_last_gives_the_newest_in_ascending_order(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(5)))
        for last, expected in ((2, [3, 4]), (0, []), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])):
            assert contents(await storage.get_messages("t", last=last)) == expected

    async def test_date_ranges_include_both_ends(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(5)))
        found = await storage.get_messages("t", from_date=at(1), to_date=at(3))
        assert contents(found) == [1, 2, 3]
        assert contents(await storage.get_messages("t", from_date=at(3.000001))) == [4]
        assert contents(await storage.get_messages("t", to_date=at(1), last=1)) == [1]
        page = await storage.get_messages_paginated("t", from_date=at(1), to_date=at(3))
        assert (contents(page), page.total) == ([1, 2, 3], 3)

    async def test_messages_by_id_come_in_the_order_asked(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", "abc"))
        found = await storage.get_messages_by_id("t", ["m2", "nobody", "m0"])
        assert contents(found) == ["c", "a"]
        assert await storage.get_messages_by_id("nobody", ["m0"]) == []

    async def test_unknown_threads_have_no_messages(self, storage: Storage) -> None:
        assert await storage.get_messages("nobody") == []
        page = await storage.get_messages_paginated("nobody")
        assert (page.items, page.total, page.has_more, page.next_cursor) == ([], 0, False, None)
        assert [m async for m in storage.iter_messages("nobody")] == []

    @full
    async def test_iterating_gives_every_message_once(self, storage: Storage) -> None:
        await thread_with(storage, messages("t", range(7), step=0))
        for size in (1, 3, 7, 100):
            forward = [m.content async for m in storage.iter_messages("t", batch_size=size)]
            assert forward == list(range(7))
        back = [m.content async for m in storage.iter_messages("t", direction="desc")]
        assert back == list(range(7))[::-1]

    async def test_message_arguments_are_checked(self, storage: Storage) -> None:
        bad: list[dict[str, Any]] = [
            {"last": -1},
            {"last": 1.0},
            {"last": True},
            {"include": ["m0"]},
            {"resource_id": ""},
            {"from_date": "2024-01-01"},
            {"to_date": at().replace(tzinfo=None)},
        ]
        for arguments in bad:
            with pytest.raises(InvalidArgumentError):
                await storage.get_messages("t", **arguments)
        with pytest.raises(InvalidArgumentError):
            await storage.get_messages("")
        with pytest.raises(InvalidArgumentError):
            await storage.get_messages_paginated("t", direction="newest")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            await storage.get_messages_by_id("t", "m0")
        with pytest.raises(InvalidArgumentError):
            await storage.delete_messages("t", ["m0", ""])
        for size in (0, -1, 0.5):
            with pytest.raises(InvalidArgumentError):
                [m async for m in storage.iter_messages("t", batch_size=size)]  # type: ignore[arg-type]
