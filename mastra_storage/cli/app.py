"""All commands, one module each."""

from __future__ import annotations

import sys
from importlib.metadata import version
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from mastra_storage.cli import (
    check,
    copying,
    demo,
    evals,
    exporting,
    importing,
    messages,
    plugins,
    resources,
    runs,
    threads,
    traces,
)
from mastra_storage.cli.exits import EPILOG, ending, without_secrets

__all__ = ["app"]

# The base of all wrong usage, which typer does not export under a name of its own.
_UsageError: Any = typer.BadParameter.__base__

_START, _LOOK, _MOVE = "Start", "Look", "Move"


class _Group(TyperGroup):
    """As `_Command`, for a URL that stands where a command should."""

    def resolve_command(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().resolve_command(*args, **extra)
        except _UsageError as exc:
            exc.message = without_secrets(exc.message)
            raise


class _Command(TyperCommand):
    """A command that ends as `ending` says, and repeats no secret of a URL that was given."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().make_context(*args, **extra)
        except _UsageError as exc:
            exc.message = without_secrets(exc.message)
            raise

    def invoke(self, ctx: Any) -> Any:
        with ending("interrupted"):
            done = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return done


app = typer.Typer(
    name="mastra-storage",
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _paragraphs(text: str) -> str:
    """A docstring or epilog with each paragraph on one line, for the terminal to wrap."""
    return "\n\n".join(" ".join(part.split()) for part in cleandoc(text).split("\n\n"))


for _name, _command, _panel in (
    ("demo", demo.demo, _START),
    ("plugins", plugins.plugins, _START),
    ("check", check.check, _START),
    ("threads", threads.threads, _LOOK),
    ("messages", messages.messages, _LOOK),
    ("runs", runs.runs, _LOOK),
    ("traces", traces.traces, _LOOK),
    ("evals", evals.evals, _LOOK),
    ("resources", resources.resources, _LOOK),
    ("import", importing.import_, _MOVE),
    ("export", exporting.export, _MOVE),
    ("copy", copying.copy, _MOVE),
):
    app.command(
        _name,
        cls=_Command,
        help=_paragraphs(_command.__doc__ or ""),
        rich_help_panel=_panel,
    )(_command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mastra-storage {version('mastra-storage')}")
        raise typer.Exit


_ABOUT = """
    Threads, messages, workflow runs, traces and evals of agents, in any store.

    A store is a URL: [cyan]sqlite:///agent.db[/] (a file), [cyan]memory://[/] (nothing is kept),
    [cyan]cloudflare://ACCOUNT[/], [cyan]convex://HOST[/] (plugins). Begin with
    [bold]mastra-storage demo[/].
"""


@app.callback(help=_paragraphs(_ABOUT), epilog=_paragraphs(EPILOG))
def main(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, and stop."
        ),
    ] = False,
) -> None:
    """What comes before any command."""
