"""The spans of a real agent, on every backend, and the commands that show them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mastra_storage_opentelemetry import MastraSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from pydantic_ai import Agent
from pydantic_ai.capabilities.instrumentation import Instrumentation
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.test import TestModel

from mastra_storage import Storage

MASTRA_STORAGE = "from mastra_storage.cli import main; main()"
EXAMPLE = Path(__file__).parent.parent / "examples" / "traced_agent.py"


def command(*arguments: str | Path) -> str:
    """What a command says, in a process of its own; it must not fail nor complain."""
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def planner(provider: TracerProvider) -> Agent:
    settings = InstrumentationSettings(tracer_provider=provider)
    agent = Agent(TestModel(), name="planner", capabilities=[Instrumentation(settings)])

    @agent.tool_plain
    async def weather(city: str) -> str:
        return "sunny"

    return agent


async def test_a_run_is_kept_and_shown_as_a_tree(
    new_storage: Callable[[], Storage], storage_url: str
) -> None:
    async with new_storage() as storage, MastraSpanExporter(storage) as exporter:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        result = await planner(provider).run("Oslo, please", conversation_id="trip")
        await exporter.flush()
        assert provider.force_flush()  # brings the same spans again, in place of the first
    provider.shutdown()
    assert (exporter.saved, exporter.dropped) == (8, 0)

    async with new_storage() as storage:
        page = await storage.get_traces(thread_id="trip")
        assert page.total == 4
        by_name = {trace.name: trace for trace in page}
        root = by_name["invoke_agent planner"]
        assert root.parent_span_id is None
        assert {trace.parent_span_id for trace in page if trace is not root} == {root.id}
        assert {trace.trace_id for trace in page} == {root.trace_id}
        assert {trace.run_id for trace in page} == {result.run_id}
        assert by_name["execute_tool weather"].attributes["gen_ai.tool.call.result"] == "sunny"
        assert root.ended_at is not None
        assert all(
            root.started_at <= trace.started_at <= (trace.ended_at or trace.started_at)
            and (trace.ended_at or trace.started_at) <= root.ended_at
            for trace in page
        )

    shown = command("-c", MASTRA_STORAGE, "traces", storage_url)
    lines = [re.sub(r"\d[\d.]* ms", "N ms", line.rstrip()) for line in shown.splitlines()]
    assert lines[0].startswith(root.trace_id)
    assert lines[0].endswith("UTC  thread trip")
    assert lines[1:] == [
        "└── invoke_agent planner  pydantic-ai  N ms",
        "    ├── chat test  pydantic-ai  N ms  52 → 5 tokens",
        "    ├── execute_tool weather  pydantic-ai  N ms",
        "    └── chat test  pydantic-ai  N ms  53 → 9 tokens",
        "4 spans",
    ]


def test_the_example_goes_on_in_a_new_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'traced.db'}"
    first = command(EXAMPLE, "Oslo, please", url)
    assert first == "4 spans kept, 0 dropped\n1 runs in the conversation so far\n"
    second = command(EXAMPLE, "And Rome?", url)
    assert second == "4 spans kept, 0 dropped\n2 runs in the conversation so far\n"
    shown = command("-c", MASTRA_STORAGE, "traces", url)
    assert shown.count("└── invoke_agent planner") == 2
