"""Where commands write: results to stdout, progress to stderr, nothing that acts on a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from mastra_storage.records import Page

__all__ = [
    "Bar",
    "brief",
    "cropped",
    "errors",
    "output",
    "plural",
    "print_json",
    "print_listing",
    "progress",
    "share",
    "shown",
    "table",
    "when",
]

T = TypeVar("T")

output = Console()
errors = Console(stderr=True)

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def shown(value: Any, *, style: str = "") -> Text:
    """Text that somebody wrote, without markup, and without characters that steer a terminal."""
    return Text(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(value)), style=style)


def cropped(value: Any, *, style: str = "") -> Text:
    """What `shown` gives, on one line of a table, cut where the column ends."""
    text = shown(" ".join(str(value).split()), style=style)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def brief(value: Any) -> Text:
    """A free-form value in a table: text as it is, else JSON, and nothing for what is empty."""
    if isinstance(value, str):
        return cropped(value)
    return cropped("" if value in (None, {}, []) else msgspec.json.encode(value).decode())


def when(time: datetime | None) -> Text:
    """A time to the second, in UTC, never cut."""
    return Text("" if time is None else f"{time:%Y-%m-%d %H:%M:%S}")


def plural(count: int, noun: str) -> str:
    """A count with its noun: 1 thread, 2,000 threads."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def print_json(values: Iterable[Any]) -> None:
    """JSON lines on stdout; records with camelCase members."""
    for value in values:
        typer.echo(msgspec.json.encode(value))


def table(title: str, *columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table for results; the columns named in `right` hold numbers.

    Columns whose name ends with "(UTC)" hold times, which keep their width.
    """
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold cyan")
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column.endswith("(UTC)"),
        )
    return made


def print_listing(
    items: Sequence[T],
    made: Table,
    cells: Callable[[T], Iterable[Text]],
    *,
    noun: str,
    footer: str,
    as_json: bool,
) -> None:
    """Records as JSON lines, or as the rows of a table, with a line below it."""
    if as_json:
        print_json(items)
        return
    if not items:
        output.print(f"no {noun}s", style="dim")
        return
    for item in items:
        made.add_row(*cells(item))
    output.print(made)
    output.print(footer, style="dim")


def share(page: Page[Any], noun: str) -> str:
    """How many there are on a page, and in all: 20 of 2,000 threads."""
    return f"{len(page):,} of {plural(page.total or 0, noun)}"


class Bar:
    """A progress bar; `update` takes how much is done, and what to say beside it."""

    def __init__(self, bar: Progress, *, total: int | None, label: str) -> None:
        self._bar = bar
        self._task = bar.add_task(label, total=total)

    def update(self, done: int, label: str, *, total: int | None = None) -> None:
        """Show how much is done; `total` when it has become known."""
        self._bar.update(self._task, completed=done, description=label)
        if total is not None:
            self._bar.update(self._task, total=total)


@contextmanager
def progress(label: str, *, total: int | None = None, counted: bool = False) -> Iterator[Bar]:
    """A progress bar on stderr, only while that is a terminal.

    `counted` shows "3/12" in place of a percentage.
    """
    share = MofNCompleteColumn() if counted else TaskProgressColumn(show_speed=False)
    columns = (
        SpinnerColumn(),
        BarColumn(),
        share,
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    bar = Progress(*columns, console=errors, transient=True)
    # One that is disabled writes an empty line all the same, before rich 15.
    with bar if errors.is_terminal else nullcontext():
        yield Bar(bar, total=total, label=label)
