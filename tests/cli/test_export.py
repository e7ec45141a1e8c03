"""Exporting, and that an import makes the same store of an export."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from mastra_storage import (
    MESSAGES,
    THREADS,
    Eval,
    Message,
    PluginNotFoundError,
    Put,
    Query,
    Resource,
    Row,
    Storage,
    StorageError,
    Table,
    Thread,
    Trace,
    WorkflowRun,
)
from mastra_storage.cli.transfer import export_lines, exporting, import_lines, rows
from mastra_storage.plugins import load_tables
from mastra_storage.testing.strategies import ids, json_values, texts, times

from .chats import (
    CALL,
    CHATS,
    all_rows,
    content_of,
    exported,
    import_all,
    lines,
    memory_storage,
)


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with memory_storage() as opened:
        yield opened


async def test_an_exported_chat_has_all_members_of_the_one_imported(storage: Storage) -> None:
    await import_all(storage, CHATS)
    found = {line["thread_id"]: line for line in await exported(storage)}
    for chat in CHATS:
        messages = found[chat["thread_id"]]["messages"]
        assert len(messages) == len(chat["messages"])
        for message, original in zip(messages, chat["messages"], strict=True):
            assert {**message, **original} == message
            assert message.keys() - original.keys() <= {"id", "createdAt", "content"}
    assert found["first"]["thread"]["metadata"] == {"reward": 0.5}
    assert found["first"]["thread"]["resourceId"] == "imported"


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("text", {"content": "text"}),
        (None, {"content": None}),
        ({}, {"content": {}}),
        ([CALL], {"content": [CALL]}),
        ({"content": "x"}, {"content": {"content": "x"}}),
        ({"content": None, "tool_calls": [CALL]}, {"content": None, "tool_calls": [CALL]}),
        ({"role": "x"}, {"content": {"role": "x"}}),
        ({"content": 1, "id": 2}, {"content": {"content": 1, "id": 2}}),
        ({"created_at": 1, "x": 2}, {"content": {"created_at": 1, "x": 2}}),
        ({"parts": [], "format": 2}, {"parts": [], "format": 2}),
    ],
)
async def test_how_content_stands_in_a_message(storage: Storage, content: Any, shown: Any) -> None:
    await storage.save_thread(Thread(id="t", resource_id="me"))
    await storage.save_message(Message(id="m", thread_id="t", role="user", content=content))
    [line] = await exported(storage)
    [message] = line["messages"]
    members = {name: message[name] for name in message.keys() - {"id", "role", "createdAt", "type"}}
    assert members == shown
    assert ("type" in message) == ("tool_calls" in shown), "stated where it is not what it seems"


awkward = st.sampled_from(
    [
        "id",
        "role",
        "type",
        "content",
        "metadata",
        "createdAt",
        "tool_calls",
        "$record",
        "x",
        "created_at",
        "resource_id",
        "thread_id",
    ]
)
contents = json_values() | st.dictionaries(awkward, json_values(max_leaves=3), max_size=3)
messages = st.builds(
    Message,
    id=ids(),
    thread_id=st.just("t"),
    role=st.sampled_from(["user", "tool", "assistant", ""]) | texts(),
    content=contents,
    type=st.sampled_from(["text", "tool-call", "tool-result", ""]) | texts(),
    resource_id=st.none() | ids(),
    metadata=st.dictionaries(texts(), json_values(max_leaves=3), max_size=2),
    created_at=st.just(datetime(2025, 1, 1, tzinfo=timezone.utc)) | times(),
)
threads = st.builds(
    Thread,
    id=st.just("t"),
    resource_id=ids(),
    title=texts(),
    metadata=st.dictionaries(texts(), json_values(max_leaves=3), max_size=2),
    created_at=times(),
    updated_at=times(),
)


@given(thread=threads, batch=st.lists(messages, max_size=6))
@settings(max_examples=75, deadline=None)
def test_any_conversation_survives_export_and_import(thread: Thread, batch: list[Message]) -> None:
    async def there_and_back() -> None:
        async with memory_storage() as source, memory_storage() as target:
            await source.save_thread(thread)
            await source.save_messages(batch)
            saved = await exported(source)
            done = await import_all(target, saved)
            before, after = await all_rows(source), await all_rows(target)
            assert [content_of(row) for row in after] == [content_of(row) for row in before]
            assert done.written == len(before)
            assert (await import_all(target, saved)).written == 0
            assert (await import_all(source, saved)).written == 0

    asyncio.run(there_and_back())


async def _fill(storage: Storage) -> None:
    """Something in every table, and rows that only a row line can hold."""
    await import_all(storage, CHATS)
    await storage.persist_workflow_snapshot("w", "r", {"status": "running", "n": 1.0})
    await storage.save_workflow_run(WorkflowRun(run_id="r/2", workflow_name="w:w"))
    await storage.save_traces([Trace(id="s1", trace_id="x"), Trace(id="s2", parent_span_id="s1")])
    await storage.save_eval(Eval(agent_name="agent", output={"a": None}))
    await storage.save_resource(Resource(id="me", working_memory="# notes\n"))
    await storage.insert("messages", {"threadId": "gone", "id": "m", "role": "user", "content": 1})


async def test_an_export_is_a_whole_backup(storage: Storage) -> None:
    await _fill(storage)
    saved = await exported(storage)
    async with memory_storage() as target:
        done = await import_all(target, saved)
        assert (done.threads, done.messages, done.rows) == (3, 8, 7)
        before, after = await all_rows(storage), await all_rows(target)
        assert [content_of(row) for row in after] == [content_of(row) for row in before]
        assert (await import_all(target, saved)).written == 0


async def test_rows_keep_their_place_and_what_time_takes_them(storage: Storage) -> None:
    await storage.save_resource(Resource(id="kept"))
    await storage.save_resource(Resource(id="old"))
    tables = {row.key[0]: row for row in await all_rows(storage)}
    far = 2**55
    kept = structs.replace(tables["kept"], expires_at=far, touched=far - 1, seq=7)
    await storage.backend.write([Put(kept, keep_place=False)])
    saved = await exported(storage)
    saved[1]["row"]["expiresAt"] = 5
    async with memory_storage() as target:
        assert (await import_all(target, saved)).written == 1
        [row] = await all_rows(target)
        assert structs.replace(row, version=kept.version) == kept
        assert (await import_all(target, saved)).written == 0


async def test_a_thread_or_message_that_is_no_plain_record_gets_a_row_line(
    storage: Storage,
) -> None:
    await import_all(storage, CHATS)
    [thread] = await storage.backend.get(THREADS, [("first",)])
    [message] = await storage.backend.get(MESSAGES, [("🦀", "🦀-000000")])
    assert thread is not None
    assert message is not None
    expiring = [structs.replace(row, expires_at=2**60) for row in (thread, message)]
    await storage.backend.write([Put(row) for row in expiring])
    saved = await exported(storage)
    assert [line["thread_id"] for line in saved if "thread_id" in line] == ["a:b/c", "🦀"]
    async with memory_storage() as target:
        await import_all(target, saved)
        before, after = await all_rows(storage), await all_rows(target)
        assert [content_of(row) for row in after] == [content_of(row) for row in before]


async def test_members_of_other_writers_and_line_breaks_survive(storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="me"))
    await storage.save_message(Message(id="m", thread_id="t", role="user", content="hi"))
    for table, key in ((THREADS, ("t",)), (MESSAGES, ("t", "m"))):
        [row] = await storage.backend.get(table, [key])
        assert row is not None
        members = {**json.loads(row.value), "toolCallIds": [1]}
        value = json.dumps(members, indent=2).encode()
        await storage.backend.write([Put(structs.replace(row, value=value))])
    [line] = await exported(storage)
    assert line["thread"]["toolCallIds"] == [1]
    assert line["messages"][0]["$record"] == {"toolCallIds": [1]}
    async with memory_storage() as target:
        await import_all(target, [line])
        before, after = await all_rows(storage), await all_rows(target)
        assert [content_of(row) for row in after] == [content_of(row) for row in before]


async def test_a_table_that_is_not_known_here_is_an_error_before_anything(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(name="notes", key=("id",))
    row = Row(table=table, key=("1",), value=b'{"id":"1"}', order=1, seq=1, fields={}, updated=1)
    await storage.backend.write([Put(row)])
    file = io.BytesIO()
    with pytest.raises(PluginNotFoundError, match=r"notes; install the adapter that registered"):
        await export_lines(storage, file)
    assert file.getvalue() == b""

    known = {**load_tables(), "notes": table}
    monkeypatch.setattr(rows, "load_tables", lambda: known)
    monkeypatch.setattr("mastra_storage.cli.transfer.importing.load_tables", lambda: known)
    saved = await exported(storage)
    async with memory_storage() as target:
        await import_all(target, saved)
        [found] = await target.backend.get(table, [("1",)])
        assert found is not None
        assert structs.replace(found, version="") == row


async def test_a_damaged_row_is_an_error_that_names_it(storage: Storage) -> None:
    await storage.save_resource(Resource(id="r"))
    [row] = await all_rows(storage)
    await storage.backend.write([Put(structs.replace(row, value=b'{"id"'))])
    with pytest.raises(StorageError, match=r"the row \('r',\) of table 'resources' is damaged"):
        await exported(storage)


@pytest.mark.parametrize(("table", "key"), [(THREADS, ("first",)), (MESSAGES, ("🦀", "🦀-000000"))])
@pytest.mark.parametrize("value", [b'{"id":1}', b'{"id"', b"[]", b"\xff"])
async def test_what_no_import_takes_is_not_exported(
    storage: Storage, table: Table, key: tuple[str, ...], value: bytes
) -> None:
    await import_all(storage, CHATS)
    [row] = await storage.backend.get(table, [key])
    assert row is not None
    await storage.backend.write([Put(structs.replace(row, value=value))])
    with pytest.raises(StorageError, match=rf"of table '{table.name}' is damaged .* delete it"):
        await exported(storage)


async def test_what_a_killed_check_has_left_is_not_exported(storage: Storage) -> None:
    left = Table(name="kit0123abcd_messages", key=("id",))
    row = Row(table=left, key=("1",), value=b"{}", order=1, seq=1, fields={}, updated=1)
    await storage.backend.write([Put(row)])
    await storage.save_resource(Resource(id="r"))
    assert [line["table"] for line in await exported(storage)] == ["resources"]
    own = structs.replace(left, name="kits")
    await storage.backend.write([Put(structs.replace(row, table=own))])
    with pytest.raises(PluginNotFoundError, match="kits"):
        await exported(storage)


async def test_a_long_thread_is_written_piece_by_piece(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_WRITE_BYTES", 1_000)
    monkeypatch.setattr(exporting, "_READ_ROWS", 7)
    await storage.save_thread(Thread(id="t", resource_id="me"))
    batch = [Message(thread_id="t", role="user", content=i) for i in range(100)]
    await storage.save_messages(batch)

    written: list[int] = []

    class File(io.BytesIO):
        def write(self, data: Any, /) -> int:
            written.append(len(data))
            return super().write(data)

    file = File()
    seen: list[int] = []
    await export_lines(storage, file, on_progress=lambda done: seen.append(done.messages))
    assert max(written) < 1_200
    assert seen[:3] == [7, 14, 21]
    line = msgspec.json.decode(file.getvalue())
    assert [message["content"] for message in line["messages"]] == list(range(100))


async def test_an_export_of_an_empty_store_is_empty(storage: Storage) -> None:
    assert await exported(storage) == []
    assert (await import_lines(storage, lines([]))).written == 0
    assert (await storage.backend.query(Query(table=THREADS))).rows == []
