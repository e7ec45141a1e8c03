"""`mastra-storage export`: a whole store as JSON lines."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from io import FileIO
from pathlib import Path
from secrets import token_hex
from stat import S_IMODE
from typing import Annotated

import typer

from mastra_storage.cli.console import plural, progress
from mastra_storage.cli.exits import run
from mastra_storage.cli.options import Url, open_existing, place_of
from mastra_storage.cli.transfer import Exported, export_lines
from mastra_storage.cli.transfer.blocking import in_thread
from mastra_storage.cli.transfer.encoding import BEGINNING, BEGINNING_BYTES
from mastra_storage.errors import InvalidArgumentError, NotFoundError

__all__ = ["export"]


def export(
    url: Url,
    file: Annotated[str, typer.Argument(metavar="FILE", help="- writes to stdout.")],
) -> None:
    """Write everything a store holds to a file: a whole backup, for people and tools to read.

    One thread a line with its messages, in the chat format; then a line for every other row.
    [bold]import[/] brings all of it back. The file appears when it is complete, in place of an
    earlier export, whose permissions it keeps; any other file that is there stays, and ends the
    command.

    [dim]$[/] mastra-storage export sqlite:///agent.db backup.jsonl

    [dim]$[/] mastra-storage export sqlite:///agent.db - | gzip > backup.jsonl.gz
    """
    done = run(_export(url, file), on_interrupt="interrupted; no file was written")
    rows = f", {plural(done.rows, 'other row')}" if done.rows else ""
    typer.echo(
        f"{plural(done.threads, 'thread')}, {plural(done.messages, 'message')}{rows}", err=True
    )


async def _export(url: str, file: str) -> Exported:
    storage = open_existing(url)
    if file != "-":
        _check_target(Path(file), place_of(storage))
    with progress("reading") as bar:
        async with storage, _writing(file) as lines:
            return await export_lines(
                storage,
                lines,
                on_progress=lambda done: bar.update(
                    0,
                    f"{done.threads:,} threads, {done.messages:,} messages, {done.rows:,} rows",
                ),
            )


def _check_target(file: Path, store: Path | None) -> None:
    """Refuse to write over the store itself, or over what is not an earlier export."""
    if store is not None and _is_of(file, store):
        raise InvalidArgumentError(f"{file} is a file of the store itself; choose another name")
    if not file.is_file():
        return
    with file.open("rb") as there:
        start = there.read(BEGINNING_BYTES)
    if start and not BEGINNING.match(start):
        raise InvalidArgumentError(
            f"{file} is there and is not an export; remove it, or choose another name"
        )


def _is_of(file: Path, store: Path) -> bool:
    """Whether a file is that of a store, in its directory, or one that SQLite has beside it."""
    store, file = store.resolve(), file.resolve()
    if store.exists() and file.exists() and store.samefile(file):  # under another name
        return True
    beside = [store.with_name(store.name + end) for end in ("", "-wal", "-shm", "-journal")]
    return file in beside or store in file.parents


@asynccontextmanager
async def _writing(file: str) -> AsyncIterator[FileIO]:
    """A file that takes its name when all is written; or stdout.

    None has a buffer, whose lock would be held by a thread that hangs in it.
    """
    path = Path(file)
    if "://" in file:
        raise InvalidArgumentError("an export is written into a file, or to - for stdout, no URL")
    if file == "-":
        with _stdout() as opened:
            yield opened
    elif _is_special(path):
        with await in_thread(lambda: path.open("wb", buffering=0)) as opened:
            yield opened
    else:
        with _part_of(path) as opened:
            yield opened
            await in_thread(lambda: os.fsync(opened.fileno()))


def _stdout() -> FileIO:
    if sys.stdout is None:
        raise InvalidArgumentError("stdout is closed")
    return open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)


def _is_special(path: Path) -> bool:
    """Whether it is a device or a pipe, which is written into as it is."""
    return path.exists() and not path.is_file()


@contextmanager
def _part_of(path: Path) -> Iterator[FileIO]:
    """A file beside `path` that takes its name, and has its permissions, in the end."""
    if not path.parent.is_dir():
        raise NotFoundError(f"the directory {path.parent} does not exist")
    target = path.resolve()
    part = target.with_name(f"{target.name}.{token_hex(4)}.part")
    try:
        with part.open("xb", buffering=0) as opened:
            if target.exists():
                part.chmod(S_IMODE(target.stat().st_mode))
            yield opened
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
