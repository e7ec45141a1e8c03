"""Every test of ours fails when `mastra_storage` blocks the event loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx


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
