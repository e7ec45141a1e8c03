"""A long run in one process: memory, file handles, threads and tasks stay flat."""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from mastra_storage import Storage, Thread
from torture.calls import carry_out
from torture.plan import SHARED_THREADS, plan, shared_thread
from torture.weather import WEATHERS
from torture.worker import outcome_of

_LANES = 12
_CALLS = 4_000
_SAMPLES = 60
# What memory may be above what it was after the first quarter: fragments, caches that fill.
_MORE_MEMORY = 1.1
_MORE_MIB = 8


class Sample(Struct, frozen=True):
    """What a process holds at a moment."""

    mib: float
    files: int
    threads: int
    tasks: int


class Soak(Struct, frozen=True, kw_only=True):
    """A soak of one backend: what it held in its second quarter and in its last.

    Of memory the median, of files, threads and tasks the least: their number follows the load.
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
            if getattr(self.late, name) > getattr(self.early, name) + 1
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


async def soak(backend: str, seconds: float, seed: int, directory: Path) -> Soak:
    """Use one backend for so long, in bad weather, all in this process."""
    weather = await WEATHERS[backend].start(directory, seed)
    until = time.monotonic() + seconds
    samples: list[Sample] = []
    done = 0

    def count() -> None:
        nonlocal done
        done += 1

    async def watch() -> None:
        while True:
            await asyncio.sleep(seconds / _SAMPLES)
            samples.append(_sample())

    async def blow() -> None:
        while True:
            await weather.blow()

    try:
        async with Storage(weather.place.backend()) as storage:
            for number in range(SHARED_THREADS):
                await storage.save_thread(Thread(id=shared_thread(number), resource_id="shared"))
            others = [asyncio.create_task(watch()), asyncio.create_task(blow())]
            lanes = [_lane(storage, seed, lane, until, count) for lane in range(_LANES)]
            await asyncio.gather(*lanes)
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await weather.calm()
    finally:
        await weather.stop()
    quarter = len(samples) // 4
    return Soak(
        backend=backend,
        seconds=seconds,
        operations=done,
        early=_least(samples[quarter : 2 * quarter]),
        late=_least(samples[-quarter:]),
    )


async def _lane(
    storage: Storage, seed: int, lane: int, until: float, count: Callable[[], None]
) -> None:
    """Operations of a lane, and when they are at their end once more."""
    while True:
        for number, call in enumerate(plan(seed, lane, _LANES, _CALLS)):
            if time.monotonic() > until:
                return
            doing = asyncio.create_task(
                outcome_of(carry_out(storage, call, f"{lane}.{number}", lane))
            )
            if call.patience is not None:
                await asyncio.wait([doing], timeout=abs(call.patience))
                doing.cancel()
            await asyncio.wait([doing])
            count()


def _sample() -> Sample:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        resident * os.sysconf("SC_PAGE_SIZE") / 2**20,
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        threading.active_count(),
        len(asyncio.all_tasks()),
    )


def _least(samples: list[Sample]) -> Sample:
    return Sample(
        statistics.median(each.mib for each in samples),
        round(statistics.median(each.files for each in samples)),
        round(statistics.median(each.threads for each in samples)),
        round(statistics.median(each.tasks for each in samples)),
    )
