"""The command `mastra-storage-convex`: copies the functions, and checks what is deployed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from mastra_storage import (
    AuthenticationError,
    InvalidArgumentError,
    RateLimitedError,
    StorageError,
    UnavailableError,
)
from mastra_storage_convex.deploying import (
    Plan,
    copy,
    differences,
    functions_directory,
    is_named,
    plan_of,
)
from mastra_storage_convex.verifying import Check, State, checks_of, settings_for

__all__ = ["app", "main"]

FAILED, USAGE, REFUSED, UNAVAILABLE, INTERRUPTED = 1, 2, 4, 5, 130

# The first one that an error is an instance of decides.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (InvalidArgumentError, USAGE),
    (AuthenticationError, REFUSED),
    (RateLimitedError, UNAVAILABLE),
    (UnavailableError, UNAVAILABLE),
    (OSError, UNAVAILABLE),
)

_ABOUT = """
    Get the functions of mastra-storage into a Convex deployment.

    Convex runs functions of TypeScript beside the data; [bold]init[/] copies ours into your
    project, [cyan]npx convex deploy[/] sends them to the deployment, and [bold]verify[/] checks
    that they are there. All are internal: nobody calls them without the deploy key.
"""

_EPILOG = """
    [bold]Exit codes[/]  0 done · 1 a file differs, a check failed, or any other error ·
    2 wrong usage · 4 the key was refused · 5 unavailable (network, disk) · 130 interrupted
"""

# The first check that failed decides; any other than these is a plain failure.
_CODES_OF_CHECKS = {"server": UNAVAILABLE, "key": REFUSED}

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")

_STYLES = {State.OK: typer.colors.GREEN, State.FAILED: typer.colors.RED}


def _paragraphs(text: str) -> str:
    """A docstring with each paragraph on one line, for the terminal to wrap."""
    return "\n\n".join(" ".join(part.split()) for part in cleandoc(text).split("\n\n"))


app = typer.Typer(
    name="mastra-storage-convex",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mastra-storage-convex {version('mastra-storage-convex')}")
        raise typer.Exit


@app.callback(help=_paragraphs(_ABOUT), epilog=_paragraphs(_EPILOG))
def _before(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, and stop."
        ),
    ] = False,
) -> None:
    """What comes before any command."""


_INIT = """
    Copy the functions into a Convex project's directory, and say what comes next.

    A file that is there is never overwritten: when one of ours would take its place, nothing is
    copied at all. A [cyan]schema.ts[/] of your own stays; how to add our tables to it is shown.
    Repeating it is safe, and copies what is missing.

    [dim]$[/] mastra-storage-convex init

    [dim]$[/] mastra-storage-convex init web/convex --diff
"""


@app.command(help=_paragraphs(_INIT))
def init(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="Where the project's functions are; else where convex.json says, or ./convex.",
        ),
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show how files there differ from ours; copy nothing.")
    ] = False,
) -> None:
    """Copy the functions into a directory."""
    with _ending():
        directory = directory or functions_directory(Path())
        plan = plan_of(directory)
        if diff:
            lines = list(differences(directory, plan))
            typer.echo("\n".join(lines) if lines else f"Nothing in {directory} differs.")
            return
        if plan.differing:
            _fail(_what_differs(directory, plan), FAILED)
        copy(directory, plan.new)
    _say_what_was_done(directory, plan)


def _what_differs(directory: Path, plan: Plan) -> str:
    differ = "differs" if len(plan.differing) == 1 else "differ"
    return (
        f"nothing was copied: {', '.join(plan.differing)} in {directory} {differ} from what this "
        f"version ships. See how: mastra-storage-convex init {directory} --diff. Files of an "
        "earlier version: remove them, and repeat. Files of your own: give them other names, as "
        "Convex has one function of a name"
    )


def _say_what_was_done(directory: Path, plan: Plan) -> None:
    typer.secho(f"{directory.as_posix()}/", bold=True)
    for names, state, color in (
        (plan.new, "created", typer.colors.GREEN),
        (plan.unchanged, "unchanged", None),
        ([plan.schema] if plan.schema else [], "yours", typer.colors.YELLOW),
    ):
        for name in names:
            typer.echo(f"  {typer.style(f'{state:<9}', fg=color)}  {name}")
    if plan.schema and not plan.merged:
        typer.secho(f"\nAdd our tables to your {plan.schema}", bold=True)
        typer.echo(_MERGE)
    elif plan.schema:
        typer.echo(f"\nYour {plan.schema} has our tables already.")
    if plan.clashing:
        said = f"\nRename in it, as ours have these names: {', '.join(plan.clashing)}"
        typer.secho(said, fg=typer.colors.YELLOW)
    typer.secho("\nNext", bold=True)
    for number, (what, command) in enumerate(_next_steps(directory), 1):
        typer.echo(f"  {number}. {what}")
        if command:
            typer.secho(f"     {command}", fg=typer.colors.CYAN)


_MERGE = """
  import { defineSchema } from "convex/server";
  import { mastraTables } from "./mastra/tables";

  export default defineSchema({
    ...mastraTables,
    // your own tables, under other names than ours
  });"""


def _next_steps(directory: Path) -> Iterator[tuple[str, str]]:
    """What to do, and the command for it."""
    directory = directory.resolve()
    project = _project_of(directory)
    if not (project / "node_modules" / "convex").exists():
        yield f"In {_shown(project)}, once:", "npm install convex"
    if not is_named(project, directory):
        named = directory.relative_to(project).as_posix()
        yield f'In convex.json there: {{ "functions": "{named}/" }}', ""
    yield (
        "Deploy for development (npx convex deploy: to the deployment of the key, or production):",
        "npx convex dev --once",
    )
    yield (
        "Make a deploy key, for servers alone (self-hosted: generate_admin_key.sh):",
        "npx convex deployment token create agent",
    )
    yield (
        "Say where it is (self-hosted: CONVEX_SELF_HOSTED_URL and CONVEX_SELF_HOSTED_ADMIN_KEY):",
        "export CONVEX_URL=https://HOST CONVEX_DEPLOY_KEY='KEY'; mastra-storage-convex verify",
    )


def _project_of(directory: Path) -> Path:
    """Where `npx convex` is called for a directory: the nearest with its files, up to here."""
    here = Path.cwd()
    for parent in directory.parents if directory.is_relative_to(here) else ():
        if not parent.is_relative_to(here):
            break
        if any((parent / name).exists() for name in ("convex.json", "package.json")):
            return parent
    return directory.parent


_VERIFY = """
    Compare what a deployment has with what this version needs, and say what to do.

    Reads only: is the server there, is the key accepted, do the functions answer, are they of
    the version this one needs. Without URL or key, they come from the environment as for
    [cyan]ConvexStorage[/]: CONVEX_URL and CONVEX_DEPLOY_KEY, or CONVEX_SELF_HOSTED_URL and
    CONVEX_SELF_HOSTED_ADMIN_KEY.

    [dim]$[/] mastra-storage-convex verify

    [dim]$[/] mastra-storage-convex verify convex://cheerful-lemur-123.convex.cloud

    [dim]$[/] mastra-storage-convex verify convex+http://127.0.0.1:3210 --json
"""


@app.command(help=_paragraphs(_VERIFY))
def verify(
    url: Annotated[
        str | None,
        typer.Argument(metavar="URL", help="convex://HOST, convex+http://HOST:PORT, https://…"),
    ] = None,
    deploy_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Better in the environment: others see a command's arguments."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines on stdout, one a check.")
    ] = False,
) -> None:
    """Compare what is deployed with what this version needs."""
    with _ending():
        checks = asyncio.run(checks_of(settings_for(url, deploy_key)))
    if as_json:
        for check in checks:
            typer.echo(msgspec.json.encode(check))
    else:
        _show(checks)
    failed = next((check.name for check in checks if check.state is State.FAILED), None)
    if failed is not None:
        raise typer.Exit(_CODES_OF_CHECKS.get(failed, FAILED))


def _show(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        state = typer.style(f"{check.state.value:<8}", fg=_STYLES.get(check.state), bold=True)
        typer.echo(f"{state}  {check.name:<{width}}  {_shown(check.found)}")
        if check.todo:
            typer.echo(f"{'':<8}  {'':<{width}}  → {_shown(check.todo)}")


@contextmanager
def _ending() -> Iterator[None]:
    """Errors within end the process with one line and an exit code; Ctrl-C does too."""
    try:
        yield
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except (StorageError, OSError) as exc:
        code = next((code for kind, code in _CODES if isinstance(exc, kind)), FAILED)
        _fail(str(exc), code)


def _fail(message: str, code: int) -> NoReturn:
    """End the command with one line on stderr."""
    typer.echo(f"mastra-storage-convex: {_shown(message)}", err=True)
    raise typer.Exit(code)


def _shown(text: object) -> str:
    """Text on one line, without characters that steer a terminal."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", " ".join(str(text).split()))
