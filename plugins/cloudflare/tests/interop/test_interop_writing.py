"""What is written is what the TypeScript store would write, and loses nothing of what it wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from kv_server import KVServer
from mastra_storage_cloudflare import CloudflareStore

from interop.typescript import PREFIX, RawKV, interop_store, message, thread
from mastra_storage import (
    Eval,
    InvalidArgumentError,
    InvalidRecordError,
    Message,
    MessageUpdate,
    NotFoundError,
    Resource,
    Storage,
    StorageError,
    Table,
    Thread,
    TooLargeError,
    Trace,
    UnsupportedError,
    WorkflowRun,
    open_storage,
)

THREADS, MESSAGES = "myapp__mastra_threads", "myapp__mastra_messages"
RUNS, TRACES = "myapp__mastra_workflow_snapshot", "myapp__mastra_traces"
EVALS, RESOURCES = "myapp__mastra_evals", "myapp__mastra_resources"
THREAD_KEY = "myapp_:mastra_threads:t1"
KEY = "myapp_:mastra_messages:t1:"
RUN_KEY = "myapp_:mastra_workflow_snapshot:w:r1"

NOON = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)
NOON_MS = 1748779200123
V2 = {"format": 2, "parts": [{"type": "text", "text": "Grüezi 🧵"}]}


def ours(message_id: str, seconds: float = 0, **changes: Any) -> Message:
    at = NOON + timedelta(seconds=seconds)
    given: dict[str, Any] = {"thread_id": "t1", "role": "user", "content": V2, "created_at": at}
    return Message(id=message_id, **(given | changes))


async def with_thread(store: Storage) -> None:
    await store.save_thread(Thread(id="t1", resource_id="user-1", created_at=NOON))


async def test_a_thread_byte_for_byte(store: Storage, raw: RawKV) -> None:
    await store.save_thread(
        Thread(id="t1", resource_id="user-1", title="Zürich", metadata={"a": 1}, created_at=NOON)
    )
    assert await raw.text(THREADS, THREAD_KEY) == (
        '{"id":"t1","resourceId":"user-1","title":"Zürich","metadata":{"a":1},'
        '"createdAt":"2025-06-01T12:00:00.123Z","updatedAt":"2025-06-01T12:00:00.123Z"}'
    )
    assert list(await raw.titles()) == [THREADS]
    assert await raw.listed(THREADS) == [{"name": THREAD_KEY}]  # without metadata of the key


async def test_messages_and_their_list_byte_for_byte(store: Storage, raw: RawKV) -> None:
    await with_thread(store)
    await store.save_messages([ours("m2", 60), ours("m1", role="system", content="Hi")])
    assert await raw.text(MESSAGES, KEY + "m2") == (
        '{"id":"m2","threadId":"t1","resourceId":"user-1","role":"user","type":"v2",'
        '"content":{"format":2,"parts":[{"type":"text","text":"Grüezi 🧵"}]},'
        '"createdAt":"2025-06-01T12:01:00.123Z"}'
    )
    assert await raw.text(MESSAGES, KEY + "m1") == (
        '{"id":"m1","threadId":"t1","resourceId":"user-1","role":"system","type":"v2",'
        '"content":"Hi","createdAt":"2025-06-01T12:00:00.123Z"}'
    )
    assert await raw.text(MESSAGES, KEY + "messages") == (
        '[{"id":"m1","score":1748779200123},{"id":"m2","score":1748779260123}]'
    )
    assert len(await raw.keys(MESSAGES)) == 3


async def test_a_deleted_thread_takes_along_what_was_being_saved(kv: KVServer) -> None:
    late = Message(id="m1", thread_id="t1", resource_id="r1", role="user", content=V2)
    async with interop_store(kv) as store:
        await store.save_thread(Thread(id="t1", resource_id="r1"))
        await kv.control(faults=[{"kind": "delay", "match": "PUT bulk", "ms": 600}])
        saving = asyncio.create_task(store.save_message(late))
        await asyncio.sleep(0.2)
        saving.cancel()
        await asyncio.wait([saving])
        await store.delete_thread("t1")
        await store.save_thread(Thread(id="t1", resource_id="r1"))
        assert await store.get_messages("t1") == []
    async with interop_store(kv) as other:
        assert await other.get_messages("t1") == []


async def test_a_snapshot_byte_for_byte(store: Storage, raw: RawKV) -> None:
    run = WorkflowRun(
        workflow_name="w",
        run_id="r1",
        resource_id="user-1",
        snapshot={"status": "done", "é": [1.0]},
        created_at=NOON,
    )
    await store.save_workflow_run(run)
    assert await raw.text(RUNS, RUN_KEY) == (
        '{"workflow_name":"w","run_id":"r1","resourceId":"user-1",'
        r'"snapshot":"{\"status\":\"done\",\"é\":[1.0]}",'
        '"createdAt":"2025-06-01T12:00:00.123Z","updatedAt":"2025-06-01T12:00:00.123Z"}'
    )


async def test_a_resource_byte_for_byte(store: Storage, raw: RawKV) -> None:
    await store.save_resource(
        Resource(id="user:1", working_memory="# Ann", metadata={"a": "ü"}, created_at=NOON)
    )
    assert await raw.text(RESOURCES, "user:1") == (
        r'{"id":"user:1","workingMemory":"# Ann","metadata":"{\"a\":\"ü\"}",'
        '"createdAt":"2025-06-01T12:00:00.123Z","updatedAt":"2025-06-01T12:00:00.123Z"}'
    )


async def test_a_trace(store: Storage, raw: RawKV) -> None:
    trace = Trace(
        id="s1",
        name="llm",
        attributes={"a": 1},
        created_at=NOON,
        ended_at=NOON + timedelta(seconds=1),
        thread_id="t1",
    )
    await store.save_trace(trace)
    assert await raw.json(TRACES, "myapp_:mastra_traces:s1") == {
        "id": "s1",
        "parentSpanId": None,
        "name": "llm",
        "traceId": "s1",
        "scope": None,
        "kind": None,
        "attributes": {"a": 1},
        "status": None,
        "events": [],
        "links": [],
        "other": None,
        "startTime": NOON_MS,
        "endTime": NOON_MS + 1000,
        "createdAt": "2025-06-01T12:00:00.123Z",
        "threadId": "t1",
    }
    [found] = await store.get_traces(thread_id="t1")
    assert found.attributes == {"a": 1}


@pytest.mark.parametrize("kind", ["live", "test"])
@pytest.mark.parametrize("test_info", [None, {"testName": "n"}])
async def test_an_eval(store: Storage, raw: RawKV, kind: Any, test_info: Any) -> None:
    saved = Eval(
        id="e1",
        agent_name="a",
        type=kind,
        metric_name="m",
        run_id="r1",
        thread_id="t1",
        result={"score": 1},
        test_info=test_info,
        data={"x": 1},
        created_at=NOON.replace(microsecond=123_000),
    )
    await store.save_eval(saved)
    row = await raw.json(EVALS, "myapp_:mastra_evals:e1")
    at = "2025-06-01T12:00:00.123Z"
    assert (row["agent_name"], row["metric_name"], row["run_id"]) == ("a", "m", "r1")
    assert (row["test_info"], row["created_at"], row["createdAt"]) == (test_info, at, at)
    assert row["metadata"] == ""
    assert await store.get_eval("e1") == saved


async def test_unknown_members_outlive_updates(store: Storage, raw: RawKV) -> None:
    known = {
        "archivedAt": None,
        "lastMessageAt": "2025-06-01T12:00:00.000Z",
        "future": [{"x": 1.0}],
    }
    await raw.put(THREADS, THREAD_KEY, thread(metadata='{"a":1}', **known))
    await raw.put(MESSAGES, KEY + "m1", message("m1", type="tool-call", toolNames=["n"]))
    await raw.put(MESSAGES, KEY + "messages", [{"id": "m1", "score": 0}])
    row = {"workflow_name": "w", "run_id": "r1", "snapshot": {"status": "running"}, "x": {"y": 1}}
    times = {"createdAt": "2025-06-01T12:00:00.000Z", "updatedAt": "2025-06-01T12:00:00.000Z"}
    await raw.put(RUNS, RUN_KEY, row | times)
    await raw.put(
        RESOURCES, "u", {"id": "u", "workingMemory": "a", "metadata": None, "z": 1} | times
    )

    await store.update_thread("t1", title="new", metadata={"b": 2})
    found = await raw.json(THREADS, THREAD_KEY)
    assert found["title"] == "new"
    assert found["metadata"] == {"a": 1, "b": 2}
    assert found["createdAt"] == "2025-06-01T12:00:00.000Z"
    assert {name: found[name] for name in known} == known
    assert '"future":[{"x":1.0}]' in await raw.text(THREADS, THREAD_KEY)

    await store.update_messages("t1", [MessageUpdate("m1", role="assistant")])
    assert await raw.json(MESSAGES, KEY + "m1") == message(
        "m1", type="tool-call", toolNames=["n"], role="assistant"
    )
    assert {name: (await raw.json(THREADS, THREAD_KEY))[name] for name in known} == known

    await store.persist_workflow_snapshot("w", "r1", {"value": 1})
    found = await raw.json(RUNS, RUN_KEY)
    assert (found["snapshot"], found["x"], found["status"]) == ('{"value":1}', {"y": 1}, "running")
    assert found["createdAt"] == times["createdAt"] < found["updatedAt"]

    await store.update_resource("u", working_memory="b", metadata={"m": 1})
    found = await raw.json(RESOURCES, "u")
    assert (found["workingMemory"], found["metadata"], found["z"]) == ("b", '{"m":1}', 1)


async def test_what_typescript_wrote_meanwhile_is_not_lost(store: Storage, raw: RawKV) -> None:
    await with_thread(store)
    await store.save_message(ours("m1"))
    row = await raw.json(THREADS, THREAD_KEY)
    await raw.put(THREADS, THREAD_KEY, row | {"title": "theirs", "archivedAt": None})
    listed = await raw.json(MESSAGES, KEY + "messages")
    await raw.put(MESSAGES, KEY + "m2", message("m2", "2025-06-01T12:00:01.000Z"))
    await raw.put(MESSAGES, KEY + "messages", [*listed, {"id": "m2", "score": 1748779201000}])

    await store.save_message(ours("m3", 2))
    assert [m.id for m in await store.get_messages("t1")] == ["m1", "m2", "m3"]
    assert [e["id"] for e in await raw.json(MESSAGES, KEY + "messages")] == ["m1", "m2", "m3"]
    await store.update_thread("t1", metadata={"a": 1})
    found = await raw.json(THREADS, THREAD_KEY)
    assert (found["title"], found["archivedAt"], found["metadata"]) == ("theirs", None, {"a": 1})
    await raw.delete(MESSAGES, KEY + "m2")
    await raw.delete(THREADS, THREAD_KEY)
    assert [m.id for m in await store.get_messages("t1")] == ["m1", "m3"]
    assert await store.get_thread_by_id("t1") is None


async def test_a_list_with_scores_of_batches(store: Storage, raw: RawKV) -> None:
    """Three turns, each saved by TypeScript in a batch of its own: its scores begin anew."""
    await raw.put(THREADS, THREAD_KEY, thread())
    turns: list[dict[str, Any]] = []
    for n in range(3):
        at = f"2025-06-01T12:0{n}:00.000Z"
        for score, who in enumerate("ua"):
            await raw.put(MESSAGES, f"{KEY}{who}{n}", message(f"{who}{n}", at))
            turns.append({"id": f"{who}{n}", "score": score})
    theirs = sorted(turns, key=lambda entry: entry["score"])
    await raw.put(MESSAGES, KEY + "messages", theirs)
    order = ["u0", "a0", "u1", "a1", "u2", "a2"]
    assert [m.id for m in await store.get_messages("t1")] == order
    assert [m.id for m in await store.get_messages("t1", last=2)] == ["u2", "a2"]

    await store.save_message(ours("n", 600))
    assert (await raw.json(MESSAGES, KEY + "messages"))[:6] == theirs
    assert [m.id for m in await store.get_messages("t1")] == [*order, "n"]
    page = await store.get_messages_paginated("t1", direction="desc", per_page=3)
    assert [m.id for m in page] == ["n", "a2", "u2"]
    page = await store.get_messages_paginated(
        "t1", direction="desc", per_page=3, cursor=page.next_cursor
    )
    assert [m.id for m in page] == ["a1", "u1", "a0"]


async def test_ghosts_and_lost_entries_of_a_list(store: Storage, raw: RawKV) -> None:
    await raw.put(THREADS, THREAD_KEY, thread())
    await raw.put(MESSAGES, KEY + "lost", message("lost"))
    await raw.put(MESSAGES, KEY + "listed", message("listed", "2025-06-01T13:00:00.000Z"))
    ghosts = [{"id": "ghost", "score": 0}, {"id": "listed", "score": 1}]
    await raw.put(MESSAGES, KEY + "messages", ghosts)
    page = await store.get_messages_paginated("t1", per_page=10)
    assert ([m.id for m in page], page.total) == (["lost", "listed"], 2)
    assert await store.get_messages_by_id("t1", ["ghost"]) == []


async def test_messages_of_one_millisecond_keep_their_order(store: Storage, raw: RawKV) -> None:
    await with_thread(store)
    ids = ["z", "m", "a", "k"]
    await store.save_messages([ours(each, n / 10**6) for n, each in enumerate(ids)])
    await store.save_message(ours("b"))
    await store.save_message(ours("early", -60))
    entries = await raw.json(MESSAGES, KEY + "messages")
    assert [entry["id"] for entry in entries] == ["early", *ids, "b"]
    scores = [entry["score"] for entry in entries]
    assert scores == sorted(set(scores))
    assert scores[1] == NOON_MS
    assert scores[-1] < NOON_MS + 1
    await store.update_messages("t1", [MessageUpdate("m", content="new")])
    await store.save_message(ours("m"))
    assert [m.id for m in await store.get_messages("t1")] == ["early", *ids, "b"]
    await store.save_message(ours("m", 1))
    assert [m.id for m in await store.get_messages("t1")] == ["early", "z", "a", "k", "b", "m"]


async def test_the_list_follows_deletes_and_moves(store: Storage, raw: RawKV) -> None:
    await with_thread(store)
    await store.save_thread(Thread(id="t2", resource_id="user-1"))
    await store.save_messages([ours(f"m{n}", n) for n in range(4)])
    await store.delete_messages("t1", ["m0", "messages", "no such"])
    await store.update_messages("t1", [MessageUpdate("m2", thread_id="t2")])
    assert [e["id"] for e in await raw.json(MESSAGES, KEY + "messages")] == ["m1", "m3"]
    other = "myapp_:mastra_messages:t2:"
    assert [e["id"] for e in await raw.json(MESSAGES, other + "messages")] == ["m2"]
    assert (await raw.json(MESSAGES, other + "m2"))["threadId"] == "t2"
    await store.delete_thread("t2")
    assert await raw.keys(MESSAGES) == [KEY + "m1", KEY + "m3", KEY + "messages"]
    await store.clear_table("messages")
    assert await raw.keys(MESSAGES) == []
    assert await raw.keys(THREADS) == [THREAD_KEY]


async def test_saving_moves_updated_at_in_the_thread_itself(store: Storage, raw: RawKV) -> None:
    await with_thread(store)
    before = datetime.now(timezone.utc)
    await store.save_message(ours("m1"))
    found = datetime.fromisoformat((await raw.json(THREADS, THREAD_KEY))["updatedAt"])
    assert before - timedelta(milliseconds=1) <= found
    saved = await store.get_thread_by_id("t1")
    assert saved is not None
    assert saved.updated_at == found


async def test_concurrent_saves_lose_nothing_of_the_list(kv: KVServer, raw: RawKV) -> None:
    async with interop_store(kv, key_interval=0.05) as store:
        await with_thread(store)
        await kv.control(reset=True)
        saves = [store.save_message(ours(f"m{n}", n)) for n in range(60)]
        titles = [store.update_thread("t1", metadata={f"k{n}": n}) for n in range(10)]
        await asyncio.gather(*saves, *titles)
        assert (await kv.counts())["PUT bulk"] < 60
        listed = [entry["id"] for entry in await raw.json(MESSAGES, KEY + "messages")]
        assert listed == [m.id for m in await store.get_messages("t1")]
        assert listed == [f"m{n}" for n in range(60)]
        found = await store.get_thread_by_id("t1")
        assert found is not None
        assert found.metadata == {f"k{n}": n for n in range(10)}


async def test_own_writes_are_read_while_kv_shows_what_was(kv: KVServer, raw: RawKV) -> None:
    async with interop_store(kv) as store:
        assert await store.get_thread_by_id("t1") is None
        await kv.control(consistency={"staleReadsMs": 60_000, "staleListsMs": 60_000})
        await with_thread(store)
        await store.save_messages([ours("m1"), ours("m2", 1)])
        await store.save_message(ours("m3", 2))
        await store.update_thread("t1", title="a")
        await store.update_thread("t1", metadata={"b": 1})
        await store.delete_messages("t1", ["m2"])
        found = await store.get_thread_by_id("t1")
        assert found is not None
        assert (found.title, found.metadata) == ("a", {"b": 1})
        assert [m.id for m in await store.get_messages("t1")] == ["m1", "m3"]
        await kv.control(consistency={})
        assert [e["id"] for e in await raw.json(MESSAGES, KEY + "messages")] == ["m1", "m3"]
        assert (await raw.json(THREADS, THREAD_KEY))["metadata"] == {"b": 1}


async def test_own_writes_are_read_while_kv_shows_now_them_and_now_what_was(
    kv: KVServer, raw: RawKV
) -> None:
    async with interop_store(kv) as store:
        await with_thread(store)
        await store.save_message(ours("m0"))
        weather = {"staleReadsMs": 60_000, "staleShare": 0.5, "seed": 3}
        await kv.control(consistency=weather)
        for number in range(1, 6):
            await store.update_thread("t1", metadata={f"k{number}": number})
            await store.save_message(ours(f"m{number}", number))
            for _ in range(3):
                found = await store.get_thread_by_id("t1")
                assert found is not None
                assert found.metadata == {f"k{n}": n for n in range(1, number + 1)}
        await kv.control(consistency={})
        entries = await raw.json(MESSAGES, KEY + "messages")
        assert [entry["id"] for entry in entries] == [f"m{n}" for n in range(6)]


@pytest.mark.parametrize("bad", ["a:b", "a?b", "a#b", "a%b", "a/b"])
@pytest.mark.parametrize(
    ("field", "record"),
    [
        ("id", lambda bad: Thread(id=bad, resource_id="r")),
        ("thread_id", lambda bad: ours("m", thread_id=bad)),
        ("id", lambda bad: ours(bad)),
        ("run_id", lambda bad: WorkflowRun(workflow_name="w", run_id=bad)),
        ("workflow_name", lambda bad: WorkflowRun(workflow_name=bad, run_id="r")),
        ("id", lambda bad: Trace(id=bad)),
        ("id", lambda bad: Eval(id=bad, agent_name="a")),
    ],
)
async def test_ids_that_the_layout_cannot_hold_are_refused(
    store: Storage, raw: RawKV, bad: str, field: str, record: Callable[[str], Any]
) -> None:
    refused = record(bad)
    table = {"WorkflowRun": "workflow_snapshot"}.get(
        type(refused).__name__, type(refused).__name__.lower() + "s"
    )
    with pytest.raises(InvalidRecordError, match=f"{field} '{bad[:1]}.{bad[2:]}'") as caught:
        await store.batch_insert(table, [record("fine"), refused])
    assert caught.value.field == field
    assert await raw.titles() == {}


async def test_other_ids_that_are_refused(store: Storage, raw: RawKV) -> None:
    await with_thread(store)
    with pytest.raises(InvalidRecordError, match=r"id 'messages' .*list"):
        await store.save_messages([ours("m1"), ours("messages")])
    with pytest.raises(InvalidRecordError, match=r"id 'a\\x00b' .*U\+0000"):
        await store.save_message(ours("a\0b"))
    with pytest.raises(InvalidRecordError, match=r"id '\.\./\.\.'"):
        await store.save_resource(Resource(id="../.."))
    with pytest.raises(InvalidRecordError, match=r"id '\.\.'"):
        await store.save_resource(Resource(id=".."))
    for taken in ("myapp_:mastra_docs", "myapp_:schema:foo"):
        with pytest.raises(InvalidRecordError, match="taken for a record of another table"):
            await store.save_resource(Resource(id=taken))
    long = ours("m" * 256, thread_id="t" * 256)
    with pytest.raises(InvalidRecordError, match="KV has keys of 512"):
        await store.insert("messages", long)
    assert await store.get_messages_by_id("t" * 256, ["m" * 256]) == []
    assert list(await raw.titles()) == [THREADS]


async def test_what_the_layout_does_not_have_is_refused(store: Storage) -> None:
    table = Table(name="checkpoints", key=("id",))
    store.register(table)
    with pytest.raises(UnsupportedError, match="no table 'checkpoints'"):
        await store.insert("checkpoints", {"id": "x"})
    with pytest.raises(UnsupportedError, match="no table 'checkpoints'"):
        await store.load("checkpoints", id="x")
    with pytest.raises(NotFoundError, match="'t1'"):
        await store.save_message(ours("m1"))
    quotes = '"' * (12 * 2**20)  # each doubles in a snapshot, which is JSON in a string
    with pytest.raises(TooLargeError, match="layout of the TypeScript store"):
        await store.persist_workflow_snapshot("w", "r1", quotes)


async def test_stores_are_opened_by_url_and_by_class(
    kv: KVServer, raw: RawKV, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", kv.token)
    url = f"cloudflare://{kv.account_id}?namespace_prefix={PREFIX}&interop=mastra"
    async with open_storage(url, base_url=kv.url, consistency_seconds="0") as store:
        await with_thread(store)
    given: dict[str, Any] = {"account_id": kv.account_id, "namespace_prefix": PREFIX}
    async with CloudflareStore(**given, base_url=kv.url, interop="mastra") as store:
        found = await store.get_thread_by_id("t1")
        assert found is not None
        assert found.resource_id == "user-1"
    assert list(await raw.titles()) == [THREADS]
    with pytest.raises(InvalidArgumentError, match="interop must be 'mastra', not 'other'"):
        CloudflareStore(**given, interop="other")
    with pytest.raises(UnsupportedError, match="retention"):
        CloudflareStore(**given, interop="mastra", retention={"traces": timedelta(days=1)})


async def test_without_a_prefix_titles_and_keys_have_none(kv: KVServer, raw: RawKV) -> None:
    async with interop_store(kv, prefix="") as store:
        await with_thread(store)
        await store.save_message(ours("m1"))
    assert await raw.keys("mastra_threads") == ["mastra_threads:t1"]
    assert await raw.keys("mastra_messages") == [
        "mastra_messages:t1:m1",
        "mastra_messages:t1:messages",
    ]


async def test_reads_make_no_namespace(store: Storage, raw: RawKV) -> None:
    assert await store.get_messages("t1") == []
    assert await store.get_resource("u") is None
    assert await store.get_workflow_run("r") is None
    assert await store.backend.tables() == []
    assert await raw.titles() == {}


async def test_two_stores_lose_no_message(kv: KVServer, raw: RawKV) -> None:
    """They may lose entries of the list to each other, as in TypeScript; messages are found."""
    async with interop_store(kv) as one, interop_store(kv) as other:
        await with_thread(one)
        faults = [
            {"kind": "status", "status": 503, "match": "bulk", "probability": 0.05},
            {"kind": "drop", "when": "after", "match": "PUT bulk", "probability": 0.05},
        ]
        await kv.control(faults=faults, consistency={"staleReadsMs": 300, "staleShare": 0.3})
        saves = [
            store.save_message(ours(f"{name}{n}", n))
            for n in range(30)
            for name, store in (("a", one), ("b", other))
        ]
        await asyncio.gather(*saves)
        await kv.control(faults=[], consistency={})
    async with interop_store(kv) as third:
        found = [m.id for m in await third.get_messages("t1")]
        assert sorted(found) == sorted(f"{name}{n}" for n in range(30) for name in "ab")
        assert [each[1:] for each in found] == [str(n // 2) for n in range(60)]


async def test_a_damaged_list_or_thread_is_named(store: Storage, raw: RawKV) -> None:
    await with_thread(store)
    await raw.put(MESSAGES, KEY + "messages", '{"no":"list"}')
    with pytest.raises(StorageError, match="'myapp_:mastra_messages:t1:messages' is not what"):
        await store.save_message(ours("m1"))
    with pytest.raises(StorageError, match="'myapp_:mastra_messages:t1:messages' is not what"):
        await store.get_messages("t1")
    await raw.put(THREADS, THREAD_KEY, thread(metadata="[1]"))
    with pytest.raises(StorageError, match=rf"'{THREAD_KEY}' is not a record .* metadata"):
        await store.update_thread("t1", title="new")


async def test_a_member_named_value_is_refused(store: Storage, raw: RawKV) -> None:
    await raw.put(THREADS, THREAD_KEY, thread(value={"a": 1}))
    with pytest.raises(InvalidRecordError, match="member 'value'"):
        await store.update_thread("t1", title="new")
    assert await raw.json(THREADS, THREAD_KEY) == thread(value={"a": 1})
