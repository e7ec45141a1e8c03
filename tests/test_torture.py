"""The torture of `benchmarks/`: it finds what is planted, nothing else, and repeats by seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture.campaign import Campaign, Outcome, run
from torture.plan import plan


async def outcome(directory: Path, **changes: object) -> Outcome:
    settings = {"operations": 240, "workers": 2, "stores": 1, "lanes": 4, "life": 25.0, **changes}
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
    assert found.operations == 240
    assert found.kills > 1
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
