"""From nothing to data: `init`, Convex's own `npx convex deploy`, `verify`, and a store."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from convex_server import SERVER, ConvexServer
from convex_stores import convex_store

from mastra_storage import Message, Thread

pytestmark = pytest.mark.once  # the work is that of Convex's own command

CONVEX = Path("node_modules", "convex", "bin", "main.js")

# What `npx convex dev` writes beside functions; `deploy` checks types only where it is.
TSCONFIG = """{
  "compilerOptions": {
    "allowJs": true, "strict": true, "moduleResolution": "Bundler", "jsx": "react-jsx",
    "skipLibCheck": true, "allowSyntheticDefaultImports": true, "target": "ESNext",
    "lib": ["ES2023", "dom"], "forceConsistentCasingInFileNames": true, "module": "ESNext",
    "isolatedModules": true, "noEmit": true
  },
  "include": ["./**/*"], "exclude": ["./_generated"]
}"""

OF_ONES_OWN = """import { defineSchema, defineTable } from "convex/server";
import { v } from "convex/values";

export default defineSchema({
  users: defineTable({ name: v.string() }),
});
"""


async def run(project: Path, *command: str | Path, server: ConvexServer) -> str:
    """What a command says in a project, whose environment has the self-hosted pair."""
    hidden = ("CONVEX_URL", "CONVEX_DEPLOY_KEY", "CONVEX_DEPLOYMENT")
    environment: Mapping[str, str] = {
        **{name: value for name, value in os.environ.items() if name not in hidden},
        "CONVEX_SELF_HOSTED_URL": server.url,
        "CONVEX_SELF_HOSTED_ADMIN_KEY": server.admin_key,
        "CI": "1",
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [*map(str, command)],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert server.admin_key not in done.stdout
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory as `npm install convex` leaves it."""
    (tmp_path / "package.json").write_text('{"name": "app", "dependencies": {"convex": "*"}}')
    (tmp_path / "node_modules").symlink_to(SERVER / "node_modules")
    (tmp_path / "convex").mkdir()
    (tmp_path / "convex" / "tsconfig.json").write_text(TSCONFIG)
    return tmp_path


@pytest.mark.parametrize("schema", [None, OF_ONES_OWN])
async def test_what_init_copies_is_deployed_verified_and_used(
    convex: ConvexServer, project: Path, schema: str | None
) -> None:
    await convex.control(functions="none")
    ours = (sys.executable, "-m", "mastra_storage_convex")
    if schema is not None:
        (project / "convex" / "schema.ts").write_text(schema)
    said = await run(project, *ours, "init", server=convex)
    if schema is not None:
        (project / "convex" / "schema.ts").write_text(merged(schema, said))
        assert "has our tables already" in await run(project, *ours, "init", server=convex)

    deployed = await run(project, "node", CONVEX, "deploy", "--typecheck", "enable", server=convex)
    assert f"Deployed Convex functions to {convex.url}" in deployed

    assert "failed" not in await run(project, *ours, "verify", server=convex)
    async with convex_store(convex) as storage:
        await storage.save_thread(Thread(id="t1", resource_id="ada"))
        await storage.save_message(Message(thread_id="t1", role="user", content="Hello"))
        assert [message.content for message in await storage.get_messages("t1")] == ["Hello"]


def merged(schema: str, said: str) -> str:
    """A schema with what `init` says to add to it."""
    shown = re.search(r"^  import .*^  }\);$", said, re.DOTALL | re.MULTILINE)
    assert shown
    lines = textwrap.dedent(shown[0]).splitlines()
    [line] = [line for line in lines if "mastra/tables" in line]
    [spread] = [line for line in lines if "..." in line]
    return f"{line}\n{schema}".replace("defineSchema({\n", f"defineSchema({{\n{spread}\n")
