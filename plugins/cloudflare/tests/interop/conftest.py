from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from kv_server import KVServer

from interop.typescript import RawKV, interop_store, raw_kv
from mastra_storage import Storage


@pytest.fixture
async def raw(kv: KVServer) -> AsyncIterator[RawKV]:
    """The same namespaces as those of `store`, as the REST API shows them."""
    async with raw_kv(kv) as requests:
        yield requests


@pytest.fixture
async def store(kv: KVServer) -> AsyncIterator[Storage]:
    """A store that keeps its data as the TypeScript store does, under the prefix `myapp_`."""
    async with interop_store(kv) as storage:
        yield storage
