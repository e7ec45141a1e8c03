"""Writes: whole or not at all, of many at once, in parts past Convex's limits, and deletions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

import pytest
from convex_calls import WRITE, cost_at, ids, message, messages
from convex_server import ConvexServer
from convex_stores import convex_store

from mastra_storage import (
    ABSENT,
    MESSAGES,
    THREADS,
    TRACES,
    ConflictError,
    DeletePrefix,
    Include,
    Message,
    MessageUpdate,
    NotFoundError,
    PartialWriteError,
    Put,
    Query,
    Row,
    Storage,
    StorageError,
    Table,
    Thread,
    TooLargeError,
    Touch,
    Trace,
    UnavailableError,
)

pytestmark = pytest.mark.once

MANY = 1_500  # more than one mutation deletes
OWN = Table(name="own_rows", key=("id",), fields=("owner",), ordered=(0,))


@pytest.fixture
async def store(convex: ConvexServer) -> AsyncIterator[Storage]:
    """A store with a thread "t"."""
    async with convex_store(convex) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        yield storage


@pytest.fixture
async def other(convex: ConvexServer, store: Storage) -> AsyncIterator[Storage]:
    """Another store on the same deployment."""
    async with convex_store(convex) as storage:
        yield storage


async def documents(server: ConvexServer, table: str) -> int:
    """How many documents a table of the deployment has, hidden ones among them."""
    found: int = (await server.control())["documents"].get(table, 0)
    return found


def row(id: str, *, seq: int = 0, **members: Any) -> Row:
    defaults: dict[str, Any] = {"fields": {}, "updated": 1, "version": f"v{id}", "value": b"{}"}
    return Row(table=OWN, key=(id,), order=1, seq=seq, **defaults | members)


class TestManyAtOnce:
    async def test_updates_of_different_members_are_all_kept(
        self, convex: ConvexServer, store: Storage, other: Storage
    ) -> None:
        async with cost_at(convex) as cost:
            await asyncio.gather(
                *[
                    (store, other)[n % 2].update_thread("t", metadata={f"key{n}": n})
                    for n in range(50)
                ]
            )
        found = await store.get_thread_by_id("t")
        assert found is not None
        assert found.metadata == {f"key{n}": n for n in range(50)}
        assert found == await other.get_thread_by_id("t")
        assert len(cost) <= 4 * 50

    async def test_saves_of_two_stores_are_kept_once_and_in_order(
        self, store: Storage, other: Storage
    ) -> None:
        batch = messages(400)
        await asyncio.gather(
            *[(store, other)[n % 2].save_message(each) for n, each in enumerate(batch)]
        )
        expected = sorted(batch, key=lambda each: each.created_at)
        for storage in (store, other):
            assert await storage.get_messages("t") == expected
            assert await storage.get_messages("t", last=400) == expected

    async def test_saves_of_one_moment_keep_the_order_of_each_store(
        self, store: Storage, other: Storage
    ) -> None:
        now = datetime(2025, 1, 1, tzinfo=timezone.utc)
        batch = [message(f"{n % 2}/{n:03}", created_at=now) for n in range(400)]
        await asyncio.gather(
            *[(store, other)[n % 2].save_message(each) for n, each in enumerate(batch)]
        )
        found = ids(await store.get_messages("t"))
        assert sorted(found) == sorted(ids(batch))
        for who in "01":
            own = [each for each in found if each.startswith(who)]
            assert own == sorted(own)
        assert found == ids(await other.get_messages("t"))

    async def test_a_call_that_fails_fails_alone(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        batch = messages(60)
        for number, each in enumerate(batch):
            each.thread_id = ("t", "nowhere", "t")[number % 3]
        async with cost_at(convex) as cost:
            found = await asyncio.gather(
                *[store.save_message(each) for each in batch], return_exceptions=True
            )
        assert len(cost) <= 5
        failed = [each for each in found if isinstance(each, NotFoundError)]
        saved = [each for each in found if isinstance(each, Message)]
        assert (len(failed), len(saved)) == (20, 40)
        assert await store.get_messages("t") == saved
        assert await store.get_messages("nowhere") == []

    async def test_readers_see_a_batch_whole(self, store: Storage, other: Storage) -> None:
        async def save() -> None:
            for number in range(0, 500, 50):
                await store.save_messages(messages(50, start=number))

        saving = asyncio.ensure_future(save())
        seen = set()
        while not saving.done():
            seen.add(len(await other.get_messages("t")))
        await saving
        assert len(seen) > 1
        assert {count % 50 for count in seen} == {0}


ROWS = [
    THREADS.row(Thread(id="new", resource_id="r"), seq=1, version="v1"),
    MESSAGES.row(message("m", "new"), seq=2, version="v2"),
    TRACES.row(Trace(id="x"), seq=3, version="v3"),
    row("own"),
]
REFUSED: dict[type[StorageError], Any] = {
    NotFoundError: Touch(THREADS, ("nowhere",), 1),
    ConflictError: Put(row("absent"), if_version="another"),
}


class TestAtomicity:
    async def stored(self, storage: Storage) -> list[Row | None]:
        return [found for row in ROWS for found in await storage.backend.get(row.table, [row.key])]

    @pytest.mark.parametrize("place", [0, 2, 4])
    @pytest.mark.parametrize("error", REFUSED)
    async def test_a_write_across_tables_happens_wholly_or_not(
        self, store: Storage, place: int, error: type[StorageError]
    ) -> None:
        ops: list[Any] = [Put(row) for row in ROWS]
        ops.insert(place, REFUSED[error])
        with pytest.raises(error):
            await store.backend.write(ops)
        assert await self.stored(store) == [None] * 4
        assert await store.backend.get(OWN, [("absent",)]) == [None]
        ops.remove(REFUSED[error])
        await store.backend.write(ops)
        assert await self.stored(store) == ROWS

    async def test_a_move_and_its_threads_are_one_write(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        await store.save_thread(Thread(id="u", resource_id="r"))
        await store.save_messages(messages(3))
        before = await asyncio.gather(*map(store.get_thread_by_id, "tu"))
        async with cost_at(convex) as cost:
            await store.update_messages("t", [MessageUpdate("m1", thread_id="u", role="tool")])
        assert cost.labels.count(WRITE) == 1
        assert ids(await store.get_messages("t")) == ["m0", "m2"]
        assert [each.role for each in await store.get_messages("u")] == ["tool"]
        after = await asyncio.gather(*map(store.get_thread_by_id, "tu"))
        for old, new in zip(before, after, strict=True):
            assert old is not None
            assert new is not None
            assert new.updated_at > old.updated_at

    async def test_a_batch_of_2000_happens_wholly_or_not(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        assert store.capabilities.max_atomic_rows == 2_000
        puts: list[Any] = [Put(row(f"{n:04}", seq=n)) for n in range(2_000)]
        for refused in REFUSED.values():
            with pytest.raises((NotFoundError, ConflictError)):
                await store.backend.write([*puts[:-1], refused])
        assert await documents(convex, "documents") == 0
        async with cost_at(convex) as cost:
            await store.backend.write(puts)
        assert cost.labels == [WRITE]
        found = await store.backend.query(Query(table=OWN))
        assert found.rows == [put.row for put in puts]

    async def test_a_thread_and_1999_messages_are_one_mutation(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        batch = messages(1_999)
        async with cost_at(convex) as cost:
            await store.save_messages(batch)
        assert cost.labels == [WRITE]
        assert await store.get_messages("t") == batch
        async with cost_at(convex) as cost:
            updates = [MessageUpdate(each.id, role="tool") for each in batch]
            assert len(await store.update_messages("t", updates)) == 1_999
        assert cost.labels == ["query messages:get"] * 2 + [WRITE]
        assert {each.role for each in await store.get_messages("t")} == {"tool"}


class TestParts:
    """What is more than a transaction may be."""

    async def test_a_larger_batch_is_stored_in_parts(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        batch = messages(2_500)
        async with cost_at(convex) as cost:
            await store.save_messages(batch)
        assert cost.labels == [WRITE] * 2
        assert await store.get_messages("t") == batch

    async def test_many_are_moved_and_deleted_in_parts(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        await store.save_thread(Thread(id="u", resource_id="r"))
        batch = await store.save_messages(messages(1_500))
        async with cost_at(convex) as cost:
            await convex.control(
                faults=[{"kind": "drop", "when": "after", "match": "system:write", "skip": 1}]
            )
            await store.update_messages("t", [MessageUpdate(m.id, thread_id="u") for m in batch])
        assert cost.labels.count(WRITE) == 3
        assert await store.get_messages("t") == []
        moved = await store.get_messages("u")
        assert ids(moved) == ids(batch)
        await store.delete_messages("u", [*ids(batch), *(f"x{n}" for n in range(1_000))])
        assert await store.get_messages("u") == []
        assert await documents(convex, "messages") == 0

    async def test_a_large_write_that_fails_for_a_hidden_reason_is_stored_in_parts(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        await convex.control(reset=True, faults=[{"kind": "error", "match": "system:write"}])
        batch = messages(500)
        await store.save_messages(batch)
        assert (await convex.counts())[WRITE] == 2
        assert await store.get_messages("t") == batch

    async def test_a_part_that_fails_is_named(self, convex: ConvexServer, store: Storage) -> None:
        batch = messages(2_500)
        refusal = {"kind": "status", "status": 400, "match": "system:write", "skip": 1}
        await convex.control(faults=[refusal])
        with pytest.raises(PartialWriteError) as caught:
            await store.save_messages(batch)
        assert caught.value.retryable
        assert (caught.value.backend, caught.value.operation) == ("convex", "save_messages")
        stored = ids(await store.get_messages("t"))
        assert stored == ids(batch)[: len(stored)]
        assert 0 < len(stored) < 2_000
        left = ids(batch)[len(stored) :]
        assert caught.value.failed == [("messages", ("t", each)) for each in left]
        await store.save_messages(batch)
        assert await store.get_messages("t") == batch

    async def test_a_first_part_that_fails_has_stored_nothing(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        await convex.control(faults=[{"kind": "status", "status": 400, "match": "system:write"}])
        with pytest.raises(StorageError) as caught:
            await store.save_messages(messages(2_500))
        assert not isinstance(caught.value, PartialWriteError)
        with pytest.raises(NotFoundError):
            await store.save_messages(messages(2_500, "nowhere"))
        assert await documents(convex, "messages") == 0

    async def test_a_reply_that_is_lost_between_parts(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        lost = {"kind": "drop", "when": "after", "match": "system:write", "times": 1}
        await convex.control(reset=True, faults=[lost, lost | {"skip": 1}])
        batch = messages(2_500)
        await store.save_messages(batch)
        assert await convex.counts() == {WRITE: 4}
        assert await store.get_messages("t") == batch

    async def test_a_thread_that_is_deleted_between_parts_gets_no_message(
        self, convex: ConvexServer, store: Storage, other: Storage
    ) -> None:
        slow = {"kind": "delay", "ms": 1_000, "match": "system:write", "skip": 1}
        await convex.control(reset=True, faults=[slow])
        saving = asyncio.ensure_future(store.save_messages(messages(2_500)))
        async with asyncio.timeout(5):
            while (await convex.counts()).get(WRITE) != 2:
                pass
        await other.delete_thread("t")
        with pytest.raises(PartialWriteError) as caught:
            await saving
        assert ("threads", ("t",)) not in caught.value.failed
        await other.save_thread(Thread(id="t", resource_id="r"))
        assert await other.get_messages("t") == []

    @pytest.mark.parametrize("redact", [False, True])
    async def test_a_row_that_no_document_holds_is_told_by_its_size(
        self, convex: ConvexServer, store: Storage, redact: bool
    ) -> None:
        await convex.control(redact=redact)
        outcomes = []
        for less in range(140, 601, 20):
            value = b'"%b"' % (b"x" * (2**20 - less))
            try:
                await store.backend.write([Put(row("k", value=value))])
            except TooLargeError:
                outcomes.append("refused")
            else:
                outcomes.append("stored")
        assert outcomes == sorted(outcomes)
        assert set(outcomes) == {"refused", "stored"}

    async def test_records_near_the_limit(self, convex: ConvexServer, store: Storage) -> None:
        batch = [message(f"m{n}", content=f"{n:02}" + "\u00e9" * 495_000) for n in range(20)]
        async with cost_at(convex) as cost:
            await store.save_messages(batch)
        assert max(entry["bytesIn"] for entry in cost) < 16 * 2**20
        async with cost_at(convex) as cost:
            found = await store.get_messages("t")
        assert found == batch
        assert max(entry["bytesOut"] for entry in cost) < 16 * 2**20
        assert await store.get_messages("t", last=3) == batch[-3:]
        assert await store.get_messages_by_id("t", ids(batch)) == batch
        async with cost_at(convex) as cost:
            await store.save_messages(batch[:6])  # over those that are there
            await store.delete_messages("t", ids(batch[:6]))
        assert cost.labels == [WRITE] * 2
        assert await store.get_messages("t") == batch[6:]
        await store.delete_messages("t", ids(batch))  # more than a transaction can read
        assert await store.get_messages("t") == []

    @pytest.mark.parametrize("content", ["x" * 1_000_000, '"' * 500_000, ["\u2028"] * 200_000])
    async def test_a_record_past_the_limit_is_refused(
        self, convex: ConvexServer, store: Storage, content: Any
    ) -> None:
        assert store.capabilities.max_record_bytes == 1_000_000
        await convex.reset(clear=False)
        with pytest.raises(TooLargeError, match="keep large content elsewhere") as caught:
            await store.save_messages([message("m0"), message("m1", content=content)])
        assert not caught.value.retryable
        assert await convex.counts() == {}
        assert await store.get_messages("t") == []

    async def test_rows_that_only_their_request_makes_large_are_replaced(
        self, store: Storage
    ) -> None:
        # With each quote escaped twice a row is of more than 1 MiB in a request, and the rows that
        # are replaced are, all together, more than one transaction may read.
        first, second = (
            [message(f"m{number}", content='say "hi"\n' * 80_000 + end) for number in range(10)]
            for end in ("", "!")
        )
        for batch in (first, second):
            await store.save_messages(batch)
            assert await store.get_messages("t") == batch

    async def test_what_fields_make_too_large_is_refused_alone(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        large = row("large", value=b'"%b"' % (b"x" * 900_000), fields={"owner": "y" * 200_000})
        outcomes = await asyncio.gather(
            store.backend.write([Put(row("a"))]),
            store.backend.write([Put(row("b")), Put(large)]),
            store.backend.write([Put(row("c"))]),
            store.save_message(message("m")),
            return_exceptions=True,
        )
        assert isinstance(outcomes[1], TooLargeError)
        assert "large" in str(outcomes[1])
        assert [type(each) for each in (*outcomes[:1], *outcomes[2:])] == [
            type(None),
            type(None),
            Message,
        ]
        keys = [("a",), ("b",), ("c",), ("large",)]
        found = await store.backend.get(OWN, keys)
        assert [each and each.key for each in found] == [("a",), None, ("c",), None]


class TestDeleting:
    @pytest.fixture
    async def held(self, convex: ConvexServer, store: Storage, other: Storage) -> ConvexServer:
        """The server with many messages in "t", one in "u", and scheduled functions held."""
        await store.save_thread(Thread(id="u", resource_id="r"))
        await store.save_messages(messages(MANY))
        await store.save_messages([message("m0", "u")])
        await convex.control(holdScheduled=True)
        return convex

    async def released(self, server: ConvexServer) -> None:
        """Let scheduled functions run, to the last."""
        await server.control(holdScheduled=False)
        await server.control(settle=True)

    async def test_a_thread_is_gone_at_once(
        self, held: ConvexServer, store: Storage, other: Storage
    ) -> None:
        await store.save_messages(messages(5_000 - MANY, start=MANY))
        async with cost_at(held) as cost:
            await held.control(holdScheduled=True)
            await store.delete_thread("t")
        assert cost.labels == [WRITE]
        assert cost.documents < 1_100
        assert await documents(held, "messages") == 5_001
        for storage in (store, other):
            assert await storage.get_thread_by_id("t") is None
            assert await storage.get_messages("t") == []
            assert await storage.get_messages("t", last=10) == []
            assert await storage.get_messages_by_id("t", ["m0", "m4999"]) == []
            assert (await storage.get_messages_paginated("t")).total == 0
            assert [each async for each in storage.iter_messages("t")] == []
            around = [Include("m1", thread_id="t", previous=5, next=5)]
            assert ids(await storage.get_messages("u", include=around)) == ["m0"]
            assert await storage.update_messages("t", [MessageUpdate("m1", content="x")]) == []
            assert ids(await storage.list_threads()) == ["u"]
            with pytest.raises(NotFoundError):
                await storage.save_message(message("new"))
            with pytest.raises(NotFoundError):
                await storage.delete_thread("t")
        assert await documents(held, "messages") == 5_001
        await held.control(reset=True)
        await held.control(settle=True)
        steps = [each for each in await held.log() if each["label"].startswith("scheduled")]
        assert len(steps) > 5
        for step in steps:
            assert "error" not in step
            assert step["documentsWritten"] <= 1_001
            assert step["documentsRead"] <= 2_010
        assert await documents(held, "messages") == 1
        assert await documents(held, "purges") == 0
        assert ids(await store.get_messages("u")) == ["m0"]

    async def test_a_thread_that_is_made_anew_meanwhile_begins_empty(
        self, held: ConvexServer, store: Storage, other: Storage
    ) -> None:
        await store.delete_thread("t")
        await other.save_thread(Thread(id="t", resource_id="r"))
        assert await other.get_messages("t") == []
        new = [message("m1", content="new"), message("zz", content="new"), message("m1400")]
        await other.save_messages(new)
        await other.update_messages("t", [MessageUpdate("m1400", content="newer")])
        await store.update_messages("u", [MessageUpdate("m0", thread_id="t")])
        expected = ["m0", "m1", "zz", "m1400"]
        for storage in (store, other):
            assert sorted(ids(await storage.get_messages("t"))) == sorted(expected)
        before = await store.get_messages("t")
        await self.released(held)
        for storage in (store, other):
            assert await storage.get_messages("t") == before
            assert (await storage.get_messages_paginated("t")).total == 4
        assert await documents(held, "messages") == 4
        assert await documents(held, "purges") == 0

    async def test_a_thread_that_is_deleted_again_meanwhile(
        self, held: ConvexServer, store: Storage
    ) -> None:
        await store.delete_thread("t")
        for again in range(2):
            await store.save_thread(Thread(id="t", resource_id="r"))
            await store.save_messages(messages(1_100, start=500 * again))
            await store.delete_thread("t")
            assert await store.get_messages("t") == []
        await store.save_thread(Thread(id="t", resource_id="r"))
        last = await store.save_messages(messages(3, start=1_400))
        assert await store.get_messages("t") == last
        await self.released(held)
        assert await store.get_messages("t") == last
        assert await documents(held, "messages") == 4
        assert await documents(held, "purges") == 0

    async def test_a_table_is_empty_at_once(
        self, held: ConvexServer, store: Storage, other: Storage
    ) -> None:
        assert "messages" in await store.backend.tables()
        await store.clear_table("messages")
        assert await documents(held, "messages") == MANY + 1
        for storage in (store, other):
            assert await storage.get_messages("t") == []
            assert await storage.get_messages("u") == []
            assert await storage.backend.tables() == ["threads"]
        assert ids(await other.list_threads(direction="asc")) == ["t", "u"]
        new = await other.save_messages([message("m0", "u", content="new"), message("m7")])
        await self.released(held)
        assert [*await store.get_messages("u"), *await store.get_messages("t")] == new
        assert await documents(held, "messages") == 2
        await store.clear_table("messages")
        assert await store.backend.tables() == ["threads"]

    async def test_more_deletions_than_a_table_holds_wait(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        await self.begin_100(convex, store)
        async with convex_store(convex, timeout=1.5) as impatient:
            with pytest.raises(UnavailableError, match="too many deletions") as caught:
                await impatient.delete_thread("t")
            assert caught.value.retryable
        assert len(await store.get_messages("t")) == 1_200
        deleting = asyncio.ensure_future(store.delete_thread("t"))
        _, waiting = await asyncio.wait([deleting], timeout=0.5)
        assert waiting
        await store.save_thread(Thread(id="meanwhile", resource_id="r"))
        await convex.control(holdScheduled=False)
        await deleting
        await convex.control(settle=True)
        assert await documents(convex, "messages") == 0
        assert await documents(convex, "purges") == 0
        assert ids(await store.list_threads()) == ["meanwhile"]

    async def begin_100(self, convex: ConvexServer, store: Storage) -> None:
        """Have 100 deletions under way, which wait, beside "t" with 1,200 messages."""
        await store.save_thread(Thread(id="first", resource_id="r"))
        await store.save_messages(messages(1_000, "first"))  # all that one mutation deletes itself
        few = [f"few{n}" for n in range(100)]
        await store.batch_insert("messages", [message("m", each) for each in few])
        await store.save_messages(messages(1_200))
        await convex.control(holdScheduled=True)
        await store.backend.write([DeletePrefix(MESSAGES, (each,)) for each in ["first", *few]])
        await store.delete_thread("first")
        assert await documents(convex, "purges") == 100

    async def lose_steps(self, convex: ConvexServer) -> None:
        """Let what is scheduled come when there are no functions."""
        await convex.control(functions="none")
        await convex.control(holdScheduled=False)
        await convex.control(settle=True)
        await convex.control(functions="default")

    async def test_a_deletion_of_which_a_step_was_lost_goes_on_with_a_later_one(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        await store.save_messages(messages(MANY))
        await convex.control(holdScheduled=True)
        await store.delete_thread("t")
        await self.lose_steps(convex)
        for minutes, left in ((9, MANY), (11, 0)):
            await convex.control(clockAheadMs=minutes * 60_000)
            await store.save_thread(Thread(id="t", resource_id="r"))
            assert await store.get_messages("t") == []
            await store.save_thread(Thread(id="u", resource_id="r"))
            await store.save_messages(messages(MANY, "u"))
            await store.delete_thread("u")
            await convex.control(settle=True)
            assert await documents(convex, "messages") == left
        assert await documents(convex, "purges") == 0

    async def test_deletions_of_which_steps_were_lost_hold_up_no_other(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        await self.begin_100(convex, store)
        await self.lose_steps(convex)
        await convex.control(clockAheadMs=11 * 60_000)
        await store.delete_thread("t")
        assert await store.get_messages("t") == []
        await convex.control(settle=True)
        assert await documents(convex, "messages") == await documents(convex, "purges") <= 90


class TestExpiry:
    async def test_rows_are_gone_when_they_expire_and_deleted_then(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        now = int(datetime.now(timezone.utc).timestamp() * 1e6)
        late, never = row("late", expires_at=now + 7_200_000_000), row("never")
        soon = [row(f"{n}", seq=n, expires_at=now + 3_600_000_000) for n in range(1_200)]
        await store.backend.write([Put(each) for each in [*soon, late, never]])
        assert len((await store.backend.query(Query(table=OWN))).rows) == 1_202
        assert await store.backend.get(OWN, [("0",)]) == soon[:1]
        await convex.control(holdScheduled=True, clockAheadMs=3_600_000 + 60_000)
        found = await store.backend.query(Query(table=OWN, count=True))
        assert (sorted(each.key for each in found.rows), found.total) == (
            [("late",), ("never",)],
            2,
        )
        assert await store.backend.get(OWN, [("0",), ("late",)]) == [None, late]
        assert await documents(convex, "documents") == 1_202
        anew = row("0", version="anew")
        await store.backend.write([Put(anew, if_version=ABSENT)])
        await convex.control(clockAheadMs=7_200_000 + 60_000)
        await convex.control(holdScheduled=False)
        await convex.control(settle=True)
        assert await documents(convex, "documents") == 2
        found = await store.backend.query(Query(table=OWN))
        assert sorted(found.rows, key=lambda each: each.key) == [anew, never]

    async def test_one_sweep_is_planned_for_many_rows(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        now = int(datetime.now(timezone.utc).timestamp() * 1e6)
        minute = 60_000_000

        async def put(name: str, minutes: int) -> int:
            """Save a row that expires in so many minutes; how many sweeps there are then."""
            await store.backend.write([Put(row(name, expires_at=now + minutes * minute))])
            return await sweeps()

        async def sweeps() -> int:
            state = await convex.control(settle=True)
            assert state["documents"].get("sweeps", 0) <= 1
            pending: int = state["scheduled"]["pending"]
            receipts: int = state["documents"].get("receipts", 0)
            return pending - receipts

        assert [await put(f"{n}", 60 + n) for n in range(10)] == [1] * 10
        assert await put("other", 200) == 1
        assert await put("soon", 20) == 2
        for minutes, left, planned in ((22, 11, 2), (62, 8, 1), (75, 1, 1), (230, 0, 0)):
            await convex.control(clockAheadMs=minutes * 60_000)
            assert await sweeps() == planned
            assert await documents(convex, "documents") == left
        assert await documents(convex, "sweeps") == 0

    async def test_a_sweep_that_was_lost_is_planned_anew(
        self, convex: ConvexServer, store: Storage
    ) -> None:
        now = int(datetime.now(timezone.utc).timestamp() * 1e6)
        await store.backend.write([Put(row("a", expires_at=now + 60_000_000))])
        await convex.control(functions="none", clockAheadMs=120_000)
        await convex.control(settle=True)
        await convex.control(functions="default", clockAheadMs=15 * 60_000)
        assert await documents(convex, "documents") == 1
        last = row("b", expires_at=now + 10**12)
        await store.backend.write([Put(last)])
        await convex.control(settle=True)
        assert await documents(convex, "documents") == 1
        assert await store.backend.get(OWN, [("b",)]) == [last]
