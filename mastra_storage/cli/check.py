"""`mastra-storage check`: the conformance kit against a live store."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer
from msgspec import Struct

from mastra_storage.cli.console import errors, output, plural, print_json, progress, shown, table
from mastra_storage.cli.exits import FAILED, ending, fail, without_secrets
from mastra_storage.cli.options import AsJson, Url
from mastra_storage.testing import _NEEDED

__all__ = ["Outcome", "check"]

_STYLES = {"passed": "green", "skipped": "yellow"}
_INTERRUPTED = 2  # pytest.ExitCode.INTERRUPTED


class Outcome(Struct):
    """How a store fared with one rule of the conformance kit."""

    rule: str
    outcome: str
    detail: str
    seconds: float


def check(
    url: Url,
    full: Annotated[
        bool, typer.Option("--full", help="Large and long tests too; many more writes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold a live store to every rule of the contract, in tables of its own.

    Your data is not touched: the tables get a random prefix, and are emptied afterwards. How
    many rows it writes is said before it begins; some plans allow 1,000 writes a day.

    [dim]$[/] mastra-storage check sqlite:///scratch.db

    [dim]$[/] mastra-storage check cloudflare://ACCOUNT --full
    """
    try:
        from mastra_storage.testing.live import run_kit, writes_of_kit
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _NEEDED:
            raise
        fail(
            "check needs the conformance kit: pip install 'mastra-storage[cli,testing]', in a "
            "checkout: pip install '.[cli,testing]'",
            FAILED,
        )
    errors.print(
        f"Checking {without_secrets(url)}: about {plural(writes_of_kit(full=full), 'row write')}.",
        highlight=False,
        soft_wrap=True,
    )
    outcomes: list[Outcome] = []
    with ending("interrupted; the tables of the check are emptied"), progress("starting") as bar:

        def note(rule: str, outcome: str, detail: str, seconds: float) -> None:
            outcomes.append(Outcome(rule, outcome, detail, seconds))
            bar.update(len(outcomes), rule)

        code = run_kit(url, full=full, on_result=note)
        if code == _INTERRUPTED:  # pytest ends in order on Ctrl-C, and says so
            raise KeyboardInterrupt
    _show(outcomes, as_json=as_json)
    if code:
        raise typer.Exit(FAILED)


def _show(outcomes: list[Outcome], *, as_json: bool) -> None:
    if as_json:
        print_json(outcomes)
        return
    result = table("Rules", "rule", "outcome", "seconds", right=("seconds",))
    for each in outcomes:
        rule = shown(each.rule)
        if each.detail:
            rule.append("\n").append(shown(without_secrets(each.detail), style="dim"))
        outcome = shown(each.outcome, style=_STYLES.get(each.outcome, "bold red"))
        result.add_row(rule, outcome, f"{each.seconds:.2f}")
    output.print(result)
    counts = Counter(each.outcome for each in outcomes)
    output.print(", ".join(f"{count:,} {outcome}" for outcome, count in counts.items()))
