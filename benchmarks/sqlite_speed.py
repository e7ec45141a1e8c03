"""SQLite: against plain sqlite3, and against what users would pick instead.

All sides keep 1,000 messages of about 1 KB with the same durability. See `_peers.py` for how.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

from _conversations import batches_of, messages_of
from _measure import (
    TARGET_HEAD,
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
from _peers import DISTRIBUTIONS, PEERS, AgentsSQLite, check_default
from _plots import dots
from _sides import Ours, Plain, Side

Results = dict[str, dict[str, Samples]]

EACH, BATCH, AT_ONCE = "one by one", "one batch", "all at once"
LAST, EVERY, THREADS = "last 20", "all", "20 threads"
COLUMNS = (EACH, BATCH, AT_ONCE, LAST, EVERY, THREADS)
LIMITS = {EACH: 3.0, BATCH: 1.5, AT_ONCE: 0.5, LAST: 4.0, EVERY: 1.6, THREADS: 10.0}
GROWTH_LIMIT = 1.3
PLOT = "benchmarks-sqlite.svg"
BLOBS = {("langgraph AsyncSqliteSaver", BATCH), ("agno AsyncSqliteDb", BATCH)}
BLOB_LIMIT = 1.5
GROWING = (Plain, Ours, AgentsSQLite)


async def written(sides: Sequence[Side], column: str, size: int, rounds: int) -> dict[str, Samples]:
    """The time to write `size` messages into a new thread."""
    progress(f"writing {column}")
    numbers = count()
    ready: dict[str, tuple[str, list[object]]] = {}

    def setup(side: Side) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            thread = f"{column} {next(numbers)}"
            await side.start(thread)
            ready[side.name] = thread, [side.prepared(m) for m in messages_of(thread, size)]

        return run

    def call(side: Side) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            thread, items = ready[side.name]
            if column == EACH:
                for item in items:
                    await side.add(thread, item)
            elif column == BATCH:
                await side.add_batch(thread, items)
            else:
                await side.add_at_once(thread, items)

        return run

    return await in_turns(
        {side.name: call(side) for side in sides},
        before={side.name: setup(side) for side in sides},
        rounds=rounds,
    )


async def held(sides: Sequence[Side], size: int) -> dict[str, Samples]:
    """How long the event loop stands still while a message is written: its longest turn."""
    progress("writing, the event loop watched")
    found = {side.name: Samples() for side in sides}
    for side in sides:
        thread = "watched"
        await side.start(thread)
        async with turning() as turns:
            for item in [side.prepared(message) for message in messages_of(thread, size)]:
                turns.clear()
                await side.add(thread, item)
                await asyncio.sleep(0)
                found[side.name].seconds.append(max(turns))
    return found


@asynccontextmanager
async def turning() -> AsyncIterator[list[float]]:
    """The seconds that each turn of the event loop takes."""
    turns: list[float] = []

    async def turn() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            turns.append(now - last)
            last = now

    task = asyncio.create_task(turn())
    await asyncio.sleep(0)
    try:
        yield turns
    finally:
        task.cancel()


async def filled(side: Side, thread: str, size: int) -> None:
    """A thread to read from."""
    await side.start(thread)
    for batch in batches_of(thread, size, 10_000):
        items = [side.prepared(message) for message in batch]
        if side.batch_is_rows:
            await side.add_batch(thread, items)
        else:
            for item in items:
                await side.add(thread, item)


async def read(sides: Sequence[Side], size: int, rounds: int) -> Results:
    """The times to read from a thread of `size` messages, and of as many threads."""
    for side in sides:
        await filled(side, "read", size)
        await side.start_many([f"thread {n}" for n in range(size)])

    def checked(call: Callable[[], Awaitable[int]], wanted: int) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            if await call() != wanted:
                raise RuntimeError("a side did not read what was asked")

        return run

    last = {side.name: checked(partial(side.last, "read", 20), 20) for side in sides}
    every = {side.name: checked(partial(side.every, "read"), size) for side in sides}
    threads = {side.name: checked(partial(side.newest_threads, 20), 20) for side in sides}
    return {
        LAST: await in_turns(last, rounds=rounds, repeat=20),
        EVERY: await in_turns(every, rounds=rounds),
        THREADS: await in_turns(threads, rounds=rounds, repeat=20),
    }


async def grown(sides: Sequence[Side], sizes: Sequence[int], rounds: int) -> Results:
    """The time to read the last 20 messages of threads of different lengths."""
    found: Results = {}
    for side in sides:
        for size in sizes:
            await filled(side, f"long {size}", size)
        reads = {f"{size:,}": partial(side.last, f"long {size}", 20) for size in sizes}
        found[side.name] = await in_turns(reads, rounds=rounds, repeat=20)
    return found


async def measured(quick: bool) -> tuple[Results, Results, dict[str, Samples]]:
    size, rounds = 1_000, 5 if quick else 25
    sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000, 1_000_000]
    with tempfile.TemporaryDirectory() as directory:
        sides: list[Side] = [Plain(), Ours(), *[peer() for peer in PEERS]]
        for side in sides:
            await side.open(Path(directory))
        found = {column: await written(sides, column, size, rounds) for column in COLUMNS[:3]}
        still = await held(sides, 50 if quick else 200)
        progress("reading")
        found |= await read(sides, size, rounds)
        progress("threads that grow")
        long = await grown([s for s in sides if type(s) in GROWING], sizes, 2 * rounds)
        for side in sides:
            await side.close()
    return found, long, still


def growth_of(sizes: dict[str, Samples]) -> float:
    """How much longer the longest thread takes than the shortest."""
    medians = [samples.median for samples in sizes.values()]
    return medians[-1] / medians[0]


def targets(found: Results, long: Results) -> list[list[str]]:
    plain, ours = Plain.name, Ours.name
    usual = {peer.name for peer in PEERS if peer.usual}
    rows = []
    for column, samples in found.items():
        ratio = samples[ours].median / samples[plain].median
        rows.append(target(f"{column}, to plain sqlite3", ratio, LIMITS[column]))
    rows.append(target("last 20, longest to shortest", growth_of(long[ours]), GROWTH_LIMIT))
    for column, samples in found.items():
        for name, peer in samples.items():
            if name in usual and peer.seconds:
                limit = BLOB_LIMIT if (name, column) in BLOBS else 1.0
                ratio = samples[ours].median / peer.median
                if ratio > limit / 2:
                    rows.append(target(f"{column}, to {name}", ratio, limit))
    return rows


def report(found: Results, long: Results, still: dict[str, Samples]) -> str:
    plain = {column: samples[Plain.name] for column, samples in found.items()}
    rows = [
        [name, *[found[column][name].ratio(plain[column]) for column in COLUMNS]]
        for name in plain and found[EACH]
    ]
    rows[0] = [Plain.name, *[f"1 ({duration(plain[column].median)})" for column in COLUMNS]]
    growth = [
        [
            name,
            *[duration(samples.median) for samples in sizes.values()],
            short(growth_of(sizes)),
        ]
        for name, sizes in long.items()
    ]
    blob = found[BATCH]["langgraph AsyncSqliteSaver"].ratio(plain[BATCH])
    held_by = [[name, duration(samples.median)] for name, samples in still.items()]
    return f"""
## SQLite

1,000 messages of about 1 KB in one thread: written one by one, as one batch, all at once by as
many tasks; the last 20 and all of them read; and the 20 newest of 1,000 threads of one resource.
Every side is in WAL mode with `synchronous=FULL`: what was acknowledged is on disk. langgraph keeps
the growing list in its state, agno a message a run (and runs it has read in memory); their one
batch is one blob. DiskStore has no order: it is asked for keys that are known.
{machine(("msgspec", *DISTRIBUTIONS), f"SQLite {sqlite3.sqlite_version}")}

![Times plain sqlite3, by column and store]({PLOT})

{table(["times plain sqlite3", *COLUMNS], rows)}

The last 20 messages of threads that grow:

{table(["", *long[Plain.name], "longest to shortest"], growth)}

How long the event loop stands still, and everybody waits, while one message is written (the longest
turn, at the median). With a slower disk those who write on the loop's thread, as plain sqlite3 and
DiskStore do, hold it longer; the others do not.

{table(["", "held"], held_by)}

What is promised, and the peers that come nearest:

{table(TARGET_HEAD, targets(found, long))}

Two of them are not to be had. DiskStore, one by one: it never leaves the event loop's thread, and
holds up everybody for as long as the disk takes. langgraph's batch: one blob takes
{blob} of the time in which plain sqlite3 itself writes a row for each message,
without which none can be found, changed or deleted by itself.
"""


def plot(found: Results) -> str:
    """The ratios of all sides but the floor, which is the mark at 1."""
    rows = {
        column: {
            name: side.median / samples[Plain.name].median
            for name, side in samples.items()
            if side.seconds and name != Plain.name
        }
        for column, samples in found.items()
    }
    marks = dict.fromkeys(rows, 1.0)
    return dots("Times plain sqlite3", rows, label=lambda ratio: f"×{ratio:.3g}", marks=marks)


def main() -> int:
    chosen = options(__doc__)
    check_default()
    found, long, still = asyncio.run(measured(chosen.quick))
    text = report(found, long, still)
    publish("sqlite", text, chosen, plots={PLOT: plot(found)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
