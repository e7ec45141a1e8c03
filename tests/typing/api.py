"""The public types, as a user's type checker sees them: checked by `make lint`, never run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, assert_type

from mastra_storage import (
    Backend,
    Capabilities,
    Eval,
    Include,
    Message,
    MessageUpdate,
    Page,
    Resource,
    Storage,
    Table,
    Thread,
    Trace,
    WorkflowRun,
    open_storage,
    register,
)
from mastra_storage.backends.memory import MemoryBackend


async def threads(storage: Storage) -> None:
    thread = Thread(resource_id="user-1")
    assert_type(thread.id, str)
    assert_type(await storage.save_thread(thread), Thread)
    assert_type(await storage.get_thread_by_id("t1"), Thread | None)
    assert_type(await storage.get_threads_by_resource_id("user-1"), list[Thread])
    page = await storage.list_threads(metadata={"kind": "support"}, per_page=None)
    assert_type(page, Page[Thread])
    assert_type([thread for thread in page], list[Thread])  # noqa: C416
    assert_type(page.total, int | None)
    assert_type(page.next_cursor, str | None)
    assert_type(await storage.update_thread("t1", title="Trip"), Thread)


async def messages(storage: Storage) -> None:
    message = Message(thread_id="t1", role="user", content={"parts": ["Hello"]})
    assert_type(message.resource_id, str | None)
    assert_type(await storage.save_message(message), Message)
    assert_type(await storage.save_messages([message]), list[Message])
    include = [Include("m1", previous=2, next=1)]
    assert_type(await storage.get_messages("t1", last=20, include=include), list[Message])
    assert_type(await storage.get_messages_paginated("t1"), Page[Message])
    assert_type(storage.iter_messages("t1"), AsyncGenerator[Message, None])
    assert_type(await storage.get_messages_by_id("t1", ["m1"]), list[Message])
    updated = await storage.update_messages("t1", [MessageUpdate("m1", content="Hi")])
    assert_type(updated, list[Message])


async def runs_traces_evals_resources(storage: Storage) -> None:
    run = WorkflowRun(run_id="r1", workflow_name="book", snapshot={"status": "running"})
    assert_type(await storage.save_workflow_run(run), WorkflowRun)
    assert_type(await storage.get_workflow_run("r1"), WorkflowRun | None)
    assert_type(await storage.get_workflow_runs(status="running"), Page[WorkflowRun])
    assert_type(await storage.load_workflow_snapshot("book", "r1"), Any)
    assert_type(await storage.save_trace(Trace(name="llm")), Trace)
    assert_type(await storage.get_traces(attributes={"model": "x"}), Page[Trace])
    assert_type(await storage.save_eval(Eval(agent_name="a", type="test")), Eval)
    assert_type(await storage.get_evals(type="live"), Page[Eval])
    assert_type(await storage.update_resource("user-1", working_memory="tea"), Resource)


async def live(storage: Storage) -> None:
    assert_type(storage.watch_messages("t1"), AsyncGenerator[list[Message], None])
    assert_type(storage.watch_thread("t1"), AsyncGenerator[Thread | None, None])


async def opened() -> None:
    async with open_storage("sqlite:///agent.db") as storage:
        assert_type(storage, Storage)
        assert_type(storage.capabilities, Capabilities)
        assert_type(storage.backend, Backend)
        storage.register(Table(name="notes", key=("id",)))
    backend: Backend = MemoryBackend()
    register("mine", MemoryBackend)
    assert_type(Storage(backend), Storage)
    Thread()  # type: ignore[call-arg]
    Message(thread_id="t1", role=1, content=None)  # type: ignore[arg-type]
