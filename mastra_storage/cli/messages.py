"""`mastra-storage messages`: a conversation, as people read it."""

from __future__ import annotations

from typing import Annotated

import typer

from mastra_storage.cli.console import output, plural, print_json, shown
from mastra_storage.cli.exits import run
from mastra_storage.cli.options import AsJson, Url, open_existing
from mastra_storage.cli.render import message_panel
from mastra_storage.errors import NotFoundError
from mastra_storage.records import Message, Thread

__all__ = ["messages"]


def messages(
    url: Url,
    thread_id: Annotated[str, typer.Argument(metavar="THREAD_ID", help="Which thread.")],
    last: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    whole: Annotated[bool, typer.Option("--whole", help="Do not cut long messages.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the newest messages of a thread, in order.

    [dim]$[/] mastra-storage messages sqlite:///agent.db thread-1 --last 5

    [dim]$[/] mastra-storage messages sqlite:///agent.db thread-1 --json | jq .content
    """
    thread, found = run(_messages(url, thread_id, last))
    if as_json:
        print_json(found)
        return
    for message in found:
        output.print(message_panel(message, whole=whole))
    count = f"the last {plural(len(found), 'message')} of" if found else "no messages in"
    output.print(shown(f"{count} {thread.id}", style="dim"))


async def _messages(url: str, thread_id: str, last: int) -> tuple[Thread, list[Message]]:
    async with open_existing(url) as storage:
        thread = await storage.get_thread_by_id(thread_id)
        if thread is None:
            raise NotFoundError(
                f"there is no thread {thread_id!r}; `mastra-storage threads` lists those there are"
            )
        return thread, await storage.get_messages(thread_id, last=last)
