"""The conformance kit: the tests that every backend passes, and tools to test with.

A plugin adopts it in one class with one fixture, under pytest with pytest-asyncio in any mode:

    import pytest
    from mastra_storage.testing import StorageConformance

    class TestMyBackend(StorageConformance):
        @pytest.fixture
        def make_backend(self, tmp_path):
            return lambda: MyBackend(tmp_path / "store")

Install it with `pip install mastra-storage[testing]`.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("mastra_storage.testing.suite")

from mastra_storage.testing.faults import FaultyBackend  # noqa: E402 - after the rewrite is set up
from mastra_storage.testing.isolation import IsolatedBackend, isolated  # noqa: E402
from mastra_storage.testing.suite import StorageConformance  # noqa: E402

__all__ = ["FaultyBackend", "IsolatedBackend", "StorageConformance", "isolated"]
