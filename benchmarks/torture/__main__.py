"""The command: campaigns, planted defects, a soak, and the report."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from torture.campaign import Campaign, Outcome, run
from torture.plants import PLANTS
from torture.weather import WEATHERS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--backend", choices=[*WEATHERS], action="append", default=[])
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--operations", type=int, default=22_000, help="of each backend")
    parser.add_argument("--life", type=float, default=4.0, help="seconds until a kill, on average")
    parser.add_argument("--deadline", type=float, default=90.0, help="seconds; past it one hangs")
    parser.add_argument("--calm", action="store_true", help="no faults")
    parser.add_argument("--plant", choices=[*PLANTS], help="a defect, which must be found")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    outcomes: list[Outcome] = []
    for backend in options.backend or WEATHERS:
        with tempfile.TemporaryDirectory(prefix="torture-") as directory:
            campaign = Campaign(
                backend=backend,
                seed=options.seed,
                directory=Path(directory),
                operations=options.operations,
                life=options.life,
                deadline=options.deadline,
                calm=options.calm,
                plant=options.plant,
            )
            outcome = asyncio.run(run(campaign))
        show(outcome)
        outcomes.append(outcome)
    broken = any(outcome.verdict.violations for outcome in outcomes)
    return int(broken != (options.plant is not None))


def show(outcome: Outcome) -> None:
    verdict = outcome.verdict
    print(
        f"{outcome.campaign.backend}: {outcome.operations:,} operations, "
        f"{verdict.sights:,} sights, {outcome.kills} kills, {outcome.restarts} restarts, "
        f"{outcome.faults.total():,} faults, {outcome.seconds:.0f} s"
    )
    print(f"  outcomes: {dict(verdict.outcomes.most_common())}")
    print(f"  faults: {dict(outcome.faults.most_common())}")
    print(f"  anomalies: {dict(verdict.anomalies)}")
    print(f"  violations: {dict(verdict.by_kind)}")
    for finding in verdict.violations[:20]:
        print(f"    {finding.kind}: {finding.what}")


if __name__ == "__main__":
    sys.exit(main())
