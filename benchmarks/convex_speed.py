"""Convex: calls, documents and bytes of each method, and the client's CPU time a call.

On the functions of the plugin, in Convex's own convex-test, as the plugin's tests have them.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from _conversations import message_of, messages_of
from _measure import Call, Samples, duration, in_turns, machine, options, publish, table
from _servers import convex_server, convex_store

from mastra_storage import Eval, MessageUpdate, Storage, Thread, Trace, WorkflowRun

if TYPE_CHECKING:
    from convex_server import ConvexServer

OURS, PYPI = "mastra-storage", "convex"


class Method(NamedTuple):
    """What is measured: a call that gets a store and an id of its own."""

    name: str
    call: Callable[[Storage, str], Awaitable[object]]


class Cost(NamedTuple):
    """What one call asks of Convex."""

    calls: int
    ranges: int
    read: int
    read_bytes: int
    written: int
    sent: int
    received: int


def thread_of(name: str, resource: str = "somebody") -> Thread:
    return Thread(id=name, resource_id=resource, title=name, metadata={"from": "benchmark"})


def methods_of(size: int, together: int) -> list[Method]:
    async def save_together(storage: Storage, thread: str) -> None:
        messages = [message_of("busy", int(thread) * together + n) for n in range(together)]
        await asyncio.gather(*[storage.save_message(message) for message in messages])

    return [
        Method("get_thread_by_id", lambda s, t: s.get_thread_by_id("t")),
        Method("save_thread", lambda s, t: s.save_thread(thread_of(t))),
        Method("update_thread", lambda s, t: s.update_thread("t", title=t)),
        Method("save_message", lambda s, t: s.save_messages(messages_of("few", 1))),
        Method("save_messages, 100", lambda s, t: s.save_messages(messages_of("few", 100))),
        Method(f"{together} save_message at once", save_together),
        Method(f"get_messages, last 20 of {size:,}", lambda s, t: s.get_messages("t", last=20)),
        Method(f"get_messages, all {size:,}", lambda s, t: s.get_messages("t")),
        Method(
            f"get_messages_paginated, 40 of {size:,}",
            lambda s, t: s.get_messages_paginated("t", count=False),
        ),
        Method("the same with count=True", lambda s, t: s.get_messages_paginated("t")),
        Method(
            "update_messages, 1",
            lambda s, t: s.update_messages(
                "t", [MessageUpdate(id=message_of("t", 5).id, metadata={"at": t})]
            ),
        ),
        Method("delete_messages, 1", lambda s, t: s.delete_messages("few", [message_of("", 9).id])),
        Method(f"delete_thread with {size:,} messages", lambda s, t: s.delete_thread("doomed")),
        Method(
            f"list_threads, 20 of {size:,} of a resource",
            lambda s, t: s.list_threads(resource_id="many", per_page=20, count=False),
        ),
        Method(
            "persist_workflow_snapshot",
            lambda s, t: s.persist_workflow_snapshot("book", "run-0", {"status": t}),
        ),
        Method("load_workflow_snapshot", lambda s, t: s.load_workflow_snapshot("book", "run-0")),
        Method(
            "get_workflow_runs, 20 of 100",
            lambda s, t: s.get_workflow_runs(workflow_name="book", count=False),
        ),
        Method(
            "save_traces, 100",
            lambda s, t: s.save_traces([Trace(id=f"{t}-{n}") for n in range(100)]),
        ),
        Method("get_traces, 100 of 100", lambda s, t: s.get_traces(count=False)),
        Method(
            "save_eval",
            lambda s, t: s.save_eval(Eval(id=t, agent_name="agent", metric_name="tone")),
        ),
        Method("get_resource", lambda s, t: s.get_resource("ada")),
        Method(
            "update_resource", lambda s, t: s.update_resource("ada", working_memory=f"likes {t}")
        ),
    ]


async def fill(storage: Storage, size: int) -> None:
    """What the methods read."""
    for name in ("t", "few", "busy", "doomed"):
        await storage.save_thread(thread_of(name))
    await storage.save_messages(messages_of("t", size))
    await storage.save_messages(messages_of("doomed", size))
    await storage.batch_insert("threads", [thread_of(f"many-{n}", "many") for n in range(size)])
    runs = [
        WorkflowRun(run_id=f"run-{n}", workflow_name="book", snapshot={"status": "done"})
        for n in range(100)
    ]
    await storage.batch_insert("workflow_snapshot", runs)
    await storage.update_resource("ada", working_memory="likes trains")


async def calls_of(server: ConvexServer) -> list[dict[str, Any]]:
    """The log without what is scheduled, which nobody waits for, and the other client's socket."""
    log = await server.log()
    return [each for each in log if not each["label"].startswith(("scheduled", "socket"))]


async def costs(server: ConvexServer, storage: Storage, method: Method, number: int) -> Cost:
    await server.control(reset=True)
    await method.call(storage, str(number))
    log = await calls_of(server)
    ranges, read, read_bytes, written, sent, received = (
        sum(entry[name] or 0 for entry in log)
        for name in (
            "databaseQueries",
            "documentsRead",
            "bytesRead",
            "documentsWritten",
            "bytesIn",
            "bytesOut",
        )
    )
    return Cost(len(log), ranges, read, read_bytes, written, sent, received)


async def cpu(server: ConvexServer, storage: Storage, rounds: int, repeat: int) -> dict[str, Any]:
    """CPU seconds of the client's process a call, against the PyPI client with the same calls.

    The library ends with records that are checked, the client with dicts.
    """
    from convex import ConvexClient

    client: Any = ConvexClient(server.url)
    client.set_admin_auth(server.admin_key)
    message = message_of("t", 1)
    calls: dict[str, Call] = {
        "get_thread_by_id": partial(storage.get_thread_by_id, "t"),
        "get_messages, last 20": partial(storage.get_messages, "t", last=20),
        "save_message": partial(storage.save_message, message),
    }
    same: dict[str, Call] = {}
    for name, ours in calls.items():
        await server.control(reset=True, recordBodies=True)
        await ours()
        [entry] = await calls_of(server)
        same[name] = _same_call(client, entry)
    await server.control(reset=True)
    found: dict[str, Any] = {}
    for name, ours in calls.items():
        found[name] = await in_turns(
            {OURS: ours, PYPI: same[name]}, rounds=rounds, repeat=repeat, clock=time.process_time
        )
        for side, samples in found[name].items():
            if samples.failure:
                raise RuntimeError(f"{name}, {side}: {samples.failure}")
    return found


def _same_call(client: Any, entry: dict[str, Any]) -> Call:
    """The call of a log's entry, by the PyPI client."""
    body = msgspec.json.decode(entry["body"])
    call = client.query if entry["label"].startswith("query") else client.mutation
    arguments = _values(body["args"])

    numbers = count(1)

    async def run() -> None:
        if "number" in arguments:  # writes count, each store for itself
            arguments.update(store=PYPI, number=next(numbers))
        call(body["path"], arguments)

    return run


def _values(value: Any) -> Any:
    """Convex's JSON as the values that its client takes."""
    from convex import ConvexInt64

    if isinstance(value, list):
        return [_values(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$integer"}:
        data = base64.b64decode(value["$integer"])
        return ConvexInt64(int.from_bytes(data, "little", signed=True))
    return {name: _values(item) for name, item in value.items()}


async def measured(quick: bool) -> tuple[list[tuple[Method, Cost]], dict[str, dict[str, Samples]]]:
    size, together = (200, 20) if quick else (1_000, 300)
    with convex_server() as server:
        async with convex_store(server) as storage:
            await fill(storage, size)
            methods = methods_of(size, together)
            found = [
                (method, await costs(server, storage, method, number))
                for number, method in enumerate(methods)
            ]
            times = await cpu(server, storage, 3 if quick else 9, 20 if quick else 50)
    return found, times


def report(found: list[tuple[Method, Cost]], times: dict[str, dict[str, Samples]]) -> str:
    rows = [
        [
            method.name,
            *[f"{number:,}" for number in (cost.calls, cost.ranges, cost.read)],
            size_of(cost.read_bytes),
            f"{cost.written:,}",
            size_of(cost.sent),
            size_of(cost.received),
        ]
        for method, cost in found
    ]
    used = [
        [
            name,
            *[duration(sides[side].median) for side in (OURS, PYPI)],
            sides[PYPI].ratio(sides[OURS]),
        ]
        for name, sides in times.items()
    ]
    return f"""
## Convex

On the functions of the plugin in Convex's own convex-test, as the tests of this repository do.
{machine(("aiohttp", "convex"))}

What a call asks of Convex: HTTP calls, index ranges, documents and bytes read from the database,
documents written, bytes sent and received.

{table(["", "calls", "ranges", "read", "bytes", "written", "sent", "received"], rows)}

CPU time of the client's process for one call, against the client on PyPI (`convex`) with the same
arguments. Here it ends with records, there with dicts.

{table(["", OURS, PYPI, f"{PYPI}, times as much"], used)}
"""


def size_of(count: int) -> str:
    return f"{count:,} B" if count < 10_000 else f"{count / 1000:,.0f} kB"


def main() -> int:
    chosen = options(__doc__)
    found, times = asyncio.run(measured(chosen.quick))
    publish("convex", report(found, times), chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
