"""The kit over REST."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kv_server import KVServer
from mastra_storage_cloudflare import CloudflareBackend
from mastra_storage_cloudflare.rest import RestKV

from mastra_storage import Backend
from mastra_storage.testing import StorageConformance


class TestInMemory(StorageConformance):
    """All of the kit, on the server that keeps its pairs in memory."""

    machine_examples = 10
    machine_shrinks = False

    @pytest.fixture
    def make_backend(self, memory_kv: KVServer) -> Callable[[], Backend]:
        kv = memory_kv
        return lambda: CloudflareBackend(
            RestKV(kv.account_id, kv.token, base_url=kv.url, rate_limit=10**6),
            key_interval=0.02,
        )
