"""What the distribution says of itself."""

from __future__ import annotations

from importlib.metadata import entry_points

import mastra_storage_strands
import pytest
from mastra_storage_strands import tables
from packages import imported_by_tables

from mastra_storage import Table


def test_the_public_names_are_these() -> None:
    assert mastra_storage_strands.__all__ == [
        "MastraStrandsRepository",
        "MastraStrandsSessionManager",
        "MastraStrandsStorage",
    ]
    for name in mastra_storage_strands.__all__:
        assert getattr(mastra_storage_strands, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        _ = mastra_storage_strands.Other  # type: ignore[attr-defined]


def test_the_tables_are_loaded_without_the_runtime() -> None:
    imported = imported_by_tables("mastra-storage-strands")
    assert "mastra_storage_strands" in imported
    assert not imported & {"pydantic", "strands"}


def test_every_table_is_named_for_copy_and_export() -> None:
    points = entry_points(group="mastra_storage.tables")
    own = [point.load() for point in points if "strands" in point.value]
    assert {table.name for table in own} == {
        one.name for one in vars(tables).values() if isinstance(one, Table)
    }
