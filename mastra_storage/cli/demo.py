"""`mastra-storage demo`: an agent with a tool, whose conversation outlives it."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from msgspec import Struct
from rich.markup import escape
from rich.padding import Padding
from rich.syntax import Syntax
from rich.text import Text

from mastra_storage.cli.agent import THREAD, converse
from mastra_storage.cli.console import output, plural
from mastra_storage.cli.exits import run, without_secrets
from mastra_storage.cli.render import message_panel
from mastra_storage.plugins import open_storage
from mastra_storage.records import Message

__all__ = ["demo"]

_FILE = "sqlite:///mastra-demo.db"

_CODE = """\
import asyncio
from mastra_storage import Message, Thread, open_storage

async def main():
    async with open_storage("{url}") as storage:
        if await storage.get_thread_by_id("trip") is None:
            await storage.save_thread(Thread(id="trip", resource_id="ada"))
        hello = Message(thread_id="trip", role="user", content="Hello")
        await storage.save_message(hello)
        for message in await storage.get_messages("trip", last=20):
            print(message.role, message.content)

asyncio.run(main())"""


class _Conversation(Struct):
    """What a run did. `kept` is whether the store still has it when the command has ended."""

    earlier: int
    messages: list[Message]
    kept: bool


def demo(
    url: Annotated[str, typer.Argument(metavar="[URL]", help="The store to use.")] = _FILE,
    brief: Annotated[bool, typer.Option("--brief", help="Leave out what could come next.")] = False,
) -> None:
    """Keep a conversation, read it back from a newly opened store, and go on with it.

    A small agent with a weather tool answers two questions. Run it twice: in a store that keeps
    what it is given, the agent remembers.

    [dim]$[/] mastra-storage demo

    [dim]$[/] mastra-storage demo sqlite:///agent.db
    """
    conversation = run(_demo(url))
    url = without_secrets(url)
    output.print(f"[bold]A conversation in {escape(url)}[/]\n", highlight=False, soft_wrap=True)
    if conversation.earlier:
        output.print(
            f"[bold green]↻[/] going on behind {plural(conversation.earlier, 'message')} "
            "that earlier runs left in the store\n",
            highlight=False,
        )
    for message in conversation.messages[conversation.earlier :]:
        output.print(message_panel(message))
    if conversation.kept:
        count = plural(len(conversation.messages), "message")
        output.print(
            f"\n[bold green]✓[/] read back from a newly opened store: {count}", highlight=False
        )
    else:
        output.print("\n[bold yellow]![/] this store forgets everything when it is closed")
    if not brief:
        _say_what_next(url, kept=conversation.kept)


async def _demo(url: str) -> _Conversation:
    async with open_storage(url) as storage:
        earlier = await converse(storage)
        said = await storage.get_messages(THREAD)
    async with open_storage(url) as storage:
        read = await storage.get_messages(THREAD)
    return _Conversation(
        earlier, read or said, kept=bool(read) and urlsplit(url).scheme != "memory"
    )


def _say_what_next(url: str, *, kept: bool) -> None:
    output.print("\n[bold]Next[/]")
    if kept:
        steps = [
            (f"demo {url}" if url != _FILE else "demo", "once more: the agent remembers"),
            (f"messages {url} {THREAD}", "the whole conversation"),
            (f"export {url} -", "everything, as JSON lines"),
        ]
    else:
        steps = [("demo", "the same in a file: there the agent remembers")]
    for command, what in (*steps, ("--help", "all commands")):
        line = Text(f"  {_called()} {command}").append(f"  # {what}", "dim")
        output.print(line, soft_wrap=True, highlight=False)
    output.print("\n[bold]In Python[/]")
    code = Syntax(_CODE.format(url=url), "python", theme="ansi_dark", background_color="default")
    output.print(Padding(code, (0, 2)))


def _called() -> str:
    """The command as a shell here finds it: by its path, unless its name is enough."""
    path, name = Path(sys.argv[0]), "mastra-storage"
    return name if path.stem != name or shutil.which(name) else shlex.quote(str(path))
