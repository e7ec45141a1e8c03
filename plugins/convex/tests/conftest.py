"""Convex on this machine, for every test of the plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from convex_server import ConvexServer


@pytest.fixture(scope="session")
def convex_server() -> Iterator[ConvexServer]:
    """The server of this session; tests take `convex`, which is clean."""
    with ConvexServer.start() as server:
        yield server


@pytest.fixture
async def convex(convex_server: ConvexServer) -> ConvexServer:
    """The server without documents, without faults, and with its counts at zero."""
    await convex_server.reset()
    return convex_server
