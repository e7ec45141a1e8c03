"""Several processes in turn, on one store."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from backends import on_sqlite
from graphs import chat, config_of, question
from mastra_storage_langgraph import MastraSaver

from mastra_storage import Storage, open_storage

# LangSmith, which LangChain imports, warns on Python 3.14.
STRICT = ("-W", "error", "-W", "ignore:'asyncio.iscoroutinefunction' is:DeprecationWarning")
EXAMPLE = Path(__file__).parent.parent / "examples" / "book_trip.py"


async def run(*arguments: str) -> str:
    """What the example prints, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *STRICT, EXAMPLE, *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().strip()


async def test_the_example_goes_on_in_a_new_process(
    storage_url: str, new_storage: Callable[[], Storage]
) -> None:
    question = "Where shall the trip go to? (start this again, with the answer)"
    assert await run(storage_url) == question
    assert await run(storage_url, "Oslo") == "Booked Oslo. Your trips: 1."
    async with new_storage() as storage:
        [thread] = await storage.get_threads_by_resource_id("ada")
        said = [(one.role, one.content) for one in await storage.get_messages(thread.id)]
    assert said == [
        ("user", "A trip, please"),
        ("assistant", "Where shall the trip go to?"),
        ("user", "Oslo"),
        ("assistant", "Booked Oslo. Your trips: 1."),
    ]


@on_sqlite
async def test_copy_and_export_know_the_tables_in_a_new_process(
    storage_url: str, new_storage: Callable[[], Storage], tmp_path: Path
) -> None:
    async with new_storage() as storage:
        await (
            chat(10)
            .compile(checkpointer=MastraSaver(storage))
            .ainvoke(question(1, 10), config_of("t"))
        )
    copy, exported = f"sqlite:///{tmp_path / 'copy.db'}", tmp_path / "all.jsonl"
    program = Path(sys.executable).with_name("mastra-storage")
    for command in (["copy", storage_url, copy], ["export", storage_url, str(exported)]):
        process = await asyncio.create_subprocess_exec(program, *command)
        assert await process.wait() == 0
    async with open_storage(copy) as storage:
        graph = chat(10).compile(checkpointer=MastraSaver(storage))
        assert len((await graph.ainvoke(question(2, 10), config_of("t")))["messages"]) == 4
    text = exported.read_text()
    for name in ("checkpoints", "values", "writes"):
        assert f"langgraph_{name}" in text
