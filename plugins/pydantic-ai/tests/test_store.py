"""What is ours alone: threads, large values, races, reads, and what others do to a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from mastra_storage_pydantic_ai import MastraConversationStore
from mastra_storage_pydantic_ai.tables import ENTRIES, LARGE
from msgspec import structs
from processes import MASTRA_STORAGE, command
from pydantic_ai import BinaryContent, Conversation, DeferredToolRequests
from pydantic_ai.conversation_store import ConversationConflict, ConversationRecord
from pydantic_ai.messages import (
    FilePart,
    ImageUrl,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage
from talk import entries_said, said, talk, turn

from mastra_storage import (
    MESSAGES,
    Capabilities,
    InvalidArgumentError,
    InvalidRecordError,
    Message,
    MessageUpdate,
    Op,
    Put,
    Query,
    Storage,
    StorageError,
    Thread,
    UnavailableError,
    UnsupportedError,
    open_storage,
)
from mastra_storage.backends.memory import Memory, MemoryBackend
from mastra_storage.testing import FaultyBackend


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with open_storage("memory://") as storage:
        yield storage


def without_compare_and_set() -> Storage:
    backend = MemoryBackend()
    backend.capabilities = Capabilities()
    return Storage(backend)


async def test_a_backend_without_compare_and_set_is_refused_unless_asked_for() -> None:
    async with without_compare_and_set() as storage:
        with pytest.raises(UnsupportedError, match="allow_races=True") as refused:
            MastraConversationStore(storage)
        assert refused.value.backend == "memory"
        await MastraConversationStore(storage, allow_races=True).save(talk("c", "one"))


@pytest.mark.once
@pytest.mark.parametrize("backend", ["cloudflare"])
async def test_workers_kv_is_refused_unless_asked_for(new_storage: Callable[[], Storage]) -> None:
    storage = new_storage()
    with pytest.raises(UnsupportedError, match="compare-and-set"):
        MastraConversationStore(storage)
    MastraConversationStore(storage, allow_races=True)


async def test_within_one_storage_conflicts_are_noticed_without_compare_and_set() -> None:
    async with without_compare_and_set() as storage:
        stores = [MastraConversationStore(storage, allow_races=True) for _ in range(2)]
        await stores[0].save(talk("c", "one"))
        copies = [await store.load("c") for store in stores]
        for copy in copies:
            assert copy is not None
            copy.messages += turn("more")

        async def save(store: MastraConversationStore, copy: Conversation | None) -> bool:
            assert copy is not None
            try:
                await store.save(copy)
            except ConversationConflict:
                return False
            return True

        pairs = zip(stores, copies, strict=True)
        assert sorted(await asyncio.gather(*[save(*pair) for pair in pairs])) == [False, True]


async def test_elsewhere_two_that_save_at_once_both_stay_in_the_thread() -> None:
    memory = Memory()
    storages: list[Storage] = []
    copies: list[tuple[MastraConversationStore, Conversation]] = []
    for _ in range(2):
        backend = FaultyBackend(MemoryBackend(memory))
        backend.capabilities = Capabilities()
        storages.append(Storage(backend))
        await storages[-1].open()
        store = MastraConversationStore(storages[-1], allow_races=True)
        if not copies:
            await store.save(talk("c", "one"))
        copy = await store.load("c")
        assert copy is not None
        copies.append((store, copy))
        backend.delay("write", seconds=0.05 * len(copies))
    for number, (_, copy) in enumerate(copies):
        copy.messages += turn(f"from {number}")
    await asyncio.gather(*[store.save(copy) for store, copy in copies])
    assert said(await copies[0][0].load("c")) == ["one", "one!", "from 1", "from 1!"]
    assert len(await storages[0].get_messages("c")) == 6
    for storage in storages:
        await storage.close()


async def test_a_fork_that_was_cut_short_can_be_made_again() -> None:
    memory = Memory()
    backend = FaultyBackend(MemoryBackend(memory))
    backend.capabilities = Capabilities()
    async with Storage(backend) as storage:
        store = MastraConversationStore(storage, allow_races=True)
        new = await store.save(talk("c", "one", "two"))
        left = structs.replace((await storage.get_messages("c"))[-1], thread_id="f")
        await storage.write_rows(Put(storage.new_row(MESSAGES, left)))  # and no more of it
        assert await store.load("f") is None
        await store.fork("c", new_conversation_id="f")
        assert await store.load_entries("f") == new


async def test_a_deletion_that_was_cut_short_can_be_repeated() -> None:
    class Killed(MemoryBackend):
        capabilities = Capabilities()
        left = 99

        async def write(self, ops: Sequence[Op]) -> None:
            await super().write(ops[: self.left])
            if self.left < len(ops):
                self.left = 99
                raise UnavailableError("killed")

    for left in range(7):
        backend = Killed(Memory())
        async with Storage(backend) as storage:
            store = MastraConversationStore(storage, allow_races=True)
            await store.save(big())
            backend.left = left
            with pytest.raises(UnavailableError):
                await store.delete("c")
            await store.delete("c")
            assert set(await backend.tables()) <= {ENTRIES.name}


@pytest.mark.parametrize("backend", ["sqlite", pytest.param("convex", marks=pytest.mark.once)])
async def test_more_entries_than_a_write_holds_at_once(new_storage: Callable[[], Storage]) -> None:
    async with new_storage() as storage:
        store = MastraConversationStore(storage)
        await store.save(talk("c", *map(str, range(520))))
        await store.fork("c", new_conversation_id="f")
        await store.delete("c")
        loaded = await store.load("f")
        assert loaded is not None
        assert (said(loaded) or [])[::2] == list(map(str, range(520)))
        assert said(await store.load("f", limit=1)) == ["519!"]
        await store.delete("f")
        assert await storage.find_rows(Query(table=ENTRIES, order_by="any")) == []
        assert await storage.get_messages("f") == []


async def test_a_change_of_the_thread_meanwhile_is_no_conflict(storage: Storage) -> None:
    store = MastraConversationStore(storage)
    conversation = talk("c", "one")
    await store.save(conversation, scope="ada")
    await storage.update_thread("c", title="To Oslo", metadata={"starred": True})
    conversation.messages += turn("two")
    await store.save(conversation)
    thread = await storage.get_thread_by_id("c")
    assert thread is not None
    assert (thread.title, thread.resource_id) == ("To Oslo", "ada")
    assert thread.metadata["starred"] is True
    record = await store.read_record("c")
    assert record is not None
    assert thread.updated_at >= record.updated_at
    assert thread.created_at < record.updated_at


async def test_a_thread_that_is_there_becomes_the_conversation(storage: Storage) -> None:
    store = MastraConversationStore(storage)
    await storage.save_thread(Thread(id="c", resource_id="ada", title="kept"))
    await storage.save_message(Message(thread_id="c", role="user", content="before"))
    assert await store.load("c") is None
    assert await store.list_conversations() == []
    with pytest.raises(ConversationConflict):
        await store.save(talk("c", "one"), scope="bob")  # the thread is ada's
    await store.save(talk("c", "one"))
    thread = await storage.get_thread_by_id("c")
    assert thread is not None
    assert (thread.resource_id, thread.title) == ("ada", "kept")
    assert said(await store.load("c")) == ["one", "one!"]
    assert said(await store.load("c", limit=1)) == ["one!"]
    assert len(await storage.get_messages("c")) == 3


async def test_the_newest_are_found_behind_threads_of_others(storage: Storage) -> None:
    store = MastraConversationStore(storage)
    for name in "abc":
        await store.save(talk(name, name), scope="ada")
        for number in range(3):
            await storage.save_thread(Thread(id=f"{name}{number}", resource_id="ada"))
    for scope in ("ada", None):
        records = await store.list_conversations(scope=scope, limit=2)
        assert [record.conversation_id for record in records] == ["c", "b"]


async def test_deleting_the_thread_deletes_the_conversation_and_harms_no_fork(
    storage: Storage,
) -> None:
    store = MastraConversationStore(storage)
    conversation = talk("c", "one")
    new = await store.save(conversation)
    await store.fork("c", new_conversation_id="f")
    await storage.delete_thread("c")
    assert await store.load("c") is None
    with pytest.raises(ConversationConflict):
        await store.save(conversation)
    assert said(await store.load("f")) == ["one", "one!"]
    assert await store.read_entry(new[0].id) == new[0]
    assert entries_said(await store.read_history(new[1].id)) == ["one", "one!"]
    await store.save(talk("c", "anew"))
    assert said(await store.load("c")) == ["anew", "anew!"]


async def test_an_entry_is_found_in_a_fork_when_the_conversation_is_gone(storage: Storage) -> None:
    store, other = MastraConversationStore(storage), MastraConversationStore(storage)
    new = await store.save(talk("c", "one"))
    await other.fork("c", new_conversation_id="f")
    await other.delete("c")  # `store` remembers the entries in "c"
    assert entries_said(await store.read_history(new[1].id)) == ["one", "one!"]
    assert await store.read_entry(new[1].id) == new[1]


async def test_deleting_leaves_nothing_behind(storage: Storage) -> None:
    store = MastraConversationStore(storage)
    await store.save(big(), scope="ada")
    await store.fork("c", new_conversation_id="f")
    for name in "cf":
        assert await storage.find_rows(Query(table=LARGE, prefix=(name,), order_by="any")) != []
        await store.delete(name)
    assert await storage.backend.tables() == []


def big() -> Conversation:
    """A conversation with a picture and a call to be approved, each of some megabytes."""
    picture = BinaryContent(data=bytes(range(256)) * 8_000, media_type="image/png")
    call = ToolCallPart("write", {"text": "é" * 600_000}, "call-1")
    conversation = talk("c", "small")
    conversation.messages += [
        ModelRequest(parts=[UserPromptPart(["look", picture])]),
        ModelResponse(parts=[call]),
    ]
    conversation.deferred_tool_requests = DeferredToolRequests(approvals=[call])
    return conversation


async def test_values_of_any_size_are_kept(new_storage: Callable[[], Storage]) -> None:
    async with new_storage() as storage:
        store = MastraConversationStore(storage, allow_races=True)
        new = await store.save(big())
        fork = await store.fork("c", new_conversation_id="f")
        await store.delete("c")
        assert fork.deferred_tool_requests is not None
    async with new_storage() as storage:
        store = MastraConversationStore(storage, allow_races=True)
        loaded = await store.load("f")
        assert loaded is not None
        given = big()
        assert loaded.deferred_tool_requests == given.deferred_tool_requests
        part = loaded.messages[2].parts[0]
        assert isinstance(part, UserPromptPart)
        assert isinstance(part.content[1], BinaryContent)
        assert part.content[1].data == bytes(range(256)) * 8_000
        last = loaded.messages[3].parts[0]
        assert isinstance(last, ToolCallPart)
        assert last.args == {"text": "é" * 600_000}
        assert (await store.read_entry(new[3].id)).message.parts == [last]
        [record] = await store.list_conversations()
        assert record.deferred_tool_requests == given.deferred_tool_requests
        messages = await storage.get_messages("f")
        assert [m.metadata["pydantic_ai"].get("large") for m in messages] == [
            None,
            None,
            True,
            True,
        ]
        assert "bytes, kept in pydantic_ai_large" in messages[2].content
        loaded.deferred_tool_requests = None
        await store.save(loaded)
        left = Query(table=LARGE, prefix=("f",), order_by="any")
        assert len(await storage.find_rows(left)) == 2  # those of the two messages


async def counted(count: int) -> tuple[FaultyBackend, Storage, MastraConversationStore]:
    """A store that counts its calls, with a conversation of so many messages."""
    backend = FaultyBackend(MemoryBackend())
    storage = Storage(backend)
    await storage.open()
    store = MastraConversationStore(storage)
    await store.save(talk("c", *[str(number) for number in range(count // 2)]))
    backend.calls.clear()
    return backend, storage, store


async def test_a_whole_history_is_a_few_reads() -> None:
    backend, storage, store = await counted(1_000)
    loaded = await store.load("c")
    assert loaded is not None
    assert len(loaded.messages) == 1_000
    assert backend.calls == {"get": 1, "query": 1}

    backend.calls.clear()
    loaded.messages += turn("more")
    await store.save(loaded)
    assert backend.calls == {"get": 2, "write": 1}

    backend.calls.clear()
    assert len((await store.load("c", limit=10) or Conversation()).messages) == 10
    assert backend.calls == {"get": 1, "query": 1}

    backend.calls.clear()
    record = await store.read_record("c")
    assert record is not None
    history = await MastraConversationStore(storage).read_history(record.head_id, limit=4)
    assert entries_said(history) == ["499", "499!", "more", "more!"]
    assert backend.calls == {"get": 1, "query": 2}

    backend.calls.clear()
    await store.fork("c", at=500, new_conversation_id="f")
    assert backend.calls["write"] == 1
    assert sum(backend.calls.values()) <= 7
    await storage.close()


async def test_a_window_behind_which_branches_stand_is_two_reads() -> None:
    backend, storage, store = await counted(100)
    record = await store.read_record("c")
    assert record is not None
    await store.branch("c", at=10, expected_revision=record.revision)
    backend.calls.clear()
    assert said(await store.load("c", limit=3)) == ["3!", "4", "4!"]
    assert backend.calls == {"get": 1, "query": 2}
    await storage.close()


async def test_a_list_reads_no_more_threads_than_it_gives() -> None:
    asked: list[int | None] = []

    class Asked(MemoryBackend):
        async def query(self, query: Query):  # type: ignore[no-untyped-def]
            asked.append(query.limit)
            return await super().query(query)

    async with Storage(Asked()) as storage:
        store = MastraConversationStore(storage)
        for number in range(30):
            await store.save(talk(f"c{number}", "x"), scope="ada")
        asked.clear()
        assert len(await store.list_conversations(scope="ada", limit=5)) == 5
        assert asked == [5]


async def test_a_message_that_is_listed_late_is_got() -> None:
    """As Workers KV shows it to another process, for a minute."""
    hidden: set[str] = set()

    class Late(MemoryBackend):
        async def query(self, query: Query):  # type: ignore[no-untyped-def]
            result = await super().query(query)
            rows = [row for row in result.rows if row.key[-1] not in hidden]
            return type(result)(rows=rows, total=result.total, cursor=result.cursor)

    async with Storage(Late()) as storage:
        store = MastraConversationStore(storage)
        new = await store.save(talk("c", "one", "two"))
        hidden.update(entry.id for entry in new[2:])
        assert said(await store.load("c")) == ["one", "one!", "two", "two!"]
        assert said(await store.load("c", limit=3)) == ["one!", "two", "two!"]


async def test_messages_come_back_as_pydantic_ai_writes_them(
    new_storage: Callable[[], Storage],
) -> None:
    odd = {"": 1, "$a": None, "__proto__": {"é": [1.0, 2**60, -0.5]}, "big": 10**30}
    given: list[ModelMessage] = [
        ModelRequest(
            parts=[
                SystemPromptPart("be kind"),
                UserPromptPart(["two\n\x00\U0001f642", ImageUrl("https://example.org/a.png")]),
                UserPromptPart([BinaryContent(b"\x00\xff", media_type="audio/wav")]),
            ],
            instructions="short",
            metadata=odd,
        ),
        ModelResponse(
            parts=[
                ThinkingPart("hm", signature="sig"),
                TextPart(""),
                ToolCallPart("f", '{"broken', "1"),
                ToolCallPart("g", odd, "2"),
                FilePart(BinaryContent(b"x", media_type="image/png")),
            ],
            usage=RequestUsage(input_tokens=3, details={"cached": 1}),
            model_name="m",
            provider_details=odd,
            timestamp=datetime(2025, 6, 1, 12, 0, 0, 123456, timezone.utc),
            finish_reason="stop",
        ),
        ModelRequest(
            parts=[
                ToolReturnPart("f", [None, float("nan"), b"\x01"], "1"),
                ToolReturnPart("g", odd, "2", metadata={"at": [1]}),
            ]
        ),
    ]
    expected = ModelMessagesTypeAdapter.validate_json(ModelMessagesTypeAdapter.dump_json(given))
    async with new_storage() as storage:
        store = MastraConversationStore(storage, allow_races=True)
        await store.save(Conversation(conversation_id="c", messages=given))
        loaded = await store.load("c")
        assert loaded is not None
        assert loaded.messages == expected


async def test_what_is_not_json_is_refused_and_nothing_written(storage: Storage) -> None:
    store = MastraConversationStore(storage)
    broken = talk("c", "\ud800")
    with pytest.raises(InvalidRecordError, match="JSON does not have"):
        await store.save(broken)
    with pytest.raises(InvalidArgumentError):
        await store.load("x" * 257)
    assert await storage.backend.tables() == []


async def test_a_message_that_somebody_changed_is_told_without_its_content(
    storage: Storage,
) -> None:
    store = MastraConversationStore(storage)
    [entry, _] = await store.save(talk("c", "one"))
    await storage.update_messages("c", [MessageUpdate(entry.id, content={"kind": "secret"})])
    with pytest.raises(StorageError, match="changed by something else") as damaged:
        await store.load("c")
    assert entry.id in str(damaged.value)
    assert "secret" not in str(damaged.value)
    assert damaged.value.__cause__ is None
    await storage.delete_messages("c", [entry.id])
    with pytest.raises(KeyError):
        await store.load("c")


async def test_a_record_of_a_later_version_is_told(storage: Storage) -> None:
    store = MastraConversationStore(storage)
    await store.save(talk("c", "one"))
    thread = await storage.get_thread_by_id("c")
    assert thread is not None
    member = thread.metadata["pydantic_ai"] | {"format_version": 2}
    await storage.update_thread("c", metadata={"pydantic_ai": member})
    with pytest.raises(StorageError, match="newer version"):
        await store.load("c")


async def test_deferred_calls_that_are_not_there_yet_are_not_taken_for_none(
    storage: Storage,
) -> None:
    store = MastraConversationStore(storage)
    await store.save(big())
    assert await store.read_record("c") is not None
    await storage.clear_table("pydantic_ai_large")
    with pytest.raises(UnavailableError, match="try again"):
        await store.read_record("c")


async def test_entries_can_be_given_in_any_shape_of_tree(storage: Storage) -> None:
    store = MastraConversationStore(storage)
    await store.save(talk("a", "one"))
    await store.save(talk("b", "two"))
    tips = []
    for name in "ab":
        record = await store.read_record(name)
        assert record is not None
        assert record.head_id is not None
        tips.append(record.head_id)
    [entry] = (await store.load_entries("a") or [])[:1]
    new = [replace(entry, id=f"n{number}", parent_id=tip) for number, tip in enumerate(tips)]
    record = ConversationRecord(conversation_id="c", head_id="n1", branches=["n0"])
    await store.write_record(record, new_entries=new, expected_revision=None)
    await store.delete("a")
    await store.delete("b")
    assert entries_said(await store.load_entries("c")) == ["two", "two!", "one"]
    assert entries_said(await store.read_history("n0")) == ["one", "one!", "one"]
    nowhere = replace(entry, id="n2", parent_id="nowhere")
    with pytest.raises(ConversationConflict):
        await store.write_record(
            replace(record, head_id="n2", revision="r"),
            new_entries=[nowhere],
            expected_revision=record.revision,
        )


async def test_other_processes_know_the_tables(tmp_path: Path) -> None:
    source, target = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    async with open_storage(source) as storage:
        new = await MastraConversationStore(storage).save(big())
        assert set(await storage.backend.tables()) == {
            "threads",
            "messages",
            ENTRIES.name,
            LARGE.name,
            LARGE.parts.name,
        }
    exported = tmp_path / "all.jsonl"
    await command("-c", MASTRA_STORAGE, "copy", source, target)
    await command("-c", MASTRA_STORAGE, "export", target, exported)
    await command("-c", MASTRA_STORAGE, "import", exported, f"sqlite:///{tmp_path}/c.db")
    for name in "bc":
        async with open_storage(f"sqlite:///{tmp_path}/{name}.db") as storage:
            store = MastraConversationStore(storage)
            assert await store.load_entries("c") is not None
            assert (await store.read_entry(new[1].id)).parent_id == new[0].id
            loaded = await store.load("c")
            assert loaded is not None
            assert loaded.deferred_tool_requests == big().deferred_tool_requests


def test_its_repr_shows_no_content() -> None:
    assert repr(MastraConversationStore(open_storage("memory://"))) == (
        "MastraConversationStore(<Storage on memory, not open>)"
    )
