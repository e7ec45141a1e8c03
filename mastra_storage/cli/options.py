"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mastra_storage.errors import NotFoundError
from mastra_storage.plugins import open_storage
from mastra_storage.storage import Storage
from mastra_storage.storage._lifecycle import name_of

__all__ = ["AsJson", "Limit", "Url", "open_existing", "place_of"]

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="The store: sqlite:///agent.db, memory://, cloudflare://ACCOUNT, convex://HOST.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines of whole records on stdout.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]


def open_existing(url: str) -> Storage:
    """The storage of a URL, for commands that only read: a file is not made by looking at it."""
    storage = open_storage(url)
    path = place_of(storage)
    if path is not None and not path.exists():
        raise NotFoundError(f"there is no file {path}", backend=name_of(storage.backend))
    return storage


def place_of(storage: Storage) -> Path | None:
    """The file or directory that a backend says, as its `path`, it keeps rows in."""
    path = getattr(storage.backend, "path", None)
    return path if isinstance(path, Path) else None
