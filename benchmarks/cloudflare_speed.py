"""Cloudflare KV: time over the floor, requests, bills, and what others would take.

On the Workers KV server of the plugin's tests, with 0, 30 and 100 ms added to every request.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from _conversations import message_of, messages_of
from _kv_methods import Method, Sizes, fill, methods_of, thread_of
from _kv_report import (
    BARE,
    BUDGET,
    DELAYS,
    OURS,
    PERIOD,
    PLOT,
    SDK,
    TYPESCRIPT,
    Found,
    plot,
    report,
)
from _measure import Call, Options, Samples, in_turns, options, progress, publish
from _replays import Bare, OfficialSDK, TypeScript
from _servers import kv_server, kv_store

if TYPE_CHECKING:
    from kv_server import KVServer

    from mastra_storage import Storage


class Bench:
    """A server with data, our store on it, and the rivals, all past the front of the server.

    `ours` is a new one for each sample, which has not seen what it reads.
    """

    def __init__(self, server: KVServer, sizes: Sizes) -> None:
        self.server = server
        self.sizes = sizes
        self._calls = 0
        self.typescript = TypeScript(server)

    async def open(self) -> None:
        self.writer = kv_store(self.server, direct=True)
        await self.writer.__aenter__()
        await fill(self.writer, self.sizes)
        await asyncio.sleep(1.5)  # the touches of its threads
        self.ours = await self.new_store(direct=True)
        await self.typescript.open()
        self.sdk = OfficialSDK(self.server, self.typescript.namespace)
        await self.sdk.open()
        self.bare = Bare(self.server)
        await self.bare.open()

    async def close(self) -> None:
        await self.ours.close()
        await self.writer.close()
        await self.typescript.close()
        await self.sdk.close()
        await self.bare.close()

    async def new_store(self, *, direct: bool) -> Storage:
        """A store that knows its namespaces, and nothing that is in them."""
        store = kv_store(self.server, direct=direct)
        await store.__aenter__()
        await store.get_messages("nobody", last=1)
        return store

    async def ready(self, method: Method, store: Storage) -> Callable[[], Awaitable[object]]:
        """A call of the method, with what it needs in place."""
        self._calls += 1
        name = f"call-{self._calls}"
        if method.threads is not None:
            await self.writer.save_thread(thread_of(name))
            await self.writer.save_messages(messages_of(name, method.threads))
            if method.threads:
                await asyncio.sleep(1.2)  # until its touch is stored
        if method.before is not None:
            await method.before(store, name)
        return lambda: method.call(store, name)

    async def count(self, method: Method) -> Found:
        """What one call costs, but for the touches of threads, which all calls share."""
        store = await self.new_store(direct=False)
        call = await self.ready(method, store)
        await self.server.control(reset=True, recordBodies=True)
        await call()
        log = await self.server.log()
        await store.close()
        return Found(method, [entry for entry in log if not _touches(entry)])

    async def connect(self, count: int) -> None:
        """Have so many connections: workerd closes idle ones after 5 seconds, not 400."""
        names = [f"nobody-{number}" for number in range(count)]
        await asyncio.gather(*[self.ours.get_messages(name, last=1) for name in names])

    async def time(self, one: Found, delay: int, rounds: int) -> dict[str, Samples]:
        method = one.method
        calls: list[Callable[[], Awaitable[object]]] = []

        async def prepare() -> None:
            await self.ours.close()
            self.ours = await self.new_store(direct=True)
            calls[:] = [await self.ready(method, self.ours)]
            await self.connect(one.widest)

        async def ours() -> None:
            await calls[0]()

        async def put_back() -> None:
            await self.bare.put_back(one.log)
            await self.bare.connect(one.widest)

        sides: dict[str, Call] = {OURS: ours}
        before: dict[str, Call] = {OURS: prepare}
        if method.typescript:
            sides[TYPESCRIPT] = partial(self.typescript.run, method.typescript)
            before[TYPESCRIPT] = partial(self.typescript.connect, method.typescript)
        if method.sdk:
            sides[SDK] = partial(self.sdk.run, method.sdk)
            before[SDK] = partial(self.sdk.connect, method.sdk)
        if not delay:
            sides[BARE] = partial(self.bare.run, one.log)
            before[BARE] = put_back

        async def connected(side: str) -> None:
            # Without delay, and behind a call from another thread: all sides begin alike.
            await self.server.control(delayMs=0)
            await before[side]()
            await self.server.control(delayMs=delay)

        starts = {side: partial(connected, side) for side in sides}
        repeat = 1 if delay else method.repeat
        found = await in_turns(sides, rounds=rounds, repeat=repeat, before=starts, budget=5.0)
        for side in (OURS, BARE):
            if side in found and found[side].failure:
                raise RuntimeError(f"{method.name}, {side}: {found[side].failure}")
        return found


def _touches(entry: dict[str, Any]) -> bool:
    """Whether a request only moves `updated_at` of threads."""
    return entry["route"] == "PUT bulk" and ".touched:" in (entry.get("body") or "")


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


async def measured(chosen: Options) -> tuple[list[Found], tuple[int, int, int], float]:
    quick = chosen.quick
    sizes = Sizes(100, 1_000, 30, 1) if quick else Sizes(1_000, 50_000, 300, 1)
    seconds = 5.0 if quick or chosen.only else 30.0
    with kv_server() as server:
        bench = Bench(server, sizes)
        await bench.open()
        progress("counting requests")
        found = [
            await bench.count(method) for method in methods_of(sizes) if chosen.takes(method.name)
        ]
        for delay in DELAYS:
            progress(f"{delay} ms added")
            for one in found:
                one.times[delay] = await bench.time(one, delay, 2 if quick else 9)
        await server.control(delayMs=0)
        await bench.close()
        progress("ingest")
        ingest = await ingested(server, 100 if quick else 2_000, seconds)
    return found, ingest, seconds


def main() -> int:
    chosen = options(__doc__, parts=True)
    found, ingest, seconds = asyncio.run(measured(chosen))
    text = report(found, ingest, seconds)
    publish("cloudflare", text, chosen, plots={PLOT: plot(found)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
