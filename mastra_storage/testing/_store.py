"""What `live.run_kit` collects: the kit on the store that is being checked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mastra_storage.backend import Backend
from mastra_storage.testing import StorageConformance


class TestStore(StorageConformance):
    machine_shrinks = False  # writes to a live store may be dear

    @pytest.fixture
    def make_backend(self, store_under_check: Callable[[], Backend]) -> Callable[[], Backend]:
        return store_under_check
