"""Parts of the command that are best looked at alone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mastra_storage import Message
from mastra_storage.cli.render import message_panel
from mastra_storage.cli.transfer.blocking import prefetched
from mastra_storage.cli.transfer.long_line import elements, split_head
from mastra_storage.errors import InvalidRecordError
from mastra_storage.testing.strategies import json_values


@given(
    values=st.lists(json_values(max_leaves=6), max_size=5),
    size=st.integers(1, 12),
    ascii=st.booleans(),
)
def test_a_long_line_is_cut_into_its_elements(values: list[Any], size: int, ascii: bool) -> None:
    text = json.dumps({"thread_id": "t", "messages": values}, ensure_ascii=ascii)
    line = text.encode() + b"\n"
    found = split_head(line)
    assert found is not None
    head, read = found
    assert {name: bytes(value) for name, value in head.items()} == {"thread_id": b'"t"'}
    pieces = _pieces(read, size)
    cut = list(elements(b"", lambda: next(pieces, b"")))
    assert [json.loads(element) for element in cut] == values


def _pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[start : start + size] for start in range(0, len(text), size))


def test_messages_that_are_not_the_lines_own_are_no_head() -> None:
    assert split_head(b'{"thread_id": "t", "a": {"messages": [1]}}') is None
    assert split_head(b'{"thread_id": "t", "a": "\\"messages\\": [1]"}') is None
    assert split_head(b'{"thread_id": "t"}') is None


def test_a_long_line_that_ends_early_is_an_error() -> None:
    with pytest.raises(InvalidRecordError, match="ends in the middle"):
        list(elements(b'1, "a]', lambda: b""))


async def test_items_are_read_ahead_but_not_far() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(6):
            made.append(number)
            yield number

    found = []
    async for item in prefetched(items(), ahead=2):
        await asyncio.sleep(0.02)
        found.append(item)
        assert len(made) <= item + 3
    assert found == made == list(range(6))


async def test_an_error_in_the_thread_comes_where_the_items_are_read() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise InvalidRecordError("broken")

    batches = prefetched(items())
    assert await anext(batches) == 1
    with pytest.raises(InvalidRecordError, match="broken"):
        await anext(batches)


async def test_nothing_is_read_once_nobody_wants_it() -> None:
    left = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            left.set()

    batches = prefetched(items())
    assert await anext(batches) == 1
    await batches.aclose()
    assert await asyncio.to_thread(left.wait, 5)


def _rendered(content: Any, role: str = "assistant") -> str:
    console = Console(width=100, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(message_panel(Message(thread_id="t", role=role, content=content)))
    return capture.get()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("plain", "plain"),
        (["one", {"type": "text", "text": "two"}], "two"),
        ({"format": 2, "parts": [{"type": "text", "text": "in parts"}]}, "in parts"),
        ([{"type": "tool-call", "toolName": "f", "args": {"x": [1]}}], "→ f(x=[1])"),
        ([{"type": "tool-call", "toolName": "f", "input": {}}], "→ f()"),
        ([{"type": "tool-result", "toolName": "f", "result": {"y": 2}}], '{"y":2}'),
        ([{"type": "tool-result", "toolName": "f", "output": {"type": "text", "value": 5}}], "│ 5"),
        ([{"type": "tool-result", "toolName": "f", "output": {"type": "x"}}], '{"type":"x"}'),
        ([{"type": "tool-invocation", "toolInvocation": {"toolName": "f", "args": {}}}], "→ f()"),
        ([{"toolInvocation": {"toolName": "f", "state": "result", "result": "got"}}], "│ got"),
        ([{"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}], "→ f(x=1)"),
        ([{"type": "tool_result", "tool_use_id": "1", "content": "told"}], "│ told"),
        ([{"type": "tool_result", "content": [{"text": "no"}], "is_error": True}], "│ error"),
        ([{"type": "tool_result", "tool_use_id": "1"}], '"tool_use_id":"1"'),
        ({"tool_calls": [{"function": {"name": "g", "arguments": "{broken"}}]}, '→ g("{broken")'),
        ({"tool_calls": [7]}, "7"),
        ({"content": "says", "tool_calls": []}, "says"),
        ({"tool_calls": 5}, '{"tool_calls":5}'),
        ({"content": "says", "tool_calls": True}, '"tool_calls":true'),
        ({"parts": [{"part_kind": "text", "content": "as Pydantic AI"}]}, "as Pydantic AI"),
        ({"parts": [{"part_kind": "user-prompt", "content": ["a", "of two"]}]}, "of two"),
        ([{"part_kind": "tool-call", "tool_name": "f", "args": '{"x": 1}'}], "→ f(x=1)"),
        ([{"part_kind": "tool-return", "tool_name": "f", "content": {"y": 2}}], '{"y":2}'),
        ([{"part_kind": "thinking"}], '{"part_kind":"thinking"}'),
        ({"type": "function_call", "name": "f", "arguments": '{"x": 1}'}, "→ f(x=1)"),
        ({"type": "custom_tool_call", "name": "f", "input": "a patch"}, '→ f("a patch")'),
        ({"type": "function_call_output", "output": "done"}, "│ done"),
        ({"type": "function_call_output", "output": [{"text": "a part"}]}, "│ a part"),
        ({"type": "custom_tool_call_output", "output": {"y": 2}}, '│ {"y":2}'),
        ({"type": "function_call_output"}, '{"type":"function_call_output"}'),
        ({"type": "reasoning", "summary": [{"text": "thinks"}]}, "│ thinks"),
        ({"type": "reasoning", "summary": []}, '{"type":"reasoning","summary":[]}'),
        ([{"toolUse": {"name": "f", "input": {"x": 1}}}], "→ f(x=1)"),
        ([{"toolResult": {"status": "success", "content": [{"text": "done"}]}}], "│ done"),
        ([{"toolResult": {"status": "error", "content": [{"text": "closed"}]}}], "│ error"),
        ([{"toolResult": {"content": [{"json": {"y": 2}}]}}], '│ {"y":2}'),
        ({"anything": None}, '{"anything":null}'),
        (None, "(empty)"),
        ([], "(empty)"),
        (3.5, "3.5"),
    ],
)
def test_what_a_message_says(content: Any, said: str) -> None:
    assert said in _rendered(content)


def test_a_tool_result_names_its_tool_and_indents_long_json() -> None:
    result = json.dumps({"flights": ["x" * 60, "y" * 60]})
    shown = _rendered({"name": "search", "content": result}, role="tool")
    assert "tool · search" in shown
    assert '  "flights": [' in shown


def test_a_tool_of_pydantic_ai_is_named() -> None:
    part = {"part_kind": "tool-return", "tool_name": "search", "content": "found"}
    assert "tool · search" in _rendered({"kind": "request", "parts": [part]}, role="tool")


def test_a_call_of_strands_names_its_tool() -> None:
    use = {"toolUse": {"toolUseId": "u1", "name": "search", "input": {}}}
    assert "assistant · search" in _rendered([use])


@given(json_values())
def test_any_content_can_be_shown(content: Any) -> None:
    assert _rendered(content)
