"""Random sequences of calls, on the backend under test and on memory; every answer is compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from msgspec import UNSET, Struct, structs

from mastra_storage.backend import DeletePrefix
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.errors import StorageError
from mastra_storage.records import (
    Eval,
    Include,
    Message,
    MessageUpdate,
    Page,
    Resource,
    Thread,
    Trace,
    WorkflowRun,
)
from mastra_storage.schema import TABLES
from mastra_storage.storage import Storage
from mastra_storage.testing import strategies as own
from mastra_storage.testing._limits import within
from mastra_storage.testing.suite._base import Base, MakeBackend, full, limits_itself
from mastra_storage.testing.suite._build import at

_STEPS = 25

IDS = st.sampled_from(["a", "a:b", "é/🧵", "2"])
OWNERS = st.sampled_from(["r", "r:s"])
TEXTS = st.sampled_from(["x", "y"])
TIMES = st.integers(0, 6).map(at)
DATES = st.none() | TIMES
COUNTS = st.integers(0, 5)
JSON = own.json_values(max_leaves=6)
OBJECTS = st.dictionaries(st.sampled_from(["k", "l", "$m"]), JSON, max_size=2)

THREADS = st.builds(
    Thread, id=IDS, resource_id=OWNERS, title=TEXTS, metadata=OBJECTS, created_at=TIMES
)
MESSAGES = st.builds(
    Message,
    id=IDS,
    thread_id=IDS,
    role=TEXTS,
    content=JSON,
    resource_id=st.none() | OWNERS,
    metadata=OBJECTS,
    created_at=TIMES,
)
UPDATES = st.builds(
    MessageUpdate,
    id=IDS,
    role=st.just(UNSET) | TEXTS,
    content=st.just(UNSET) | JSON,
    metadata=st.just(UNSET) | OBJECTS,
    thread_id=st.just(UNSET) | IDS,
)
INCLUDES = st.builds(Include, id=IDS, thread_id=st.none() | IDS, previous=COUNTS, next=COUNTS)
RUNS = st.builds(
    WorkflowRun,
    run_id=IDS,
    workflow_name=TEXTS,
    resource_id=st.none() | OWNERS,
    status=st.none() | TEXTS,
    snapshot=OBJECTS,
    created_at=TIMES,
)
TRACES = st.builds(Trace, id=IDS, name=TEXTS, attributes=OBJECTS, created_at=TIMES)
EVALS = st.builds(
    Eval, id=IDS, agent_name=TEXTS, type=st.sampled_from(["live", "test"]), created_at=TIMES
)
RESOURCES = st.builds(Resource, id=OWNERS, working_memory=JSON, metadata=OBJECTS, created_at=TIMES)


class Machine(RuleBasedStateMachine):
    """Two storages, of which one is on memory, that must give the same answers."""

    run: Callable[..., Any]
    tested: Storage

    def __init__(self) -> None:
        super().__init__()
        self.model = Storage(MemoryBackend())
        self.run(self.start())

    async def start(self) -> None:
        await self.model.open()
        await self.tested.backend.write([DeletePrefix(table, ()) for table in TABLES.values()])

    def both(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of both storages, and compare what they give or raise."""

        async def outcome(storage: Storage) -> Any:
            try:
                return comparable(await getattr(storage, method)(*args, **kwargs))
            except StorageError as exc:
                return type(exc)

        async def compare() -> None:
            expected = await outcome(self.model)
            found = await outcome(self.tested)
            assert found == expected, f"{method}{args}{kwargs}"

        self.run(compare())

    def walk(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Compare all pages of a listing, walked by cursor."""

        async def pages(storage: Storage) -> list[Any]:
            page = await getattr(storage, method)(*args, **kwargs)
            found = [comparable(page)]
            while page.next_cursor is not None:
                page = await getattr(storage, method)(*args, **kwargs, cursor=page.next_cursor)
                found.append(comparable(page))
            return found

        async def compare() -> None:
            assert await pages(self.tested) == await pages(self.model), f"{method}{args}{kwargs}"

        self.run(compare())

    @rule(thread=THREADS)
    def save_thread(self, thread: Thread) -> None:
        self.both("save_thread", thread)

    @rule(id=IDS, title=st.none() | TEXTS, metadata=st.none() | OBJECTS)
    def update_thread(self, id: str, title: Any, metadata: Any) -> None:
        self.both("update_thread", id, title=title, metadata=metadata)

    @rule(id=IDS)
    def delete_thread(self, id: str) -> None:
        self.both("delete_thread", id)

    @rule(threads=st.lists(THREADS, max_size=4))
    def insert_threads(self, threads: list[Thread]) -> None:
        self.both("batch_insert", "threads", threads)

    @rule(messages=st.lists(MESSAGES, max_size=5))
    def save_messages(self, messages: list[Message]) -> None:
        self.both("save_messages", messages)

    @rule(messages=st.lists(MESSAGES, max_size=5))
    def insert_messages(self, messages: list[Message]) -> None:
        self.both("batch_insert", "messages", messages)

    @rule(id=IDS, updates=st.lists(UPDATES, max_size=3))
    def update_messages(self, id: str, updates: list[MessageUpdate]) -> None:
        self.both("update_messages", id, updates)

    @rule(id=IDS, ids=st.lists(IDS, max_size=3))
    def delete_messages(self, id: str, ids: list[str]) -> None:
        self.both("delete_messages", id, ids)

    @rule(run=RUNS)
    def save_run(self, run: WorkflowRun) -> None:
        self.both("save_workflow_run", run)

    @rule(name=TEXTS, id=IDS, snapshot=JSON, owner=st.none() | OWNERS)
    def persist(self, name: str, id: str, snapshot: Any, owner: str | None) -> None:
        self.both("load_workflow_snapshot", name, id)
        self.both("get_workflow_run", id, workflow_name=name)
        self.persist_existing(name, id, snapshot, owner)

    def persist_existing(self, name: str, id: str, snapshot: Any, owner: str | None) -> None:
        """A run that is begun takes the time of the call, which differs; so begin it first."""
        run = self.run(self.model.get_workflow_run(id, workflow_name=name))
        if run is None:
            self.both("save_workflow_run", WorkflowRun(run_id=id, workflow_name=name))
        self.both("persist_workflow_snapshot", name, id, snapshot, resource_id=owner)

    @rule(name=TEXTS, id=IDS)
    def delete_run(self, name: str, id: str) -> None:
        self.both("delete_workflow_run", name, id)

    @rule(traces=st.lists(TRACES, max_size=4))
    def save_traces(self, traces: list[Trace]) -> None:
        self.both("save_traces", traces)

    @rule(eval=EVALS)
    def save_eval(self, eval: Eval) -> None:
        self.both("save_eval", eval)

    @rule(resource=RESOURCES, metadata=OBJECTS)
    def save_resource(self, resource: Resource, metadata: Any) -> None:
        self.both("save_resource", resource)
        self.both("update_resource", resource.id, metadata=metadata)
        self.both("get_resource", resource.id)

    @rule(table=st.sampled_from(["messages", "traces", "evals"]))
    def clear_table(self, table: str) -> None:
        self.both("clear_table", table)

    @rule(
        id=IDS,
        last=st.none() | COUNTS,
        include=st.lists(INCLUDES, max_size=2),
        owner=st.none() | OWNERS,
        start=DATES,
        end=DATES,
    )
    def read_messages(
        self, id: str, last: Any, include: Any, owner: Any, start: Any, end: Any
    ) -> None:
        given = {"resource_id": owner, "from_date": start, "to_date": end}
        self.both("get_messages", id, last=last, include=include, **given)
        self.walk("get_messages_paginated", id, direction="desc", per_page=2, **given)

    @rule(id=IDS, ids=st.lists(IDS, max_size=4), size=st.none() | st.integers(1, 3))
    def page_messages(self, id: str, ids: list[str], size: int | None) -> None:
        self.both("get_messages_by_id", id, ids)
        self.walk("get_messages_paginated", id, per_page=size)

    @rule(
        owner=st.none() | OWNERS,
        metadata=st.none() | OBJECTS,
        direction=st.sampled_from(["asc", "desc"]),
        size=st.integers(1, 3),
    )
    def list_threads(self, owner: Any, metadata: Any, direction: str, size: int) -> None:
        given = {"resource_id": owner, "metadata": metadata, "direction": direction}
        self.walk("list_threads", per_page=size, **given)
        self.both("list_threads", page=1, per_page=size, **given)

    @rule(
        name=st.none() | TEXTS,
        owner=st.none() | OWNERS,
        status=st.none() | TEXTS,
        end=DATES,
        id=IDS,
    )
    def read_runs(self, name: Any, owner: Any, status: Any, end: Any, id: str) -> None:
        given = {"workflow_name": name, "resource_id": owner, "status": status}
        self.walk("get_workflow_runs", per_page=2, to_date=end, **given)
        self.both("get_workflow_run", id)

    @rule(name=st.none() | TEXTS, attributes=st.none() | OBJECTS, start=DATES, end=DATES)
    def read_traces(self, name: Any, attributes: Any, start: Any, end: Any) -> None:
        self.walk(
            "get_traces",
            per_page=2,
            name=name,
            attributes=attributes,
            from_date=start,
            to_date=end,
        )

    @rule(agent=st.none() | TEXTS, type=st.none() | st.sampled_from(["live", "test"]), start=DATES)
    def read_evals(self, agent: Any, type: Any, start: Any) -> None:
        self.walk("get_evals", per_page=2, agent_name=agent, type=type, from_date=start)

    def teardown(self) -> None:
        for listing in ("list_threads", "get_workflow_runs", "get_traces", "get_evals"):
            self.both(listing, per_page=None)
        self.run(self.model.close())


def comparable(value: Any) -> Any:
    """A result without what may differ: cursors, and `updated_at`, which is the time of a call."""
    if isinstance(value, Page):
        return comparable(value.items), value.total, value.page, value.has_more
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, Struct) and hasattr(value, "updated_at"):
        value = structs.replace(value, updated_at=datetime.max)
    # The repr tells 1 from 1.0 and True, which equality does not; that of a record is short.
    return repr(structs.asdict(value)) if isinstance(value, Struct) else repr(value)


class MachineTests(Base):
    @full
    @limits_itself
    async def test_random_calls_give_what_they_give_on_memory(
        self, make_backend: MakeBackend
    ) -> None:
        await asyncio.to_thread(self.compare, make_backend)

    def compare(self, make_backend: MakeBackend) -> None:
        """Run the machine, with an event loop of its own since hypothesis is not async."""
        with asyncio.Runner() as runner:

            def run(step: Awaitable[Any]) -> Any:
                return runner.run(within(self.time_limit, step))

            tested = Storage(make_backend())
            run(tested.open())
            try:
                run_state_machine_as_test(
                    type("Machine", (Machine,), {"run": staticmethod(run), "tested": tested}),
                    settings=settings(
                        max_examples=self.machine_examples,
                        stateful_step_count=_STEPS,
                        deadline=None,
                        derandomize=True,
                        report_multiple_bugs=False,
                        database=None,
                        phases=[Phase.generate, *[Phase.shrink] * self.machine_shrinks],
                        suppress_health_check=list(HealthCheck),
                    ),
                )
            finally:
                run(tested.close())
