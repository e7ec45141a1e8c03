from collections.abc import Callable
from pathlib import Path

import pytest
from mastra_storage_journal import JournalBackend

from mastra_storage import Backend
from mastra_storage.testing import StorageConformance


class TestJournal(StorageConformance):
    @pytest.fixture
    def make_backend(self, tmp_path: Path) -> Callable[[], Backend]:
        return lambda: JournalBackend(str(tmp_path / "agent.jsonl"))
