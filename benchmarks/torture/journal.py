"""What was begun, and what came of it: one file a lane and life of its process.

Lines are written at once and whole, so that what a killed process did is known up to its end.
Times are those of the system's clocks, which all processes of a machine share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

# Instead of a file's name: who reads everything when all is over.
FINAL = "final"


class Line(Struct, omit_defaults=True):
    """The beginning of an operation, or with an `outcome` its end.

    `outcome` is "ok", "cancelled", "hung", or the name of an error. `at` is the monotonic clock,
    `wall` the other one, both in nanoseconds.
    """

    number: int
    at: int
    wall: int = 0
    outcome: str = ""
    result: Any = None


class Entry(Struct, kw_only=True):
    """An operation as the checker sees it; of a killed process the end may be missing."""

    lane: int
    number: int
    store: str
    begun: int
    wall: int
    ended: int | None = None
    outcome: str = "killed"
    result: Any = None

    @property
    def acknowledged(self) -> bool:
        return self.outcome == "ok"


class Journal:
    """The file of a lane in one life of its process."""

    def __init__(self, directory: Path, lane: int, life: int) -> None:
        path = directory / f"{lane:04}.{life:06}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def begin(self, number: int) -> None:
        self._write(Line(number, time.monotonic_ns(), time.time_ns()))

    def end(self, number: int, outcome: str, result: Any = None) -> None:
        self._write(Line(number, time.monotonic_ns(), 0, outcome, result))

    def _write(self, line: Line) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")


def begun(directory: Path, lane: int) -> int:
    """How many operations of a lane have been begun: its next life goes on behind them."""
    return max((entry.number for entry in entries(directory, lane)), default=-1) + 1


def lines(directory: Path) -> int:
    """How many lines all lanes have written: two for an operation that has ended."""
    return sum(path.read_bytes().count(b"\n") for path in directory.glob("[0-9]*.jsonl"))


def entries(directory: Path, lane: int) -> Iterator[Entry]:
    """The operations of a lane in their order."""
    decode = msgspec.json.Decoder(Line).decode
    for path in sorted(directory.glob(f"{lane:04}.*.jsonl")):
        entry: Entry | None = None
        for text in path.read_bytes().splitlines(keepends=True):
            if not text.endswith(b"\n"):
                break  # killed while it wrote
            line = decode(text)
            if entry is not None and line.outcome:
                entry.ended, entry.outcome, entry.result = line.at, line.outcome, line.result
            if entry is not None:
                yield entry
            entry = None
            if not line.outcome:
                entry = Entry(
                    lane=lane,
                    number=line.number,
                    store=path.stem,
                    begun=line.at,
                    wall=line.wall,
                )
        if entry is not None:
            yield entry
