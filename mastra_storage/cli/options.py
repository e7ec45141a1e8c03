"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "Limit", "Url"]

Url = Annotated[
    str,
    typer.Argument(
        metavar="URL", help="The store: sqlite:///agent.db, cloudflare://ACCOUNT, convex://HOST."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines of whole records on stdout.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
