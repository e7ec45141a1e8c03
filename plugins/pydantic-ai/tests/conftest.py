"""Every test of ours fails when the adapter blocks the event loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

pytest_plugins = ["stores"]


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    with blockbuster_ctx("mastra_storage_pydantic_ai") as blockbuster:
        yield blockbuster
