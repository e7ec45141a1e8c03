"""The methods that the Cloudflare benchmark measures, each with its floor and its rivals.

The floor is how many round trips depend on each other when every request carries as much as the
API lets it and all that can be known beforehand is known. The rivals' steps are those of the
TypeScript store, read from its code, and of somebody with the official SDK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from _conversations import batches_of, message_of, messages_of
from _replays import Step

from mastra_storage import Eval, MessageUpdate, Storage, Thread, Trace, WorkflowRun

G, L = Step("get"), Step("list")
ORDER, REORDER = Step("get order"), Step("put order")
PUT, DELETE = Step("put"), Step("delete")


def gets(count: int) -> Step:
    return Step("get", count, parallel=True)


def puts(count: int) -> Step:
    return Step("put", count, parallel=True)


def deletes(count: int) -> Step:
    return Step("delete", count, parallel=True)


class Sizes(NamedTuple):
    """How much there is."""

    messages: int  # of a thread; as many threads of a resource, traces, runs
    long: int  # messages of the long thread
    together: int  # calls at once
    samples: int  # how often each method can be called


class Method(NamedTuple):
    """What is measured.

    `call` gets the store and the number of the call, and so does `before`, a call that is not
    measured. `threads`: for each call there is a new thread, with so many messages, that the store
    has not seen. `repeat`: a sample without delay is so many calls in a row.
    """

    name: str
    floor: int
    call: Callable[[Storage, str], Awaitable[object]]
    typescript: Sequence[Step] = ()
    sdk: Sequence[Step] = ()
    threads: int | None = None
    before: Callable[[Storage, str], Awaitable[object]] | None = None
    wins: int = 1
    repeat: int = 1


def thread_of(name: str, resource: str = "somebody") -> Thread:
    return Thread(id=name, resource_id=resource, title=name, metadata={"from": "benchmark"})


async def fill(storage: Storage, sizes: Sizes) -> None:
    """What the methods read."""
    count = sizes.messages
    await storage.save_thread(thread_of("t"))
    await storage.save_thread(thread_of("long"))
    await storage.save_messages(messages_of("t", count))
    for batch in batches_of("long", sizes.long, 5_000):
        await storage.save_messages(batch)
    await storage.batch_insert("threads", [thread_of(f"many-{n}", "many") for n in range(count)])
    await storage.save_traces([Trace(id=f"trace-{n}", name="step") for n in range(count)])
    runs = [
        WorkflowRun(run_id=f"run-{n}", workflow_name="book", snapshot={"status": "done"})
        for n in range(count)
    ]
    await storage.batch_insert("workflow_snapshot", runs)
    await storage.batch_insert("evals", [_eval(n) for n in range(count)])
    for n in range(sizes.together):
        await storage.save_thread(thread_of(f"busy-{n}"))
        await storage.save_messages(messages_of(f"busy-{n}", 12))


def _eval(number: int) -> Eval:
    return Eval(id=f"eval-{number}", agent_name="agent", metric_name="tone")


def methods_of(sizes: Sizes) -> list[Method]:
    n, many = sizes.messages, sizes.together
    every_value = [L, gets(n)]

    async def save_together(storage: Storage, thread: str) -> None:
        threads = [thread_of(f"{thread}-{number}") for number in range(many)]
        await asyncio.gather(*[storage.save_thread(made) for made in threads])

    async def save_messages_together(storage: Storage, thread: str) -> None:
        messages = messages_of(thread, many)
        await asyncio.gather(*[storage.save_message(message) for message in messages])

    async def read_together(storage: Storage, thread: str) -> None:
        names = [f"busy-{number}" for number in range(many)]
        await asyncio.gather(*[storage.get_thread_by_id(name) for name in names])

    async def read_messages_together(storage: Storage, thread: str) -> None:
        names = [f"busy-{number}" for number in range(many)]
        await asyncio.gather(*[storage.get_messages(name, last=10) for name in names])

    async def read_thread_together(storage: Storage, thread: str) -> None:
        await asyncio.gather(*[storage.get_messages("t", last=10) for _ in range(many)])

    return [
        Method("get_thread_by_id", 1, lambda s, t: s.get_thread_by_id("t"), [G], [G], repeat=10),
        Method("save_thread", 1, lambda s, t: s.save_thread(thread_of(t)), [G, PUT], [PUT]),
        Method(
            "update_thread",
            2,
            lambda s, t: s.update_thread(t, title="new"),
            [G, G, PUT],
            [G, PUT],
            threads=0,
        ),
        Method(
            "save_message, thread seen",
            1,
            lambda s, t: s.save_messages(messages_of(t, 1)),
            [G, L, Step("get", 100), PUT, ORDER, REORDER, PUT],
            [PUT],
            threads=0,
            before=lambda s, t: s.get_thread_by_id(t),
        ),
        Method(
            "save_message, thread not seen",
            2,
            lambda s, t: s.save_messages(messages_of(t, 1)),
            [G, L, Step("get", 100), PUT, ORDER, REORDER, PUT],
            [G, PUT],
            threads=0,
        ),
        Method(
            "save_messages, 100",
            2,
            lambda s, t: s.save_messages(messages_of(t, 100)),
            [G, Step("list", 100, True), gets(100), puts(100), ORDER, REORDER, PUT],
            [G, puts(100)],
            threads=0,
            wins=10,
        ),
        Method(
            f"get_messages, last 10 of {n:,}",
            2,
            lambda s, t: s.get_messages("t", last=10),
            [G, ORDER, gets(10)],
            [L, gets(10)],
        ),
        Method(
            f"get_messages, last 10 of {n:,}, read before",
            1,
            lambda s, t: s.get_messages("t", last=10),
            [G, ORDER, gets(10)],
            [L, gets(10)],
            before=lambda s, t: s.get_messages("t", last=10),
        ),
        Method(
            f"get_messages, last 10 of {sizes.long:,}",
            2,
            lambda s, t: s.get_messages("long", last=10),
            [ORDER, gets(sizes.long)],
            [Step("list", sizes.long // 1_000), gets(10)],
            wins=100,
        ),
        Method(
            f"get_messages_paginated, newest 10 of {n:,}",
            2,
            lambda s, t: s.get_messages_paginated("t", direction="desc", per_page=10, count=False),
            [ORDER, gets(n)],
            [L, gets(10)],
            wins=10,
        ),
        Method(
            f"get_messages, all {n:,}",
            2,
            lambda s, t: s.get_messages("t"),
            [ORDER, gets(n)],
            every_value,
            wins=10,
        ),
        Method(
            f"get_threads_by_resource_id, {n:,}",
            2,
            lambda s, t: s.get_threads_by_resource_id("many"),
            [L, Step("get", n)],
            every_value,
            wins=10,
        ),
        Method(
            f"update_messages, 1 of {n:,}",
            2,
            lambda s, t: s.update_messages(
                t, [MessageUpdate(id=message_of(t, n // 2).id, metadata={"a": 1})]
            ),
            [L, Step("get", n // 2), PUT, ORDER, REORDER],
            [G, PUT],
            threads=n,
            wins=10,
        ),
        Method(
            f"delete_thread with {n:,} messages",
            3,
            lambda s, t: s.delete_thread(t),
            [G, L, deletes(n), DELETE, DELETE],
            [L, deletes(n), DELETE],
            threads=n,
            wins=10,
        ),
        Method(
            "persist_workflow_snapshot",
            2,
            lambda s, t: s.persist_workflow_snapshot("check in", t, {"status": "running"}),
            [G, PUT],
            [G, PUT],
        ),
        Method(
            "load_workflow_snapshot",
            1,
            lambda s, t: s.load_workflow_snapshot("book", "run-7"),
            [G],
            [G],
            repeat=10,
        ),
        Method(
            f"get_workflow_runs, all {n:,}",
            2,
            lambda s, t: s.get_workflow_runs(workflow_name="book", per_page=None, count=False),
            every_value,
            every_value,
            wins=10,
        ),
        Method(
            f"get_traces, newest 100 of {n:,}",
            2,
            lambda s, t: s.get_traces(count=False),
            every_value,
            every_value,
            wins=10,
        ),
        Method(
            f"get_evals, newest 100 of {n:,}",
            2,
            lambda s, t: s.get_evals(count=False),
            every_value,
            every_value,
            wins=10,
        ),
        Method(
            "batch_insert, 100 traces",
            1,
            lambda s, t: s.batch_insert(
                "traces", [Trace(id=f"{t}-{number}") for number in range(100)]
            ),
            [puts(100)],
            [puts(100)],
        ),
        Method(
            f"{many} save_thread at once", 1, save_together, [gets(many), puts(many)], [puts(many)]
        ),
        Method(
            f"{many} save_message to a thread at once",
            2,
            save_messages_together,
            (),
            [G, puts(many)],
            threads=0,
        ),
        Method(f"{many} get_thread_by_id at once", 1, read_together, [gets(many)], [gets(many)]),
        Method(
            f"{many} get_messages(last=10) at once",
            2,
            read_messages_together,
            [gets(many), Step("get order", many, True), gets(10 * many)],
            [Step("list", many, True), gets(10 * many)],
        ),
        Method(
            f"{many} get_messages(last=10) at once, read before",
            1,
            read_messages_together,
            [gets(many), Step("get order", many, True), gets(10 * many)],
            [Step("list", many, True), gets(10 * many)],
            before=read_messages_together,
        ),
        Method(
            f"{many} get_messages(last=10) of a thread at once",
            2,
            read_thread_together,
            [gets(many), Step("get order", many, True), gets(10 * many)],
            [Step("list", many, True), gets(10 * many)],
        ),
    ]
