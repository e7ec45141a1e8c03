"""The public surface: exact `__all__`s, documented names, a light import."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import mastra_storage

HEAVY = {
    "aiohttp",
    "convex",
    "hypothesis",
    "importlib.metadata",
    "pydantic",
    "pytest",
    "rich",
    "sqlite3",
    "typer",
}


def public_modules() -> list[str]:
    """Every module whose path has no private part, the package itself first."""
    found = pkgutil.walk_packages(mastra_storage.__path__, "mastra_storage.")
    names = ["mastra_storage", *[module.name for module in found]]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def defined_names(module: ModuleType) -> set[str]:
    """The public names that a module's own source defines (imports are not definitions)."""
    names: set[str] = set()
    for node in ast.parse(Path(str(module.__file__)).read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return {name for name in names if not name.startswith("_")}


def public_objects() -> Iterator[tuple[str, object]]:
    """Every public class and function, with the public methods each class itself defines."""
    for module_name in public_modules():
        module = importlib.import_module(module_name)
        yield module_name, module
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if getattr(thing, "__module__", None) != module_name:
                continue
            if inspect.isclass(thing):
                yield f"{module_name}.{name}", thing
                for attribute, member in vars(thing).items():
                    if not attribute.startswith("_") and (
                        inspect.isfunction(member) or isinstance(member, property | classmethod)
                    ):
                        yield f"{module_name}.{name}.{attribute}", getattr(thing, attribute)
            elif inspect.isfunction(thing):
                yield f"{module_name}.{name}", thing


def test_the_package_exports_what_all_names_and_nothing_else() -> None:
    exported = {
        name
        for name, thing in vars(mastra_storage).items()
        if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert exported == set(mastra_storage.__all__)


@pytest.mark.parametrize("module_name", public_modules())
def test_all_is_sorted_unique_and_there(module_name: str) -> None:
    module = importlib.import_module(module_name)
    names = list(getattr(module, "__all__", []))
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []


def test_every_export_is_public_in_the_one_module_that_defines_it() -> None:
    for name in mastra_storage.__all__:
        homes = [
            module.__name__
            for module in map(importlib.import_module, public_modules()[1:])
            if name in getattr(module, "__all__", ()) and name in defined_names(module)
        ]
        assert len(homes) == 1, f"{name} is defined in {homes}"


def test_the_contract_of_the_package_is_complete() -> None:
    """What `backend` and `errors` define for others, the package exports."""
    for module_name in ("backend", "errors"):
        module = importlib.import_module(f"mastra_storage.{module_name}")
        assert set(module.__all__) <= set(mastra_storage.__all__)
        assert set(module.__all__) == defined_names(module)


def test_public_names_are_documented() -> None:
    # getdoc follows inheritance: the verbs of a backend are documented by the protocol.
    undocumented = [name for name, thing in public_objects() if not inspect.getdoc(thing)]
    assert undocumented == []


def test_import_is_light() -> None:
    loaded = output_of(
        "import sys; before = set(sys.modules); import mastra_storage; "
        "print(*set(sys.modules) - before)"
    )
    assert "mastra_storage.storage" in loaded
    assert HEAVY.isdisjoint(loaded)


def test_opening_one_backend_imports_no_other() -> None:
    loaded = output_of(
        "import sys, mastra_storage; mastra_storage.open_storage('memory://'); "
        "print(*[name for name in sys.modules if name.startswith('mastra_storage.backends.')"
        " and '._' not in name])"
    )
    assert loaded == ["mastra_storage.backends.memory"]


def output_of(program: str) -> list[str]:
    """The words that a Python of its own prints."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
