"""What a record may hold: odd ids, odd JSON, extreme times; and what is refused."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from msgspec import structs

from mastra_storage.errors import InvalidArgumentError, InvalidRecordError
from mastra_storage.records import Message, MessageUpdate, Thread, WorkflowRun
from mastra_storage.storage import Storage
from mastra_storage.testing._waiting import until
from mastra_storage.testing.suite._base import Base, OpenStore, full
from mastra_storage.testing.suite._build import ODD_IDS, at, contents, ids, messages, thread_with


def nested(depth: int) -> Any:
    """A value of `depth` containers, one inside the other."""
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


ODD_JSON: tuple[Any, ...] = (
    None,
    True,
    "",
    "\0\u2028 🧵\n\\\"'",
    {"": {"": []}},
    {"clé 🔑": 1, "$ref": {"$oid": "x"}, "__proto__": {"a": 1}, "a.b": 2, "constructor": None},
    [None, [], {}, [[None]]],
    10**30,
    -(10**30),
    2**53 + 1,
    2**63,
    -(2**63),
    1.0,
    1,
    -0.0,
    1e-300,
    1.7976931348623157e308,
    0.1 + 0.2,
    "x" * 20_000,
    nested(98),
    nested(99),
    nested(100),
)

BAD_JSON: tuple[Any, ...] = (
    float("nan"),
    float("inf"),
    -float("inf"),
    {1, 2},
    b"bytes",
    object(),
    datetime.now(timezone.utc),
    {1: "number as key"},
    {"deep": [{"x": (1, {2})}]},
    "lone \ud800 surrogate",
    {"\udfff": 1},
    nested(101),
)


def exactly(value: Any) -> str:
    """A text that tells 1 from 1.0, 0.0 from -0.0 and true from 1, as equality does not."""
    return json.dumps(value, ensure_ascii=True)


class ValueTests(Base):
    @full
    async def test_any_id_works_for_threads(self, storage: Storage) -> None:
        threads = [
            Thread(id=id, resource_id=id, title=id, created_at=at(n))
            for n, id in enumerate(ODD_IDS)
        ]
        await storage.batch_insert("threads", threads)
        for thread in threads:
            assert await storage.get_thread_by_id(thread.id) == thread
            assert await storage.get_threads_by_resource_id(thread.id) == [thread]
        assert ids(await storage.list_threads(direction="asc", per_page=None)) == list(ODD_IDS)

    async def test_any_id_works_for_messages(self, storage: Storage) -> None:
        await thread_with(storage)
        batch = [
            Message(id=id, thread_id="t", role="user", content=id, created_at=at())
            for id in ODD_IDS
        ]
        await storage.save_messages(batch)
        assert contents(await storage.get_messages("t")) == list(ODD_IDS)
        found = await storage.get_messages_by_id("t", ODD_IDS[::-1])
        assert contents(found) == list(ODD_IDS[::-1])
        await storage.delete_messages("t", ODD_IDS[::2])
        assert contents(await storage.get_messages("t")) == list(ODD_IDS[1::2])

    @full
    async def test_threads_with_odd_ids_keep_their_messages_apart(
        self, storage: Storage, open_store: OpenStore
    ) -> None:
        async def shows(store: Storage, id: str, expected: list[str]) -> None:
            found = await until(
                lambda: store.get_messages(id),
                lambda found: contents(found) == expected,
                self.settling(store.backend),
            )
            assert contents(found) == expected, id

        await storage.batch_insert("threads", [Thread(id=id, resource_id="r") for id in ODD_IDS])
        batch = [Message(id="m", thread_id=id, role="user", content=id) for id in ODD_IDS]
        await storage.save_messages(batch)
        # By stores that do not know by themselves what was written.
        other, third = await open_store(), await open_store()
        for id in ODD_IDS:
            await shows(storage, id, [id])
            await shows(other, id, [id])
        gone = ODD_IDS[:9]
        for id in gone:
            await other.delete_thread(id)
        for id in ODD_IDS:
            await shows(third, id, [] if id in gone else [id])

    async def test_parts_of_a_key_do_not_run_together(self, storage: Storage) -> None:
        pairs = [("a", "b:c"), ("a:b", "c"), ("a/b", "c"), ("a", "b/c"), ("a\0b", "c"), ("a", "b")]
        runs = [WorkflowRun(workflow_name=w, run_id=r, snapshot=[w, r]) for w, r in pairs]
        await storage.batch_insert("workflow_snapshot", runs)
        for name, id in pairs:
            assert await storage.load_workflow_snapshot(name, id) == [name, id]
        page = await storage.get_workflow_runs(workflow_name="a")
        assert {run.run_id for run in page} == {"b:c", "b/c", "b"}

    async def test_any_json_comes_back_as_it_was(self, storage: Storage) -> None:
        await thread_with(storage)
        shallow, deep = list(ODD_JSON[:-2]), ODD_JSON[-2:]
        batch = messages("t", [shallow, *deep, None, "", -0.0])
        batch[-1].metadata = {"odd": shallow}
        await storage.save_messages(batch)
        found = await storage.get_messages("t")
        assert found == batch
        assert exactly(contents(found)) == exactly(contents(batch))
        assert exactly(found[-1].metadata) == exactly(batch[-1].metadata)

    @full
    async def test_json_survives_an_update_of_something_else(self, storage: Storage) -> None:
        await thread_with(storage)
        value = [10**30, 1.0, 1, -0.0, {"$k": None}]
        await storage.save_message(Message(id="m", thread_id="t", role="user", content=value))
        [updated] = await storage.update_messages("t", [MessageUpdate("m", role="assistant")])
        assert exactly(updated.content) == exactly(value)
        assert await storage.get_messages("t") == [updated]

    async def test_what_json_does_not_have_is_refused(self, storage: Storage) -> None:
        await thread_with(storage)
        good = Message(id="m", thread_id="t", role="user", content="good")
        await storage.save_message(good)
        for bad in BAD_JSON:
            with pytest.raises(InvalidRecordError) as caught:
                await storage.save_message(structs.replace(good, content=bad))
            assert str(caught.value.field).startswith("content")
            with pytest.raises(InvalidRecordError):
                await storage.save_thread(Thread(id="t", resource_id="r", metadata={"x": bad}))
            with pytest.raises(InvalidArgumentError):
                await storage.update_messages("t", [MessageUpdate("m", content=bad)])
            with pytest.raises(InvalidArgumentError):
                await storage.persist_workflow_snapshot("w", "1", bad)
        assert await storage.get_messages("t") == [good]

    async def test_the_error_names_the_bad_field(self, storage: Storage) -> None:
        good = Thread(id="t", resource_id="r")
        for name, bad in (
            ("id", ""),
            ("id", None),
            ("id", 42),
            ("id", "x" * 257),
            ("id", "🧵" * 65),
            ("id", "\ud800"),
            ("resource_id", ""),
            ("title", None),
            ("title", "\ud800"),
            ("metadata", []),
            ("metadata", None),
            ("created_at", at().replace(tzinfo=None)),
            ("created_at", "2024-01-01T00:00:00Z"),
            ("created_at", datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))),
            ("updated_at", at().replace(tzinfo=None)),
        ):
            with pytest.raises(InvalidRecordError) as caught:
                await storage.save_thread(structs.replace(good, **{name: bad}))
            assert caught.value.field == name
        assert await storage.get_thread_by_id("t") is None

    async def test_the_callers_record_is_left_alone(self, storage: Storage) -> None:
        local = at().astimezone(timezone(timedelta(hours=-3)))
        thread = Thread(id="t", resource_id="r", metadata={"a": [1]}, created_at=local)
        await storage.save_thread(thread)
        assert thread.created_at.utcoffset() == timedelta(hours=-3)
        thread.metadata["a"].append(2)
        found = await storage.get_thread_by_id("t")
        assert found is not None
        assert found.metadata == {"a": [1]}

    async def test_times_of_all_years_are_kept_and_ordered(self, storage: Storage) -> None:
        times = [
            datetime.min.replace(tzinfo=timezone.utc),
            datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc),
            datetime(1970, 1, 1, tzinfo=timezone.utc),
            datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=timezone.utc),
            at(),
            datetime.max.replace(tzinfo=timezone.utc),
        ]
        await thread_with(storage)
        batch = [
            Message(id=f"m{n}", thread_id="t", role="user", content=n, created_at=time)
            for n, time in enumerate(times)
        ]
        await storage.save_messages(batch[::-1])
        assert await storage.get_messages("t") == batch
        found = await storage.get_messages("t", from_date=times[1], to_date=times[3])
        assert contents(found) == [1, 2, 3]
        page = await storage.get_messages_paginated("t", per_page=1)
        walked = [*page]
        while page.next_cursor:
            page = await storage.get_messages_paginated(
                "t", per_page=1, cursor=page.next_cursor, count=False
            )
            walked += page
        assert walked == batch
