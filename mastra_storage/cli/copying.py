"""`mastra-storage copy`: all rows of one store into another."""

from __future__ import annotations

from typing import Annotated

import typer

from mastra_storage.cli.console import output, plural, progress, table
from mastra_storage.cli.exits import DIFFERENT, fail, run
from mastra_storage.cli.options import open_existing, place_of
from mastra_storage.cli.transfer import Comparison, Copied, copy_rows
from mastra_storage.errors import InvalidArgumentError
from mastra_storage.plugins import open_storage
from mastra_storage.storage import Storage

__all__ = ["copy"]


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE_URL", help="The store to read.")],
    target: Annotated[str, typer.Argument(metavar="TARGET_URL", help="The store to write.")],
) -> None:
    """Copy a store to another, of whatever kind: all tables, those of adapters too.

    Rows that are equal already are not written again, so that a copy goes on where an
    interrupted one stopped. At the end both stores are read and compared. Nothing is deleted:
    rows that only the target has stay, and show as a difference.

    [dim]$[/] mastra-storage copy sqlite:///agent.db cloudflare://ACCOUNT
    """
    compared = run(_copy(source, target), on_interrupt="interrupted; repeat the command to go on")
    result = table("Rows", "table", "source", "target", "written", "digest", "")
    for column in result.columns[1:4]:
        column.justify = "right"
    empty = [each for each in compared if each.source.count == each.target.count == 0]
    for each in (each for each in compared if each not in empty):
        result.add_row(
            each.table,
            f"{each.source.count:,}",
            f"{each.target.count:,}",
            f"{each.written:,}",
            each.source.text[:12]
            if each.equal
            else f"{each.source.text[:12]} ≠ {each.target.text[:12]}",
            "[green]equal[/]" if each.equal else "[red]different[/]",
        )
    output.print(result)
    if empty:
        output.print(f"{plural(len(empty), 'more table')}, empty in both")
    different = [each.table for each in compared if not each.equal]
    if different:
        fail(
            f"the stores differ in {', '.join(different)}: the target holds rows of its own, one "
            "of the stores was written to meanwhile, or the target keeps less of a row, as the "
            "layout of TypeScript does (its times are milliseconds); repeat the command, or copy "
            "to an empty store of this library's layout",
            DIFFERENT,
        )


async def _copy(source: str, target: str) -> list[Comparison]:
    reading, writing = _stores(source, target)
    async with reading, writing:
        with progress("reading") as bar:

            def show(done: Copied) -> None:
                label = f"{done.table}: {done.written:,} written"
                bar.update(done.compared, label, total=done.total)

            return await copy_rows(reading, writing, on_progress=show)


def _stores(source: str, target: str) -> tuple[Storage, Storage]:
    """The two stores, which are not one, as far as URLs and files tell."""
    if source != target:
        reading, writing = open_existing(source), open_storage(target)
        one, other = place_of(reading), place_of(writing)
        if one is None or other is None or not other.exists() or not one.samefile(other):
            return reading, writing
    raise InvalidArgumentError("SOURCE_URL and TARGET_URL are the same store")
