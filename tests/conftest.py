"""Every test of ours fails when `mastra_storage` blocks the event loop."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

# A shell's background jobs ignore Ctrl-C, and so would the commands that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    with blockbuster_ctx(
        "mastra_storage", excluded_modules=["mastra_storage.testing"]
    ) as blockbuster:
        for function in blockbuster.functions.values():
            # Finding and importing a backend reads files, once, before the storage is open.
            function.can_block_in(
                "mastra_storage/plugins.py", {"_distribution", "_entries", "_load"}
            )
        yield blockbuster
