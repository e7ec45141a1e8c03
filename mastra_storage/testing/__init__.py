"""The conformance kit: the tests that every backend passes, and tools to test with.

A plugin adopts it in one class with one fixture, under pytest with pytest-asyncio in any mode:

    import pytest
    from mastra_storage.testing import StorageConformance

    class TestMyBackend(StorageConformance):
        @pytest.fixture
        def make_backend(self, tmp_path):
            return lambda: MyBackend(tmp_path / "store")

Install what it needs with `pip install mastra-storage[testing]`. The wrappers `FaultyBackend`
and `isolated` need nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mastra_storage.testing.faults import FaultyBackend
from mastra_storage.testing.isolation import IsolatedBackend, isolated

if TYPE_CHECKING:
    from mastra_storage.testing.suite import StorageConformance

__all__ = ["FaultyBackend", "IsolatedBackend", "StorageConformance", "isolated"]


_NEEDED = frozenset({"pytest", "pytest_asyncio", "hypothesis"})
_SUITE = "mastra_storage.testing.suite"


def _explain_asserts() -> None:
    """Let pytest, if it is there, rewrite the asserts of the suite before that is imported."""
    pytest = sys.modules.get("pytest")
    if pytest is not None and _SUITE not in sys.modules:
        pytest.register_assert_rewrite(_SUITE)


_explain_asserts()


def __getattr__(name: str) -> Any:
    """Import the tests when they are asked for: the rest of the kit needs no pytest."""
    if name != "StorageConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from mastra_storage.testing.suite import StorageConformance
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _NEEDED:
            raise
        exc.msg += "; the conformance kit needs: pip install 'mastra-storage[testing]'"
        raise
    return StorageConformance
