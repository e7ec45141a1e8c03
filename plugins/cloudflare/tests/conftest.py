"""Workers KV on this machine, for every test of the plugin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kv_server import KVServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs in Pyodide says nothing of the Python out here."""
    for item in items:
        if "python" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.once)


@pytest.fixture(scope="session")
def kv_server() -> Iterator[KVServer]:
    """The server of this session; tests take `kv`, which is clean."""
    with KVServer.start() as server:
        yield server


@pytest.fixture
async def kv(kv_server: KVServer) -> KVServer:
    """The server without namespaces, without faults, and with its counts at zero."""
    await kv_server.reset()
    return kv_server


@pytest.fixture(scope="session")
def memory_kv_server() -> Iterator[KVServer]:
    """The server of this session that keeps all in memory, for large volumes."""
    with KVServer.start(store="memory") as server:
        yield server


@pytest.fixture
async def memory_kv(memory_kv_server: KVServer) -> KVServer:
    """The server in memory, as clean as `kv`."""
    await memory_kv_server.reset()
    return memory_kv_server
