"""The lines of the README run, with a model that needs no key where Strands' would be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from remember import Scripted, book
from strands.agent import agent as strands_agent

PLUGIN = Path(__file__).parents[1]


def test_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (PLUGIN / "README.md").read_text("utf-8")
    [block] = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    block = block.replace("session_manager=session", "session_manager=session, tools=[book]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(strands_agent, "BedrockModel", Scripted)
    for _ in range(2):
        exec(compile(block, "README.md", "exec"), {"book": book})
    first, second = re.findall(r"You have [^.]*", capsys.readouterr().out)
    assert first == "You have seat 12A to To Oslo, please"
    assert second == f"{first}, seat 12A to To Oslo, please"
