"""The kit over REST: on real KV bindings, on the server's own memory, and with late reads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kv_server import KVServer
from rest_stores import rest_backend

from mastra_storage import Backend
from mastra_storage.testing import StorageConformance

SERVER_IS_LATE = {
    "staleReadsMs": 1_500,
    "staleListsMs": 1_500,
    "staleShare": 0.5,
    "cachedMissesMs": 1_500,
}


class Kit(StorageConformance):
    machine_examples = 10
    machine_shrinks = False


class TestInMemory(Kit):
    """All of the kit, on the server that keeps its pairs in memory."""

    @pytest.fixture
    def make_backend(self, memory_kv: KVServer) -> Callable[[], Backend]:
        return lambda: rest_backend(memory_kv, key_interval=0.01)


@pytest.mark.once  # to a client, the server is the one of TestInMemory
class TestOnKV(Kit):
    """The quick part of the kit, on KV bindings of the real runtime."""

    @pytest.fixture(autouse=True)
    def quick(self, request: pytest.FixtureRequest) -> None:
        if getattr(request.function, "kit_full", False):
            pytest.skip("runs in memory only")

    @pytest.fixture
    def make_backend(self, kv: KVServer) -> Callable[[], Backend]:
        return lambda: rest_backend(kv, key_interval=0.01)


@pytest.mark.once  # what is late is not Python's
class TestLate(Kit):
    """With reads and listings that are late by turns: a store sees its own writes at once."""

    many = 120
    very_many = 1_010
    machine_examples = 3

    @pytest.fixture
    async def late_kv(self, memory_kv: KVServer) -> KVServer:
        await memory_kv.control(consistency=SERVER_IS_LATE)
        return memory_kv

    @pytest.fixture
    def make_backend(self, late_kv: KVServer) -> Callable[[], Backend]:
        return lambda: rest_backend(late_kv, key_interval=0.01)
