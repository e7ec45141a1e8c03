"""The Python of the plugin's README and documentation, and the demo, on the local server."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kv_server import KVServer

PLUGIN = Path(__file__).parents[1]
PAGE = PLUGIN.parents[1] / "docs" / "cloudflare.md"


def blocks(page: Path) -> Iterator[str]:
    yield from re.findall(
        r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def account(kv: KVServer, monkeypatch: pytest.MonkeyPatch) -> KVServer:
    """The local server, where the environment says the account is."""
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", kv.account_id)
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", kv.token)
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", kv.url)
    return kv


def test_the_ten_lines_of_the_readme_run(
    account: KVServer, capsys: pytest.CaptureFixture[str]
) -> None:
    [block] = blocks(PLUGIN / "README.md")
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out == "user: Oslo, please\n"


def test_every_main_of_the_page_runs(account: KVServer, capsys: pytest.CaptureFixture[str]) -> None:
    mains = [block for block in blocks(PAGE) if "async def main()" in block]
    for block in mains:
        names: dict[str, Any] = {}
        exec(compile(block.replace("ACCOUNT_ID", account.account_id), PAGE.name, "exec"), names)
        asyncio.run(names["main"]())
    assert capsys.readouterr().out == "user: Oslo, please\n['answer']\n"
    assert len(mains) == 3


def test_the_demo_remembers(account: KVServer) -> None:
    command = [str(Path(sys.executable).with_name("mastra-storage")), "demo"]
    command += [f"cloudflare://{account.account_id}"]
    first, second = (
        subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
        for _ in range(2)
    )
    assert "read back from a newly opened store: 6 messages" in first
    assert "going on behind 6 messages" in second
    assert account.token not in first + second
