"""What `live.run_kit` collects: the kit on the store that is being checked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mastra_storage.backend import Backend
from mastra_storage.testing import _explain_asserts

_explain_asserts()  # before the suite is imported, and not sooner: now pytest runs

from mastra_storage.testing import StorageConformance  # noqa: E402
from mastra_storage.testing.live import TIME_LIMIT  # noqa: E402


class TestStore(StorageConformance):
    time_limit = TIME_LIMIT
    machine_shrinks = False  # writes to a live store may be dear

    @pytest.fixture
    def make_backend(self, store_under_check: Callable[[], Backend]) -> Callable[[], Backend]:
        return store_under_check
