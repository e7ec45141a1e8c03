"""Cloudflare KV: time over the floor, requests, bills, and what others would take.

On the Workers KV server of the plugin's tests, with 0, 30 and 100 ms added to every request.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from _conversations import message_of, messages_of
from _kv_methods import Method, Sizes, fill, methods_of, thread_of
from _measure import (
    TARGET_HEAD,
    Call,
    Samples,
    duration,
    in_turns,
    machine,
    options,
    progress,
    publish,
    short,
    table,
    target,
)
from _plots import dots
from _replays import OfficialSDK, TypeScript
from _servers import kv_server, kv_store

if TYPE_CHECKING:
    from kv_server import KVServer

DELAYS = (0, 30, 100)
OVER_LIMIT = 0.6
PLOT = "benchmarks-cloudflare.svg"
BUDGET, PERIOD = 1_200, 300
OURS, TYPESCRIPT, SDK = "mastra-storage", "TypeScript", "official SDK"


@dataclass
class Found:
    """What was measured of a method."""

    method: Method
    requests: int = 0
    bill: dict[str, int] = field(default_factory=dict)
    times: dict[int, dict[str, Samples]] = field(default_factory=dict)

    def over(self, delay: int) -> float:
        """By how many round trips it is over the floor."""
        return self.times[delay][OURS].median / (delay / 1e3) - self.method.floor

    def rival(self, side: str, delay: int) -> float | None:
        """How many times as long another takes."""
        other = self.times[delay].get(side)
        if other is None or not other.seconds:
            return None
        return other.median / self.times[delay][OURS].median


class Bench:
    """A server with data, our store on it, and the rivals."""

    def __init__(self, server: KVServer, sizes: Sizes) -> None:
        self.server = server
        self.sizes = sizes
        self._calls = 0
        self.typescript = TypeScript(server)

    async def open(self) -> None:
        self.writer = kv_store(self.server)
        await self.writer.__aenter__()
        await fill(self.writer, self.sizes)
        await asyncio.sleep(1.5)  # the touches of its threads
        self.ours = kv_store(self.server)
        await self.ours.__aenter__()
        await self.typescript.open()
        self.sdk = OfficialSDK(self.server, self.typescript.namespace)
        await self.sdk.open()

    async def close(self) -> None:
        for store in (self.ours, self.writer):
            await store.__aexit__(None, None, None)
        await self.typescript.close()
        await self.sdk.close()

    async def ready(self, method: Method) -> Callable[[], Awaitable[object]]:
        """A call of the method, with what it needs in place."""
        self._calls += 1
        name = f"call-{self._calls}"
        if method.threads is not None:
            await self.writer.save_thread(thread_of(name))
            await self.writer.save_messages(messages_of(name, method.threads))
            if method.threads:
                await asyncio.sleep(1.2)  # until its touch is stored
        if method.seen:
            await self.ours.get_thread_by_id(name)
        return lambda: method.call(self.ours, name)

    async def count(self, method: Method) -> Found:
        """What one call costs, but for the touches of threads, which all calls share."""
        call = await self.ready(method)
        await self.server.control(reset=True, recordBodies=True)
        await call()
        entries = [
            entry
            for entry in await self.server.log()
            if not (entry["route"] == "PUT bulk" and ".touched:" in (entry.get("body") or ""))
        ]
        bill: dict[str, int] = {}
        for entry in entries:
            for kind, number in (entry.get("bill") or {}).items():
                bill[kind] = bill.get(kind, 0) + number
        return Found(method, len(entries), bill)

    async def time(self, method: Method, delay: int, rounds: int) -> dict[str, Samples]:
        calls: list[Callable[[], Awaitable[object]]] = []

        async def prepare() -> None:
            await self.server.control(delayMs=0)
            calls[:] = [await self.ready(method)]
            await self.server.control(delayMs=delay)

        async def ours() -> None:
            await calls[0]()

        sides: dict[str, Call] = {OURS: ours}
        if method.typescript:
            sides[TYPESCRIPT] = partial(self.typescript.run, method.typescript)
        if method.sdk:
            sides[SDK] = partial(self.sdk.run, method.sdk)
        found = await in_turns(sides, rounds=rounds, before={OURS: prepare}, budget=5.0)
        if found[OURS].failure:
            raise RuntimeError(f"{method.name} {found[OURS].failure}")
        return found


async def ingested(server: KVServer, agents: int, seconds: float) -> tuple[int, int, int]:
    """Messages acknowledged, requests and refusals, while many agents save all the time.

    The server allows the API's pace, and blocks whoever exceeds it for as long as it takes.
    """
    await server.reset()
    async with kv_store(server, rate_limit=BUDGET) as storage:
        names = [f"agent-{number}" for number in range(agents)]
        await storage.batch_insert("threads", [thread_of(name) for name in names])
        for name in names:
            await storage.get_thread_by_id(name)
        allowed = {"requests": round(BUDGET * seconds / PERIOD), "periodMs": round(seconds * 1e3)}
        await server.control(reset=True, rateLimit=allowed, delayMs=30)
        end = time.monotonic() + seconds
        saved = 0

        async def work(name: str) -> None:
            nonlocal saved
            number = 0
            while time.monotonic() < end:
                await storage.save_message(message_of(name, number))
                number += 1
                saved += time.monotonic() < end

        await asyncio.gather(*[work(name) for name in names])
        log = await server.log()
        await server.control(reset=True)
    return saved, len(log), sum(entry["status"] == 429 for entry in log)


async def measured(quick: bool) -> tuple[list[Found], tuple[int, int, int], float]:
    sizes = Sizes(100, 1_000, 30, 1) if quick else Sizes(1_000, 50_000, 300, 1)
    seconds = 5.0 if quick else 30.0
    with kv_server() as server:
        bench = Bench(server, sizes)
        await bench.open()
        progress("counting requests")
        found = [await bench.count(method) for method in methods_of(sizes)]
        for delay in DELAYS:
            progress(f"{delay} ms added")
            for one in found:
                one.times[delay] = await bench.time(one.method, delay, 2 if quick else 5)
        await server.control(delayMs=0)
        await bench.close()
        progress("ingest")
        ingest = await ingested(server, 100 if quick else 2_000, seconds)
    return found, ingest, seconds


def report(found: list[Found], ingest: tuple[int, int, int], seconds: float) -> str:
    slow = DELAYS[-1]
    rows = [
        [
            one.method.name,
            str(one.requests),
            f"{TypeScript.requests_each * operations(one.method):,}"
            if one.method.typescript
            else "",
            ", ".join(f"{number:,} {kind}" for kind, number in one.bill.items()),
        ]
        for one in found
    ]
    times = [
        [
            one.method.name,
            str(one.method.floor),
            *[duration(one.times[delay][OURS].median) for delay in DELAYS],
            *[f"{one.over(delay):+.2f}" for delay in DELAYS[1:]],
            *[
                "" if (rival := one.rival(side, slow)) is None else short(rival)
                for side in (TYPESCRIPT, SDK)
            ],
        ]
        for one in found
    ]
    saved, requests, refused = ingest
    pace = saved / max(requests, 1)
    return f"""
## Cloudflare KV

On the Workers KV server of this repository's tests, with 0, 30 and 100 ms added to every request.
The store knows its namespaces and has seen none of what it reads. {
        machine(("aiohttp", "cloudflare"))
    }

What a call asks for and what it is billed; beside it the requests of the TypeScript store
(`@mastra/cloudflare`, its newest layout where they differ), which looks up the namespace each time.
The API allows {
        BUDGET:,} in five minutes. What moves a thread's `updated_at` is shared by all calls of
a second and not counted.

{table(["", "requests", "TypeScript", "billed operations"], rows)}

The floor is the number of round trips that depend on each other. Over it: how many more it took.
TypeScript: its sequence of requests, replayed from Python; the official SDK: `cloudflare`, with
`asyncio.gather`. Both say how many times as long they take at {
        slow
    } ms. (Of their longer sequences a
part was sent and the time scaled. The API's limit of requests, which they would meet, was off.)

{
        table(
            [
                "",
                "floor",
                *[f"{delay} ms" for delay in DELAYS],
                *[f"over, {d} ms" for d in DELAYS[1:]],
                "TypeScript",
                "SDK",
            ],
            times,
        )
    }

![The time of each method at {slow} ms]({PLOT})

The mark is the floor.

Ingest at the API's pace: {saved:,} messages acknowledged in {seconds:.0f} seconds with {requests}
requests ({pace:,.0f} a request, {refused} refused), each of them by a task that waited for it. One
request takes 5,000 messages at most, which makes {5_000 * BUDGET:,} in five minutes; one
message at a time, {BUDGET:,}. The TypeScript store takes 8 requests for one: {BUDGET // 8}.

What is promised, and what is not kept at {slow} ms:

{table(TARGET_HEAD, targets(found))}
"""


def operations(method: Method) -> int:
    return sum(step.number for step in method.typescript)


def targets(found: list[Found]) -> list[list[str]]:
    slow = DELAYS[-1]
    worst = max(found, key=lambda one: one.over(slow))
    rows = [target(f"over the floor at most: {worst.method.name}", worst.over(slow), OVER_LIMIT)]
    rows += [
        target(f"over the floor: {one.method.name}", one.over(slow), OVER_LIMIT)
        for one in found
        if one.over(slow) > OVER_LIMIT and one is not worst
    ]
    for delay in DELAYS:
        rivals = [(one.rival(TYPESCRIPT, delay) or 9e9, one) for one in found]
        least, one = min(rivals, key=lambda rival: rival[0])
        name = f"times as fast as TypeScript at {delay} ms, least: {one.method.name}"
        rows.append(target(name, least, 1.0, at_least=True))
    shares = [
        (one.requests / (2 * operations(one.method)), one) for one in found if one.method.typescript
    ]
    share, one = max(shares, key=lambda pair: pair[0])
    rows.append(target(f"share of its requests, most: {one.method.name}", share, 0.5))
    for one in found:
        rival = one.rival(TYPESCRIPT, slow)
        if rival is not None and one.method.wins > 1:
            name = f"times as fast as TypeScript: {one.method.name}"
            rows.append(target(name, rival, one.method.wins, at_least=True))
    return rows


def plot(found: list[Found]) -> str:
    """The times of all sides; the marks are the floors."""
    slow = DELAYS[-1]
    rows = {
        one.method.name: {
            name: side.median for name, side in one.times[slow].items() if side.seconds
        }
        for one in found
    }
    marks = {one.method.name: one.method.floor * slow / 1e3 for one in found}
    return dots(f"Seconds at {slow} ms", rows, label=duration, marks=marks)


def main() -> int:
    chosen = options(__doc__)
    found, ingest, seconds = asyncio.run(measured(chosen.quick))
    text = report(found, ingest, seconds)
    publish("cloudflare", text, chosen, plots={PLOT: plot(found)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
