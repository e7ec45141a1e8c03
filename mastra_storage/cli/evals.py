"""`mastra-storage evals`: what metrics said of answers."""

from __future__ import annotations

from typing import Annotated

import typer

from mastra_storage.cli.console import brief, cropped, print_listing, share, table, when
from mastra_storage.cli.exits import run
from mastra_storage.cli.options import AsJson, Limit, Url, open_existing
from mastra_storage.records import Eval, Page

__all__ = ["evals"]


def evals(
    url: Url,
    agent: Annotated[str | None, typer.Option(help="Only evals of this agent.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List evals, newest first.

    [dim]$[/] mastra-storage evals sqlite:///agent.db --agent weather --json | jq .result
    """
    page = run(_evals(url, agent, limit))
    print_listing(
        page.items,
        table("Evals", "agent", "metric", "result", "output", "created (UTC)"),
        lambda each: [
            cropped(each.agent_name, style="bold"),
            cropped(each.metric_name or ""),
            brief(each.result),
            brief(each.output),
            when(each.created_at),
        ],
        noun="eval",
        footer=share(page, "eval"),
        as_json=as_json,
    )


async def _evals(url: str, agent: str | None, limit: int) -> Page[Eval]:
    async with open_existing(url) as storage:
        return await storage.get_evals(agent_name=agent, per_page=limit)
