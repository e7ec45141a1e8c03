"""What the early Convex store for TypeScript did wrong, each tried here, and found to be right.

One of its habits is part of the contract, and so not here: `save_thread` replaces the record,
`created_at` included.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime, timedelta, timezone

import aiohttp
import pytest
from convex_calls import WRITE, cost_at, ids, message, messages
from convex_server import ConvexServer
from convex_stores import convex_store

from mastra_storage import (
    Eval,
    Include,
    Message,
    MessageUpdate,
    Resource,
    Storage,
    StorageError,
    Thread,
    Trace,
    WorkflowRun,
)

pytestmark = pytest.mark.once

T0 = datetime(2025, 1, 1, tzinfo=timezone.utc)
THEIRS = {
    "threads": "getById getByResourceId getByResourceIdPaginated save update deleteThread",
    "messages": "get getByThreadId save update",
    "traces": "save batchSave getByTraceId getPaginated load",
    "evals": "save get getByGlobalRunId getByAgentName",
    "workflowRuns": "save batchSave update get getByStatus getByStateType getWithFilters load",
    "system": "clearAllTables ensureTables clearTable getTableColumns",
}


@pytest.fixture
async def store(convex: ConvexServer) -> AsyncIterator[Storage]:
    """A store with an empty thread "t" of resource "r"."""
    async with convex_store(convex) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r", created_at=T0))
        yield storage


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


async def test_every_function_was_public(convex: ConvexServer, store: Storage) -> None:
    paths = [f"{module}:{name}" for module, names in THEIRS.items() for name in names.split()]
    async with aiohttp.ClientSession() as session:
        for path in paths:
            for way in ("query", "mutation"):
                call = {"path": path, "args": {}, "format": "json"}
                async with session.post(f"{convex.url}/api/{way}", json=call) as answer:
                    found = await answer.json()
                assert "Could not find public function" in found["errorMessage"], path
    assert await store.get_thread_by_id("t") is not None


async def test_deleting_a_thread_kept_its_messages(convex: ConvexServer, store: Storage) -> None:
    await store.save_messages(messages(1_200))
    await store.delete_thread("t")
    assert await store.get_messages("t") == []
    assert await store.get_messages_by_id("t", ["m0", "m1199"]) == []
    await store.save_thread(Thread(id="t", resource_id="r"))
    assert await store.get_messages("t") == []
    await convex.control(settle=True)
    assert (await convex.control())["documents"]["messages"] == 0


async def test_updating_a_thread_replaced_its_metadata(store: Storage) -> None:
    await store.update_thread("t", metadata={"a": 1, "b": {"c": 2}})
    await store.update_thread("t", title="new")
    found = await store.update_thread("t", metadata={"b": 3, "d": None})
    assert found.metadata == {"a": 1, "b": 3, "d": None}
    assert await store.get_thread_by_id("t") == found


async def test_a_message_did_not_move_its_threads_updated_at(store: Storage) -> None:
    moments = []
    for change in (
        lambda: store.save_message(message("m")),
        lambda: store.update_messages("t", [MessageUpdate("m", content="x")]),
        lambda: store.delete_messages("t", ["m"]),
    ):
        await change()
        thread = await store.get_thread_by_id("t")
        assert thread is not None
        moments.append(thread.updated_at)
    assert T0 < moments[0] < moments[1] < moments[2]
    await store.save_thread(Thread(id="newer", resource_id="r", created_at=at(1)))
    await store.save_message(message("again"))
    assert ids(await store.list_threads(order_by="updated_at")) == ["t", "newer"]


async def test_messages_lost_their_resource_id(store: Storage) -> None:
    await store.save_messages([message("m0"), message("m1", resource_id="other")])
    found = await store.get_messages("t")
    assert [each.resource_id for each in found] == [None, "other"]
    assert ids(await store.get_messages("t", resource_id="r")) == ["m0"]


async def test_users_became_assistants(store: Storage) -> None:
    kinds = [
        ("user", "text"),
        ("assistant", "tool-call"),
        ("tool", "tool-result"),
        ("system", "text"),
        ("user", "v2"),
    ]
    batch = [message(f"m{n}", role=role, type=kind) for n, (role, kind) in enumerate(kinds)]
    await store.save_messages(batch)
    found = await store.get_messages("t")
    assert [(each.role, each.type) for each in found] == kinds


async def test_traces_were_told_apart_by_the_wrong_id(store: Storage) -> None:
    spans = [Trace(id=f"span{n}", trace_id="trace", created_at=at(n)) for n in range(3)]
    await store.save_traces(spans)
    await store.save_trace(Trace(id="span1", trace_id="other", created_at=at(1)))
    assert ids(await store.get_traces(trace_id="trace")) == ["span2", "span0"]
    assert ids(await store.get_traces(trace_id="other")) == ["span1"]
    assert (await store.get_traces()).total == 3


async def test_a_run_had_one_metric(store: Storage) -> None:
    metrics = [
        Eval(agent_name="a", metric_name=f"metric{n}", run_id="run", global_run_id="global")
        for n in range(3)
    ]
    for each in metrics:
        await store.save_eval(each)
    found = await store.get_evals(run_id="run")
    assert {each.metric_name for each in found} == {"metric0", "metric1", "metric2"}


async def test_a_total_was_a_read_of_the_whole_table(convex: ConvexServer, store: Storage) -> None:
    await store.batch_insert(
        "traces", [Trace(id=f"x{n}", name="ab"[n % 50 == 0]) for n in range(2_000)]
    )
    async with cost_at(convex) as cost:
        page = await store.get_traces(name="b", per_page=10, count=False)
    assert (len(page), page.total, page.has_more) == (10, None, True)
    assert (len(cost), cost.documents) == (1, 11)
    async with cost_at(convex) as cost:
        page = await store.get_traces(name="b", per_page=10)
    assert (len(page), page.total) == (10, 40)
    assert cost.documents == 11 + 40  # those of the name alone
    assert max(entry["bytesOut"] for entry in cost) < 10_000


async def test_a_page_read_all_rows_before_it(convex: ConvexServer, store: Storage) -> None:
    await store.save_messages(messages(1_000))
    page = await store.get_messages_paginated("t", per_page=20, count=False)
    while page.next_cursor:
        async with cost_at(convex) as cost:
            page = await store.get_messages_paginated(
                "t", per_page=20, cursor=page.next_cursor, count=False
            )
        assert len(cost) == 1
        assert cost.documents <= 21
    assert (page.page, page.items[-1].id) == (49, "m999")
    async with cost_at(convex) as cost:  # by its number it is walked to, and given alone
        again = await store.get_messages_paginated("t", per_page=20, page=49, count=False)
    assert again.items == page.items
    assert cost[0]["bytesOut"] < 10_000


async def test_pages_began_at_one(store: Storage) -> None:
    await store.save_messages(messages(5))
    pages = [await store.get_messages_paginated("t", page=n, per_page=2) for n in range(4)]
    assert [ids(page) for page in pages] == [["m0", "m1"], ["m2", "m3"], ["m4"], []]
    assert [page.total for page in pages] == [5] * 4
    assert [page.has_more for page in pages] == [True, True, False, False]


async def test_the_order_was_that_of_insertion(store: Storage) -> None:
    batch = [message(f"m{n}", created_at=at(n)) for n in (3, 1, 4, 0, 2)]
    for each in batch:
        await store.save_message(each)
    assert ids(await store.get_messages("t")) == ["m0", "m1", "m2", "m3", "m4"]
    assert ids(await store.get_messages("t", last=2)) == ["m3", "m4"]
    for n in (3, 1, 2):
        await store.save_thread(Thread(id=f"t{n}", resource_id="s", created_at=at(n)))
        await store.save_trace(Trace(id=f"x{n}", created_at=at(n)))
    assert ids(await store.get_threads_by_resource_id("s")) == ["t3", "t2", "t1"]
    assert ids(await store.get_traces()) == ["x3", "x2", "x1"]


async def test_clearing_was_one_mutation_of_all_rows(convex: ConvexServer, store: Storage) -> None:
    await store.batch_insert("traces", [Trace(id=f"x{n}") for n in range(2_500)])
    async with cost_at(convex) as cost:
        await store.clear_table("traces")
    assert cost.labels == [WRITE]
    assert cost.documents < 1_100
    assert (await store.get_traces()).total == 0
    await convex.control(settle=True)
    assert (await convex.control())["documents"]["traces"] == 0
    assert await store.get_thread_by_id("t") is not None


async def test_clearing_swallowed_errors(convex: ConvexServer, store: Storage) -> None:
    await store.save_trace(Trace(id="x"))
    await convex.control(faults=[{"kind": "error", "match": "system:write"}])
    with pytest.raises(StorageError):
        await store.clear_table("traces")
    assert (await store.get_traces()).total == 1


async def test_a_new_status_was_refused(store: Storage) -> None:
    for number, status in enumerate(("success", "waiting-for-approval", "⏸", "")):
        run = WorkflowRun(
            workflow_name="w", run_id=f"u{number}", status=status, snapshot={"status": "other"}
        )
        await store.save_workflow_run(run)
        assert await store.get_workflow_run(run.run_id, workflow_name="w") == run
    assert [run.run_id for run in await store.get_workflow_runs(status="⏸")] == ["u2"]


async def test_the_class_and_its_functions_did_not_match(
    convex: ConvexServer, store: Storage
) -> None:
    async with cost_at(convex) as cost:
        await store.save_message(message("m"))
        await store.get_messages_paginated("t")
        await store.get_messages_by_id("t", ["m"])
        await store.update_messages("t", [MessageUpdate("m", role="tool")])
        await store.update_thread("t", title="new")
        await store.list_threads(resource_id="r")
        await store.persist_workflow_snapshot("w", "u", {"status": "done"}, resource_id="r")
        await store.get_workflow_runs(
            workflow_name="w", resource_id="r", status="done", from_date=T0, to_date=at(1e9)
        )
        await store.save_trace(Trace(id="x"))
        await store.get_trace("x")
        await store.get_traces(
            trace_id="x", name="n", scope="s", thread_id="t", run_id="u", from_date=T0
        )
        await store.save_eval(Eval(id="e", agent_name="a"))
        await store.get_eval("e")
        await store.get_evals(agent_name="a", type="live", thread_id="t", run_id="u")
        await store.save_resource(Resource(id="r"))
        await store.update_resource("r", working_memory={"a": 1})
        await store.backend.tables()
        for table in ("threads", "messages", "workflow_snapshot", "traces", "evals", "resources"):
            await store.clear_table(table)
    assert {entry["status"] for entry in cost} == {200}
    assert not [entry for entry in cost if entry.get("error")]
    modules = ("threads", "messages", "workflowRuns", "traces", "evals")
    expected = {f"query {module}:{name}" for module in modules for name in ("list", "count")}
    assert expected <= set(cost.labels)


async def test_what_was_selected_was_not_given(store: Storage) -> None:
    await store.save_messages([message(f"m{n}", created_at=at(n)) for n in range(20)])
    around = [Include("m5", previous=1, next=2)]
    found = await store.get_messages("t", last=2, include=around)
    assert ids(found) == ["m4", "m5", "m6", "m7", "m18", "m19"]
    assert ids(await store.get_messages("t", last=0, include=around)) == ["m4", "m5", "m6", "m7"]
    assert ids(await store.get_messages("t", to_date=at(4))) == [f"m{n}" for n in range(5)]
    assert ids(await store.get_messages("t", from_date=at(18))) == ["m18", "m19"]


async def test_subscriptions_gave_raw_rows(convex: ConvexServer, store: Storage) -> None:
    async with convex_store(convex) as other, aclosing(store.watch_messages("t")) as states:
        assert await anext(states) == []
        saved = await other.save_message(message("m", content={"parts": [1, 2.0]}))
        async with asyncio.timeout(20):
            state = await anext(states)
        assert state == [saved]
        assert type(state[0]) is Message
        assert state[0].created_at == saved.created_at
