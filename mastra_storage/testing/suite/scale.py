"""More than a thousand rows, and more than ten thousand."""

from __future__ import annotations

from mastra_storage.records import Include, Message, Thread, Trace
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base, full
from mastra_storage.testing.suite._build import at, contents, ids, messages, thread_with


class ScaleTests(Base):
    @full
    async def test_many_messages_of_a_thread(self, storage: Storage) -> None:
        many = self.many
        batch = messages("t", range(many), step=0)
        await thread_with(storage)
        await storage.save_messages(batch)
        assert await storage.get_messages("t") == batch
        assert contents(await storage.get_messages("t", last=10)) == [*range(many - 10, many)]
        assert len(await storage.get_messages("t", last=many - 1)) == many - 1
        window = [Include(f"m{many // 2}", previous=many, next=many)]
        assert await storage.get_messages("t", last=0, include=window) == batch
        asked = [f"m{n}" for n in reversed(range(many))]
        assert ids(await storage.get_messages_by_id("t", asked)) == asked
        page = await storage.get_messages_paginated("t", page=1, per_page=many - 7)
        assert (contents(page), page.total) == ([*range(many - 7, many)], many)
        await storage.delete_messages("t", asked[: many - 3])
        assert contents(await storage.get_messages("t")) == [0, 1, 2]

    @full
    async def test_cursors_walk_many_messages(self, storage: Storage) -> None:
        await thread_with(storage)
        await storage.save_messages(messages("t", range(self.many), step=0))
        for direction in ("asc", "desc"):
            page = await storage.get_messages_paginated("t", direction=direction, per_page=300)
            walked = contents(page)
            while page.has_more:
                page = await storage.get_messages_paginated(
                    "t", direction=direction, per_page=300, cursor=page.next_cursor, count=False
                )
                walked += contents(page)
            assert walked == sorted(range(self.many), reverse=direction == "desc")

    @full
    async def test_many_threads_of_a_resource(self, storage: Storage) -> None:
        many = self.many
        threads = [
            Thread(id=f"t{n}", resource_id="r", metadata={"n": n % 2}, created_at=at(n))
            for n in range(many)
        ]
        await storage.batch_insert("threads", threads)
        assert await storage.get_threads_by_resource_id("r") == threads[::-1]
        page = await storage.list_threads(resource_id="r", per_page=10, page=many // 10 - 1)
        assert (page.total, ids(page)) == (many, ids(threads[::-1][many - many % 10 - 10 :][:10]))
        odd = await storage.list_threads(metadata={"n": 1}, per_page=None)
        assert (odd.total, len(odd)) == (many // 2, many // 2)
        recent = await storage.list_threads(order_by="updated_at", per_page=3)
        assert ids(recent) == [f"t{many - 1}", f"t{many - 2}", f"t{many - 3}"]

    @full
    async def test_many_traces(self, storage: Storage) -> None:
        many = self.many
        await storage.save_traces(
            [Trace(id=f"x{n}", name=f"n{n % 3}", created_at=at(n % 50)) for n in range(many)]
        )
        whole = await storage.get_traces(per_page=None)
        assert (whole.total, len(set(ids(whole)))) == (many, many)
        assert (await storage.get_traces(per_page=5)).total == many
        found = await storage.get_traces(name="n1", per_page=None)
        expected = [f"x{n}" for n in range(many) if n % 3 == 1]
        assert sorted(ids(found)) == sorted(expected)
        assert [trace.created_at for trace in found] == sorted(
            (trace.created_at for trace in found), reverse=True
        )

    @full
    async def test_deleting_a_thread_of_many_messages(self, storage: Storage) -> None:
        for id in ("t", "t:u"):
            await thread_with(storage, id=id)
            await storage.save_messages(messages(id, range(self.many)))
        await storage.delete_thread("t")
        assert await storage.get_messages("t") == []
        assert (await storage.get_messages_paginated("t:u")).total == self.many

    @full
    async def test_very_many_messages_of_a_thread(self, storage: Storage) -> None:
        many = self.very_many
        await thread_with(storage)
        await storage.save_messages(messages("t", range(many)))
        assert contents(await storage.get_messages("t", last=3)) == [*range(many - 3, many)]
        assert [m.content async for m in storage.iter_messages("t", batch_size=1_000)] == [
            *range(many)
        ]
        page = await storage.get_messages_paginated("t", page=many // 40 - 1, per_page=40)
        assert page.total == many
        assert contents(page) == [*range(many)][(many // 40 - 1) * 40 :][:40]
        found = await storage.get_messages("t", from_date=at(many - 5), to_date=at(many - 2))
        assert contents(found) == [*range(many - 5, many - 1)]
        await storage.save_message(
            Message(id="late", thread_id="t", role="user", content="late", created_at=at(0.5))
        )
        assert contents(await storage.get_messages("t", to_date=at(1))) == [0, "late", 1]
        await storage.delete_thread("t")
        assert (await storage.get_messages_paginated("t")).total == 0
