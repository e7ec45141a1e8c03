"""What each call costs, counted at the server: the table of docs/convex.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from convex_calls import WRITE, Cost, cost_at, ids, message, messages
from convex_server import ConvexServer
from convex_stores import convex_store

from mastra_storage import (
    Eval,
    Include,
    MessageUpdate,
    Page,
    Storage,
    Thread,
    Trace,
    WorkflowRun,
)

Call = Callable[[Storage], Awaitable[Any]]

SMALL, LARGE = 100, 5_000  # messages
pytestmark = pytest.mark.once  # what is counted is the same on every Python

MOST = 1_500  # rows of any other table
START = datetime(2025, 1, 1, tzinfo=timezone.utc)
HALF = START + timedelta(seconds=SMALL // 2)
FIELDS: dict[str, Any] = {"thread_id": "t", "run_id": "u0"}

# Each is one query of this function.
READS: dict[str, tuple[str, Call]] = {
    "thread": ("threads:get", lambda s: s.get_thread_by_id("t")),
    "trace": ("traces:get", lambda s: s.get_trace("x1")),
    "eval": ("evals:get", lambda s: s.get_eval("e1")),
    "run": ("workflowRuns:get", lambda s: s.get_workflow_run("u1", workflow_name="w")),
    "run of any workflow": ("workflowRuns:list", lambda s: s.get_workflow_run("u1")),
    "messages by id": ("messages:get", lambda s: s.get_messages_by_id("t", ["m1", "m2"])),
    "last messages": ("messages:list", lambda s: s.get_messages("t", last=10)),
    "messages of some time": (
        "messages:list",
        lambda s: s.get_messages("t", from_date=HALF, to_date=HALF + timedelta(seconds=5)),
    ),
    "messages ascending": ("messages:list", lambda s: s.get_messages_paginated("t", count=False)),
    "messages descending": (
        "messages:list",
        lambda s: s.get_messages_paginated("t", direction="desc", count=False),
    ),
    "threads": ("threads:list", lambda s: s.list_threads(per_page=20, count=False)),
    "threads oldest first": (
        "threads:list",
        lambda s: s.list_threads(direction="asc", per_page=20, count=False),
    ),
    "threads by update": (
        "threads:list",
        lambda s: s.list_threads(order_by="updated_at", per_page=20, count=False),
    ),
    "threads of a resource": (
        "threads:list",
        lambda s: s.list_threads(resource_id="r", per_page=20, count=False),
    ),
    "threads of a resource by update": (
        "threads:list",
        lambda s: s.list_threads(resource_id="r", order_by="updated_at", per_page=20, count=False),
    ),
    "threads of a resource that has few": (
        "threads:list",
        lambda s: s.list_threads(resource_id="few", per_page=20, count=False),
    ),
    "traces": ("traces:list", lambda s: s.get_traces(per_page=20, count=False)),
    "traces of some time": (
        "traces:list",
        lambda s: s.get_traces(from_date=START, to_date=HALF, per_page=20, count=False),
    ),
    "evals": ("evals:list", lambda s: s.get_evals(per_page=20, count=False)),
    "runs": ("workflowRuns:list", lambda s: s.get_workflow_runs(per_page=20, count=False)),
} | {
    f"{kind} by {name}": (
        f"{module}:list",
        lambda s, kind=kind, f=name, v=value: page(s, kind, f, v),
    )
    for kind, module, fields in (
        ("traces", "traces", {"trace_id": "x", "name": "n", "scope": "s"} | FIELDS),
        ("evals", "evals", {"agent_name": "a", "type": "test"} | FIELDS),
        ("runs", "workflowRuns", {"workflow_name": "w", "resource_id": "r", "status": "done"}),
    )
    for name, value in fields.items()
}


def page(storage: Storage, kind: str, field: str, value: str) -> Awaitable[Page[Any]]:
    """The first 20 that have this value in this indexed field."""
    listing: Any = {
        "traces": storage.get_traces,
        "evals": storage.get_evals,
        "runs": storage.get_workflow_runs,
    }[kind]
    found: Awaitable[Page[Any]] = listing(**{field: value}, per_page=20, count=False)
    return found


async def fill(server: ConvexServer, count: int) -> None:
    """So many rows in every table; those that a filter takes lie among as many others."""
    times = [START + timedelta(seconds=n) for n in range(count)]
    async with convex_store(server) as storage:
        batch = messages(count)
        for each, time in zip(batch, times, strict=True):
            each.created_at = time
        await storage.batch_insert("messages", batch)
        threads = [Thread(id="t", resource_id="r", created_at=START)]
        others: dict[str, list[Any]] = {"traces": [], "evals": [], "workflow_snapshot": []}
        for n, time in enumerate(times[:MOST]):
            row: dict[str, Any] = {"created_at": time} | ({} if n % 2 else FIELDS)
            owner = "few" if n in (1, 2) else "r"
            threads.append(Thread(id=f"t{n}", resource_id=owner, created_at=time))
            others["traces"].append(
                Trace(id=f"x{n}", trace_id="xy"[n % 2], name="nm"[n % 2], scope="sr"[n % 2], **row)
            )
            others["evals"].append(
                Eval(id=f"e{n}", agent_name="ab"[n % 2], type=("test", "live")[n % 2], **row)
            )
            others["workflow_snapshot"].append(
                WorkflowRun(
                    run_id=f"u{n}",
                    workflow_name="v" if n % 2 and n > 2 else "w",
                    resource_id="rq"[n % 2],
                    status=("done", "failed")[n % 2],
                    created_at=time,
                )
            )
        await storage.batch_insert("threads", threads)
        for table, rows in others.items():
            await storage.batch_insert(table, rows)


def filled(count: int) -> Iterator[ConvexServer]:
    with ConvexServer.start() as server:
        asyncio.run(fill(server, count))
        yield server


@pytest.fixture(scope="module")
def small() -> Iterator[ConvexServer]:
    """A server of its own with 100 rows in every table."""
    yield from filled(SMALL)


@pytest.fixture(scope="module")
def large() -> Iterator[ConvexServer]:
    """A server of its own with 5,000 messages, and 1,500 rows in every other table."""
    yield from filled(LARGE)


@pytest.fixture
async def storage(convex: ConvexServer) -> AsyncIterator[Storage]:
    """An empty store."""
    async with convex_store(convex) as storage:
        yield storage


async def cost_of(server: ConvexServer, call: Call) -> tuple[Cost, Any]:
    """What a call costs a store that has done nothing before, and what it gives."""
    async with convex_store(server) as storage, cost_at(server) as cost:
        found = await call(storage)
    return cost, found


@pytest.mark.parametrize("name", READS)
async def test_a_read_is_one_call_whatever_the_size_of_the_table(
    small: ConvexServer, large: ConvexServer, name: str
) -> None:
    function, call = READS[name]
    of_few, few = await cost_of(small, call)
    of_many, many = await cost_of(large, call)
    assert few
    assert of_few.labels == of_many.labels == [f"query {function}"]
    assert of_few.documents == of_many.documents
    given = 1 if not hasattr(many, "__len__") else len(many)
    assert given <= of_many.documents <= given + 1


async def test_the_last_ten_messages_are_the_last_ten(
    small: ConvexServer, large: ConvexServer
) -> None:
    for server, count in ((small, SMALL), (large, LARGE)):
        cost, found = await cost_of(server, lambda s: s.get_messages("t", last=10))
        assert found[0].content == f"m{count - 10}"
        assert found[-1].content == f"m{count - 1}"
        assert (len(cost), cost.documents) == (1, 11)


@pytest.mark.parametrize(
    ("rows", "listing"),
    [
        (LARGE, lambda s, **page: s.get_messages_paginated("t", **page)),
        (MOST + 1, lambda s, **page: s.list_threads(order_by="updated_at", **page)),
        (MOST, lambda s, **page: s.get_traces(**page)),
    ],
    ids=["messages", "threads", "traces"],
)
async def test_a_deep_page_costs_what_the_first_does(
    large: ConvexServer, rows: int, listing: Any
) -> None:
    cursor, found = None, []
    async with convex_store(large) as storage:
        for _ in range(0, rows, 100):
            async with cost_at(large) as cost:
                page = await listing(storage, cursor=cursor, per_page=100, count=False)
            assert len(cost) == 1
            assert cost.documents <= 101
            found += ids(page)
            cursor = page.next_cursor
    assert cursor is None
    assert len(found) == len(set(found)) == rows


async def test_counting_is_a_call_of_its_own(large: ConvexServer) -> None:
    cost, page = await cost_of(large, lambda s: s.get_messages_paginated("t", per_page=10))
    assert page.total == LARGE
    assert sorted(cost.labels) == ["query messages:count", "query messages:list"]


async def test_all_messages_of_a_long_thread(large: ConvexServer) -> None:
    cost, found = await cost_of(large, lambda s: s.get_messages("t"))
    assert len(found) == LARGE
    assert cost.labels == ["query messages:list"] * 2


async def test_many_messages_by_their_ids(large: ConvexServer) -> None:
    wanted = [f"m{n}" for n in range(LARGE - 1, -1, -2)]
    cost, found = await cost_of(large, lambda s: s.get_messages_by_id("t", wanted))
    assert ids(found) == wanted
    assert cost.labels == ["query messages:get"] * 3


async def test_a_write_costs_the_same_whatever_the_size_of_the_table(
    small: ConvexServer, large: ConvexServer
) -> None:
    writes: dict[str, tuple[int, Call]] = {
        "save_message": (1, lambda s: s.save_message(message("new"))),
        "save_thread": (1, lambda s: s.save_thread(Thread(id="new", resource_id="r"))),
        "update_thread": (2, lambda s: s.update_thread("new", metadata={"a": 1})),
        "update_messages": (2, lambda s: s.update_messages("t", [MessageUpdate("new", role="x")])),
        "delete_messages": (1, lambda s: s.delete_messages("t", ["new"])),
        "delete_thread": (1, lambda s: s.delete_thread("new")),
        "persist_workflow_snapshot": (2, lambda s: s.persist_workflow_snapshot("n", "u", {})),
        "delete_workflow_run": (1, lambda s: s.delete_workflow_run("n", "u")),
    }
    for name, (calls, call) in writes.items():
        of_few, _ = await cost_of(small, call)
        of_many, _ = await cost_of(large, call)
        assert of_few.labels == of_many.labels, name
        assert len(of_many) == calls, name
        assert of_many.labels[-1] == WRITE, name
        assert of_few.documents == of_many.documents <= 5, name


async def test_saving_a_thread(convex: ConvexServer, storage: Storage) -> None:
    async with cost_at(convex) as cost:
        await storage.save_thread(Thread(id="t", resource_id="r"))
    assert cost.labels == [WRITE]


async def test_saving_messages(convex: ConvexServer, storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))
    async with cost_at(convex) as cost:
        await storage.save_messages(messages(100))
    assert cost.labels == [WRITE]
    assert cost.documents == 4  # thread and receipt, read and changed; the messages were not there
    assert cost.written == 102
    async with cost_at(convex) as cost:
        await storage.save_messages(messages(100, start=100))
    assert (cost.labels, cost.documents) == ([WRITE], 4)
    assert ids(await storage.get_messages("t")) == ids(messages(200))
    async with cost_at(convex) as cost:
        await storage.save_messages([message(f"m{n}", content="new") for n in range(100)])
    assert (cost.labels, cost.documents, cost.written) == ([WRITE], 204, 102)


async def test_deleting_a_workflow_run(convex: ConvexServer, storage: Storage) -> None:
    await storage.save_workflow_run(WorkflowRun(run_id="u", workflow_name="w"))
    async with cost_at(convex) as cost:
        await storage.delete_workflow_run("w", "u")
    assert (cost.labels, cost.documents, cost.written) == ([WRITE], 4, 2)


async def test_updating_a_thread(convex: ConvexServer, storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))
    async with cost_at(convex) as cost:
        await storage.update_thread("t", title="new", metadata={"a": 1})
    assert cost.labels == ["query threads:get", WRITE]


async def test_what_writes_read_and_write(convex: ConvexServer, storage: Storage) -> None:
    """With the store's receipt, which each reads and replaces but the first of a store."""
    await storage.save_thread(Thread(id="w", resource_id="r"))
    updates = [MessageUpdate(f"m{n}", role="x") for n in range(5)]
    writes: list[tuple[Awaitable[Any], int, int]] = [
        (storage.save_thread(Thread(id="t", resource_id="r")), 2, 2),
        (storage.save_thread(Thread(id="t", resource_id="r")), 4, 2),
        (storage.save_messages(messages(11)), 4, 13),
        (storage.update_thread("t", title="new"), 5, 2),
        (storage.update_messages("t", updates), 3 * 5 + 4, 5 + 2),
        (storage.delete_messages("t", ["m0", "m1", "m2", "m3", "m4"]), 2 * 5 + 4, 5 + 2),
        (storage.delete_thread("t"), 2 * 6 + 4, 6 + 2),
    ]
    for number, (call, read, written) in enumerate(writes):
        async with cost_at(convex) as cost:
            await call
        assert (cost.documents, cost.written) == (read, written), number


async def test_messages_with_those_around_others(convex: ConvexServer, storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))
    await storage.save_messages(messages(100))
    around = [Include("m50", previous=3, next=3)]
    async with cost_at(convex) as cost:
        found = await storage.get_messages("t", last=2, include=around)
    assert ids(found) == [f"m{n}" for n in (47, 48, 49, 50, 51, 52, 53, 98, 99)]
    assert sorted(cost.labels) == ["query messages:get", *["query messages:list"] * 3]
    assert cost.documents <= 1 + 3 + 4 + 4


async def test_concurrent_saves_share_mutations(convex: ConvexServer, storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))
    batch = messages(200)
    async with cost_at(convex) as cost:
        await asyncio.gather(*[storage.save_message(each) for each in batch])
    assert set(cost.labels) == {WRITE}
    assert len(cost) <= 20
    assert ids(await storage.get_messages("t")) == ids(batch)


async def test_saves_that_go_on_coming_share_mutations(
    convex: ConvexServer, storage: Storage
) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))

    async def save_one_by_one(who: int) -> None:
        for number in range(10):
            await storage.save_message(message(f"{who}/{number}"))

    async with cost_at(convex) as cost:
        await asyncio.gather(*[save_one_by_one(who) for who in range(20)])
    assert len(cost) <= 20
    found = ids(await storage.get_messages("t"))
    for who in range(20):
        own = [each for each in found if each.startswith(f"{who}/")]
        assert own == [f"{who}/{number}" for number in range(10)]


async def test_a_filter_without_an_index_reads_only_what_an_index_leaves(
    large: ConvexServer,
) -> None:
    cost, page = await cost_of(
        large, lambda s: s.get_traces(trace_id="x", name="m", per_page=20, count=False)
    )
    assert len(page) == 0
    assert len(cost) == 1
    assert cost.documents == MOST // 2


async def test_tables_are_told_by_a_few_documents(large: ConvexServer) -> None:
    async with convex_store(large) as storage, cost_at(large) as cost:
        names = await storage.backend.tables()
    assert sorted(names) == ["evals", "messages", "threads", "traces", "workflow_snapshot"]
    assert (cost.labels, cost.documents) == (["query system:tables"], 5)
