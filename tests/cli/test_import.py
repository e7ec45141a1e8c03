"""Importing: both formats, twice, interrupted, and lines that cannot be stored."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from mastra_storage import (
    InvalidArgumentError,
    InvalidRecordError,
    Message,
    Storage,
    Thread,
)
from mastra_storage.cli.transfer import import_lines, reading

from .chats import CALL, CHATS, all_rows, exported, import_all, lines, memory_storage


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with memory_storage() as opened:
        yield opened


async def test_a_chat_becomes_a_thread_with_its_messages(storage: Storage) -> None:
    done = await import_all(storage, CHATS, resource="me")
    assert (done.threads, done.messages, done.written, done.unchanged) == (3, 8, 11, 0)

    thread = await storage.get_thread_by_id("first")
    assert thread is not None
    assert (thread.resource_id, thread.title, thread.metadata) == ("me", "", {"reward": 0.5})
    other = await storage.get_thread_by_id("a:b/c")
    assert other is not None
    assert (other.resource_id, other.title, other.metadata) == ("user-7", "Empty", {})

    messages = await storage.get_messages("first")
    assert [message.type for message in messages] == [
        "text",
        "text",
        "tool-call",
        "tool-call",
        "tool-result",
        "text",
    ]
    assert messages[2].content == {"content": None, "tool_calls": [CALL]}
    assert messages[3].content == {"tool_calls": [CALL]}
    assert [message.id for message in messages[:2]] == ["first-000000", "first-000001"]
    assert messages[0].created_at == thread.created_at
    steps = {b.created_at - a.created_at for a, b in pairwise(messages)}
    assert steps == {timedelta(microseconds=1)}


async def test_a_second_import_changes_nothing(storage: Storage) -> None:
    await import_all(storage, CHATS)
    before = await all_rows(storage)
    done = await import_all(storage, CHATS, resource="somebody else")
    assert (done.written, done.unchanged) == (0, 11)
    assert await all_rows(storage) == before


async def test_an_import_completes_what_is_missing_in_its_place(storage: Storage) -> None:
    await import_all(storage, CHATS)
    before = [message.content for message in await storage.get_messages("first")]
    await storage.delete_messages("first", ["first-000000", "first-000002"])
    done = await import_all(storage, CHATS)
    assert done.written == 2
    assert [message.content for message in await storage.get_messages("first")] == before


async def test_equal_times_keep_the_order_of_the_list(storage: Storage) -> None:
    time = "2025-01-02T03:04:05.000006Z"
    messages = [{"id": name, "role": "user", "content": name, "createdAt": time} for name in "zmak"]
    line = {"thread_id": "t", "messages": messages}
    await import_all(storage, [line])
    await storage.delete_messages("t", ["m"])
    await import_all(storage, [line])
    assert [message.id for message in await storage.get_messages("t")] == ["z", "m", "a", "k"]
    assert (await import_all(storage, [line])).written == 0


async def test_a_chat_adds_to_a_thread_that_is_there(storage: Storage) -> None:
    created = datetime(2020, 1, 1, tzinfo=timezone.utc)
    mine = Thread(id="t", resource_id="me", title="Mine", metadata={"a": 1}, created_at=created)
    await storage.save_thread(mine)
    await import_all(
        storage, [{"thread_id": "t", "b": 2, "messages": [{"role": "user", "content": "x"}]}]
    )
    thread = await storage.get_thread_by_id("t")
    assert thread is not None
    assert (thread.resource_id, thread.title, thread.metadata) == ("me", "Mine", {"a": 1, "b": 2})
    assert thread.created_at == created
    assert thread.updated_at > created


async def test_an_older_export_does_not_set_back_a_thread(storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="me"))
    saved = await exported(storage)
    await storage.save_message(Message(thread_id="t", role="user", content="later"))
    before = await all_rows(storage)
    assert (await import_all(storage, saved)).written == 0
    assert await all_rows(storage) == before


async def test_all_of_a_record_in_an_export_replaces_the_stored_one(storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="me", title="old"))
    [line] = await exported(storage)
    line["thread"]["title"] = "new"
    assert (await import_all(storage, [line])).written == 1
    thread = await storage.get_thread_by_id("t")
    assert thread is not None
    assert thread.title == "new"


def _message(**members: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "fine"}, {"role": "user", "content": "x", **members}]


BAD = {
    "not JSON": (b'{"thread_id": "b", "messages": [', "is not JSON"),
    "not UTF-8": (b'{"thread_id": "b", "x": "\xff", "messages": []}', "is not JSON"),
    "a lone surrogate": (b'{"thread_id": "b", "x": "\\ud800 ", "messages": []}', "is not JSON"),
    "not an object": ([1], "is not an object, as every line must be"),
    "an object on several lines": (
        b'{\n"thread_id": "b"}',
        "is not JSON: .*; an object must be on one",
    ),
    "of no form": ({"a": 1}, "neither a thread"),
    "without id": ({"messages": []}, "thread_id is missing"),
    "a number as thread": ({"thread_id": 1, "messages": []}, "thread_id must be a str"),
    "an empty id": ({"thread_id": "", "messages": []}, "thread_id must not be empty"),
    "messages not a list": ({"thread_id": "b", "messages": {}}, "messages must be an array"),
    "a message not an object": ({"thread_id": "b", "messages": [1]}, r"messages\[0\]: must be"),
    "no role": (
        {"thread_id": "b", "messages": [{"content": "x"}]},
        r"messages\[0\]: role is missing",
    ),
    "a number as id": ({"thread_id": "b", "messages": _message(id=5)}, r"messages\[1\]: id must"),
    "a naive time": (
        {"thread_id": "b", "messages": _message(createdAt="2025-01-01T00:00:00")},
        r"messages\[1\]: createdAt needs a zone, as in 2026-01-01T00:00:00Z",
    ),
    "no time": (
        {"thread_id": "b", "messages": _message(createdAt="yesterday")},
        r"messages\[1\]: createdAt is not an ISO-8601 time",
    ),
    "metadata as text": (
        {"thread_id": "b", "messages": _message(metadata="x")},
        r"messages\[1\]: metadata must be a dict",
    ),
    "another thread's": (
        {"thread_id": "b", "messages": _message(threadId="c")},
        r"messages\[1\]: threadId is of another thread",
    ),
    "another thread's, in snake_case": (
        {"thread_id": "b", "messages": _message(thread_id="c")},
        r"messages\[1\]: threadId is of another thread",
    ),
    "a member by both its names": (
        {"thread_id": "b", "messages": _message(resource_id="c", resourceId="c")},
        r"messages\[1\]: states both resource_id and resourceId",
    ),
    "one id twice": (
        {"thread_id": "b", "messages": [*_message(id="i"), *_message(id="i")]},
        r"messages\[1\] and messages\[3\] have the same id",
    ),
    "nested too deep": (
        b'{"thread_id": "b", "messages": [{"role": "user", "content": %b1%b}]}'
        % (b"[" * 101, b"]" * 101),
        r"messages\[0\]: content\[0\]",
    ),
    "nested without end": (
        b'{"thread_id": "b", "messages": [{"role": "user", "content": %b1%b}]}'
        % (b"[" * 100_000, b"]" * 100_000),
        "is not JSON",
    ),
    "a thread of an export that lacks a member": (
        {"thread_id": "b", "thread": {"id": "b"}, "messages": []},
        "resource_id",
    ),
    "the same thread again": (
        {"thread_id": "good", "messages": _message()},
        "'good' is on an earlier line too",
    ),
    "a row of no known table": ({"table": "other", "row": {}}, "table 'other' that is not known"),
    "a row of no record": (
        {
            "table": "resources",
            "row": {"key": ["r"], "value": {"x": 1}, "order": 1, "seq": 1, "updated": 1},
        },
        "does not hold a record",
    ),
    "a row with half a key": (
        {
            "table": "messages",
            "row": {"key": ["r"], "value": {}, "order": 1, "seq": 1, "updated": 1},
        },
        "the key of table 'messages' is thread_id, id",
    ),
    "a row touched at no time": (
        {
            "table": "resources",
            "row": {
                "key": ["r"],
                "value": {"id": "r"},
                "order": 1,
                "seq": 1,
                "updated": 1,
                "touched": 2**60,
            },
        },
        "Expected `int` <",
    ),
    "a row with a seq past 63 bits": (
        {
            "table": "resources",
            "row": {"key": ["r"], "value": {}, "order": 1, "seq": 2**63, "updated": 1},
        },
        "Integer value out of range|Expected `int` <",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_line_that_cannot_be_stored_is_named(storage: Storage, name: str) -> None:
    line, reason = BAD[name]
    raw = line if isinstance(line, bytes) else json.dumps(line).encode()
    good = b'{"thread_id": "good", "messages": [{"role": "user", "content": "x"}]}\n'
    file = io.BytesIO(good + b"\n" + raw + b"\n" + good.replace(b"good", b"behind"))
    with pytest.raises(InvalidRecordError, match=rf"^chats.jsonl, line 3: .*({reason})") as raised:
        await import_lines(storage, file, name="chats.jsonl")
    said = "(stored before it: 1 thread, 1 message; repeating is safe)"
    assert raised.value.message.endswith(said)
    assert [row.key for row in await all_rows(storage)] == [("good",), ("good", "good-000000")]


async def test_members_of_a_message_may_be_named_in_snake_case(storage: Storage) -> None:
    named = {"thread_id": "t", "resource_id": "me", "created_at": "2025-01-02T03:04:05Z"}
    message = {"role": "user", "content": "x", **named}
    await import_all(storage, [{"thread_id": "t", "messages": [message]}])
    [found] = await storage.get_messages("t")
    assert (found.content, found.resource_id) == ("x", "me")
    assert found.created_at == datetime(2025, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


async def test_a_resource_must_be_an_id(storage: Storage) -> None:
    with pytest.raises(InvalidArgumentError, match="resource must not be empty"):
        await import_all(storage, CHATS, resource="")


async def test_derived_ids_fit_whatever_the_thread_is_called(storage: Storage) -> None:
    names = ["x" * 256, "é" * 128]
    chats = [{"thread_id": name, "messages": [{"role": "user", "content": "x"}]} for name in names]
    await import_all(storage, chats)
    assert [len(await storage.get_messages(name)) for name in names] == [1, 1]
    assert (await import_all(storage, chats)).written == 0


# -- large files -----------------------------------------------------------------------------


async def test_batches_are_written_as_the_file_is_read(storage: Storage) -> None:
    messages = [{"role": "user", "content": i} for i in range(2_500)]
    seen: list[int] = []
    done = await import_all(
        storage,
        [{"thread_id": "long", "messages": messages}, *CHATS],
        on_progress=lambda state: seen.append(state.messages),
    )
    assert seen == [1_000, 2_000, 2_508]
    assert done.messages == 2_508
    found = await storage.get_messages("long")
    assert [message.content for message in found] == list(range(2_500))


@pytest.fixture
def small_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts as a long line, and how much is read of it at a time, shrunk."""
    monkeypatch.setattr(reading, "LONG_LINE", 100)
    monkeypatch.setattr(reading, "_READ", 7)
    monkeypatch.setattr(reading, "BATCH_ROWS", 3)


AWKWARD = [
    *CHATS[0]["messages"],
    {"role": "user", "content": 'quotes " and \\ and "messages": [1, 2], {[ }] and \\" end\\'},
    {"role": "user", "content": ["], [", {"}": "{", "messages": [[], {}, ""]}]},
]


@pytest.mark.usefixtures("small_lines")
@pytest.mark.parametrize("indent", [None, 0])
async def test_a_very_long_line_is_read_in_pieces(storage: Storage, indent: int | None) -> None:
    line = json.dumps({"thread_id": "long", "a": {"b": 1}, "messages": AWKWARD}, indent=indent)
    file = io.BytesIO(line.replace("\n", " ").encode() + b"\n" + lines(CHATS).getvalue())
    done = await import_lines(storage, file, name="chats.jsonl")
    assert (done.threads, done.messages) == (4, 16)
    found = next(each for each in await exported(storage) if each["thread_id"] == "long")
    for message, original in zip(found["messages"], AWKWARD, strict=True):
        assert {**message, **original} == message
    assert found["thread"]["metadata"] == {"a": {"b": 1}}


@pytest.mark.usefixtures("small_lines")
async def test_a_long_line_that_does_not_begin_with_its_thread_is_read_whole(
    storage: Storage,
) -> None:
    metadata = {"messages": [1] * 50}
    chats = [
        {"messages": AWKWARD, "thread_id": "behind"},
        {"meta": metadata, "thread_id": "nested", "messages": AWKWARD},
    ]
    assert (await import_all(storage, chats)).messages == 2 * len(AWKWARD)
    thread = await storage.get_thread_by_id("nested")
    assert thread is not None
    assert thread.metadata == {"meta": metadata}


@pytest.mark.usefixtures("small_lines")
@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ('{"role": 1}]}', r"messages\[40\]: role must be a str"),
        ("{]}", "is not JSON"),
        ("1", "ends in the middle of its messages"),
        ("", "ends in the middle of its messages"),
        ("]}", "is not JSON"),
        ('{"role": "user", "content": 1}], "reward": 1}', "goes on behind its messages"),
    ],
)
async def test_of_a_long_line_that_is_broken_nothing_is_written(
    storage: Storage, tail: str, reason: str
) -> None:
    good = '{"role": "user", "content": "x"}, ' * 40
    line = f'{{"thread_id": "long", "messages": [{good}{tail}\n'
    with pytest.raises(InvalidRecordError, match=f"line 1: .*{reason}"):
        await import_lines(storage, io.BytesIO(line.encode()), name="chats.jsonl")
    assert await all_rows(storage) == []


# -- the file, the loop and the store --------------------------------------------------------


class _Stuck(io.BytesIO):
    """A file whose second read hangs until it is released, as a terminal's would."""

    def __init__(self, first: bytes) -> None:
        super().__init__(first)
        self.reads = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > 1:
            threading.Event().wait(30)
        return super().readline(size)


async def test_a_file_that_hangs_does_not_keep_an_import_from_being_cancelled(
    storage: Storage,
) -> None:
    task = asyncio.create_task(import_lines(storage, _Stuck(lines(CHATS).getvalue())))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_a_record_that_the_backend_cannot_hold_is_named(storage: Storage) -> None:
    storage.backend.capabilities = type(storage.capabilities)(atomic=True, max_record_bytes=400)
    chats = [
        {"thread_id": "a", "messages": [{"role": "user", "content": "x"}]},
        {"thread_id": "b", "messages": [{"role": "user", "content": "x" * 400}]},
    ]
    with pytest.raises(InvalidRecordError, match=r"line 2: messages\[0\] is 5\d\d bytes"):
        await import_all(storage, chats)
    assert await storage.get_thread_by_id("a") is not None
    assert await storage.get_thread_by_id("b") is None
