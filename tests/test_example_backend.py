"""The backend of docs/writing-a-backend.md, installed and used as a stranger's would be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mastra_storage.cli.exits import NOT_FOUND

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "mastra-storage-journal"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that pip installed the example into."""
    source = tmp_path_factory.mktemp("source") / EXAMPLE.name
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--target", str(target), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return target


def python(installed: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python that has the example installed."""
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


PROGRAM = """
import asyncio, sys
from mastra_storage import Message, Thread, open_storage

async def main():
    assert "mastra_storage_journal" not in sys.modules
    async with open_storage("journal:///agent.jsonl") as storage:
        if sys.argv[1] == "write":
            await storage.save_thread(Thread(id="t1", resource_id="user-1"))
            await storage.save_message(Message(thread_id="t1", role="user", content="Hello"))
        print([m.content for m in await storage.get_messages("t1")])

asyncio.run(main())
"""


def test_it_is_found_through_its_entry_point(installed: Path, tmp_path: Path) -> None:
    for what in ("write", "read"):
        run = python(installed, tmp_path, "-c", PROGRAM, what)
        assert run.stdout.strip() == "['Hello']", run.stderr
    assert (tmp_path / "agent.jsonl").stat().st_size > 0


def test_it_passes_the_conformance_kit(installed: Path, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "test_journal.py"):
        shutil.copy(EXAMPLE / name, tmp_path)
    without = ("-p", "no:cacheprovider", "-p", "no:langsmith_plugin")
    run = python(installed, tmp_path, "-m", "pytest", "-q", *without)
    assert run.returncode == 0, run.stdout[-4000:]
    assert " passed" in run.stdout


def test_looking_does_not_make_a_file(installed: Path, tmp_path: Path) -> None:
    program = "from mastra_storage.cli import main; main()"
    run = python(installed, tmp_path, "-c", program, "threads", "journal:///agent.jsonl")
    assert run.returncode == NOT_FOUND, run.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_fits_on_two_pages() -> None:
    lines = (EXAMPLE / "mastra_storage_journal.py").read_text("utf-8").splitlines()
    assert len(lines) < 150
