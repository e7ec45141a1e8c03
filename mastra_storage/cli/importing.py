"""`mastra-storage import`: JSON lines into a store."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from mastra_storage.cli.console import output, plural, progress
from mastra_storage.cli.exits import run
from mastra_storage.cli.options import Url
from mastra_storage.cli.transfer import Imported, import_lines
from mastra_storage.errors import InvalidArgumentError, NotFoundError
from mastra_storage.plugins import open_storage

__all__ = ["import_"]


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - reads stdin.")],
    url: Url,
    resource: Annotated[
        str, typer.Option(help="Whose the threads are, where the file does not say.")
    ] = "imported",
) -> None:
    """Store the conversations of a file: an export, or one chat a line.

    A chat line is {"thread_id": …, "messages": [{"role": …, "content": …}, …]}; its other members
    become the thread's metadata. What is stored already is left alone: repeating an import
    changes nothing, and goes on where an interrupted one stopped. A line that cannot be stored
    ends the import with its number; nothing of it is written, while the lines before it are.

    [dim]$[/] mastra-storage import chats.jsonl sqlite:///agent.db

    [dim]$[/] zcat backup.jsonl.gz | mastra-storage import - sqlite:///agent.db
    """
    done = run(
        _import(file, url, resource),
        on_interrupt="interrupted between two batches; repeat the command to go on",
    )
    changed = f"{plural(done.written, 'row')} written, {done.unchanged:,} there already"
    rows = f", {plural(done.rows, 'other row')}" if done.rows else ""
    output.print(
        f"{plural(done.threads, 'thread')}, {plural(done.messages, 'message')}{rows}: {changed}",
        highlight=False,
        soft_wrap=True,
    )


async def _import(file: str, url: str, resource: str) -> Imported:
    name = "stdin" if file == "-" else file
    with _reading(file) as lines, progress(name, total=_size(lines)) as bar:
        async with open_storage(url) as storage:
            return await import_lines(
                storage,
                lines,
                name=name,
                resource=resource,
                on_progress=lambda done: bar.update(
                    done.bytes, f"{done.threads:,} threads, {done.messages:,} messages"
                ),
            )


@contextmanager
def _reading(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        # A reader of its own: the interpreter cannot end while a thread waits in that of sys.stdin.
        yield open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
        return
    try:
        opened = Path(file).open("rb")  # noqa: SIM115  # closed below
    except FileNotFoundError as exc:
        raise NotFoundError(f"there is no file {file}") from exc
    except OSError as exc:
        raise InvalidArgumentError(f"cannot read {file}: {exc.strerror}") from exc
    with opened:
        yield opened


def _size(file: BinaryIO) -> int | None:
    """The length of a file, if it is known."""
    if not file.seekable():
        return None
    length = file.seek(0, 2)
    file.seek(0)
    return length
