"""`mastra-storage runs`: workflow runs and how they ended."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from mastra_storage.cli.console import cropped, print_listing, share, table, when
from mastra_storage.cli.exits import run
from mastra_storage.cli.options import AsJson, Limit, Url, open_existing
from mastra_storage.records import Page, WorkflowRun

__all__ = ["runs"]

_STYLES = {"success": "green", "failed": "red", "running": "cyan", "suspended": "yellow"}


def runs(
    url: Url,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs of this status.")] = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List workflow runs, newest first.

    [dim]$[/] mastra-storage runs sqlite:///agent.db --status failed
    """
    page = run(_runs(url, workflow, status, limit))
    print_listing(
        page.items,
        table("Workflow runs", "workflow", "run", "status", "created (UTC)", "updated (UTC)"),
        lambda each: [
            cropped(each.workflow_name, style="bold"),
            cropped(each.run_id),
            _status(each),
            when(each.created_at),
            when(each.updated_at),
        ],
        noun="run",
        footer=share(page, "run"),
        as_json=as_json,
    )


def _status(run: WorkflowRun) -> Text:
    return cropped(run.status or "", style=_STYLES.get(run.status or "", ""))


async def _runs(
    url: str, workflow: str | None, status: str | None, limit: int
) -> Page[WorkflowRun]:
    async with open_existing(url) as storage:
        return await storage.get_workflow_runs(
            workflow_name=workflow, status=status, per_page=limit
        )
