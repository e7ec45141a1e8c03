"""The page of the documentation: queries of one's own, for whoever is signed in."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from convex_server import SERVER, ConvexServer
from convex_stores import convex_store
from local_server import install

from mastra_storage import Message, Thread

PLUGIN = Path(__file__).parents[1]
SHIPPED = PLUGIN / "mastra_storage_convex" / "functions"
EXAMPLE = PLUGIN.parents[1] / "docs" / "examples" / "convex-react"

OF_ONES_OWN = """
import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";
import { mastraTables } from "./mastra/tables";

export default defineSchema({
  ...mastraTables,
  users: defineTable({ name: v.string() }).index("by_name", ["name"]),
});
"""


def node(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The example, with the shipped functions beside its own and the generated code."""
    install(SERVER)
    project = tmp_path / "project"
    shutil.copytree(EXAMPLE, project)
    shutil.copytree(SHIPPED, project / "convex", dirs_exist_ok=True)
    (project / "node_modules").symlink_to(SERVER / "node_modules")
    generated = node(SERVER / "page.mjs", "generate", project / "convex")
    assert generated.returncode == 0, generated.stderr
    return project


def complaints(project: Path) -> str:
    compiler = SERVER / "node_modules" / "typescript" / "bin" / "tsc"
    return node(compiler, "--project", project).stdout


@pytest.mark.once
@pytest.mark.parametrize("schema", [None, OF_ONES_OWN])
def test_it_type_checks(project: Path, schema: str | None) -> None:
    if schema is not None:
        (project / "convex" / "schema.ts").write_text(schema)
    assert complaints(project) == ""


@pytest.mark.once
def test_its_types_are_those_of_the_tables(project: Path) -> None:
    for path, there, wrong in (
        ("convex/conversations.ts", "thread?.resourceId", "thread?.resource"),
        ("src/Conversations.tsx", "<p>{text}</p>", "<p>{content}</p>"),
    ):
        text = (project / path).read_text()
        assert there in text
        (project / path).write_text(text.replace(there, wrong))
    found = complaints(project)
    assert "convex/conversations.ts(" in found
    assert "src/Conversations.tsx(" in found


async def test_everybody_sees_their_own_conversations_and_no_others(
    convex: ConvexServer, project: Path
) -> None:
    await convex.control(recordBodies=True)
    async with convex_store(convex) as storage:
        for name, owner in (("t1", "ada"), ("t2", "ada"), ("t3", "bob"), ("t4", "ada")):
            await storage.save_thread(Thread(id=name, resource_id=owner, title=f"of {owner}"))
        await storage.save_messages(
            [
                Message(id="m1", thread_id="t1", role="user", content="Hello"),
                Message(id="m2", thread_id="t1", role="assistant", content=[{"text": "Hi"}, {}]),
                Message(id="m3", thread_id="t1", role="tool", content=None, resource_id="bob"),
                Message(id="m4", thread_id="t3", role="user", content="mine"),
                Message(id="m5", thread_id="t4", role="user", content="deleted below"),
            ]
        )
        await storage.delete_thread("t4")
    log = await convex.log()
    writes = [
        json.loads(entry["body"])["args"] for entry in log if "system:write" in entry["label"]
    ]
    asks = [
        ("threads", {}, "ada"),
        ("threads", {}, "bob"),
        ("threads", {}, None),
        ("messages", {"threadId": "t1"}, "ada"),
        ("messages", {"threadId": "t1"}, "bob"),
        ("messages", {"threadId": "t1"}, None),
        ("messages", {"threadId": "t4"}, "ada"),
        ("messages", {"threadId": "nowhere"}, "ada"),
    ]
    of_ada, of_bob, of_nobody, read, *refused = answers(project, writes, asks)
    assert of_ada == [{"id": "t1", "title": "of ada"}, {"id": "t2", "title": "of ada"}]
    assert of_bob == [{"id": "t3", "title": "of bob"}]
    assert of_nobody == []
    assert [(message["role"], message["text"]) for message in read] == [
        ("user", "Hello"),
        ("assistant", "Hi"),
    ]
    assert refused == [[]] * 4


def test_a_column_that_no_row_has_is_refused(project: Path) -> None:
    source = project / "convex" / "conversations.ts"
    text = source.read_text()
    assert "where = { resourceId: [user] }" in text
    source.write_text(
        text.replace("where = { resourceId: [user] }", 'where = { resource_id: ["", user] }')
    )
    done = asked(project, [], [("threads", {}, "ada")])
    assert done.returncode != 0
    assert "no column resource_id" in done.stderr


def answers(project: Path, writes: list[Any], asks: list[tuple[str, Any, str | None]]) -> list[Any]:
    """What the functions of the example give when `asks` are asked after `writes`."""
    done = asked(project, writes, asks)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def asked(
    project: Path, writes: list[Any], asks: list[tuple[str, Any, str | None]]
) -> subprocess.CompletedProcess[str]:
    given = [
        {"path": f"conversations:{name}", "args": args, "user": user} for name, args, user in asks
    ]
    return node(
        SERVER / "page.mjs",
        "ask",
        project / "convex",
        stdin=json.dumps({"writes": writes, "asks": given}),
    )
