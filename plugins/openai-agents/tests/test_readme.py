"""The lines of the README run, with a model that needs no key where the SDK's would be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from agents import set_tracing_disabled
from agents.models.multi_provider import MultiProvider
from remember import Scripted, book

PLUGIN = Path(__file__).parents[1]


def test_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (PLUGIN / "README.md").read_text("utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    block = block.replace('instructions="Help with trips."', "tools=[book]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MultiProvider, "get_model", lambda self, name: Scripted())
    set_tracing_disabled(True)
    for _ in range(2):
        exec(compile(block, "README.md", "exec"), {"book": book})
    assert capsys.readouterr().out == (
        "You have seat 12A to To Oslo, please.\n"
        "You have seat 12A to To Oslo, please, seat 12A to To Oslo, please.\n"
    )
