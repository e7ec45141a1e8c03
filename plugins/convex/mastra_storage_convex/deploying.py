"""The Convex functions that this package ships, and how they get into a project.

`npx convex deploy` takes them from there; `verifying` asks a deployment whether it has them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from msgspec import Struct

__all__ = ["SCHEMA", "Plan", "copy", "differences", "plan_of", "shipped"]

SCHEMA = "schema.ts"

# What tells that a schema of somebody's own has our tables in it.
_MERGED = b"mastraTables"

# Convex takes a module of any of these; two of one name collide when it bundles them.
_SUFFIXES = (".ts", ".tsx", ".js", ".jsx", ".mjs")


class Plan(Struct):
    """What copying into a directory would do. Paths are below it, with `/`.

    - `new`: are not there.
    - `unchanged`: are there as they are shipped; line ends do not count.
    - `differing`: are there, and differ. With any of these nothing may be copied.
    - `schema`: the path of a schema of somebody's own, which stays as it is; None without one.
    - `merged`: whether that schema has our tables in it.
    """

    new: list[str]
    unchanged: list[str]
    differing: list[str]
    schema: str | None = None
    merged: bool = False


def shipped() -> dict[str, bytes]:
    """The text of every function file of this version, by its path in a Convex directory."""
    return dict(_below(resources.files("mastra_storage_convex") / "functions", ""))


def _below(directory: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _below(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(".ts"):
            yield path + entry.name, entry.read_bytes()


def plan_of(directory: Path) -> Plan:
    """What copying the functions into a directory would do; it need not be there.

    Raises `OSError` for a directory or file that cannot be read, or is not what it must be.
    """
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"{directory} is a file; name a directory, such as ./convex")
    plan = Plan([], [], [])
    for name, text in shipped().items():
        there = _there(directory, name)
        if there is None:
            plan.new.append(name)
        elif there.name == Path(name).name and _plain(_read(there)) == _plain(text):
            plan.unchanged.append(name)
        elif name == SCHEMA:
            plan.schema = there.name
            plan.merged = _MERGED in _read(there)
        else:
            plan.differing.append(there.relative_to(directory).as_posix())
    return plan


def copy(directory: Path, names: list[str]) -> None:
    """Write the named functions into a directory, which is made when it is not there.

    All of them or none: after an `OSError`, also for a file that has appeared since, what this
    call made is removed again. No file is ever overwritten.
    """
    files = shipped()
    made: list[Path] = []
    try:
        for name in names:
            path = directory / name
            missing = [parent for parent in path.parents if not parent.exists()]
            for parent in reversed(missing):
                parent.mkdir()
                made.append(parent)
            with path.open("xb") as file:
                made.append(path)
                file.write(files[name])
    except BaseException:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        raise


def differences(directory: Path, plan: Plan) -> Iterator[str]:
    """Lines of a unified diff, from the files that differ in a directory to the shipped ones."""
    files = shipped()
    yours: Mapping[str, str] = {_shipped_as(path): path for path in plan.differing}
    if plan.schema is not None:
        yours = {**yours, SCHEMA: plan.schema}
    for name, path in yours.items():
        yield from difflib.unified_diff(
            _lines(_read(directory / path)),
            _lines(files[name]),
            f"{directory.as_posix()}/{path}",
            f"shipped/{name}",
            lineterm="",
        )


def _there(directory: Path, name: str) -> Path | None:
    """The file that takes the place of a shipped one; the one of its own name first."""
    path = directory / name
    candidates = (path, *(path.with_suffix(suffix) for suffix in _SUFFIXES))
    return next((each for each in candidates if each.exists() or each.is_symlink()), None)


def _shipped_as(path: str) -> str:
    return Path(path).with_suffix(".ts").as_posix()


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; a file of that name is to be copied there")
    return path.read_bytes()


def _plain(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n")


def _lines(text: bytes) -> list[str]:
    return _plain(text).decode("utf-8", "replace").splitlines()
