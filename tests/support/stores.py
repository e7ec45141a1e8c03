"""The backends that adapters are tested on: SQLite, Workers KV and Convex on this machine.

A pytest plugin. `backend` is the parameter: `@pytest.mark.parametrize("backend", ["sqlite"])`
narrows a test to some. `storage_url` is a store that is empty, for this process and for others
that inherit its environment; `new_storage()` gives a `Storage` on it, a second call a second
client. What runs on the two servers says nothing of the Python, and is marked `once`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from convex_server import ConvexServer
from kv_server import KVServer

from mastra_storage import Storage, open_storage

SERVERS = ["cloudflare", "convex"]


@pytest.fixture(
    params=["sqlite", *[pytest.param(name, marks=pytest.mark.once) for name in SERVERS]]
)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of the backend that the test runs on."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def _kv_server() -> Iterator[KVServer]:
    with KVServer.start() as server:
        yield server


@pytest.fixture(scope="session")
def _convex_server() -> Iterator[ConvexServer]:
    with ConvexServer.start() as server:
        yield server


@pytest.fixture
async def storage_url(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The URL of a store that is empty; its keys are in the environment."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    if backend == "cloudflare":
        kv: KVServer = request.getfixturevalue("_kv_server")
        await kv.reset()
        monkeypatch.setenv("CLOUDFLARE_API_TOKEN", kv.token)
        monkeypatch.setenv("CLOUDFLARE_BASE_URL", kv.url)
        return f"cloudflare://{kv.account_id}"
    convex: ConvexServer = request.getfixturevalue("_convex_server")
    await convex.reset()
    monkeypatch.setenv("CONVEX_URL", convex.url)
    monkeypatch.setenv("CONVEX_DEPLOY_KEY", convex.admin_key)
    return f"convex+{convex.url}"


@pytest.fixture
def new_storage(storage_url: str) -> Callable[[], Storage]:
    """Makes storages on `storage_url`, to be used in `async with`."""
    return lambda: open_storage(storage_url)
