"""What the Cloudflare benchmark found, against the floor and the others: a section, a plot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from _kv_methods import Method
from _measure import TARGET_HEAD, Samples, duration, machine, short, table, target
from _plots import dots
from _replays import TypeScript

DELAYS = (0, 30, 100)
OVER_LIMIT = 0.6
PLOT = "benchmarks-cloudflare.svg"
BUDGET, PERIOD = 1_200, 300
OURS, TYPESCRIPT, SDK, BARE = "mastra-storage", "TypeScript", "official SDK", "bare aiohttp"


@dataclass
class Found:
    """What was measured of a method."""

    method: Method
    log: list[dict[str, Any]]  # the requests of a call
    times: dict[int, dict[str, Samples]] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        return len(self.log)

    @property
    def widest(self) -> int:
        """How many of its requests may go out at once."""
        return max(Counter(entry["route"] for entry in self.log).values(), default=0)

    @property
    def bill(self) -> dict[str, int]:
        bill: Counter[str] = Counter()
        for entry in self.log:
            bill.update(entry.get("bill") or {})
        return bill

    @property
    def bare(self) -> float:
        """The seconds that its requests take without it, and without a delay."""
        return self.times[0][BARE].median

    def over(self, delay: int) -> float:
        """By how many round trips it is over the floor."""
        return self.times[delay][OURS].median / (delay / 1e3) - self.method.floor

    def own(self, delay: int) -> float:
        """The same, without the time that its requests take anyway."""
        return self.over(delay) - self.bare / (delay / 1e3)

    def rival(self, side: str, delay: int) -> float | None:
        """How many times as long another takes."""
        other = self.times[delay].get(side)
        if other is None or not other.seconds:
            return None
        return other.median / self.times[delay][OURS].median

    def paced(self, delay: int) -> float | None:
        """How many times as long the TypeScript store takes when both keep the API's pace."""
        other = self.times[delay].get(TYPESCRIPT)
        if other is None or not other.seconds:
            return None
        theirs = TypeScript.requests_each * operations(self.method)
        return _paced(theirs, other.median) / _paced(self.requests, self.times[delay][OURS].median)


def _paced(requests: int, seconds: float) -> float:
    """The seconds from one call to the next that the API lets through in the long run."""
    return max(seconds, requests * PERIOD / BUDGET)


def report(found: list[Found], ingest: tuple[int, int, int], seconds: float) -> str:
    slow = DELAYS[-1]
    rows = [
        [
            one.method.name,
            str(one.requests),
            f"{TypeScript.requests_each * operations(one.method):,}"
            if one.method.typescript
            else "",
            ", ".join(f"{number:,} {kind}" for kind, number in one.bill.items()),
        ]
        for one in found
    ]
    times = [
        [
            one.method.name,
            str(one.method.floor),
            *[duration(one.times[delay][OURS].median) for delay in DELAYS],
            *[f"{one.over(delay):+.2f}" for delay in DELAYS[1:]],
            duration(one.bare),
            f"{one.own(slow):+.2f}",
            *[
                "" if rival is None else short(rival)
                for rival in (
                    one.rival(TYPESCRIPT, slow),
                    one.paced(slow),
                    one.rival(SDK, slow),
                )
            ],
        ]
        for one in found
    ]
    saved, requests, refused = ingest
    pace = saved / max(requests, 1)
    raw = [one.over(slow) <= OVER_LIMIT for one in found]
    own = [one.own(slow) <= OVER_LIMIT for one in found]
    return f"""
## Cloudflare KV

On the Workers KV server of this repository's tests, with 0, 30 and 100 ms added to every request.
What is timed goes to workerd itself, past the front in Node that counts the requests of a call.
The store knows its namespaces and has seen none of what it reads. {
        machine(("aiohttp", "cloudflare"))
    }

What a call asks for and what it is billed; beside it the requests of the TypeScript store
(`@mastra/cloudflare`, its newest layout where they differ), which looks up the namespace each time.
The API allows {
        BUDGET:,} in five minutes. What moves a thread's `updated_at` is shared by all calls of
a second and not counted.

{table(["", "requests", "TypeScript", "billed operations"], rows)}

The floor is the number of round trips that depend on each other. Over it: how many more it took.
Bare: what the same requests take a bare aiohttp client at 0 ms, one wave after the other, with
nothing done with the answers: the time of the server and of HTTP, on the cores that the store runs
on too. (What a call deleted is put back first.) Own: how far it is over the floor without that.

The others say how many times as long they take at {slow} ms. TypeScript, no limit: its sequence of
requests, replayed from Python over as many connections as it likes, without the API's limit.
TypeScript, at the API's pace: computed. {BUDGET:,} requests in five minutes are {
        BUDGET / PERIOD:g} a second in the
long run, so calls follow each other no sooner than their requests allow; that time, on both sides,
or the measured one where it is longer. The official SDK: `cloudflare`, with `asyncio.gather`,
without the limit. (Of the longer sequences a part was sent and the time scaled.)

{
        table(
            [
                "",
                "floor",
                *[f"{delay} ms" for delay in DELAYS],
                *[f"over, {d} ms" for d in DELAYS[1:]],
                "bare",
                f"own, {slow} ms",
                "TypeScript, no limit",
                "at the API's pace",
                "SDK",
            ],
            times,
        )
    }

![The time of each method at {slow} ms]({PLOT})

The mark is the floor.

Ingest at the API's pace: {saved:,} messages acknowledged in {seconds:.0f} seconds with {requests}
requests ({pace:,.0f} a request, {refused} refused), each of them by a task that waited for it. One
request takes 5,000 messages at most, which makes {5_000 * BUDGET:,} in five minutes; one
message at a time, {BUDGET:,}. The TypeScript store takes 8 requests for one: {BUDGET // 8}.

Within {OVER_LIMIT} round trips of the floor at {slow} ms: {sum(raw)} of {len(found)} methods;
{sum(own)} when the time of the bare requests is taken off. What is promised, and what is not kept:

{table(TARGET_HEAD, targets(found))}

Not to be had: 300 listings at once within {OVER_LIMIT} round trips, when their requests alone
take longer on these cores (a listing has no bulk form); and 10 times where it fans out against a
replay without a limit, whose chain of dependent requests is mostly itself less than 10 times the
floor.
"""


def operations(method: Method) -> int:
    return sum(step.number for step in method.typescript)


def targets(found: list[Found]) -> list[list[str]]:
    slow = DELAYS[-1]
    rows: list[list[str]] = []
    for one in sorted(found, key=lambda one: one.over(slow), reverse=True):
        if not rows or one.over(slow) > OVER_LIMIT:
            bare = short(one.bare / (slow / 1e3))
            name = f"round trips over the floor: {one.method.name}, its bare requests {bare}"
            rows.append(target(name, one.over(slow), OVER_LIMIT))
    for delay in DELAYS:
        rivals = [(one.rival(TYPESCRIPT, delay) or 9e9, one) for one in found]
        least, one = min(rivals, key=lambda rival: rival[0])
        name = f"times as fast as TypeScript without a limit at {delay} ms, least: "
        rows.append(target(name + one.method.name, least, 1.0, at_least=True))
    shares = [
        (one.requests / (2 * operations(one.method)), one) for one in found if one.method.typescript
    ]
    for share, one in sorted(shares, key=lambda pair: pair[0])[-1:]:
        rows.append(target(f"share of its requests, most: {one.method.name}", share, 0.5))
    for one in found:
        rival = one.paced(slow)
        if rival is not None and one.method.wins > 1:
            name = f"times as fast as TypeScript at the API's pace: {one.method.name}"
            rows.append(target(name, rival, one.method.wins, at_least=True))
    return rows


def plot(found: list[Found]) -> str:
    """The times of all sides; the marks are the floors."""
    slow = DELAYS[-1]
    rows = {
        one.method.name: {
            name: side.median for name, side in one.times[slow].items() if side.seconds
        }
        for one in found
    }
    marks = {one.method.name: one.method.floor * slow / 1e3 for one in found}
    return dots(f"Seconds at {slow} ms", rows, label=duration, marks=marks)
