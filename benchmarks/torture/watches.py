"""Watches while all else goes on: what each showed, and whether it came to show the last state."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import groupby
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from mastra_storage import Storage
from torture.calls import outcome_of, watch
from torture.journal import Entry
from torture.plan import Call

_PAUSE_SECONDS = 0.2
_READS = {"watch_messages": "read_last", "watch_thread": "read_thread", "watch_run": "read_run"}


class Shown(Struct, omit_defaults=True):
    """A value that a watch showed, or with an outcome other than "ok" how it ended.

    A `stream` is one watch from its beginning at `begun` until it failed.
    """

    stream: int
    call: Call
    begun: int
    at: int
    outcome: str
    result: Any = None


class Watches:
    """Watches of one store, begun anew whenever they fail."""

    def __init__(self, storage: Storage, calls: Sequence[Call], path: Path) -> None:
        self._storage = storage
        self._calls = calls
        self._latest: dict[Call, Any] = {}
        self._streams = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._keep_on(call)) for call in self._calls]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        os.close(self._file)

    async def _keep_on(self, call: Call) -> None:
        while True:
            self._streams += 1
            stream, begun = self._streams, time.monotonic_ns()
            outcome, result = await outcome_of(self._follow(call, stream, begun))
            if outcome == "ok":
                outcome, result = "!ended", "the watch ended by itself"
            self._note(Shown(stream, call, begun, time.monotonic_ns(), outcome, result))
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self, call: Call, stream: int, begun: int) -> None:
        source, kept = watch(self._storage, call)
        async with aclosing(source) as values:
            async for value in values:
                result = self._latest[call] = kept(value)
                self._note(Shown(stream, call, begun, time.monotonic_ns(), "ok", result))

    def _note(self, shown: Shown) -> None:
        os.write(self._file, msgspec.json.encode(shown) + b"\n")

    async def behind(self, final: Sequence[tuple[Call, Entry]], until: float) -> list[Call]:
        """Those that do not show by then what is there at the end."""
        there = {call: entry.result for call, entry in final}
        while behind := [call for call in self._calls if not self._shows(call, there)]:
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.05)
        return behind

    def _shows(self, call: Call, there: Mapping[Call, Any]) -> bool:
        return call in self._latest and self._latest[call] == there[read_of(call)]


def read_of(watch: Call) -> Call:
    """The reading of what a watch shows."""
    return Call(_READS[watch.kind], watch.thread, size=watch.size)


def path_of(directory: Path, name: str) -> Path:
    """The file of one store's watches, in one life of its process."""
    return directory / f"watches.{name}.jsonl"


def shown(directory: Path) -> Iterator[list[tuple[Call, Entry]]]:
    """What each watch showed, one value after the other."""
    decode = msgspec.json.Decoder(Shown).decode
    for path in sorted(directory.glob("watches.*.jsonl")):
        whole = path.read_bytes().rpartition(b"\n")[0]  # a killed process may leave half a line
        lines = sorted((decode(line) for line in whole.splitlines()), key=lambda each: each.stream)
        for _, stream in groupby(lines, key=lambda each: each.stream):
            yield [(each.call, _entry(each, path)) for each in stream]


def _entry(shown: Shown, path: Path) -> Entry:
    return Entry(
        lane=-1,
        number=shown.stream,
        store=path.stem,
        begun=shown.begun,
        wall=0,
        ended=shown.at,
        outcome=shown.outcome,
        result=shown.result,
    )
