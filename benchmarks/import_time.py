"""How long `import mastra_storage` takes, against what it cannot do without.

Both programs run alternately in Pythons of their own; the ratio of the medians is what counts,
since times depend on the machine. Fails when the ratio is above the limit.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

RUNS = 41
LIMIT = 1.3
FLOOR = "import asyncio, msgspec"
PROGRAM = "import mastra_storage"

# As installed packages run: compiled once, not at every start.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def milliseconds(statement: str) -> float:
    """The time of one statement in a new Python, its own start not counted."""
    timed = f"from time import perf_counter as t; a = t(); {statement}; print((t() - a) * 1e3)"
    command = [sys.executable, "-c", timed]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return float(run.stdout)


def main() -> int:
    for statement in (FLOOR, PROGRAM):  # compile and warm the disk's cache
        milliseconds(statement)
    times: dict[str, list[float]] = {FLOOR: [], PROGRAM: []}
    for _ in range(RUNS):
        for statement, found in times.items():
            found.append(milliseconds(statement))
    for statement, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        print(f"{statement:<26} {middle:6.1f} ms  (quartiles {low:.1f} to {high:.1f})")
    ratio = statistics.median(times[PROGRAM]) / statistics.median(times[FLOOR])
    print(f"ratio of the medians       {ratio:6.2f}     (at most {LIMIT})")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
