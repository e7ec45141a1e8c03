"""Messages on a terminal: a panel a message, tool calls as calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from mastra_storage.cli.console import shown, when
from mastra_storage.records import Message

__all__ = ["message_panel"]

_STYLES = {"system": "magenta", "user": "green", "assistant": "cyan", "tool": "yellow"}
_SHOWN_CHARACTERS = 2_000
_ONE_LINE = 100


def message_panel(message: Message, *, whole: bool = False) -> Panel:
    """A message as people read it; long ones are cut unless `whole`."""
    style = _STYLES.get(message.role, "white")
    title = shown(message.role, style=f"bold {style}")
    if (name := _tool_of(message.content)) is not None:
        title.append(" · ").append(shown(name))
    parts = [_cut(part, whole) for part in _parts(message.content)] or [Text("(empty)", "dim")]
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        subtitle=Text(f"{when(message.created_at)} UTC", "dim"),
        subtitle_align="right",
        border_style=style,
    )


def _cut(part: RenderableType, whole: bool) -> RenderableType:
    if whole or not isinstance(part, Text) or len(part) <= _SHOWN_CHARACTERS:
        return part
    left = len(part) - _SHOWN_CHARACTERS
    return part[:_SHOWN_CHARACTERS].append(f" … {left:,} characters more", "dim")


def _parts(content: Any) -> Iterator[Text]:
    """What a content says: text, tool calls, results, and JSON for all else."""
    if isinstance(content, str):
        yield shown(_readable(content))
    elif isinstance(content, list):
        for part in content:
            yield from _part(part)
    elif isinstance(content, dict) and isinstance(content.get("parts"), list):
        yield from _parts(content["parts"])
    elif isinstance(content, dict) and (item := _response_item(content)) is not None:
        yield from item
    elif isinstance(content, dict) and _is_chat(content):
        if content.get("content"):
            yield from _parts(content["content"])
        for call in content.get("tool_calls") or ():
            yield _chat_call(call)
    elif content is not None:
        yield _json(content)


def _is_chat(content: Mapping[str, Any]) -> bool:
    """Whether content is a message of a chat completion."""
    calls = content.get("tool_calls") or []
    return bool(content.keys() & {"content", "tool_calls"}) and isinstance(calls, list)


def _response_item(item: Mapping[str, Any]) -> list[Text] | None:
    """What an item of OpenAI's Responses says that is a call, a result or reasoning; else None."""
    kind = item.get("type")
    if kind in ("function_call", "custom_tool_call") and "name" in item:
        return [_call(item["name"], _decoded(item.get("arguments", item.get("input"))))]
    if kind in ("function_call_output", "custom_tool_call_output") and "output" in item:
        output = item["output"]
        return list(_parts(output)) if isinstance(output, list) else [shown(_readable(output))]
    if kind == "reasoning" and isinstance(item.get("summary"), list) and item["summary"]:
        return list(_parts(item["summary"]))
    return None


def _part(part: Any) -> Iterator[Text]:
    """One part of a content that is a list."""
    if isinstance(part, str):
        yield shown(part)
    elif not isinstance(part, dict):
        yield _json(part)
    elif isinstance(use := part.get("toolUse"), dict):
        yield _call(use.get("name"), use.get("input"))
    elif isinstance(result := part.get("toolResult"), dict):
        yield from _tool_result(result, failed=result.get("status") == "error")
    elif part.get("type") in ("tool_use", "server_tool_use") and "name" in part:
        yield _call(part["name"], part.get("input"))
    elif part.get("type") == "tool_result" and "content" in part:
        yield from _tool_result(part, failed=part.get("is_error") is True)
    elif set(part) == {"json"}:
        yield _json(part["json"])
    elif isinstance(part.get("text"), str):
        yield shown(part["text"])
    elif isinstance(invocation := part.get("toolInvocation"), dict):
        yield _call(invocation.get("toolName"), invocation.get("args"))
        if "result" in invocation:
            yield shown(_readable(invocation["result"]))
    elif "toolName" in part and (results := part.keys() & {"result", "output"}):
        yield shown(_readable(_unwrapped(part[results.pop()])))
    elif "toolName" in part:
        yield _call(part["toolName"], part.get("args", part.get("input")))
    elif "part_kind" in part and "args" in part:
        yield _call(part.get("tool_name"), _decoded(part["args"]))
    elif "part_kind" in part and isinstance(part.get("content"), str):
        yield shown(_readable(part["content"]))
    elif "part_kind" in part and isinstance(part.get("content"), list):
        yield from _parts(part["content"])
    elif "part_kind" in part and "tool_name" in part:
        yield _json(part.get("content"))
    else:
        yield _json(part)


def _unwrapped(output: Any) -> Any:
    """The value of an output of the AI SDK, which says beside it of what kind it is."""
    wrapped = isinstance(output, dict) and set(output) == {"type", "value"}
    return output["value"] if wrapped else output


def _tool_result(result: Mapping[str, Any], *, failed: bool) -> Iterator[Text]:
    """What a tool gave, after "error" where it failed."""
    if failed:
        yield Text("error", "bold red")
    yield from _parts(result.get("content"))


def _chat_call(call: Any) -> Text:
    """A tool call of the chat format, whose arguments are JSON in a text."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return _json(call)
    return _call(function.get("name"), _decoded(function.get("arguments")))


def _call(name: Any, arguments: Any) -> Text:
    """`get_weather(city="Lisbon")`"""
    if isinstance(arguments, Mapping):
        given = ", ".join(f"{key}={_compact(value)}" for key, value in arguments.items())
    else:
        given = "" if arguments is None else _compact(arguments)
    return Text("→ ", "bold yellow").append(shown(name, style="bold")).append(shown(f"({given})"))


def _tool_of(content: Any) -> str | None:
    """Which tool a call or a result is of."""
    if isinstance(content, dict) and isinstance(content.get("parts"), list):
        content = content["parts"]
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        named = {"name": part.get("toolName", part.get("tool_name"))}
        content = part.get("toolUse", named)
    name = content.get("name") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None


def _readable(value: Any) -> str:
    """A text as it is, unless it is JSON of some length; that gets indented."""
    if isinstance(value, str) and isinstance(_decoded(value), str):
        return value
    compact = msgspec.json.encode(_decoded(value))
    text = compact if len(compact) <= _ONE_LINE else msgspec.json.format(compact, indent=2)
    return str(text, "utf-8")


def _decoded(value: Any) -> Any:
    """What a text says that is a JSON object or array; anything else as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        with suppress(msgspec.DecodeError, RecursionError):
            return msgspec.json.decode(value)
    return value


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _json(value: Any) -> Text:
    return shown(_readable(value), style="dim")
