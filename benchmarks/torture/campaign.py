"""One campaign: workers that are killed, weather that changes, and the check at the end."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from msgspec import Struct

from mastra_storage import Storage, StorageError, Thread
from torture import worker
from torture.calls import read
from torture.checker import Checker
from torture.journal import FINAL, Entry, begun, entries, lines
from torture.plan import (
    RUNS_OF_A_LANE,
    SHARED_RUNS,
    SHARED_THREADS,
    THREADS_OF_A_LANE,
    Call,
    own_run,
    own_thread,
    plan,
    shared_run,
    shared_thread,
    watched,
)
from torture.plants import planted
from torture.verdict import Verdict
from torture.watches import Watches, path_of, read_of, shown
from torture.weather import WEATHERS, Weather
from torture.worker import Work

_PRELOAD = [
    "asyncio",
    "mastra_storage",
    "mastra_storage.backends.sqlite",
    "mastra_storage.testing",
    "mastra_storage_cloudflare.rest",
    "mastra_storage_convex.client",
    "torture.worker",
]

# So soon after the last fault every watch shows what is there.
SHOWN_SECONDS = 10.0
_TELL_SECONDS = 30.0
# A process is killed at some time in this moment, whatever it does.
_MOMENT_SECONDS = 0.1


class Campaign(Struct, frozen=True, kw_only=True):
    """What to do: `operations` in all, by `workers` processes of `stores` with `lanes` each.

    `life` is how many operations a process begins on average before it is killed, 0 to let it
    live; `deadline` after how many seconds an operation hangs.
    """

    backend: str
    seed: int
    directory: Path
    operations: int
    workers: int = 5
    stores: int = 2
    lanes: int = 4
    life: float = 90.0
    deadline: float = 90.0
    calm: bool = False
    plant: str | None = None

    @property
    def of(self) -> int:
        """How many lanes there are."""
        return self.workers * self.stores * self.lanes

    @property
    def calls(self) -> int:
        """How many operations a lane has."""
        return -(-self.operations // self.of)


class Outcome(Struct, kw_only=True):
    """What a campaign came to."""

    campaign: Campaign
    verdict: Verdict
    faults: Counter[str]
    operations: int
    kills: int
    restarts: int
    seconds: float


async def run(campaign: Campaign) -> Outcome:
    """Carry out a campaign."""
    started = time.monotonic()
    weather = await WEATHERS[campaign.backend].start(campaign.directory, campaign.seed)
    workers = [_Worker(campaign, weather, number) for number in range(campaign.workers)]
    try:
        async with Storage(planted(weather.place.backend(), campaign.plant)) as storage:
            await _make_shared_threads(storage)
            calls = watched(str(campaign.seed), range(campaign.of))
            calls += watched(f"{campaign.seed} too", range(campaign.of))
            path = path_of(campaign.directory, "all")
            async with Watches(storage, [*dict.fromkeys(calls)], path) as watches:
                telling = asyncio.create_task(_tell(campaign, workers))
                try:
                    await _suffer(campaign, weather, workers)
                finally:
                    telling.cancel()
                until = time.monotonic() + SHOWN_SECONDS
                await asyncio.sleep(weather.settle)
                operations = list(_operations(campaign))
                final = await _final(campaign, weather, operations, calls)
                behind = await watches.behind(final, until)
        verdict = _checked(campaign, weather, operations, final)
        for call in behind:
            verdict.violation("not shown", f"{call.kind} of {call.thread!r} is behind at the end")
    finally:
        await weather.stop()
    for path in campaign.directory.glob("faults.*"):
        weather.faults.update(path.read_text().splitlines())
    return Outcome(
        campaign=campaign,
        verdict=verdict,
        faults=weather.faults,
        operations=len(operations),
        kills=sum(each.kills for each in workers),
        restarts=weather.restarts,
        seconds=time.monotonic() - started,
    )


async def _make_shared_threads(storage: Storage) -> None:
    for number in range(SHARED_THREADS):
        await storage.save_thread(Thread(id=shared_thread(number), resource_id="shared"))


async def _suffer(campaign: Campaign, weather: Weather, workers: Sequence[_Worker]) -> None:
    """All operations, in bad weather unless it is calm."""
    over = asyncio.Event()
    if campaign.calm:
        over.set()
    with ThreadPoolExecutor(max_workers=1) as starter:
        async with asyncio.TaskGroup() as outside:
            outside.create_task(blow(weather, over))
            async with asyncio.TaskGroup() as group:
                for each in workers:
                    group.create_task(each.run(starter))
            over.set()


async def _tell(campaign: Campaign, workers: Sequence[_Worker]) -> None:
    """Now and then how far it has come."""
    started = time.monotonic()
    while True:
        await asyncio.sleep(_TELL_SECONDS)
        done = await asyncio.to_thread(lines, campaign.directory)
        print(
            f"  {campaign.backend}: {done // 2:,} of {campaign.calls * campaign.of:,} operations, "
            f"{sum(each.kills for each in workers)} kills, {time.monotonic() - started:.0f} s",
            flush=True,
        )


async def blow(weather: Weather, over: asyncio.Event) -> None:
    """Bad weather until it is over; what was begun is ended, so that no server stays away."""
    while not over.is_set():
        await weather.blow()
    await weather.calm()


class _Worker:
    """A process, killed now and then, until its lanes are at their end."""

    def __init__(self, campaign: Campaign, weather: Weather, number: int) -> None:
        stores = range(number * campaign.stores, (number + 1) * campaign.stores)
        self.kills = 0
        self._random = random.Random(f"kills {campaign.seed} {number}")
        self._life = campaign.life
        self._settle = weather.settle
        self._work = Work(
            seed=campaign.seed,
            place=weather.place,
            directory=campaign.directory,
            lanes=tuple(
                tuple(range(store * campaign.lanes, (store + 1) * campaign.lanes))
                for store in stores
            ),
            of=campaign.of,
            calls=campaign.calls,
            deadline=campaign.deadline,
            plant=campaign.plant,
            full_disk=campaign.backend == "sqlite" and not campaign.calm,
        )

    async def run(self, starter: Executor) -> None:
        """`starter` has one thread: whoever starts a process looks after all others, too."""
        loop = asyncio.get_running_loop()
        life = 0
        while True:
            begun, begins = _context().Pipe(duplex=False)
            process = _context().Process(target=worker.main, args=(self._work, life, begins))
            with begun:
                with begins:
                    await loop.run_in_executor(starter, process.start)
                try:
                    await self._live(process, begun)
                finally:
                    process.kill()
                    await loop.run_in_executor(starter, process.join)
            if process.exitcode == 0:
                return
            if process.exitcode != -9:
                raise RuntimeError(f"a worker ended with {process.exitcode}; see its output")
            self.kills += 1
            life += 1
            await asyncio.sleep(self._settle)

    async def _live(self, process: ForkServerProcess, begun: Connection) -> None:
        """Return when the process has ended, or a moment after so many operations have begun."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        left = self._random.uniform(0.3, 1.7) * self._life if self._life else math.inf

        def count() -> None:
            nonlocal left
            left -= len(os.read(begun.fileno(), 2**16))
            if left <= 0:
                loop.remove_reader(begun.fileno())
                loop.call_later(self._random.uniform(0, _MOMENT_SECONDS), over.set)

        loop.add_reader(begun.fileno(), count)
        loop.add_reader(process.sentinel, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(begun.fileno())
            loop.remove_reader(process.sentinel)


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def _operations(campaign: Campaign) -> Iterator[tuple[Call, Entry]]:
    for lane in range(campaign.of):
        calls = plan(campaign.seed, lane, campaign.of, campaign.calls)
        for entry in entries(campaign.directory, lane):
            yield calls[entry.number], entry


async def _final(
    campaign: Campaign,
    weather: Weather,
    operations: Sequence[tuple[Call, Entry]],
    watches: Sequence[Call],
) -> list[tuple[Call, Entry]]:
    """Reads of everything there is, and of what is watched, by a store of its own."""
    threads = [shared_thread(number) for number in range(SHARED_THREADS)]
    runs = [shared_run(number) for number in range(SHARED_RUNS)]
    for lane in range(campaign.of):
        threads += [own_thread(lane, number) for number in range(THREADS_OF_A_LANE)]
        runs += [own_run(lane, number) for number in range(RUNS_OF_A_LANE)]
    calls = [Call(kind, thread) for thread in threads for kind in ("read_thread", "read_messages")]
    calls += [Call("read_run", run) for run in runs]
    doomed = dict.fromkeys(call.thread for call, _ in operations if call.kind == "delete_doomed")
    calls += [Call("read_messages", thread) for thread in doomed]
    calls += [read_of(call) for call in watches if call.kind == "watch_messages"]
    traces = Call("read_traces")
    async with Storage(weather.place.backend()) as storage:
        found = [(call, await _read(storage, call, -1)) for call in calls]
        lanes = range(campaign.of)
        return found + [(traces, await _read(storage, traces, lane)) for lane in lanes]


async def _read(storage: Storage, call: Call, lane: int) -> Entry:
    at = time.monotonic_ns()
    for left in reversed(range(5)):
        try:
            result = await read(storage, call, lane)
        except StorageError:
            if not left:
                raise
            await asyncio.sleep(1)
        else:
            break
    return Entry(
        lane=lane,
        number=10**9,
        store=FINAL,
        begun=at,
        wall=time.time_ns(),
        ended=time.monotonic_ns(),
        outcome="ok",
        result=result,
    )


def _checked(
    campaign: Campaign,
    weather: Weather,
    operations: Sequence[tuple[Call, Entry]],
    final: Sequence[tuple[Call, Entry]],
) -> Verdict:
    checker = Checker(
        weather.place.backend().capabilities,
        window=weather.settle,
        deadline=campaign.deadline,
        late=1.0 if campaign.calm else weather.late,
        steady=campaign.calm and not campaign.life,
    )
    verdict = checker.check(operations, shown(campaign.directory), final)
    missing = [
        lane for lane in range(campaign.of) if begun(campaign.directory, lane) < campaign.calls
    ]
    for path in campaign.directory.glob("stray.*"):
        for text in path.read_text().splitlines():
            verdict.violation("stray error", text)
    if missing:
        raise RuntimeError(f"lanes {missing} did not come to their end")
    return verdict
