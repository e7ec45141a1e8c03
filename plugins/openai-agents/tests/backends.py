"""On which backends a test runs, where not on all; what needs a server runs on one Python."""

from __future__ import annotations

import pytest

_KV = pytest.param("cloudflare", marks=pytest.mark.once)
_CONVEX = pytest.param("convex", marks=pytest.mark.once)

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"])
on_sqlite_and_kv = pytest.mark.parametrize("backend", ["sqlite", _KV])
on_sqlite_and_convex = pytest.mark.parametrize("backend", ["sqlite", _CONVEX])
