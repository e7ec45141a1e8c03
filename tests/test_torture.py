"""The torture of `benchmarks/`: it finds what is planted, nothing else, and repeats by seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture.campaign import Campaign, Outcome, run
from torture.checker import Checker
from torture.journal import Entry
from torture.plan import Call, own_thread, plan
from torture.verdict import Verdict

from mastra_storage import Capabilities

THREAD = own_thread(0, 0)
SAVE = Call("save_messages", THREAD, ("m0-0",))
WATCH = Call("watch_messages", THREAD, size=10)
STRONG = Capabilities(atomic=True, compare_and_set=True, watch=True, strong_reads=True)
WEAK = Capabilities()


async def outcome(directory: Path, **changes: object) -> Outcome:
    settings = {"operations": 480, "workers": 2, "stores": 1, "lanes": 4, "life": 25.0, **changes}
    return await run(Campaign(backend="sqlite", seed=5, directory=directory, **settings))  # type: ignore[arg-type]


def test_a_seed_gives_the_same_operations() -> None:
    calls = plan(7, 1, 3, 400)
    assert plan(7, 1, 3, 400) == calls
    assert plan(7, 1, 3, 200) == calls[:200]
    assert plan(8, 1, 3, 400) != calls
    assert len({call.kind for call in calls}) > 15
    assert any(call.patience for call in calls)


async def test_the_embedded_default_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    found = await outcome(tmp_path)
    assert found.verdict.violations == []
    assert found.operations == 480
    assert found.kills > 0
    assert found.verdict.sights > 240
    assert found.verdict.shown > 24
    assert found.verdict.outcomes["ok"] > 120


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        ("lost-place", "reordered"),
        ("lost-touch", "lost"),
        ("old-news", "lost"),
        ("silence", "not shown"),
    ],
)
async def test_a_planted_defect_is_found(
    tmp_path: Path, plant: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torture.campaign.SHOWN_SECONDS", 1.0)
    found = await outcome(tmp_path, plant=plant, life=0.0, calm=True)
    assert found.verdict.by_kind[kind] > 0


def entry(number: int, begun: float, ended: float, result: object = None, lane: int = 0) -> Entry:
    """An operation that succeeded; its times are in seconds."""
    return Entry(
        lane=lane,
        number=number,
        store="s",
        begun=round(begun * 1e9),
        wall=0,
        ended=round(ended * 1e9),
        outcome="ok",
        result=result,
    )


def verdict(capabilities: Capabilities, *shown: tuple[float, list[list[str]]]) -> Verdict:
    """Of a message that was saved at 10 and at 20 seconds, and what a watch showed when."""
    saves = [(SAVE, entry(0, 10, 11)), (SAVE, entry(1, 20, 21))]
    watch = [(WATCH, entry(1, 15, at, rows, lane=-1)) for at, rows in shown]
    return Checker(capabilities, window=1, deadline=90).check(saves, [watch], [])


OLD, NEW = [["m0-0", "0.0"]], [["m0-0", "0.1"]]


@pytest.mark.parametrize("capabilities", [STRONG, WEAK])
def test_a_watch_may_show_every_state_or_some(capabilities: Capabilities) -> None:
    assert verdict(capabilities, (16, OLD), (20.5, NEW)).by_kind == {}
    assert verdict(capabilities, (16, OLD)).by_kind == {}
    assert verdict(capabilities, (30, NEW)).by_kind == {}


def test_a_watch_goes_back_only_where_reads_are_not_strong() -> None:
    assert verdict(STRONG, (22, NEW), (23, OLD)).by_kind == {"lost": 1}
    assert verdict(WEAK, (22, NEW), (23, OLD)).by_kind == {}


@pytest.mark.parametrize("capabilities", [STRONG, WEAK])
def test_a_watch_shows_what_was_there_when_it_began(capabilities: Capabilities) -> None:
    assert verdict(capabilities, (16, [])).by_kind == {"lost": 1}
    assert verdict(capabilities, (16, NEW)).by_kind["invented"] == 1  # nobody had written it
    assert verdict(capabilities, (16, [["m0-0", "7.7"]])).by_kind == {"invented": 1}


def test_a_message_that_is_saved_anew_may_be_missed_where_reads_are_not_strong() -> None:
    assert verdict(STRONG, (20.5, [])).by_kind == {"lost": 1}
    missed = verdict(WEAK, (20.5, []))
    assert (missed.by_kind, missed.anomalies.total()) == ({}, 1)
    assert verdict(WEAK, (30, [])).by_kind == {"lost": 1}
