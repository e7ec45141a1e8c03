"""Commands in processes of their own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

MASTRA_STORAGE = "from mastra_storage.cli import main; main()"


async def command(*arguments: str | Path) -> str:
    """What a command prints; it must not fail."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()
