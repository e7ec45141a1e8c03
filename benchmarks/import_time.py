"""How long `import mastra_storage` takes, against what it cannot do without.

Both programs run alternately in Pythons of their own; the ratio of the medians is what counts,
since times depend on the machine.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable

from _measure import TARGET_HEAD, duration, in_turns, machine, options, publish, table, target

LIMIT = 1.3
FLOOR = "import asyncio, msgspec"
PROGRAM = "import mastra_storage"


def seconds(statement: str) -> float:
    """The time of one statement in a new Python, its own start not counted."""
    timed = f"from time import perf_counter as t; a = t(); {statement}; print(t() - a)"
    # As installed packages run: compiled once, not at every start.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", timed]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout)


def _side(statement: str) -> Callable[[], Awaitable[float]]:
    async def run() -> float:
        return seconds(statement)

    return run


def main() -> int:
    chosen = options(__doc__)
    for statement in (FLOOR, PROGRAM):  # compile and warm the disk's cache
        seconds(statement)
    sides = {statement: _side(statement) for statement in (FLOOR, PROGRAM)}
    found = asyncio.run(in_turns(sides, rounds=9 if chosen.quick else 41, budget=60.0))
    rows = [
        [f"`{statement}`", duration(samples.median), samples.ratio(found[FLOOR])]
        for statement, samples in found.items()
    ]
    ratio = found[PROGRAM].median / found[FLOOR].median
    text = f"""
## Import

{machine(("msgspec",))}

{table(["", "time", "ratio"], rows)}

{table(TARGET_HEAD, [target("import, to what it cannot do without", ratio, LIMIT)])}
"""
    publish("import", text, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
