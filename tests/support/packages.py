"""What a distribution imports, and when."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution

_LIST: str = """
import importlib, sys
for value in sys.argv[1:]:
    module, _, name = value.partition(":")
    getattr(importlib.import_module(module), name)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def imported_by_tables(name: str) -> set[str]:
    """The packages that are imported when the tables that a distribution names are loaded."""
    points = distribution(name).entry_points.select(group="mastra_storage.tables")
    values = [point.value for point in points]
    assert values
    done = subprocess.run(
        [sys.executable, "-c", _LIST, *values], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())
