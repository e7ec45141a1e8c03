"""LangGraph's checkpoints: what a turn of a conversation costs, beside the published SQLite saver.

A conversation of a graph with one node: a question of 1,000 characters, an answer as long. Both
savers keep it on SQLite in files of their own, with `synchronous=FULL`, and take their turns in
one run.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

from _measure import (
    TARGET_HEAD,
    Samples,
    duration,
    in_turns,
    machine,
    options,
    progress,
    publish,
    table,
    target,
)
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from mastra_storage_langgraph import MastraSaver

from mastra_storage import open_storage

OURS, ALONE, PUBLISHED = "MastraSaver", "without conversations", "AsyncSqliteSaver"
CONFIG: Any = {"configurable": {"thread_id": "talk"}}
SIZE = 1_000
EARLY = 2


async def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [AIMessage(str(len(state["messages"])).ljust(SIZE, "."))]}


def graph_on(saver: Any) -> Any:
    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder.compile(checkpointer=saver)


class Side:
    """What makes a saver, a graph on one, and its file."""

    def __init__(self, saver: Callable[[], Any], file: Path) -> None:
        self.saver = saver
        self.graph = graph_on(saver())
        self.file = file
        self.turns = 0
        self.seconds: list[float] = []
        self.bytes: list[int] = []
        self._stored = 0

    async def turn(self) -> None:
        """One question and its answer; takes its time, and what it stored."""
        self.turns += 1
        question = HumanMessage(f"question {self.turns} ".ljust(SIZE, "?"))
        start = time.perf_counter()
        state = await self.graph.ainvoke({"messages": [question]}, CONFIG)
        self.seconds.append(time.perf_counter() - start)
        if len(state["messages"]) != 2 * self.turns:
            raise RuntimeError("messages are missing")
        stored = await asyncio.to_thread(stored_bytes, self.file)
        self.bytes.append(stored - self._stored)
        self._stored = stored

    async def read(self, *, anew: bool = False) -> None:
        """Read the newest state; `anew`, by a saver that has not seen it."""
        graph = graph_on(self.saver()) if anew else self.graph
        state = await graph.aget_state(CONFIG)
        if len(state.values["messages"]) != 2 * self.turns:
            raise RuntimeError("messages are missing")


def stored_bytes(file: Path) -> int:
    """How many bytes the values in a file take; the savers only ever add some."""
    sizes = {"checkpoints": "length(checkpoint) + length(metadata)", "writes": "length(value)"}
    found = 0
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            if "_value" in columns:  # text, whose length is in characters
                sizes[name] = "length(CAST(_value AS BLOB))"
            if name in sizes:
                sums = connection.execute(f"SELECT coalesce(sum({sizes[name]}), 0) FROM {name}")
                found += sums.fetchone()[0]
    return found


@asynccontextmanager
async def sides() -> AsyncIterator[dict[str, Side]]:
    with tempfile.TemporaryDirectory() as directory:
        files = {name: Path(directory) / f"{number}.db" for number, name in enumerate(NAMES)}
        async with (
            open_storage(f"sqlite:///{files[OURS]}") as ours,
            open_storage(f"sqlite:///{files[ALONE]}") as alone,
            AsyncSqliteSaver.from_conn_string(str(files[PUBLISHED])) as published,
        ):
            await published.setup()
            await published.conn.execute("PRAGMA synchronous = FULL")
            yield {
                OURS: Side(lambda: MastraSaver(ours), files[OURS]),
                ALONE: Side(lambda: MastraSaver(alone, conversations=False), files[ALONE]),
                PUBLISHED: Side(lambda: published, files[PUBLISHED]),
            }


NAMES = (OURS, ALONE, PUBLISHED)


def report(found: Mapping[str, Side], late: int, reads: Mapping[str, Mapping[str, Samples]]) -> str:
    ours, published = found[OURS], found[PUBLISHED]
    window = max(2, late // 10)
    early_times = {name: Samples(side.seconds[1 : 1 + window]) for name, side in found.items()}
    late_times = {name: Samples(side.seconds[-window:]) for name, side in found.items()}
    rows = [
        [
            f"bytes of values written in turn {EARLY}",
            *[f"{found[name].bytes[EARLY - 1]:,}" for name in NAMES],
        ],
        [
            f"bytes of values written in turn {late}",
            *[f"{found[name].bytes[late - 1]:,}" for name in NAMES],
        ],
        [f"bytes of all {late} turns", *[f"{sum(found[name].bytes):,}" for name in NAMES]],
        times_row(f"a turn, of those up to {1 + window}", early_times),
        times_row(f"a turn, of the last {window}", late_times),
        *[times_row(label, times) for label, times in reads.items()],
    ]
    growth = ours.bytes[late - 1] / ours.bytes[EARLY - 1]
    beside = published.bytes[late - 1] / ours.bytes[late - 1]
    targets = [
        target(f"bytes of turn {late}, times those of turn {EARLY}", growth, 2.0),
        target(f"bytes of {PUBLISHED} in turn {late}, times ours", beside, 10.0, at_least=True),
    ]
    versions = ("langgraph", "langgraph-checkpoint-sqlite", "aiosqlite")
    text = (
        f"A conversation in turns of two messages of {SIZE:,} characters, by a graph of one node: "
        "three checkpoints and the writes of two tasks a turn. Times are of a whole turn, with "
        f"what LangGraph itself does, and their ratios to `{PUBLISHED}`. All with "
        f"`synchronous=FULL`. `{OURS}` keeps the messages as those of a thread, too; the second "
        f"column is it with `conversations=False`. {machine(versions)}"
    )
    return "\n\n".join(
        ["## LangGraph", text, table(["", *NAMES], rows), table(TARGET_HEAD, targets)]
    )


def times_row(label: str, times: Mapping[str, Samples]) -> list[str]:
    base = times[PUBLISHED]
    cells = [f"{duration(times[name].median)}, {times[name].ratio(base)}" for name in NAMES]
    return [label, *cells]


async def run(late: int, rounds: int) -> str:
    async with sides() as found:
        for number in range(late):
            if number % 50 == 0:
                progress(f"turn {number} of {late}")
            shift = number % len(NAMES)
            for name in NAMES[shift:] + NAMES[:shift]:
                await found[name].turn()
        reads = {
            label: await in_turns(
                {name: partial(Side.read, side, anew=anew) for name, side in found.items()},
                rounds=rounds,
            )
            for label, anew in (
                (f"reading the state of {2 * late} messages", False),
                ("reading it by a saver that has not seen it", True),
            )
        }
        return report(found, late, reads)


def main() -> None:
    chosen = options(__doc__)
    late, rounds = (20, 3) if chosen.quick else (200, 9)
    publish("langgraph", asyncio.run(run(late, rounds)), chosen)


if __name__ == "__main__":
    main()
