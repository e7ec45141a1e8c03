"""The command: campaigns, planted defects, a soak, and the report."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from torture import report
from torture.campaign import Campaign, Outcome, run
from torture.plants import PLANTS
from torture.soak import SECTION, Soak, soak, told
from torture.weather import WEATHERS

# In the order of how long they take to answer: the slower, the more callers at once.
_LANES = {"sqlite": 4, "cloudflare": 20, "convex": 14}
_LIFE = {"sqlite": 1.5, "cloudflare": 6.0, "convex": 5.0}
_PLANT_OPERATIONS = 1_200


def main() -> int:
    options = arguments()
    backends = options.backend or [*WEATHERS]
    print(f"seed {options.seed}", flush=True)
    if options.soak:
        return soaks(backends, options)
    if options.plant:
        found = planted(options.plant, options)
        if options.write:
            meanings = {name: str(PLANTS[name].__doc__).strip() for name in found}
            report.write("planted defects", report.plants(found, meanings))
        return int(not all(outcome.verdict.violations for outcome in found.values()))
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
    parser.add_argument("--life", type=float, help="seconds until a kill, on average; 0: no kills")
    parser.add_argument("--deadline", type=float, default=90.0, help="seconds; past it one hangs")
    parser.add_argument("--calm", action="store_true", help="no faults")
    parser.add_argument(
        "--plant", choices=[*PLANTS, "all"], action="append", help="a defect, which must be found"
    )
    parser.add_argument("--soak", type=float, metavar="SECONDS", help="one process for so long")
    parser.add_argument("--write", action="store_true", help="the figures into docs/reliability.md")
    return parser.parse_args()


def campaign(backend: str, options: argparse.Namespace, **changes: object) -> Outcome:
    """One campaign in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="torture-") as directory:
        settings = {
            "seed": options.seed,
            "operations": options.operations,
            "lanes": options.lanes or _LANES[backend],
            "life": _LIFE[backend] if options.life is None else options.life,
            "deadline": options.deadline,
            "calm": options.calm,
        }
        settings |= changes
        outcome = asyncio.run(run(Campaign(backend=backend, directory=Path(directory), **settings)))
    print(f"{report.line(outcome)}\n{report.details(outcome)}", flush=True)
    return outcome


def planted(names: list[str], options: argparse.Namespace) -> dict[str, Outcome]:
    """A campaign for each defect, on the embedded default."""
    found: dict[str, Outcome] = {}
    for name in PLANTS if "all" in names else names:
        print(f"planted: {name}")
        hangs = {"deadline": 6.0, "life": 0.0} if name == "hang" else {"life": 1.0}
        found[name] = campaign(
            "sqlite", options, operations=_PLANT_OPERATIONS, lanes=4, plant=name, **hangs
        )
        if not found[name].verdict.violations:
            print(f"  {name} was not found")
    return found


def soaks(backends: list[str], options: argparse.Namespace) -> int:
    """A soak of each backend, one after the other."""
    done: list[Soak] = []
    for backend in backends:
        with tempfile.TemporaryDirectory(prefix="torture-") as directory:
            done.append(asyncio.run(soak(backend, options.soak, options.seed, Path(directory))))
        print(told(done[-1]), flush=True)
    if options.write:
        report.write(SECTION, report.soaks(done))
    return int(any(each.leaks for each in done))


if __name__ == "__main__":
    sys.exit(main())
