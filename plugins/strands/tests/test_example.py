"""The example goes on in a new process, through Strands' own loop; the commands show it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from backends import on_sqlite_and_kv

EXAMPLE = Path(__file__).parents[1] / "examples" / "remember.py"


def run(*command: str) -> str:
    environment = os.environ | {"COLUMNS": "120"}
    result = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("kept", ["messages", "snapshots"])
@on_sqlite_and_kv
def test_it_goes_on_in_a_new_process(storage_url: str, kept: str) -> None:
    example = [sys.executable, "-W", "error", str(EXAMPLE), storage_url, kept]
    assert run(*example) == "0 messages from before · Oslo, please · You have seat 12A to Oslo.\n"
    assert run(*example) == (
        "4 messages from before · Bergen, please · You have seat 12A to Oslo, seat 12A to Bergen.\n"
    )
    if kept == "messages":
        command = str(Path(sys.executable).with_name("mastra-storage"))
        shown = run(command, "messages", storage_url, "trip/default")
        assert "the last 8 messages of trip/default" in shown
        assert "You have seat 12A to Oslo, seat 12A to Bergen." in shown
