"""The engine: lifecycle, cursors, scans, changes, log lines."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import pytest
from msgspec import structs

from mastra_storage import (
    MESSAGES,
    Capabilities,
    InvalidArgumentError,
    Key,
    Message,
    MessageUpdate,
    Op,
    Put,
    Query,
    Result,
    Row,
    Storage,
    StorageError,
    Table,
    Thread,
    TooLargeError,
    Trace,
    UnavailableError,
    open_storage,
)
from mastra_storage.backends.memory import Memory, MemoryBackend
from mastra_storage.storage._engine import Engine, together
from mastra_storage.storage._locks import Locks, Name

SECRET = "what nobody but the user shall read"


class StingyBackend(MemoryBackend):
    """Gives a few rows at a time, as backends do whose reads are bounded."""

    async def query(self, query: Query) -> Result:
        few = 3 if query.limit is None else min(3, query.limit)
        return await super().query(structs.replace(query, limit=few))


class PlainBackend(MemoryBackend):
    """Without atomic writes and compare-and-set, and slow enough for others to get in between."""

    capabilities = Capabilities(max_record_bytes=2_000)

    async def write(self, ops: Sequence[Op]) -> None:
        await asyncio.sleep(0)
        await super().write(ops)


async def fill(storage: Storage, messages: int) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))
    await storage.save_messages(
        [Message(id=f"m{i}", thread_id="t", role="user", content=i) for i in range(messages)]
    )


class SpoilsBare(MemoryBackend):
    """Damages the values of bare queries alone, as somebody does who repairs them meanwhile."""

    async def query(self, query: Query) -> Result:
        found = await super().query(query)
        rows = [structs.replace(row, value=row.value[:-1]) for row in found.rows]
        return structs.replace(found, rows=rows) if query.bare else found


async def test_messages_that_are_read_once_more_are_in_order_too() -> None:
    async with Storage(SpoilsBare()) as storage:
        await fill(storage, 5)
        assert [m.content for m in await storage.get_messages("t")] == [0, 1, 2, 3, 4]
        assert [m.content for m in await storage.get_messages("t", last=3)] == [2, 3, 4]


@pytest.mark.parametrize("value", [b'{"id":', b"\xff", b'{"content":' + b"[" * 200_000])
async def test_a_row_that_holds_no_record_is_an_error_that_names_it(value: bytes) -> None:
    async with open_storage("memory://") as storage:
        await fill(storage, 1)
        row = Row(table=MESSAGES, key=("t", "bad"), value=value, order=0, seq=0, fields={})
        await storage.backend.write([Put(row)])
        for reading in (storage.get_messages("t"), storage.get_messages_by_id("t", ["bad"])):
            with pytest.raises(
                StorageError, match=r"row \('t', 'bad'\) of table 'messages' does not"
            ):
                await reading


async def test_a_storage_is_opened_once_and_closed_twice() -> None:
    storage = open_storage("memory://")
    assert repr(storage) == "<Storage on memory, not open>"
    with pytest.raises(UnavailableError, match=r"memory: get_messages: .*async with"):
        await storage.get_messages("t")
    with pytest.raises(UnavailableError, match=r"memory: iter_messages: .*async with"):
        async for _ in storage.iter_messages("t"):
            pass
    with pytest.raises(UnavailableError, match=r"memory: watch_messages: .*async with"):
        async for _ in storage.watch_messages("t"):
            pass
    async with storage:
        assert repr(storage) == "<Storage on memory>"
        with pytest.raises(InvalidArgumentError, match=r"memory: open: .*already open"):
            await storage.open()
        await fill(storage, 1)
    with pytest.raises(UnavailableError, match=r"get_messages: .* not open: it was closed; use it"):
        await storage.get_messages("t")
    await storage.close()
    async with storage:
        assert len(await storage.get_messages("t")) == 1


async def test_a_storage_that_is_closed_while_it_opens_is_closed() -> None:
    class Slow(MemoryBackend):
        async def open(self) -> None:
            await asyncio.sleep(0.01)

    storage = Storage(Slow())
    opening = asyncio.create_task(storage.open())
    await asyncio.sleep(0)
    await storage.close()
    with pytest.raises(UnavailableError, match="closed while it opened"):
        await opening
    with pytest.raises(UnavailableError, match="not open"):
        await storage.get_messages("t")
    async with storage:
        assert await storage.get_messages("t") == []


async def test_a_storage_that_is_opened_anew_while_it_opens_is_open() -> None:
    class Slow(MemoryBackend):
        is_open = False

        async def open(self) -> None:
            await asyncio.sleep(0.01)
            self.is_open = True

        async def close(self) -> None:
            self.is_open = False

    backend = Slow()
    storage = Storage(backend)
    first = asyncio.create_task(storage.open())
    await asyncio.sleep(0)
    await storage.close()
    second = asyncio.create_task(storage.open())
    with pytest.raises(UnavailableError, match="closed while it opened"):
        await first
    await second
    assert backend.is_open
    assert await storage.get_messages("t") == []
    await storage.close()


async def test_a_watch_ends_with_the_opening_it_was_made_in() -> None:
    backend = MemoryBackend()
    async with Storage(backend):
        watch = backend.watch(Query(table=MESSAGES))
        await anext(watch)
        waiting = asyncio.ensure_future(anext(watch, None))
        await asyncio.sleep(0)
        await backend.close()
        await backend.open()
        async with asyncio.timeout(30):
            assert await waiting is None


async def test_a_storage_is_used_in_the_loop_that_opened_it() -> None:
    async def used_elsewhere(storage: Storage) -> None:
        with pytest.raises(UnavailableError, match="another event loop; open one in each"):
            await storage.get_messages("t")
        with pytest.raises(UnavailableError, match="another event loop"):
            await anext(storage.watch_messages("t"))

    storage = open_storage("memory://")
    async with storage:
        await asyncio.to_thread(asyncio.run, used_elsewhere(storage))
        assert await storage.get_messages("t") == []


async def test_watches_end_when_the_storage_is_closed() -> None:
    storage = open_storage("memory://")
    async with storage:
        watch = storage.watch_thread("t")
        assert await anext(watch) is None
        waiting = asyncio.ensure_future(anext(watch, "the end"))
        await asyncio.sleep(0)
    assert await waiting == "the end"


class ClosedWhileItReads(PlainBackend):
    """Its second query is answered by the closing of the backend."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False
        self.asked_again = asyncio.Event()

    async def query(self, query: Query) -> Result:
        if self.asked:
            self.asked_again.set()
            await self._closed.wait()
            raise UnavailableError("the backend was closed")
        self.asked = True
        return await super().query(query)


async def test_a_watch_ends_when_the_storage_is_closed_while_it_looks() -> None:
    backend = ClosedWhileItReads()
    async with Storage(backend) as storage:
        watch = storage.watch_thread("t")
        assert await anext(watch) is None
        waiting = asyncio.ensure_future(anext(watch, "the end"))
        await backend.asked_again.wait()
    assert await waiting == "the end"


async def test_a_backend_may_give_fewer_rows_than_asked() -> None:
    async with Storage(StingyBackend()) as storage:
        await fill(storage, 20)
        ids = [f"m{i}" for i in range(20)]
        assert [m.id for m in await storage.get_messages("t")] == ids
        assert [m.id for m in await storage.get_messages("t", last=7)] == ids[-7:]
        assert [m.id async for m in storage.iter_messages("t", batch_size=5)] == ids
        page = await storage.get_messages_paginated("t", per_page=8)
        assert [m.id for m in page] == ids[:8]
        assert (page.total, page.has_more) == (20, True)
        page = await storage.get_messages_paginated("t", per_page=8, page=2)
        assert [m.id for m in page] == ids[16:]
        assert (page.total, page.has_more, page.next_cursor) == (20, False, None)


@pytest.mark.parametrize("backend", [MemoryBackend, StingyBackend])
@pytest.mark.parametrize("count", [True, False])
async def test_filters_that_scan_page_like_the_others(
    backend: type[MemoryBackend], count: bool
) -> None:
    async with Storage(backend()) as storage:
        times = [datetime(2026, 1, 1, 0, 0, i, tzinfo=timezone.utc) for i in range(60)]
        await storage.save_traces(
            [
                Trace(id=f"{i:02}", created_at=time, attributes={"even": i % 2 == 0, "one": 1})
                for i, time in enumerate(times)
            ]
        )
        wanted = [f"{i:02}" for i in reversed(range(0, 60, 2))]
        whole = await storage.get_traces(attributes={"even": True}, per_page=None, count=count)
        assert [trace.id for trace in whole] == wanted
        assert (whole.total, whole.has_more) == (30 if count else None, False)
        found: list[str] = []
        cursor = None
        for number in range(5):
            page = await storage.get_traces(
                attributes={"even": True}, per_page=7, cursor=cursor, count=count
            )
            same = await storage.get_traces(
                attributes={"even": True}, per_page=7, page=number, count=count
            )
            assert [t.id for t in page] == [t.id for t in same]
            assert page.page == same.page == number
            assert page.total == same.total == (30 if count else None)
            assert page.has_more == same.has_more == (number < 4)
            found += [trace.id for trace in page]
            cursor = page.next_cursor
        assert found == wanted
        assert cursor is None
        assert (await storage.get_traces(attributes={"one": True})).total == 0  # true is not 1


async def test_every_change_of_a_cursor_is_refused() -> None:
    async with open_storage("memory://") as storage:
        await fill(storage, 5)
        cursor = (await storage.get_messages_paginated("t", per_page=2)).next_cursor
        assert cursor is not None
        damaged = [
            cursor[:i] + ("A" if c != "A" else "B") + cursor[i + 1 :] for i, c in enumerate(cursor)
        ]
        damaged += [cursor[:i] for i in range(len(cursor))]
        damaged += [cursor + "x", f" {cursor}", cursor + "=", "é", "\ud800", "null"]
        for text in damaged:
            with pytest.raises(InvalidArgumentError, match="cursor is damaged"):
                await storage.get_messages_paginated("t", per_page=2, cursor=text)
        with pytest.raises(InvalidArgumentError, match="cursor must be a str"):
            await storage.get_messages_paginated("t", per_page=2, cursor=5)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError, match="another query"):
            await storage.get_messages_paginated("u", per_page=2, cursor=cursor)
        with pytest.raises(InvalidArgumentError, match="another query"):
            await storage.get_messages_paginated("t", direction="desc", cursor=cursor)
        with pytest.raises(InvalidArgumentError, match="either page or cursor"):
            await storage.get_messages_paginated("t", page=1, cursor=cursor)


async def test_changes_without_compare_and_set_are_serialised_within_the_store() -> None:
    async with Storage(PlainBackend()) as storage:
        await fill(storage, 1)
        await asyncio.gather(
            *[storage.update_thread("t", metadata={f"k{i}": i}) for i in range(30)],
            *[storage.update_resource("r", metadata={f"k{i}": i}) for i in range(30)],
            *[
                storage.update_messages("t", [MessageUpdate("m0", metadata={f"k{i}": i})])
                for i in range(30)
            ],
        )
        every = {f"k{i}": i for i in range(30)}
        thread = await storage.get_thread_by_id("t")
        resource = await storage.get_resource("r")
        [message] = await storage.get_messages("t")
        assert thread is not None
        assert resource is not None
        assert thread.metadata == resource.metadata == message.metadata == every
        assert len(storage._locks) == 0  # none is kept for ever


async def test_records_past_the_backends_limit_are_refused_before_anything_is_written() -> None:
    async with Storage(PlainBackend()) as storage:
        await fill(storage, 1)
        small = Message(thread_id="t", role="user", content="x")
        large = Message(thread_id="t", role="user", content="x" * 2_000)
        with pytest.raises(TooLargeError, match="2,000"):
            await storage.save_messages([small, large])
        assert len(await storage.get_messages("t")) == 1


async def test_equal_times_of_two_stores_never_mix_two_turns() -> None:
    memory = Memory()
    time = datetime.now(timezone.utc)
    stores = [Storage(MemoryBackend(memory)) for _ in range(4)]
    for store in stores:
        await store.open()
    await stores[0].save_thread(Thread(id="t", resource_id="r"))

    async def turn(store: Storage, name: str) -> None:
        for n in range(5):
            await store.save_messages(
                [
                    Message(
                        id=f"{role}-{name}-{n}",
                        thread_id="t",
                        role=role,
                        content="",
                        created_at=time,
                    )
                    for role in ("user", "assistant")
                ]
            )

    await asyncio.gather(*[turn(store, str(i)) for i, store in enumerate(stores)])
    messages = await stores[0].get_messages("t")
    assert [m.role for m in messages] == ["user", "assistant"] * 20
    for question, answer in zip(messages[::2], messages[1::2], strict=True):
        assert question.id.removeprefix("user") == answer.id.removeprefix("assistant")
    for store in stores:
        await store.close()


def test_places_are_given_in_order_and_never_twice() -> None:
    engine = Engine(MemoryBackend())
    given: list[int] = []
    for size in (1, 5_000, 0, 2, 1_024, 1):
        given += engine._seqs(size)
    assert given == sorted(set(given))
    assert max(given) < 2**63


async def test_log_lines_say_what_was_done_and_nothing_private(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "mastra_storage")
    async with open_storage("memory://") as storage:
        await storage.save_thread(Thread(id="t", resource_id="r", title=SECRET))
        await storage.save_message(
            Message(thread_id="t", role="user", content=SECRET, metadata={"a": SECRET})
        )
        await storage.update_thread("t", title=SECRET + "!")
        with pytest.raises(InvalidArgumentError):
            await storage.get_messages("")
    lines = [record.getMessage() for record in caplog.records]
    assert {record.name for record in caplog.records} == {"mastra_storage.memory"}
    assert "wrote 2 ops to messages, threads" in lines
    assert any(line.startswith("save_message: ok, ") for line in lines)
    assert any(line.startswith("get_messages: InvalidArgumentError, ") for line in lines)
    assert SECRET not in caplog.text


async def test_the_first_failure_of_concurrent_parts_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise UnavailableError("no answer")

    async def wait() -> None:
        await asyncio.sleep(60)

    with pytest.raises(UnavailableError, match="no answer"):
        await together(wait(), fail())
    assert await together() == []


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("save_messages", (Message(thread_id="t", role="user", content=""),)),
        ("save_messages", (None,)),
        ("save_traces", ({"id": "x"},)),
        ("batch_insert", ("threads", {"id": "x"})),
        ("get_messages_by_id", ("t", "m1")),
        ("delete_messages", ("t", "m1")),
        ("update_messages", ("t", MessageUpdate("m1"))),
        ("update_messages", ("t", [{"id": "m1"}])),
        ("insert", ("nothing", {})),
        ("insert", (None, {})),
        ("clear_table", ("mastra_threads",)),
        ("load", ("threads",)),
        ("get_thread_by_id", (5,)),
        ("get_thread_by_id", ("x" * 300,)),
        ("get_thread_by_id", ("\ud800",)),
        ("get_threads_by_resource_id", ("",)),
        ("persist_workflow_snapshot", ("", "1", {})),
        ("persist_workflow_snapshot", ("w", "1", {1, 2})),
    ],
)
async def test_arguments_of_the_wrong_form_are_named(method: str, arguments: Any) -> None:
    async with open_storage("memory://") as storage:
        with pytest.raises(InvalidArgumentError) as caught:
            await getattr(storage, method)(*arguments)
        assert caught.value.operation == method
        pickle.loads(pickle.dumps(caught.value))
        assert await storage.backend.tables() == []


class SlowReads(MemoryBackend):
    """Without compare-and-set, and with time between a read and the write that follows."""

    capabilities = Capabilities()

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        rows = await super().get(table, keys)
        await asyncio.sleep(0.01)
        return rows


async def test_no_acknowledged_write_is_lost_to_a_change_that_began_before() -> None:
    async with Storage(SlowReads()) as storage:
        await fill(storage, 3)
        changing = asyncio.create_task(storage.update_thread("t", metadata={"a": 1}))
        await asyncio.sleep(0.001)
        await storage.save_thread(Thread(id="t", resource_id="r", title="saved"))
        await changing
        thread = await storage.get_thread_by_id("t")
        assert thread is not None
        assert thread.title == "saved"

        changing_messages = asyncio.create_task(
            storage.update_messages("t", [MessageUpdate("m0", role="tool")])
        )
        await asyncio.sleep(0.001)
        await storage.delete_messages("t", ["m0"])
        await changing_messages
        assert [m.id for m in await storage.get_messages("t")] == ["m1", "m2"]

        changing_messages = asyncio.create_task(
            storage.update_messages("t", [MessageUpdate("m1", role="tool")])
        )
        changing = asyncio.create_task(storage.update_thread("t", title="late"))
        await asyncio.sleep(0.001)
        await storage.delete_thread("t")
        await asyncio.gather(changing, changing_messages, return_exceptions=True)
        assert await storage.get_thread_by_id("t") is None
        assert await storage.get_messages("t") == []
        assert len(storage._locks) == 0


async def test_locks_are_taken_all_at_once_and_given_back_on_cancel() -> None:
    locks = Locks()
    a, b, other = Name("t", ("x", "a")), Name("t", ("x", "b")), Name("u", ("x", "a"))
    order: list[str] = []

    async def hold(name: str, rows: list[Name], prefixes: list[Name], seconds: float) -> None:
        async with locks.hold(rows, prefixes):
            order.append(name)
            await asyncio.sleep(seconds)

    first = asyncio.create_task(hold("a", [a], [], 0.02))
    await asyncio.sleep(0)
    tasks = [
        asyncio.create_task(hold("ab", [b, a], [], 0)),
        asyncio.create_task(hold("prefix", [], [Name("t", ("x",))], 0)),
        asyncio.create_task(hold("other", [other], [Name("t", ("y",))], 0)),
        asyncio.create_task(hold("cancelled", [a], [], 60)),
    ]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.gather(first, *tasks, return_exceptions=True)
    assert order[:2] == ["a", "other"]
    assert sorted(order) == ["a", "ab", "other", "prefix"]
    assert len(locks) == 0


async def test_a_large_batch_lets_others_run() -> None:
    async with open_storage("memory://") as storage:
        await fill(storage, 0)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        messages = [Message(thread_id="t", role="user", content=i) for i in range(5_000)]
        await storage.save_messages(messages)
        counting.cancel()
        assert turns >= 9
        assert [m.content for m in await storage.get_messages("t", last=2)] == [4_998, 4_999]


async def test_closing_ends_a_watch_that_waits_for_its_next_look() -> None:
    backend = MemoryBackend()
    backend.capabilities = structs.replace(backend.capabilities, watch=False, poll_interval=600.0)
    storage = Storage(backend)
    await storage.open()
    values = storage.watch_thread("t")
    assert await anext(values) is None
    waiting = asyncio.ensure_future(anext(values, "the end"))
    await asyncio.sleep(0.05)
    await storage.close()
    async with asyncio.timeout(5):
        assert await waiting == "the end"
