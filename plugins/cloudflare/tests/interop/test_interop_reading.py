"""Every form that the TypeScript store wrote is read as the record that it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from kv_server import KVServer
from mastra_storage_cloudflare.interop import InteropBackend
from mastra_storage_cloudflare.kv import Pair
from memory_kv import MemoryKV

from interop.typescript import (
    RawKV,
    binding_envelope,
    interop_store,
    message,
    sdk_envelope,
    stringify,
    thread,
)
from mastra_storage import RESOURCES as RESOURCES_TABLE
from mastra_storage import Query, Resource, Storage, StorageError, Thread

THREADS, MESSAGES = "myapp__mastra_threads", "myapp__mastra_messages"
RUNS, TRACES = "myapp__mastra_workflow_snapshot", "myapp__mastra_traces"
EVALS, RESOURCES = "myapp__mastra_evals", "myapp__mastra_resources"
K = "myapp_:"

NOON = datetime(2025, 6, 1, 12, tzinfo=timezone.utc)
SNAPSHOT = {"runId": "r1", "status": "suspended", "value": {"s": "é"}, "context": {"steps": {}}}


@pytest.mark.parametrize("form", [str, sdk_envelope, binding_envelope])
async def test_a_thread_is_read_out_of_every_envelope(
    store: Storage, raw: RawKV, form: Any
) -> None:
    await raw.put(THREADS, f"{K}mastra_threads:t1", form(stringify(thread())))
    found = await store.get_thread_by_id("t1")
    assert found is not None
    assert (found.resource_id, found.title) == ("user-1", "Flüge 🛫")
    assert found.metadata == {"topic": "travel", "n": 1.0}
    assert found.created_at == NOON
    assert found.updated_at == NOON + timedelta(seconds=5, milliseconds=250)


@pytest.mark.parametrize(
    ("metadata", "meant"),
    [
        ('{"a":{"b":[1]}}', {"a": {"b": [1]}}),
        ({"a": 1}, {"a": 1}),
        ("", {}),
        ("null", {}),
        (None, {}),
    ],
)
async def test_metadata_of_a_thread_is_text_or_an_object(
    store: Storage, raw: RawKV, metadata: Any, meant: Any
) -> None:
    await raw.put(THREADS, f"{K}mastra_threads:t1", thread(metadata=metadata))
    [found] = await store.get_threads_by_resource_id("user-1")
    assert found.metadata == meant


async def test_what_a_thread_lacks_has_its_default(store: Storage, raw: RawKV) -> None:
    early = {"id": "t1", "resourceId": "user-1", "createdAt": 1748779200000}
    await raw.put(THREADS, f"{K}mastra_threads:t1", early)
    found = await store.get_thread_by_id("t1")
    assert found is not None
    assert (found.title, found.metadata) == ("", {})
    assert found.created_at == found.updated_at == NOON


async def test_messages_of_all_releases(store: Storage, raw: RawKV) -> None:
    key = f"{K}mastra_messages:t1:"
    old = {
        "id": "a",
        "threadId": "t1",
        "role": "user",
        "type": "text",
        "content": "Hello",
        "createdAt": "2025-06-01T11:00:00.000Z",
    }
    parts = [{"type": "tool-call", "toolCallId": "c", "toolName": "n", "args": {}}]
    call = message("b", role="assistant", type="tool-call", content=parts, toolNames=["n"])
    await raw.put(MESSAGES, key + "a", sdk_envelope(stringify(old)))
    await raw.put(MESSAGES, key + "b", call)
    await raw.put(MESSAGES, key + "c", message("c", "2025-06-01T12:30:00.000Z"))
    order = [{"id": each, "score": n} for n, each in enumerate("abc")]
    await raw.put(MESSAGES, key + "messages", sdk_envelope(stringify(order)))
    first, second, third = await store.get_messages("t1")
    assert (first.id, first.role, first.type, first.content) == ("a", "user", "text", "Hello")
    assert (first.resource_id, first.metadata) == (None, {})
    assert (second.id, second.type, second.content) == ("b", "tool-call", parts)
    assert (third.id, third.type, third.resource_id) == ("c", "text", "user-1")
    assert third.content["parts"][0]["text"] == "c é"
    assert [m.id for m in await store.get_messages("t1", resource_id="user-2")] == []


@pytest.mark.parametrize("snapshot", [json.dumps(SNAPSHOT), SNAPSHOT])
@pytest.mark.parametrize("suffix", ["", ":user-1"])
@pytest.mark.parametrize("form", [str, sdk_envelope])
async def test_workflow_runs(
    store: Storage, raw: RawKV, snapshot: Any, suffix: str, form: Any
) -> None:
    row = {
        "workflow_name": "w",
        "run_id": "r1",
        "resourceId": "user-1",
        "snapshot": snapshot,
        "createdAt": "2025-06-01T12:00:00.000Z",
        "updatedAt": "2025-06-01T12:00:01.000Z",
    }
    await raw.put(RUNS, f"{K}mastra_workflow_snapshot:w:r1{suffix}", form(stringify(row)))
    assert await store.load_workflow_snapshot("w", "r1") == SNAPSHOT
    [run] = await store.get_workflow_runs(status="suspended", resource_id="user-1")
    assert (run.workflow_name, run.run_id, run.snapshot) == ("w", "r1", SNAPSHOT)
    assert run.updated_at - run.created_at == timedelta(seconds=1)
    assert await store.get_workflow_run("r1") == run
    assert await store.load_workflow_snapshot("w", "r") is None


async def test_a_run_under_two_keys_is_one(store: Storage, raw: RawKV) -> None:
    row = {
        "workflow_name": "w",
        "run_id": "r1",
        "snapshot": '{"n":1}',
        "createdAt": "2025-06-01T12:00:00.000Z",
        "updatedAt": "2025-06-01T12:00:00.000Z",
    }
    await raw.put(RUNS, f"{K}mastra_workflow_snapshot:w:r1:user-1", row)
    await raw.put(RUNS, f"{K}mastra_workflow_snapshot:w:r1", row | {"snapshot": '{"n":2}'})
    assert [run.snapshot for run in await store.get_workflow_runs()] == [{"n": 2}]
    assert await store.load_workflow_snapshot("w", "r1") == {"n": 2}
    await store.delete_workflow_run("w", "r1")
    assert await raw.keys(RUNS) == []


@pytest.mark.parametrize("stringified", [True, False])
async def test_traces(store: Storage, raw: RawKV, stringified: bool) -> None:
    members: dict[str, Any] = {
        "attributes": {"model": "x", "tokens": 3},
        "status": {"code": 1},
        "events": [{"name": "e"}],
        "links": [],
        "other": {"dropped": 0},
    }
    if stringified:
        members = {name: stringify(value) for name, value in members.items()}
    span = {
        "id": "s1",
        "parentSpanId": None,
        "name": "llm",
        "traceId": "x1",
        "scope": "agent",
        "kind": 0,
        **members,
        "startTime": 1748779200123,
        "endTime": 1748779201123.5,
        "createdAt": "2025-06-01T12:00:02.000Z",
    }
    await raw.put(TRACES, f"{K}mastra_traces:s1", span)
    [trace] = await store.get_traces(scope="agent", attributes={"tokens": 3})
    assert trace == await store.get_trace("s1")
    assert (trace.trace_id, trace.parent_span_id, trace.kind) == ("x1", None, 0)
    assert (trace.status, trace.events, trace.links) == ({"code": 1}, [{"name": "e"}], [])
    assert trace.started_at == NOON + timedelta(milliseconds=123)
    assert trace.ended_at == NOON + timedelta(seconds=1, microseconds=123_500)


async def test_spans_that_were_exported_have_microseconds(store: Storage, raw: RawKV) -> None:
    span = {"id": "s1", "name": "llm", "createdAt": "2025-06-01T12:00:02.000Z"}
    times = {"startTime": 1748779200123456, "endTime": 1748779201123456}
    await raw.put(TRACES, f"{K}mastra_traces:s1", span | times)
    [trace] = await store.get_traces()
    assert trace.started_at == NOON + timedelta(microseconds=123_456)
    assert trace.ended_at == NOON + timedelta(seconds=1, microseconds=123_456)


async def test_evals_by_id_and_by_run(store: Storage, raw: RawKV) -> None:
    row = {
        "input": "in",
        "output": "out",
        "result": {"score": 0.5},
        "agent_name": "a",
        "metric_name": "m",
        "instructions": "be brief",
        "test_info": None,
        "global_run_id": "g",
        "run_id": "r1",
        "created_at": "2025-06-01T12:00:00.000Z",
        "createdAt": "2025-06-01T12:00:00.000Z",
        "metadata": "",
    }
    await raw.put(EVALS, f"{K}mastra_evals:r1", row)
    tested = row | {"id": "e1", "test_info": '{"testName":"n"}', "run_id": "r2"}
    await raw.put(EVALS, f"{K}mastra_evals:e1", tested)
    live = await store.get_eval("r1")
    assert live is not None
    assert (live.type, live.run_id, live.global_run_id, live.result) == (
        "live",
        "r1",
        "g",
        {"score": 0.5},
    )
    [test] = await store.get_evals(type="test")
    assert (test.id, test.run_id, test.metric_name, test.metadata) == ("e1", "r2", "m", {})


async def test_resources_have_bare_ids(store: Storage, raw: RawKV) -> None:
    row = {
        "id": "user:1",
        "workingMemory": "# Ann",
        "metadata": '{"plan":"pro"}',
        "createdAt": "2025-06-01T12:00:00.000Z",
        "updatedAt": "2025-06-01T12:00:00.000Z",
    }
    await raw.put(RESOURCES, "user:1", row)
    found = await store.get_resource("user:1")
    assert found is not None
    assert (found.working_memory, found.metadata) == ("# Ann", {"plan": "pro"})


async def test_schema_keys_are_no_records(store: Storage, raw: RawKV) -> None:
    await raw.put(THREADS, f"{K}schema:mastra_threads", {"id": {"type": "text"}})
    await raw.put(THREADS, f"{K}mastra_threads:t1", thread())
    assert [found.id for found in await store.list_threads()] == ["t1"]


@pytest.mark.parametrize(("title", "start"), [("myapp_mastra", "myapp:"), ("myapp_mastra", "")])
async def test_both_early_layouts(kv: KVServer, raw: RawKV, title: str, start: str) -> None:
    threads, runs, others = f"{title}_threads", f"{title}_workflows", f"{title}_evals"
    state = {"runId": "r1", "value": {"s": "done"}, "activePaths": [], "timestamp": 1748779200000}
    await raw.put(threads, f"{start}mastra_threads:t1", thread(metadata='{"old":true}'))
    await raw.put(threads, f"{start}mastra_messages:t1:m1", message("m1", type="text"))
    order = [{"id": "m1", "score": 0}]
    await raw.put(threads, f"{start}mastra_messages:t1:messages", order)
    await raw.put(runs, f"{start}mastra_workflow_snapshot:workflows:w:r1", state)
    span = {"id": "s1", "name": "n", "traceId": "x", "createdAt": "2025-06-01T12:00:00.000Z"}
    await raw.put(others, f"{start}mastra_traces:s1", span)

    async with interop_store(kv, prefix="myapp") as store:
        found = await store.get_thread_by_id("t1")
        assert found is not None
        assert found.metadata == {"old": True}
        assert [m.id for m in await store.get_messages("t1")] == ["m1"]
        assert await store.load_workflow_snapshot("w", "r1") == state
        assert [run.created_at for run in await store.get_workflow_runs()] == [NOON]
        assert [t.name for t in await store.get_traces()] == ["n"]
        assert set(await store.backend.tables()) == {
            "threads",
            "messages",
            "workflow_snapshot",
            "traces",
        }


async def test_an_early_store_goes_on_in_the_new_layout(kv: KVServer, raw: RawKV) -> None:
    threads = "myapp_mastra_threads"
    await raw.put(threads, "mastra_threads:t1", thread())
    await raw.put(threads, "mastra_messages:t1:m1", message("m1"))
    await raw.put(threads, "mastra_messages:t1:messages", [{"id": "m1", "score": 0}])
    for attempt in range(2):
        async with interop_store(kv, prefix="myapp") as store:
            new = message("m2", "2025-06-01T13:00:00.000Z")
            await store.insert("messages", {k: v for k, v in new.items() if k != "type"})
            await store.update_thread("t1", title=f"new {attempt}")
            assert [m.id for m in await store.get_messages("t1")] == ["m1", "m2"]
            assert [t.title for t in await store.list_threads()] == [f"new {attempt}"]
    assert await raw.keys("myapp_mastra_messages") == [
        "myapp:mastra_messages:t1:m2",
        "myapp:mastra_messages:t1:messages",
    ]
    async with interop_store(kv, prefix="myapp") as store:
        await store.delete_thread("t1")
        assert await store.get_messages("t1") == []
    assert await raw.keys(threads) == []


@pytest.mark.parametrize(
    "value",
    ["no JSON", '"text"', "[]", '{"id":"t1"}', stringify(thread(createdAt="yesterday"))],
)
async def test_a_value_that_is_no_thread_is_named(store: Storage, raw: RawKV, value: str) -> None:
    await raw.put(THREADS, f"{K}mastra_threads:t1", value)
    with pytest.raises(StorageError, match="'myapp_:mastra_threads:t1' is not a record"):
        await store.get_thread_by_id("t1")
    with pytest.raises(StorageError, match="'myapp_:mastra_threads:t1' is not a record"):
        await store.list_threads()


async def test_ids_that_run_together_are_told_apart_by_the_records(
    store: Storage, raw: RawKV
) -> None:
    row = message("c", threadId="a:b")
    await raw.put(MESSAGES, f"{K}mastra_messages:a:b:c", row)
    await raw.put(MESSAGES, f"{K}mastra_messages:a:b:messages", [{"id": "c", "score": 0}])
    await raw.put(MESSAGES, f"{K}mastra_messages:a:m", message("m", threadId="a"))
    assert [m.id for m in await store.get_messages("a:b")] == ["c"]
    assert [m.id for m in await store.get_messages("a")] == ["m"]
    assert await store.get_messages_by_id("a", ["b:c"]) == []
    await store.delete_messages("a", ["b:c"])
    await raw.put(THREADS, f"{K}mastra_threads:a", thread(id="a"))
    await store.delete_thread("a")
    assert await raw.keys(MESSAGES) == [
        f"{K}mastra_messages:a:b:c",
        f"{K}mastra_messages:a:b:messages",
    ]


async def test_more_than_a_thousand_keys(kv: KVServer, raw: RawKV, store: Storage) -> None:
    start = datetime(2025, 6, 1, tzinfo=timezone.utc)
    rows = {
        f"{K}mastra_messages:t1:m{n}": message(
            f"m{n}", (start + timedelta(seconds=n)).isoformat(timespec="milliseconds")
        )
        for n in range(1_203)
    }
    await raw.put(THREADS, f"{K}mastra_threads:t1", thread())
    await raw.put_many(MESSAGES, rows)
    await raw.put(MESSAGES, f"{K}mastra_messages:t1:messages", [])
    assert [m.id for m in await store.get_messages("t1", last=2)] == ["m1201", "m1202"]
    assert [m.id async for m in store.iter_messages("t1", batch_size=500)] == [
        f"m{n}" for n in range(1_203)
    ]
    await store.delete_thread("t1")
    assert await raw.keys(MESSAGES) == await raw.keys(THREADS) == []


async def test_all_damaged_records_of_a_page_are_named(store: Storage, raw: RawKV) -> None:
    await raw.put(THREADS, f"{K}mastra_threads:t1", thread())
    for n in range(30):
        await raw.put(MESSAGES, f"{K}mastra_messages:t1:m{n:02}", message(f"m{n:02}"))
    for n in range(3, 30, 10):
        await raw.put(MESSAGES, f"{K}mastra_messages:t1:m{n:02}", "{")
    with pytest.raises(StorageError) as caught:
        await store.get_messages("t1")
    assert [f"m{n:02}" for n in range(30) if f":m{n:02}'" in str(caught.value)] == [
        "m03",
        "m13",
        "m23",
    ]


TIMES = {"createdAt": "2025-06-01T12:00:00.000Z", "updatedAt": "2025-06-01T12:00:00.000Z"}
OTHERS = {
    "score": {"id": "score", "scorerId": "s", "score": 1, "metadata": None, **TIMES},
    "task": {"id": "task", "tool_name": "t", "status": "done", **TIMES},
    "feature-flags": {"dark": True},
    "other:mastra_threads:t1": thread(),
    "greeting": "hello",
}


class TestANamespaceForAllTables:
    """Resources, scores and tasks have bare ids there, beside what other programs keep."""

    @pytest.fixture
    async def kv(self) -> MemoryKV:
        kv = MemoryKV()
        await kv.write("", [Pair(key, stringify(v).encode(), "") for key, v in OTHERS.items()], [])
        return kv

    @pytest.fixture
    async def store(self, kv: MemoryKV) -> AsyncIterator[Storage]:
        async with Storage(InteropBackend(kv, prefix="mine", titled=False)) as storage:
            yield storage

    async def test_holds_the_resources_that_were_stored(self, store: Storage, kv: MemoryKV) -> None:
        assert await store.backend.tables() == []
        await store.save_resource(Resource(id="ann", working_memory="notes"))
        await kv.write("", [Pair("bob", stringify({"id": "bob", **TIMES}).encode(), "")], [])
        assert await store.backend.tables() == ["resources"]
        for order in ("created", "any"):
            found = await store.backend.query(Query(table=RESOURCES_TABLE, order_by=order))
            assert sorted(row.key for row in found.rows) == [("ann",), ("bob",)]

    async def test_keeps_what_is_no_resource(self, store: Storage, kv: MemoryKV) -> None:
        await store.save_thread(Thread(id="t1", resource_id="ann"))
        await store.save_resource(Resource(id="ann", working_memory="notes"))
        await store.clear_table("resources")
        assert kv.pairs.keys() == {*OTHERS, "mine:mastra_threads:t1"}
        with pytest.raises(StorageError, match="'feature-flags'"):
            await store.get_resource("feature-flags")
