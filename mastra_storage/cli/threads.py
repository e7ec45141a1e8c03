"""`mastra-storage threads`: the conversations of a store."""

from __future__ import annotations

from typing import Annotated

import typer

from mastra_storage.cli.console import cropped, print_listing, share, table, when
from mastra_storage.cli.exits import run
from mastra_storage.cli.options import AsJson, Limit, Url, open_existing
from mastra_storage.records import Page, Thread

__all__ = ["threads"]


def threads(
    url: Url,
    resource: Annotated[str | None, typer.Option(help="Only the threads of this one.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List threads, the last changed first.

    [dim]$[/] mastra-storage threads sqlite:///agent.db --resource user-1
    """
    page = run(_threads(url, resource, limit))
    print_listing(
        page.items,
        table("Threads", "thread", "resource", "title", "created (UTC)", "updated (UTC)"),
        lambda each: [
            cropped(each.id, style="bold"),
            cropped(each.resource_id),
            cropped(each.title),
            when(each.created_at),
            when(each.updated_at),
        ],
        noun="thread",
        footer=share(page, "thread"),
        as_json=as_json,
    )


async def _threads(url: str, resource: str | None, limit: int) -> Page[Thread]:
    async with open_existing(url) as storage:
        return await storage.list_threads(
            resource_id=resource, order_by="updated_at", per_page=limit
        )
