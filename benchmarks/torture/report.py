"""What is printed, and what `docs/reliability.md` says: figures between marks in its text."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from torture.campaign import Outcome
from torture.soak import Soak

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"

_NAMES = {"sqlite": "SQLite", "cloudflare": "Cloudflare KV", "convex": "Convex"}


def line(outcome: Outcome) -> str:
    """A campaign in a line."""
    verdict = outcome.verdict
    return (
        f"{outcome.campaign.backend}: {outcome.operations:,} operations, "
        f"{verdict.sights:,} values checked, {verdict.shown:,} answers of watches, "
        f"{outcome.kills} kills, {outcome.restarts} restarts, "
        f"{outcome.faults.total():,} faults, {len(verdict.violations)} violations, "
        f"{outcome.seconds:.0f} s (seed {outcome.campaign.seed})"
    )


def details(outcome: Outcome) -> str:
    """What a campaign met and found, for the terminal."""
    verdict = outcome.verdict
    told = [
        f"  outcomes   {_listed(verdict.outcomes)}",
        f"  faults     {_listed(outcome.faults)}",
        f"  anomalies  {_listed(verdict.anomalies)}",
        f"  violations {_listed(verdict.by_kind)}",
    ]
    told += [f"    {finding.kind}: {finding.what}" for finding in verdict.violations[:20]]
    return "\n".join(told)


def _listed(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered) or "none"


def campaigns(outcomes: Iterable[Outcome]) -> str:
    """The section of the campaigns."""
    outcomes = list(outcomes)
    head = ["", *[_NAMES[outcome.campaign.backend] for outcome in outcomes]]
    rows = [
        ["seed", *[str(each.campaign.seed) for each in outcomes]],
        ["operations", *[f"{each.operations:,}" for each in outcomes]],
        ["values checked", *[f"{each.verdict.sights:,}" for each in outcomes]],
        ["answers of watches", *[f"{each.verdict.shown:,}" for each in outcomes]],
        ["processes × stores × callers", *[_shape(each) for each in outcomes]],
        ["processes killed", *[str(each.kills) for each in outcomes]],
        ["server away or restarted", *[str(each.restarts or "–") for each in outcomes]],
        ["faults met", *[f"{each.faults.total():,}" for each in outcomes]],
        ["calls acknowledged", *[_outcomes(each, "ok") for each in outcomes]],
        ["calls cancelled", *[_outcomes(each, "cancelled") for each in outcomes]],
        ["calls failed by faults", *[_failed(each) for each in outcomes]],
        ["calls cut off by a kill", *[_outcomes(each, "killed") for each in outcomes]],
        ["**violations**", *[f"**{len(each.verdict.violations)}**" for each in outcomes]],
        ["anomalies", *[f"{each.verdict.anomalies.total():,}" for each in outcomes]],
        ["minutes", *[f"{each.seconds / 60:.1f}" for each in outcomes]],
    ]
    parts = [machine(), "", table(head, rows), ""]
    for outcome in outcomes:
        name = _NAMES[outcome.campaign.backend]
        parts.append(f"- {name}, faults: {_listed(outcome.faults)}.")
        if outcome.verdict.anomalies:
            parts.append(f"- {name}, anomalies: {_listed(outcome.verdict.anomalies)}.")
        for kind, count in outcome.verdict.by_kind.items():
            parts.append(f"- {name}, **violations**: {kind} {count:,}.")
    return "\n".join(parts)


def plants(
    found: Mapping[str, Mapping[str, Outcome]],
    meanings: Mapping[str, str],
    backends: Sequence[str],
) -> str:
    """The section of the planted defects: each, and what it was found as on each backend."""
    rows = []
    for name, outcomes in found.items():
        cells = [
            _listed(outcomes[backend].verdict.by_kind) if backend in outcomes else "–"
            for backend in backends
        ]
        rows.append([f"`{name}`", meanings[name], *cells])
    head = [
        "planted",
        "what it breaks",
        *[f"found on {_NAMES[backend]} as" for backend in backends],
    ]
    return table(head, rows)


def soaks(done: Iterable[Soak]) -> str:
    """The section of the soaks."""
    done = list(done)
    rows = [
        ["seconds", *[f"{each.seconds:.0f}" for each in done]],
        ["operations", *[f"{each.operations:,}" for each in done]],
        ["memory, MiB", *[f"{each.early.mib:.0f} → {each.late.mib:.0f}" for each in done]],
        ["open files", *[f"{each.early.files} → {each.late.files}" for each in done]],
        ["threads", *[f"{each.early.threads} → {each.late.threads}" for each in done]],
        ["tasks", *[f"{each.early.tasks} → {each.late.tasks}" for each in done]],
        ["**grew**", *[", ".join(each.leaks) or "nothing" for each in done]],
    ]
    return f"{machine()}\n\n{table(['', *[_NAMES[each.backend] for each in done]], rows)}"


def machine() -> str:
    """Versions and the machine's size."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    packages = ["mastra-storage", "mastra-storage-cloudflare", "mastra-storage-convex"]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{versions}; Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{platform.system()}; {os.cpu_count()} cores, {memory:.0f} GiB of memory."
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write(section: str, text: str, document: Path = DOCUMENT) -> None:
    """Put a section in place of what stood between its marks."""
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    old = document.read_text()
    head, _, rest = old.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{document} has no marks for {section}")
    document.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}")


def _shape(outcome: Outcome) -> str:
    campaign = outcome.campaign
    return f"{campaign.workers} × {campaign.stores} × {campaign.lanes}"


def _outcomes(outcome: Outcome, kind: str) -> str:
    return f"{outcome.verdict.outcomes[kind]:,}"


def _failed(outcome: Outcome) -> str:
    kinds = ("UnavailableError", "RateLimitedError", "PartialWriteError", "StorageError")
    return f"{sum(outcome.verdict.outcomes[kind] for kind in kinds):,}"
