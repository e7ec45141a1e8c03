"""On which backends a test of an adapter runs, where not on all; servers are for one Python.

Workers KV takes a second between two writes of one key, and so between a write and the end of a
store: what another test shows there already is left out.
"""

from __future__ import annotations

import pytest

_KV = pytest.param("cloudflare", marks=pytest.mark.once)
_CONVEX = pytest.param("convex", marks=pytest.mark.once)

on_sqlite = pytest.mark.parametrize("backend", ["sqlite"])
on_sqlite_and_kv = pytest.mark.parametrize("backend", ["sqlite", _KV])
on_sqlite_and_convex = pytest.mark.parametrize("backend", ["sqlite", _CONVEX])
