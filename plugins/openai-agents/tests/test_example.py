"""The example goes on in a new process, through the SDK's own loop; the commands show it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agents import Agent, RunConfig, Runner
from backends import on_sqlite_and_kv
from remember import Scripted, book

EXAMPLE = Path(__file__).parents[1] / "examples" / "remember.py"


def run(*command: str) -> str:
    environment = os.environ | {"COLUMNS": "120"}
    result = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@on_sqlite_and_kv
def test_it_goes_on_in_a_new_process(storage_url: str) -> None:
    example = [sys.executable, "-W", "error", str(EXAMPLE), storage_url]
    assert run(*example) == "0 items from before · Oslo, please · You have seat 12A to Oslo.\n"
    assert run(*example) == (
        "4 items from before · Bergen, please · You have seat 12A to Oslo, seat 12A to Bergen.\n"
    )
    command = str(Path(sys.executable).with_name("mastra-storage"))
    shown = run(command, "messages", storage_url, "trip")
    assert "the last 8 messages of trip" in shown
    assert "You have seat 12A to Oslo, seat 12A to Bergen." in shown


async def test_its_model_streams() -> None:
    agent = Agent(name="Travel", model=Scripted(), tools=[book])
    run = Runner.run_streamed(agent, "Oslo", run_config=RunConfig(tracing_disabled=True))
    kinds = {event.type async for event in run.stream_events()}
    assert run.final_output == "You have seat 12A to Oslo."
    assert "run_item_stream_event" in kinds
