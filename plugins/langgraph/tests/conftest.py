"""The backends to test on; and every test fails when the adapter blocks the event loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

pytest_plugins = ["stores"]


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Every test fails when the plugin blocks the event loop."""
    with blockbuster_ctx("mastra_storage_langgraph") as blockbuster:
        yield blockbuster
