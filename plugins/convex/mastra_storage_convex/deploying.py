"""The Convex functions that this package ships, and how they get into a project.

`npx convex deploy` takes them from there; `verifying` asks a deployment whether it has them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import msgspec
from msgspec import Struct

from mastra_storage import InvalidArgumentError

__all__ = [
    "SCHEMA",
    "Plan",
    "copy",
    "differences",
    "functions_directory",
    "is_named",
    "plan_of",
    "shipped",
]

SCHEMA = "schema.ts"

# What tells that a schema of somebody's own has our tables in it.
_MERGED = b"...mastraTables"

# Convex takes a module of any of these; two of one name collide when it bundles them.
_SUFFIXES = (".ts", ".tsx", ".js", ".jsx", ".mjs")


class _Settings(Struct):
    """What matters here of a `convex.json`."""

    functions: str | None = None


class Plan(Struct):
    """What copying into a directory would do. Paths are below it, with `/`.

    - `new`: are not there.
    - `unchanged`: are there as they are shipped; line ends do not count.
    - `differing`: are there, and differ. With any of these nothing may be copied.
    - `schema`: the path of a schema of somebody's own, which stays as it is; None without one.
    - `merged`: whether that schema has our tables in it.
    - `clashing`: tables that it defines under names of ours.
    """

    new: list[str]
    unchanged: list[str]
    differing: list[str]
    schema: str | None = None
    merged: bool = False
    clashing: list[str] = []


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

    Raises `InvalidArgumentError` for what is no directory, and `OSError` for a directory or file
    that cannot be read.
    """
    if directory.exists() and not directory.is_dir():
        raise InvalidArgumentError(f"{directory} is a file; name a directory, such as ./convex")
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
            plan.clashing = [table for table in _tables(_read(there)) if table in _our_tables()]
        else:
            plan.differing.append(there.relative_to(directory).as_posix())
    return plan


def functions_directory(project: Path) -> Path:
    """Where a project's functions are: `convex`, or what its `convex.json` says.

    Raises `InvalidArgumentError` for a `convex.json` that cannot be read, and inside of such a
    directory, where another would be made.
    """
    _refuse_inside(project)
    named = _named_in(project)
    return Path("convex" if named is None else named)


def is_named(project: Path, directory: Path) -> bool:
    """Whether `npx convex` in a project finds its functions in this directory."""
    return (project / (_named_in(project) or "convex")).resolve() == directory.resolve()


def _named_in(project: Path) -> str | None:
    """The directory of functions that a project's `convex.json` names."""
    path = project / "convex.json"
    if not path.exists():
        return None
    try:
        named = msgspec.json.decode(path.read_bytes(), type=_Settings).functions
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidArgumentError(
            f"{path} is not the JSON that Convex expects ({exc}); mend it, or name the directory: "
            "mastra-storage-convex init DIR"
        ) from exc
    return named


def _refuse_inside(directory: Path) -> None:
    schemas = (directory / f"schema{suffix}" for suffix in _SUFFIXES)
    has_schema = any(path.is_file() and b"convex/server" in _read(path) for path in schemas)
    above = directory.absolute().parents
    if (
        (directory / "_generated").is_dir()
        or has_schema
        or any(_named_in(project) is not None and is_named(project, directory) for project in above)
    ):
        raise InvalidArgumentError(
            "this is a directory of Convex functions itself; to copy ours here: "
            "mastra-storage-convex init ."
        )


def _our_tables() -> set[str]:
    return set(_tables(shipped()["mastra/tables.ts"]))


def _tables(text: bytes) -> list[str]:
    """The tables that a schema defines, as far as they are one a line."""
    lines = "\n".join(_lines(text))
    return re.findall(r"^\s*[\"']?(\w+)[\"']?\s*:\s*defineTable\(", lines, re.MULTILINE)


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
