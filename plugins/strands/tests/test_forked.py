"""A process that was forked with an open storage, as of servers that load before they fork."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FORKED = """
import asyncio, os, sys
from mastra_storage import open_storage
from mastra_storage_strands import MastraStrandsStorage

storage = MastraStrandsStorage(open_storage("sqlite:///a.db"))
storage.__enter__()
asyncio.run(storage.write("k", b"1"))
if not (child := os.fork()):
    {in_the_child}
    print("ends", flush=True)
    sys.exit()
status = os.waitpid(child, 0)[1]
assert status == 0, status
assert asyncio.run(storage.read("k")) == b"1"
storage.__exit__(None, None, None)
"""


def after_fork(in_the_child: str, directory: Path) -> str:
    # Python 3.12 and later warn of a process with threads that forks.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED.format(in_the_child=in_the_child)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("end", ["pass", "storage.__exit__(None, None, None)"])
def test_a_forked_process_ends(end: str, tmp_path: Path) -> None:
    assert after_fork(end, tmp_path) == "ends\n"


def test_a_forked_process_is_told_to_open_a_storage_of_its_own(tmp_path: Path) -> None:
    said = after_fork(
        """
    try:
        asyncio.run(storage.read("k"))
    except Exception as error:
        print(error)
    with MastraStrandsStorage(open_storage("sqlite:///a.db")) as own:
        print(asyncio.run(own.read("k")))
    """.strip(),
        tmp_path,
    )
    assert "opened before this process was forked; open one in each process\nb'1'\nends\n" in said
