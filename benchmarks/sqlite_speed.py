"""SQLite: against plain sqlite3, and against what users would pick instead.

All sides keep 1,000 messages of about 1 KB with the same durability, each in a process of its own.
See `_peers.py` for how, and `_sqlite_work.py` for what they are asked.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from _apart import Apart, apart
from _measure import (
    TARGET_HEAD,
    Failure,
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
from _peers import DISTRIBUTIONS, PEERS, AgentsSQLite, LangGraphDicts, check_default
from _plots import dots
from _sides import Ours, Plain
from _sqlite_work import (
    AT_ONCE,
    BATCH,
    COLUMNS,
    EACH,
    EVERY,
    LAST,
    THREADS,
    fill,
    fill_threads,
    hold,
    read,
    write,
)

Results = dict[str, dict[str, Samples]]

LIMITS = {EACH: 3.0, BATCH: 1.5, AT_ONCE: 0.5, LAST: 4.0, EVERY: 1.6, THREADS: 10.0}
GROWTH_LIMIT = 1.3
PLOT = "benchmarks-sqlite.svg"
BLOBS = {("langgraph AsyncSqliteSaver", BATCH), ("agno AsyncSqliteDb", BATCH)}
BLOB_LIMIT = 1.5
GROWING = (Plain, Ours, AgentsSQLite)


async def written(sides: Sequence[Apart], size: int, rounds: int) -> Results:
    """The times to write `size` messages into a new thread."""
    found: Results = {}
    for column in (EACH, BATCH, AT_ONCE):
        progress(f"writing {column}")
        calls = {side.name: partial(side.do, write, column, size) for side in sides}
        found[column] = await in_turns(calls, rounds=rounds)
    return found


async def held(sides: Sequence[Apart], size: int) -> dict[str, Samples]:
    """How long the event loop stands still while a message is written."""
    progress("writing, the event loop watched")
    found = {}
    for side in sides:
        try:
            found[side.name] = Samples(await side.do(hold, size))
        except Failure as exc:
            found[side.name] = Samples(failure=f"fails: {exc}")
    return found


async def found_again(sides: Sequence[Apart], size: int, rounds: int) -> Results:
    """The times to read from a thread of `size` messages, and of as many threads."""
    progress("reading")
    for side in sides:
        with suppress(Failure):  # reading will say so, too
            await side.do(fill, "read", size)
            await side.do(fill_threads, size)
    found: Results = {}
    for column in (LAST, EVERY, THREADS):
        calls = {side.name: partial(side.do, read, column, "read", size) for side in sides}
        found[column] = await in_turns(calls, rounds=rounds)
    return found


async def grown(sides: Sequence[Apart], sizes: Sequence[int], rounds: int) -> Results:
    """The time to read the last 20 messages of threads of different lengths."""
    progress("threads that grow")
    found: Results = {}
    for side in sides:
        for size in sizes:
            await side.do(fill, f"long {size}", size)
        calls = {f"{n:,}": partial(side.do, read, LAST, f"long {n}", n) for n in sizes}
        found[side.name] = await in_turns(calls, rounds=rounds)
    return found


async def measured(quick: bool) -> tuple[Results, Results, dict[str, Samples]]:
    size, rounds = 1_000, 5 if quick else 25
    sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000, 1_000_000]
    with tempfile.TemporaryDirectory() as directory:
        async with apart((Plain, Ours, *PEERS), Path(directory)) as sides:
            found = await written(sides, size, rounds)
            still = await held(sides, 50 if quick else 200)
            found |= await found_again(sides, size, rounds)
            growing = [side for side in sides if side.kind in GROWING]
            long = await grown(growing, sizes, 2 * rounds)
    return found, long, still


def growth_of(sizes: dict[str, Samples]) -> float:
    """How much longer the longest thread takes than the shortest."""
    medians = [samples.median for samples in sizes.values()]
    return medians[-1] / medians[0]


def targets(found: Results, long: Results) -> list[list[str]]:
    plain, ours = Plain.name, Ours.name
    unusual = {peer.name for peer in PEERS if not peer.usual}
    rows = []
    for column, samples in found.items():
        ratio = samples[ours].median / samples[plain].median
        rows.append(target(f"{column}, to plain sqlite3", ratio, LIMITS[column]))
    rows.append(target("last 20, longest to shortest", growth_of(long[ours]), GROWTH_LIMIT))
    for column, samples in found.items():
        for name, peer in samples.items():
            if name in (plain, ours) or not peer.seconds:
                continue
            limit = BLOB_LIMIT if (name, column) in BLOBS else 1.0
            row = target(f"{column}, to {name}", samples[ours].median / peer.median, limit)
            if samples[ours].median > peer.median * limit / 2:
                rows.append([*row[:2], "–", "not promised"] if name in unusual else row)
    return rows


def report(found: Results, long: Results, still: dict[str, Samples]) -> str:
    plain = {column: samples[Plain.name] for column, samples in found.items()}
    rows = [
        [name, *[found[column][name].ratio(plain[column]) for column in COLUMNS]]
        for name in found[EACH]
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
    ours, dicts = Ours.name, LangGraphDicts.name
    blobs = {name: found[name][ours].ratio(found[name][dicts]) for name in (BATCH, EVERY)}
    held_by = [
        [name, duration(samples.median) if samples.seconds else samples.failure]
        for name, samples in still.items()
    ]
    return f"""
## SQLite

1,000 messages of about 1 KB in one thread: written one by one, as one batch, all at once by as
many tasks; the last 20 and all of them read; and the 20 newest of 1,000 threads of one resource.
Every side runs in a process of its own, in WAL mode with `synchronous=FULL`: what was acknowledged
is on disk. langgraph keeps the growing list in its state, agno a message a run (and runs it has
read in memory); their one batch is one blob. DiskStore has no order: it is asked for known keys.
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

DiskStore, one by one, is not to be had: it never leaves the event loop's thread, and holds up
everybody for as long as the disk takes. SQLiteSession, one by one, is as fast, give or take the
noise: both sync the disk once and change threads twice. mastra-storage brings SQLite's log into the
file after it has answered, the others before: a batch right behind another waits for that.

langgraph keeps LangChain's messages, of which its reducer `add_messages` makes whatever it is
given. A state with a reducer of its own may hold plain dicts: a row for each message takes
{blobs[BATCH]} times as long to write in one batch as their blob, and {blobs[EVERY]} times to
read in full.
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
