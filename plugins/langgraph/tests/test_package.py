"""What the distribution says of itself."""

from __future__ import annotations

import importlib
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import mastra_storage_langgraph
import pytest
from mastra_storage_langgraph import MastraSaver, MastraStore, tables
from packages import imported_by_tables

from mastra_storage import Table

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))


def test_the_public_names_are_these() -> None:
    assert mastra_storage_langgraph.__all__ == ["MastraSaver", "MastraStore"]
    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        _ = mastra_storage_langgraph.Other  # type: ignore[attr-defined]


def test_the_tables_are_loaded_without_the_runtime() -> None:
    imported = imported_by_tables("mastra-storage-langgraph")
    assert "mastra_storage_langgraph" in imported
    assert not imported & {"pydantic", "langchain_core", "langgraph"}


@pytest.mark.parametrize("kind", [MastraSaver, MastraStore])
def test_public_methods_say_what_they_do(kind: type) -> None:
    own = [one for one in kind.__mro__ if one.__module__.startswith("mastra_storage_langgraph")]
    for one in own:
        assert one.__doc__
        for name, method in vars(one).items():
            if callable(method) and not name.startswith("_"):
                assert method.__doc__, name


def test_every_table_is_named_for_copy_and_export() -> None:
    named = {
        point.name: point.load()
        for point in entry_points(group="mastra_storage.tables")
        if point.value.startswith("mastra_storage_langgraph")
    }
    module = importlib.import_module("mastra_storage_langgraph.tables")
    defined = {one.name: one for one in vars(module).values() if isinstance(one, Table)}
    assert named == defined
    assert set(tables.SAVER_TABLES) < set(defined.values())
    assert set(PROJECT["project"]["entry-points"]["mastra_storage.tables"]) == set(defined)


def test_types_are_shipped() -> None:
    assert (Path(mastra_storage_langgraph.__file__).parent / "py.typed").exists()
