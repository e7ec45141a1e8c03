"""The kit on the backends of this distribution."""

from __future__ import annotations

from pathlib import Path

import pytest

from mastra_storage.backends.memory import Memory, MemoryBackend
from mastra_storage.backends.sqlite import SqliteBackend
from mastra_storage.testing import StorageConformance
from mastra_storage.testing.suite._base import MakeBackend


class TestMemory(StorageConformance):
    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        memory = Memory()
        return lambda: MemoryBackend(memory)


class TestSqlite(StorageConformance):
    @pytest.fixture
    def make_backend(self, tmp_path: Path) -> MakeBackend:
        return lambda: SqliteBackend(tmp_path / "store.db")
