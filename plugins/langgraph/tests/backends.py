"""On which backends a test runs, where not on all.

Workers KV takes a second between two writes of one key, and so between a write and the end of a
store; what another test shows there already is left out.
"""

from __future__ import annotations

import pytest

only_sqlite = pytest.mark.parametrize("backend", ["sqlite"])
without_kv = pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("convex", marks=pytest.mark.once)]
)
