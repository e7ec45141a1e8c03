"""An operation of a plan, carried out on a storage; and what it saw, as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from mastra_storage import (
    Message,
    MessageUpdate,
    Storage,
    StorageError,
    Thread,
    Trace,
    WorkflowRun,
)
from torture.plan import MESSAGES_OF_A_MOMENT, Call, resource

WORKFLOW = "torture"
_START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def moment(message_id: str) -> datetime:
    """When a message says it was created: several have the same time."""
    number = int(message_id.rpartition("-")[2])
    return _START + timedelta(seconds=number // MESSAGES_OF_A_MOMENT)


async def carry_out(storage: Storage, call: Call, token: str, lane: int) -> Any:
    """Do what `call` says, writing `token`; gives what the checker needs to know of the answer."""
    match call.kind:
        case "save_messages" | "save_doomed":
            messages = [_message(call, each, token) for each in call.ids]
            if len(messages) == 1:
                await storage.save_message(messages[0])
            else:
                await storage.save_messages(messages)
        case "update_messages" | "move_messages":
            to = {"thread_id": call.target} if call.target else {}
            updates = [
                MessageUpdate(each, content=[token, ""], metadata={"last": token}, **to)
                for each in call.ids
            ]
            return [each.id for each in await storage.update_messages(call.thread, updates)]
        case "delete_messages":
            await storage.delete_messages(call.thread, call.ids)
        case "save_thread" | "found_doomed":
            await storage.save_thread(
                Thread(
                    id=call.thread,
                    resource_id=resource(lane),
                    title=token,
                    metadata={"a": token},
                )
            )
        case "delete_thread" | "delete_doomed":
            await storage.delete_thread(call.thread)
        case "update_thread":
            await storage.update_thread(call.thread, metadata={call.member: token})
        case "persist":
            snapshot = {"token": token, "pad": "p" * call.size, "status": token}
            await storage.persist_workflow_snapshot(
                WORKFLOW, call.thread, snapshot, resource_id="torture"
            )
        case "save_traces":
            traces = [_trace(each, token, lane) for each in call.ids]
            if len(traces) == 1:
                await storage.save_trace(traces[0])
            else:
                await storage.save_traces(traces)
        case _:
            return await read(storage, call, lane)
    return None


async def outcome_of(call: Coroutine[Any, Any, Any]) -> tuple[str, Any]:
    """What came of a call: "ok" and its answer, or its error's name and text."""
    try:
        return "ok", await call
    except Exception as exc:  # noqa: BLE001  (the checker says which may be)
        known = isinstance(exc, StorageError)
        return type(exc).__name__ if known else f"!{type(exc).__name__}", str(exc)


async def patient(task: asyncio.Task[Any], patience: float) -> None:
    """Wait for seconds, or for turns of the event loop when `patience` is negative."""
    if patience > 0:
        await asyncio.wait([task], timeout=patience)
        return
    for _ in range(round(-patience)):
        if task.done():
            return
        await asyncio.sleep(0)


async def read(storage: Storage, call: Call, lane: int) -> Any:
    """What a reading operation sees."""
    match call.kind:
        case "read_messages":
            return seen(await storage.get_messages(call.thread))
        case "read_last":
            return seen(await storage.get_messages(call.thread, last=call.size))
        case "read_ids":
            return seen(await storage.get_messages_by_id(call.thread, call.ids))
        case "read_pages":
            return await _pages(storage, call)
        case "read_thread":
            return _seen_thread(await storage.get_thread_by_id(call.thread))
        case "read_run":
            return _seen_run(await storage.get_workflow_run(call.thread, workflow_name=WORKFLOW))
        case "read_traces":
            page = await storage.get_traces(
                run_id=f"traces-{lane}", per_page=call.size or None, count=False
            )
            return [[each.id, each.attributes.get("token")] for each in page]
    raise ValueError(call.kind)


def watch(storage: Storage, call: Call) -> tuple[AsyncGenerator[Any, None], Callable[[Any], Any]]:
    """What to watch, and what to keep of each value that it shows."""
    match call.kind:
        case "watch_messages":
            return storage.watch_messages(call.thread, last=call.size), seen
        case "watch_thread":
            return storage.watch_thread(call.thread), _seen_thread
        case "watch_run":
            return storage.watch_workflow_run(call.thread, workflow_name=WORKFLOW), _seen_run
    raise ValueError(call.kind)


async def _pages(storage: Storage, call: Call) -> Any:
    """A thread page by page, along the cursors; with its total as the first page counts it."""
    messages: list[Message] = []
    page = await storage.get_messages_paginated(call.thread, per_page=call.size)
    total = page.total
    messages += page
    while page.next_cursor is not None:
        page = await storage.get_messages_paginated(
            call.thread, per_page=call.size, cursor=page.next_cursor, count=False
        )
        messages += page
    return {"total": total, "seen": seen(messages)}


def seen(messages: Iterable[Message]) -> list[list[str]]:
    """The ids of messages and the tokens in them."""
    return [[each.id, _token_of(each)] for each in messages]


def _token_of(message: Message) -> str:
    token = message.content[0]
    if message.metadata.get("last") != token:
        return f"torn: {token} and {message.metadata}"
    if message.created_at != moment(message.id):
        return f"another time: {message.created_at}"
    return str(token)


def _seen_run(run: WorkflowRun | None) -> str | None:
    if run is None:
        return None
    token = run.snapshot["token"]
    return str(token) if run.status == token else f"torn: {token} and {run.status}"


def _seen_thread(thread: Thread | None) -> Any:
    if thread is None:
        return None
    updated = (thread.updated_at - _START) // timedelta(microseconds=1)
    return {"title": thread.title, "metadata": thread.metadata, "updated": updated}


def since_start(nanoseconds: int) -> int:
    """A time of the clock, as `updated` counts it: microseconds since the start of 2026."""
    return nanoseconds // 1000 - int(_START.timestamp()) * 1_000_000


def _message(call: Call, message_id: str, token: str) -> Message:
    return Message(
        id=message_id,
        thread_id=call.thread,
        role="user",
        content=[token, "p" * call.size],
        metadata={"last": token, "born": token},
        created_at=moment(message_id),
    )


def _trace(trace_id: str, token: str, lane: int) -> Trace:
    return Trace(id=trace_id, name=trace_id, run_id=f"traces-{lane}", attributes={"token": token})
