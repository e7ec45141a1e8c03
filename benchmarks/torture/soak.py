"""A long run in one process: memory, file handles, threads and tasks stay flat."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from msgspec import Struct

from mastra_storage import Storage, Thread
from torture.calls import carry_out, outcome_of, patient
from torture.campaign import blow
from torture.plan import SHARED_THREADS, plan, shared_thread, watched
from torture.watches import Watches
from torture.weather import WEATHERS, Weather

_LANES = 12
_CALLS = 4_000
_ROUNDS = 12
# After each round calls rest until idle connections are closed, or for so long; then it is counted.
_IDLE_SECONDS = 35
# What memory may be above what it was after the first quarter: fragments, caches that fill.
_MORE_MEMORY = 1.1
_MORE_MIB = 8
# A connection that idles, with the relay it goes through, is three files and three tasks.
_ONE_CONNECTION = 3


class Sample(Struct, frozen=True):
    """What a process holds at a moment."""

    mib: float
    files: int
    threads: int
    tasks: int


class Soak(Struct, frozen=True, kw_only=True):
    """A soak of one backend: what it held in its second quarter and in its last.

    Counted while nothing was under way: of memory the median, of all else the least.
    """

    backend: str
    seconds: float
    operations: int
    early: Sample
    late: Sample

    @property
    def leaks(self) -> list[str]:
        """What grew."""
        grown = [
            name
            for name in ("files", "threads", "tasks")
            if getattr(self.late, name) > getattr(self.early, name) + _ONE_CONNECTION
        ]
        allowed = max(self.early.mib * _MORE_MEMORY, self.early.mib + _MORE_MIB)
        return grown + (["memory"] if self.late.mib > allowed else [])


SECTION = "soak"


def told(done: Soak) -> str:
    """A soak in a line."""
    early, late = done.early, done.late
    return (
        f"{done.backend}: {done.operations:,} operations in {done.seconds:.0f} s; "
        f"memory {early.mib:.0f} to {late.mib:.0f} MiB, files {early.files} to {late.files}, "
        f"threads {early.threads} to {late.threads}, tasks {early.tasks} to {late.tasks}"
        + (f"; grew: {', '.join(done.leaks)}" if done.leaks else "")
    )


def run_soak(backend: str, seconds: float, seed: int) -> Soak:
    """A soak of one backend: what a process is for."""
    with tempfile.TemporaryDirectory(prefix="torture-") as directory:
        return asyncio.run(_soak(backend, seconds, seed, Path(directory)))


async def _soak(backend: str, seconds: float, seed: int, directory: Path) -> Soak:
    """Use one backend for so long, in bad weather, all in this process."""
    weather = await WEATHERS[backend].start(directory, seed)
    samples: list[Sample] = []
    started = time.monotonic()
    lanes = [_Lane(seed, lane) for lane in range(_LANES)]
    try:
        async with Storage(weather.place.backend()) as storage:
            for number in range(SHARED_THREADS):
                await storage.save_thread(Thread(id=shared_thread(number), resource_id="shared"))
            for number in range(1, _ROUNDS + 1):
                until = started + number * seconds / _ROUNDS - _IDLE_SECONDS
                await _round(storage, weather, lanes, max(until, time.monotonic() + 1))
                await _rest()
                samples.append(_sample())
                print(f"  {backend}: {_shown(samples[-1])}", flush=True)
    finally:
        await weather.stop()
    quarter = max(_ROUNDS // 4, 1)
    return Soak(
        backend=backend,
        seconds=seconds,
        operations=sum(lane.done for lane in lanes),
        early=_least(samples[quarter : 2 * quarter]),
        late=_least(samples[-quarter:]),
    )


async def _round(storage: Storage, weather: Weather, lanes: Sequence[_Lane], until: float) -> None:
    """All lanes until then, and some watches, in bad weather."""
    over = asyncio.Event()
    calls = watched("soak", range(_LANES))
    async with asyncio.TaskGroup() as outside:
        outside.create_task(blow(weather, over))
        async with Watches(storage, calls, Path(os.devnull)), asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.run(storage, until))
        over.set()


async def _rest() -> None:
    """Until no other task is left, or for so long."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=_IDLE_SECONDS)


class _Lane:
    """The operations of a lane, over and over."""

    def __init__(self, seed: int, lane: int) -> None:
        self.done = 0
        self._lane = lane
        self._calls = enumerate(cycle(plan(seed, lane, _LANES, _CALLS)))

    async def run(self, storage: Storage, until: float) -> None:
        """Go on until then."""
        while time.monotonic() < until:
            number, call = next(self._calls)
            token = f"{self._lane}.{number}"
            doing = asyncio.create_task(outcome_of(carry_out(storage, call, token, self._lane)))
            if call.patience is not None:
                await patient(doing, call.patience)
                doing.cancel()
            await asyncio.wait([doing])
            self.done += 1


def _sample() -> Sample:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        resident * os.sysconf("SC_PAGE_SIZE") / 2**20,
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        threading.active_count(),
        len(asyncio.all_tasks()),
    )


def _shown(sample: Sample) -> str:
    return (
        f"{sample.mib:.1f} MiB, {sample.files} files, {sample.threads} threads, "
        f"{sample.tasks} tasks"
    )


def _least(samples: list[Sample]) -> Sample:
    return Sample(
        statistics.median(each.mib for each in samples),
        min(each.files for each in samples),
        min(each.threads for each in samples),
        min(each.tasks for each in samples),
    )
