"""`mastra-storage traces`: spans, as trees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text
from rich.tree import Tree

from mastra_storage.cli.console import cropped, output, plural, print_json, shown, when
from mastra_storage.cli.exits import run
from mastra_storage.cli.options import AsJson, Limit, Url, open_existing
from mastra_storage.errors import NotFoundError
from mastra_storage.records import Trace

__all__ = ["span_trees", "traces"]


def traces(
    url: Url,
    trace_id: Annotated[str | None, typer.Option(help="All spans of this trace.")] = None,
    thread: Annotated[str | None, typer.Option(help="Only spans of this thread.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """Show the newest spans as trees, or all of one trace.

    [dim]$[/] mastra-storage traces sqlite:///agent.db --trace-id 4bf92f3577b34da6

    [dim]$[/] mastra-storage traces sqlite:///agent.db --thread thread-1 --limit 20
    """
    spans = run(_traces(url, trace_id, thread, limit))
    if as_json:
        print_json(spans)
        return
    for tree in span_trees(spans):
        output.print(tree)
    output.print(plural(len(spans), "span") if spans else "no spans", style="dim")


async def _traces(url: str, trace_id: str | None, thread: str | None, limit: int) -> list[Trace]:
    async with open_existing(url) as storage:
        page = await storage.get_traces(
            trace_id=trace_id,
            thread_id=thread,
            per_page=None if trace_id else limit,
            count=False,
        )
        if trace_id is not None and not page.items:
            where = "" if thread is None else f" with spans of thread {thread!r}"
            raise NotFoundError(f"there is no trace {trace_id!r}{where}")
        return page.items


def span_trees(spans: Iterable[Trace]) -> list[Tree]:
    """A tree a trace, newest first; a span whose parent is not among them stands at the top."""
    ordered = sorted(spans, key=lambda span: (span.started_at, span.id))
    by_trace: dict[str, list[Trace]] = {}
    for span in ordered:
        by_trace.setdefault(span.trace_id, []).append(span)
    return [_tree(trace_id, group) for trace_id, group in reversed(by_trace.items())]


def _tree(trace_id: str, spans: list[Trace]) -> Tree:
    began = Text("  ", "dim").append(when(spans[0].started_at)).append(" UTC")
    if (thread := next((span.thread_id for span in spans if span.thread_id), None)) is not None:
        began.append("  thread ").append(shown(thread))
    tree = Tree(shown(trace_id, style="bold").append(began))
    ids = {span.id for span in spans}
    children: dict[str | None, list[Trace]] = {}
    for span in spans:
        parent = span.parent_span_id if span.parent_span_id in ids else None
        children.setdefault(parent, []).append(span)
    # Depth first without recursion: spans may be nested deeper than Python's stack.
    waiting = [(tree, span) for span in reversed(children.pop(None, []))]
    while waiting:
        branch, span = waiting.pop()
        node = branch.add(_label(span))
        waiting += [(node, child) for child in reversed(children.pop(span.id, []))]
    for left in children.values():  # spans that are their own ancestors
        for span in left:
            tree.add(_label(span).append("  (its parents form a circle)", "red"))
    return tree


def _label(span: Trace) -> Text:
    label = shown(span.name or span.id, style="cyan")
    if span.scope:
        label.append(shown(f"  {span.scope}", style="dim"))
    if span.ended_at is not None:
        label.append(f"  {_duration(span.started_at, span.ended_at)}", "green")
    if used := _tokens(span.attributes):
        label.append(f"  {used}", "yellow")
    if status := _status(span.status):
        label.append("  ").append(status)
    return label


_CODES = {0: "", 1: "ok", 2: "error"}  # of OpenTelemetry


def _status(status: Any) -> Text:
    """A status on one line: a text, that of OpenTelemetry (code and message), or any other JSON."""
    if isinstance(status, dict) and status.keys() <= {"code", "message"}:
        code = status.get("code", "")
        name = _CODES.get(code, str(code)) if isinstance(code, int) else str(code)
        said = ": ".join(part for part in (name, str(status.get("message") or "")) if part)
    elif isinstance(status, str):
        said = status
    else:
        said = "" if status is None else msgspec.json.encode(status).decode()
    return cropped(said, style="red" if "error" in said.lower() else "dim")


def _tokens(attributes: Mapping[str, Any]) -> str:
    """What a call of a model used, as OpenTelemetry's conventions for it say."""
    used = [attributes.get(f"gen_ai.usage.{kind}_tokens") for kind in ("input", "output")]
    if not all(isinstance(count, int) for count in used):
        return ""
    return f"{used[0]:,} → {used[1]:,} tokens"


def _duration(start: datetime, end: datetime) -> str:
    seconds = (end - start).total_seconds()
    return f"{seconds * 1e3:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"
