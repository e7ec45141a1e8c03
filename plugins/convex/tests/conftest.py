"""Convex on this machine, for every test of the plugin."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from convex_server import ConvexServer

# A shell's background jobs ignore Ctrl-C, and so would the commands that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Every test fails when the plugin blocks the event loop."""
    with blockbuster_ctx("mastra_storage_convex") as blockbuster:
        yield blockbuster


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
