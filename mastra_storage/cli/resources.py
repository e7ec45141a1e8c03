"""`mastra-storage resources`: what is kept of users and tenants across threads."""

from __future__ import annotations

from typing import Annotated

import typer

from mastra_storage.backend import Query
from mastra_storage.cli.console import brief, cropped, plural, print_listing, table, when
from mastra_storage.cli.exits import run
from mastra_storage.cli.options import AsJson, Limit, Url, open_existing
from mastra_storage.errors import NotFoundError
from mastra_storage.records import Resource
from mastra_storage.schema import RESOURCES

__all__ = ["resources"]


def resources(
    url: Url,
    resource_id: Annotated[
        str | None, typer.Argument(metavar="[RESOURCE_ID]", help="Only this one.")
    ] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List resources with their working memory, the newest made first.

    [dim]$[/] mastra-storage resources sqlite:///agent.db

    [dim]$[/] mastra-storage resources sqlite:///agent.db user-1 --json | jq .workingMemory
    """
    found = run(_resources(url, resource_id, limit))
    more = "the newest " if resource_id is None and len(found) == limit else ""
    print_listing(
        found,
        table(
            "Resources", "resource", "working memory", "metadata", "created (UTC)", "updated (UTC)"
        ),
        lambda each: [
            cropped(each.id, style="bold"),
            brief(each.working_memory),
            brief(each.metadata),
            when(each.created_at),
            when(each.updated_at),
        ],
        noun="resource",
        footer=f"{more}{plural(len(found), 'resource')}",
        as_json=as_json,
    )


async def _resources(url: str, resource_id: str | None, limit: int) -> list[Resource]:
    async with open_existing(url) as storage:
        if resource_id is None:
            newest = Query(table=RESOURCES, descending=True, limit=limit)
            return RESOURCES.records_of(await storage.find_rows(newest))
        found = await storage.get_resource(resource_id)
        if found is None:
            raise NotFoundError(f"there is no resource {resource_id!r}")
        return [found]
