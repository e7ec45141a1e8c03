"""The kit: on the typed tables, with all rows in `documents`, and with calls that fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from convex_server import ConvexServer
from convex_stores import convex_backend

from mastra_storage import Backend
from mastra_storage.testing import StorageConformance, isolated

CALLS_FAIL = [
    {"kind": "status", "status": 503, "probability": 0.05},
    {"kind": "drop", "when": "before", "probability": 0.03},
    {"kind": "drop", "when": "after", "match": "^mutation", "probability": 0.05},
    {"kind": "truncate", "match": "^query", "probability": 0.03},
]


class Kit(StorageConformance):
    machine_shrinks = False


@pytest.mark.once  # on the second Python the kit runs on SQLite and KV; what is Convex's has tests
class TestTypedTables(Kit):
    """All of the kit, as users have it: records in typed tables, other rows in `documents`."""

    @pytest.fixture
    def make_backend(self, convex: ConvexServer) -> Callable[[], Backend]:
        return lambda: convex_backend(convex)


@pytest.mark.once  # the kit's own tables are there in TestTypedTables too
class TestDocuments(Kit):
    """With every table under another name, so that all rows are in `documents`."""

    @pytest.fixture
    def make_backend(self, convex: ConvexServer) -> Callable[[], Backend]:
        return lambda: isolated(convex_backend(convex), "kit_")


@pytest.mark.once  # test_faults.py has what clients make of faults
class TestWithFaults(Kit):
    """The quick part of the kit, while calls fail by turns and replies get lost."""

    many = 120

    @pytest.fixture(autouse=True)
    def quick(self, request: pytest.FixtureRequest) -> None:
        if getattr(request.function, "kit_full", False):
            pytest.skip("runs without faults only")

    @pytest.fixture
    async def failing(self, convex: ConvexServer) -> ConvexServer:
        await convex.control(faults=CALLS_FAIL, seed=7)
        return convex

    @pytest.fixture
    def make_backend(self, failing: ConvexServer) -> Callable[[], Backend]:
        return lambda: convex_backend(failing)
