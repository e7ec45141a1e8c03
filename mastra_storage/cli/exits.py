"""How a command ends: exit codes, one clear line for an error, no traceback, no secret."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import typer

from mastra_storage.errors import (
    AuthenticationError,
    ConflictError,
    InvalidArgumentError,
    InvalidRecordError,
    NotFoundError,
    PartialWriteError,
    PluginError,
    RateLimitedError,
    StorageError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)

__all__ = ["DIFFERENT", "EPILOG", "FAILED", "ending", "fail", "run", "without_secrets"]

T = TypeVar("T")

FAILED, USAGE, NOT_FOUND, REFUSED, UNAVAILABLE, DIFFERENT = 1, 2, 3, 4, 5, 6
INTERRUPTED = 130

EPILOG = """
[bold]Exit codes[/bold]  0 done · 1 a check failed, or any other error · 2 wrong usage ·
3 not found (thread, trace, resource, file, directory) ·
4 refused (key, record, size, not supported) ·
5 unavailable (network, disk, rate limit, a plugin missing or broken) · 6 a copy that differs ·
130 interrupted (Ctrl-C, SIGTERM)
"""

# The first one that an error is an instance of decides.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (InvalidRecordError, REFUSED),
    (InvalidArgumentError, USAGE),
    (NotFoundError, NOT_FOUND),
    (AuthenticationError, REFUSED),
    (ConflictError, REFUSED),
    (TooLargeError, REFUSED),
    (UnsupportedError, REFUSED),
    (RateLimitedError, UNAVAILABLE),
    (UnavailableError, UNAVAILABLE),
    (PartialWriteError, UNAVAILABLE),
    (PluginError, UNAVAILABLE),
    (OSError, UNAVAILABLE),
)

_SCHEME = r"(?P<start>[a-z][a-z0-9+.-]*://"
_USER = re.compile(_SCHEME + r")[^\s/?#@][^\s?#@]*@", re.IGNORECASE)
# Up to the next space: a secret may hold a quote. One that ends the text around it stays.
_QUERY = re.compile(_SCHEME + r"[^\s?'\"]*)\?\S*?(?=['\"]?[,;:.)\]]*(?:\s|$))", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """The text with the user and the query of every URL in it left out."""
    return _QUERY.sub(r"\g<start>", _USER.sub(r"\g<start>", text))


def run(work: Coroutine[Any, Any, T], *, on_interrupt: str = "interrupted") -> T:
    """Run a command's coroutine, ended as `ending` says."""
    with ending(on_interrupt):
        return asyncio.run(work)


@contextmanager
def ending(on_interrupt: str) -> Iterator[None]:
    """Errors within end the process with one line and an exit code; Ctrl-C does too."""
    try:
        yield
    except KeyboardInterrupt:
        fail(on_interrupt, INTERRUPTED)
    except BrokenPipeError:  # whoever read our output has enough
        _stdout_fails()
        raise typer.Exit(FAILED) from None
    except OSError as exc:
        fail(f"cannot write to stdout: {exc}" if _stdout_fails() else str(exc), code_of(exc))
    except StorageError as exc:
        fail(str(exc), code_of(exc))


def _stdout_fails() -> bool:
    """Whether stdout takes nothing; then it is let go, for the interpreter to end without it."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def code_of(error: Exception) -> int:
    """The exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def fail(message: str, code: int) -> NoReturn:
    """End the command with one line on stderr."""
    line = " ".join(without_secrets(message).split())
    typer.echo(f"mastra-storage: {line}", err=True)
    raise typer.Exit(code)
