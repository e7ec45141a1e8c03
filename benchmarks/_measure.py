"""What the benchmarks share: taking turns, medians and their spread, tables, the report.

The sides of a comparison take turns within one run, so that whatever else the machine does meets
all of them. What counts is the ratio of medians; times depend on the machine.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

REPORT = Path(__file__).parent.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Made by `make bench`, which measures all sides in one run, in turns. A number like 1.8 (1.7–2.1) is
a ratio of medians with its quartiles: how many times as long as the side it is compared with.
Run it on your machine: ratios carry over, milliseconds do not.
"""

# The sections, in the order of the report, each between two comments.
ORDER = ("sqlite", "cloudflare", "convex", "langgraph", "json", "import")
_SECTION = re.compile(r"<!-- begin (\w+) -->(.*?)<!-- end \1 -->", re.DOTALL)

# What the benchmarks before this one leave is less, for each core.
_BUSY = 2.0

# A sample has been long enough after so many seconds.
_ENOUGH = 0.5

Call = Callable[[], Awaitable[object]]


class Absent(Exception):  # noqa: N818  (nothing went wrong)
    """A side has nothing that does what is measured."""


class Failure(Exception):  # noqa: N818
    """What a side raised in a process of its own, by name."""


@dataclass
class Samples:
    """The seconds that one side took, or why there are none."""

    seconds: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def ratio(self, base: Samples) -> str:
        """How many times as long as `base`, with the quartiles."""
        if not self.seconds or not base.seconds:
            return self.failure or base.failure
        low, high = (value / base.median for value in self.quartiles)
        return f"{short(self.median / base.median)} ({short(low)}–{short(high)})"


async def in_turns(
    sides: Mapping[str, Call],
    *,
    rounds: int,
    repeat: int = 1,
    budget: float = 10.0,
    before: Mapping[str, Call] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Samples]:
    """The seconds of one call of each side, in rounds in which all take their turn.

    A sample is `repeat` calls in a row, fewer of a slow side, divided by their number. A side that
    has used up `budget` seconds in all rests after its second turn. One that fails is left out,
    with the reason. What `before` has for a side runs before each of its turns, and is not
    measured. A call that gives a float has measured itself.
    """
    gc.collect()
    gc.freeze()  # what is there already is not looked at over and over
    found = {name: Samples() for name in sides}
    spent = dict.fromkeys(sides, 0.0)
    for number in range(rounds):
        names = list(sides)
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            samples = found[name]
            if samples.failure or (spent[name] > budget and len(samples.seconds) >= 2):
                continue
            start = time.perf_counter()
            try:
                if before is not None and name in before:
                    await before[name]()
                samples.seconds.append(await sample(sides[name], repeat=repeat, clock=clock))
            except Absent:
                samples.failure = "–"
            except Failure as exc:
                samples.failure = f"fails: {exc}"
                samples.seconds.clear()
            except Exception as exc:  # noqa: BLE001  (the report names it)
                samples.failure = f"fails: {type(exc).__name__}"
                samples.seconds.clear()
            spent[name] += time.perf_counter() - start
    return found


async def sample(
    call: Call, *, repeat: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The seconds of one of `repeat` calls in a row, or of as many as half a second allows."""
    gc.collect()
    done = 0
    taken = 0.0
    while done < repeat and taken < _ENOUGH:
        start = clock()
        result = await call()
        taken += result if isinstance(result, float) else clock() - start
        done += 1
    return taken / done


def short(number: float) -> str:
    """Two or three digits that matter."""
    if number >= 1000:
        return f"{number:,.0f}"
    if number >= 10:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2f}"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{short(seconds * factor)} {unit}"
    return f"{short(seconds * 1e6)} µs"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def target(name: str, value: float, limit: float, *, at_least: bool = False) -> list[str]:
    """A row that says whether a promise is kept."""
    kept = value >= limit if at_least else value <= limit
    sign = "at least" if at_least else "at most"
    return [name, short(value), f"{sign} {short(limit)}", "yes" if kept else "**no**"]


TARGET_HEAD = ("promise", "measured", "limit", "kept")


def machine(distributions: Sequence[str] = (), *others: str) -> str:
    """The size of the machine and what ran on it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    size = f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.system()}"
    parts = [f"Python {platform.python_version()}", *others]
    parts += [f"{name} {version(name)}" for name in distributions]
    return f"On {size}, with {', '.join(parts)}."


class Options(NamedTuple):
    """How a benchmark was called, and the load of the machine when it began."""

    quick: bool
    write: bool
    load: float
    only: tuple[str, ...] = ()

    def takes(self, name: str) -> bool:
        """Whether what has this name is to be measured."""
        return not self.only or any(part in name for part in self.only)


def options(description: str | None, *, parts: bool = False) -> Options:
    """`--quick` for small sizes, `--write` to put the section into the report.

    With `parts`, `--only` measures what has one of the texts given in its name.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all")
    parser.add_argument("--write", action="store_true", help=f"write into docs/{REPORT.name}")
    if parts:
        parser.add_argument("--only", nargs="+", default=[], help="what has this in its name")
    chosen = parser.parse_args()
    only = tuple(chosen.only) if parts else ()
    if only and chosen.write:
        parser.error("a report has everything: --write without --only")
    return Options(chosen.quick, chosen.write, os.getloadavg()[0], only)


def publish(
    name: str, text: str, chosen: Options, *, plots: Mapping[str, str] | None = None
) -> None:
    """Print a section, and put it in its place of the report, with plots by their files' names."""
    if chosen.load > _BUSY * (os.cpu_count() or 1):
        text = f"{text.rstrip()}\n\nOthers kept the machine busy: a load of {chosen.load:.1f}.\n"
    print(text)
    if not chosen.write:
        return
    sections = dict(_SECTION.findall(REPORT.read_text())) if REPORT.exists() else {}
    sections[name] = f"\n{text.strip()}\n"
    parts = [
        f"<!-- begin {one} -->{sections[one]}<!-- end {one} -->\n"
        for one in sorted(sections, key=ORDER.index)
    ]
    REPORT.write_text("\n".join([HEAD, *parts]))
    for file, svg in (plots or {}).items():
        (REPORT.parent / file).write_text(svg)


def progress(text: str) -> None:
    """Tell whoever waits what is being measured."""
    print(f"   {text}", file=sys.stderr, flush=True)
