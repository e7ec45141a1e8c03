"""The command: campaigns, planted defects, a soak, and the report."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from torture import report
from torture.campaign import Campaign, Outcome, run
from torture.places import promised
from torture.plants import PLANTS, breaks
from torture.soak import SECTION, run_soak, told
from torture.weather import WEATHERS

# Callers of each store: the longer a call takes, the more at once.
_LANES = {"sqlite": 3, "cloudflare": 12, "convex": 8}
# Operations of a process until it is killed, on average.
_LIFE = 70.0
_PLANT_OPERATIONS = 1_200
# What a defect breaks may not be looked at by so few operations.
_PLANT_ATTEMPTS = 3
# Only when all goes well it is certain when `updated_at` is written.
_PLANT_SETTINGS: dict[str, dict[str, object]] = {
    "hang": {"calm": True, "deadline": 6.0},
    "lost-touch": {"calm": True},
}


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # processes and servers are ended
    backends = options.backend or [*WEATHERS]
    print(f"seed {options.seed}", flush=True)
    if options.soak:
        return soaks(backends, options)
    if options.plant:
        names = [*PLANTS] if "all" in options.plant else options.plant
        found = {name: planted(name, backends, options) for name in names}
        if options.write:
            meanings = {name: str(PLANTS[name].__doc__).strip() for name in names}
            report.write("planted defects", report.plants(found, meanings, backends))
        return int(
            not all(each.verdict.violations for on in found.values() for each in on.values())
        )
    outcomes = [campaign(backend, options) for backend in backends]
    if options.write:
        report.write("campaigns", report.campaigns(outcomes))
    return int(any(outcome.verdict.violations for outcome in outcomes))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--backend", choices=[*WEATHERS], action="append", default=[])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--operations", type=int, default=20_500, help="of each backend")
    parser.add_argument("--lanes", type=int, help="callers of each store")
    parser.add_argument(
        "--life",
        type=float,
        default=_LIFE,
        help="operations of a process until it is killed, on average; 0: no kills",
    )
    parser.add_argument("--deadline", type=float, default=90.0, help="seconds; past it one hangs")
    parser.add_argument("--calm", action="store_true", help="no faults")
    parser.add_argument(
        "--plant", choices=[*PLANTS, "all"], action="append", help="a defect, which must be found"
    )
    parser.add_argument("--keep", action="store_true", help="the journals, also of what went well")
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="one process for so long")
    parser.add_argument("--write", action="store_true", help="the figures into docs/reliability.md")
    return parser.parse_args()


def campaign(backend: str, options: argparse.Namespace, **changes: object) -> Outcome:
    """One campaign in a directory of its own, which stays when it is asked for or needed."""
    directory = Path(tempfile.mkdtemp(prefix=f"torture-{backend}-"))
    settings = {
        "seed": options.seed,
        "operations": options.operations,
        "lanes": options.lanes or _LANES[backend],
        "life": options.life,
        "deadline": options.deadline,
        "calm": options.calm,
    }
    settings |= changes
    keep = True
    try:
        outcome = asyncio.run(run(Campaign(backend=backend, directory=directory, **settings)))
        print(f"{report.line(outcome)}\n{report.details(outcome)}", flush=True)
        expected = bool(outcome.verdict.violations) == (outcome.campaign.plant is not None)
        keep = options.keep or not expected
    finally:
        if keep:
            print(f"  journals   {directory}", flush=True)
        else:
            shutil.rmtree(directory)
    return outcome


def planted(name: str, backends: list[str], options: argparse.Namespace) -> dict[str, Outcome]:
    """A campaign with a defect on each backend that it breaks a promise of; gives them by it."""
    found: dict[str, Outcome] = {}
    for backend in backends:
        if not breaks(name, promised(backend)):
            continue
        for attempt in range(_PLANT_ATTEMPTS):
            print(f"planted: {name}", flush=True)
            found[backend] = campaign(
                backend,
                options,
                seed=options.seed + attempt,
                operations=_PLANT_OPERATIONS,
                life=0.0,
                plant=name,
                **_PLANT_SETTINGS.get(name, {}),
            )
            if found[backend].verdict.violations:
                break
            print(f"  {name} was not found", flush=True)
    return found


def soaks(backends: list[str], options: argparse.Namespace) -> int:
    """A soak of each backend, all at once, each in a process of its own."""
    with ProcessPoolExecutor(len(backends), get_context("spawn")) as pool:
        soaked = partial(run_soak, seconds=options.soak, seed=options.seed)
        done = list(pool.map(soaked, backends))
    for each in done:
        print(told(each), flush=True)
    if options.write:
        report.write(SECTION, report.soaks(done))
    return int(any(each.leaks for each in done))


if __name__ == "__main__":
    sys.exit(main())
