"""What a `ConversationStore` does: the same on every backend as upstream's store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from mastra_storage_pydantic_ai import MastraConversationStore
from pydantic_ai import DeferredToolRequests
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.usage import RunUsage
from stores import SERVERS
from talk import entries_said, said, talk, turn

from mastra_storage import Storage, open_storage


@pytest.fixture(
    params=["upstream", "sqlite", *[pytest.param(name, marks=pytest.mark.once) for name in SERVERS]]
)
def backend(request: pytest.FixtureRequest) -> str:
    """Upstream's store beside ours: what these tests expect is what it does."""
    name: str = request.param
    return name


@pytest.fixture
def new_storage(backend: str, request: pytest.FixtureRequest) -> Callable[[], Storage] | None:
    if backend == "upstream":
        return None
    url: str = request.getfixturevalue("storage_url")
    return lambda: open_storage(url)


@pytest.fixture
async def store(new_storage: Callable[[], Storage] | None) -> AsyncIterator[ConversationStore]:
    if new_storage is None:
        yield InMemoryConversationStore()
        return
    async with new_storage() as storage:
        yield MastraConversationStore(storage, allow_races=True)


async def test_a_conversation_comes_back_as_it_was(store: ConversationStore) -> None:
    assert await store.load("c") is None
    assert await store.load_entries("c") is None
    conversation = talk("c", "one", "two")
    conversation.usage = RunUsage(requests=2, input_tokens=5, details={"x": 1})
    new = await store.save(conversation, scope="ada")
    assert entries_said(new) == ["one", "one!", "two", "two!"]
    assert [entry.parent_id for entry in new] == [None, *[entry.id for entry in new[:-1]]]

    loaded = await store.load("c")
    assert loaded == conversation
    assert loaded is not None
    assert loaded.new_message_index == 4
    assert await store.load_entries("c") == new
    assert await store.read_entry(new[1].id) == new[1]


async def test_a_save_appends_only_what_is_new(store: ConversationStore) -> None:
    conversation = talk("c", "one")
    await store.save(conversation)
    assert await store.save(conversation) == []
    conversation.messages += turn("two")
    assert entries_said(await store.save(conversation)) == ["two", "two!"]
    loaded = await store.load("c")
    assert loaded is not None
    loaded.messages = [*loaded.messages, *turn("three")]
    assert entries_said(await store.save(loaded)) == ["three", "three!"]
    assert said(await store.load("c")) == ["one", "one!", "two", "two!", "three", "three!"]


async def test_the_last_messages_alone(store: ConversationStore) -> None:
    await store.save(talk("c", "one", "two"))
    everything = ["one", "one!", "two", "two!"]
    for limit in (0, 1, 3, 4, 9):
        loaded = await store.load("c", limit=limit)
        assert said(loaded) == everything[max(0, 4 - limit) :]
        assert entries_said(await store.load_entries("c", limit=limit)) == said(loaded)


@pytest.mark.parametrize("limit", [0, 3])
async def test_what_goes_on_from_a_window_is_appended_to_all(
    store: ConversationStore, limit: int
) -> None:
    await store.save(talk("c", "one", "two"))
    loaded = await store.load("c", limit=limit)
    assert loaded is not None
    loaded.messages += turn("three")
    await store.save(loaded)
    assert said(await store.load("c")) == ["one", "one!", "two", "two!", "three", "three!"]


async def test_a_window_is_of_the_history_and_not_of_a_branch(store: ConversationStore) -> None:
    conversation = talk("c", "one", "two", "three")
    new = await store.save(conversation)
    branched = await store.branch("c", at=2, expected_revision=conversation.revision)
    assert said(await store.load("c", limit=1)) == ["one!"]
    branched.messages += turn("other")
    await store.save(branched)
    assert said(await store.load("c", limit=3)) == ["one!", "other", "other!"]
    assert said(await store.load("c")) == ["one", "one!", "other", "other!"]
    back = await store.branch("c", from_entry=new[-1].id, expected_revision=branched.revision)
    assert said(back) == ["one", "one!", "two", "two!", "three", "three!"]
    assert said(await store.load("c", limit=2)) == ["three", "three!"]


async def test_a_rewritten_history_leaves_the_old_one_as_a_branch(store: ConversationStore) -> None:
    conversation = talk("c", "one", "two")
    old = await store.save(conversation)
    rewritten = replace(conversation, messages=[*conversation.messages[:2], *turn("instead")])
    rewritten.new_message_index = None
    assert entries_said(await store.save(rewritten)) == ["instead", "instead!"]
    assert said(await store.load("c")) == ["one", "one!", "instead", "instead!"]
    record = await store.read_record("c")
    assert record is not None
    assert record.branches == [old[-1].id]
    assert entries_said(await store.read_history(old[-1].id)) == ["one", "one!", "two", "two!"]


async def test_a_save_of_an_old_copy_is_a_conflict(store: ConversationStore) -> None:
    await store.save(talk("c", "one"))
    first, second = await store.load("c"), await store.load("c")
    assert first is not None
    assert second is not None
    first.messages += turn("first")
    second.messages += turn("second")
    await store.save(first)
    with pytest.raises(ConversationConflict) as conflict:
        await store.save(second)
    assert conflict.value.conversation_id == "c"
    with pytest.raises(ConversationConflict):
        await store.save(talk("c", "new"))
    assert said(await store.load("c")) == ["one", "one!", "first", "first!"]


async def test_a_conversation_made_anew_is_another(store: ConversationStore) -> None:
    conversation = talk("c", "one")
    [entry, _] = await store.save(conversation)
    await store.delete("c")
    with pytest.raises(ConversationConflict):
        await store.save(conversation)
    await store.save(talk("c", "again"))
    with pytest.raises(ConversationConflict):
        await store.save(conversation)
    assert said(await store.load("c")) == ["again", "again!"]
    with pytest.raises(KeyError):
        await store.read_entry(entry.id)


async def test_scopes_keep_conversations_to_their_owners(store: ConversationStore) -> None:
    await store.save(talk("c", "one"), scope="ada")
    await store.save(talk("d", "two"), scope="bob")
    await store.save(talk("e", "three"))
    assert await store.load("c", scope="bob") is None
    assert await store.load("e", scope="bob") is None
    assert said(await store.load("c", scope="ada")) == ["one", "one!"]
    loaded = await store.load("c")
    assert loaded is not None
    with pytest.raises(ConversationConflict):
        await store.save(loaded, scope="bob")
    await store.delete("c", scope="bob")
    listed = await store.list_conversations(scope="ada")
    assert [record.conversation_id for record in listed] == ["c"]
    assert await store.list_conversations(scope="e") == []
    assert {record.conversation_id for record in await store.list_conversations()} == {
        "c",
        "d",
        "e",
    }


async def test_any_text_is_a_scope(store: ConversationStore) -> None:
    scopes = ["", "x" * 300, "x" * 299, "ä:/%#?\U0001f642"]
    for number, scope in enumerate(scopes):
        await store.save(talk(f"c{number}", "one"), scope=scope)
    await store.save(talk("d", "two"))
    for number, scope in enumerate(scopes):
        [record] = await store.list_conversations(scope=scope)
        assert (record.conversation_id, record.scope) == (f"c{number}", scope)
        assert await store.load("d", scope=scope) is None


async def test_the_last_saved_are_listed_first(store: ConversationStore) -> None:
    for name in "abcde":
        await store.save(talk(name, name), scope="even" if name in "bd" else "odd")
    loaded = await store.load("b")
    assert loaded is not None
    loaded.messages += turn("more")
    await store.save(loaded)

    async def listed(scope: str | None = None, limit: int | None = None) -> str:
        records = await store.list_conversations(scope=scope, limit=limit)
        return "".join(record.conversation_id for record in records)

    assert await listed() == "bedca"
    assert await listed(limit=2) == "be"
    assert await listed(limit=0) == ""
    assert await listed("even") == "bd"
    assert await listed("odd", 2) == "ec"
    assert await listed("none") == ""


async def test_a_fork_goes_on_by_itself(store: ConversationStore) -> None:
    conversation = talk("c", "one", "two")
    new = await store.save(conversation, scope="ada")
    fork = await store.fork("c", at=2, new_conversation_id="f")
    assert said(fork) == ["one", "one!"]
    fork.messages += turn("other")
    await store.save(fork)
    assert said(await store.load("f")) == ["one", "one!", "other", "other!"]
    assert said(await store.load("f", limit=3)) == ["one!", "other", "other!"]
    assert said(await store.load("c")) == ["one", "one!", "two", "two!"]
    entries = await store.load_entries("f")
    assert entries is not None
    assert entries[:2] == new[:2]
    record = await store.read_record("f")
    assert record is not None
    assert (record.forked_from, record.forked_at, record.scope) == ("c", new[1].id, "ada")


async def test_a_fork_of_a_fork_and_of_a_branch(store: ConversationStore) -> None:
    conversation = talk("c", "one", "two")
    new = await store.save(conversation)
    await store.branch("c", at=0, expected_revision=conversation.revision)
    assert said(await store.load("c")) == []
    fork = await store.fork("c", from_entry=new[2].id, new_conversation_id="f")
    assert said(fork) == ["one", "one!", "two"]
    await store.fork("f", at=1, new_conversation_id="g")
    await store.delete("c")
    await store.delete("f")
    assert said(await store.load("g")) == ["one"]
    assert entries_said(await store.load_entries("g", limit=1)) == ["one"]
    assert await store.read_entry(new[0].id) == new[0]
    for gone in new[1:]:
        with pytest.raises(KeyError):
            await store.read_entry(gone.id)
    with pytest.raises(ConversationConflict):
        await store.fork("g", new_conversation_id="g")


async def test_deleting_keeps_what_forks_have_and_erases_all_else(store: ConversationStore) -> None:
    new = await store.save(talk("c", "one", "two"))
    await store.fork("c", at=2, new_conversation_id="f")
    await store.delete("c")
    await store.delete("c")
    assert await store.load("c") is None
    assert said(await store.load("f")) == ["one", "one!"]
    assert [entry.id for entry in await store.read_history(new[1].id)] == [new[0].id, new[1].id]
    for gone in new[2:]:
        with pytest.raises(KeyError):
            await store.read_entry(gone.id)
        with pytest.raises(KeyError):
            await store.read_history(gone.id)
    await store.delete("f")
    with pytest.raises(KeyError):
        await store.read_entry(new[0].id)


async def test_a_head_that_is_nowhere_is_a_conflict(store: ConversationStore) -> None:
    record = ConversationRecord(conversation_id="c", head_id="nowhere")
    with pytest.raises(ConversationConflict):
        await store.write_record(record, expected_revision=None)
    assert await store.read_record("c") is None


async def test_the_primitives_take_any_revision(store: ConversationStore) -> None:
    at = datetime(2025, 6, 1, 12, 0, 0, 123456, timezone.utc)
    [request, _] = turn("one")
    entry = ConversationEntry(id="e1", parent_id=None, message=request)
    first = ConversationRecord(
        conversation_id="c", head_id="e1", revision="r1", updated_at=at, scope="ada"
    )
    await store.write_record(first, new_entries=[entry], expected_revision=None)
    assert await store.read_record("c") == first
    second = replace(first, revision="r2", updated_at=at - timedelta(days=1), branches=["e1"])
    for wrong in (None, "r0"):
        with pytest.raises(ConversationConflict):
            await store.write_record(second, expected_revision=wrong)
        if wrong is not None:
            with pytest.raises(ConversationConflict):
                await store.delete_record("c", expected_revision=wrong)
    await store.write_record(second, expected_revision="r1")
    assert await store.read_record("c") == second
    assert await store.read_records() == [second]
    with pytest.raises(ConversationConflict):
        await store.delete_record("none", expected_revision="r2")
    await store.delete_record("c", expected_revision="r2")
    assert await store.read_records() == []
    assert await store.read_history(None) == []


async def test_what_a_run_waits_for_is_kept(store: ConversationStore) -> None:
    conversation = talk("c", "one")
    conversation.deferred_tool_requests = DeferredToolRequests(
        calls=[ToolCallPart("search", {"q": "Oslo"}, "call-1")],
        approvals=[ToolCallPart("pay", {"amount": 3.5}, "call-2")],
        metadata={"call-1": {"why": "external"}},
    )
    await store.save(conversation)
    loaded = await store.load("c")
    assert loaded is not None
    assert loaded.deferred_tool_requests == conversation.deferred_tool_requests
    loaded.deferred_tool_requests = None
    await store.save(loaded)
    loaded = await store.load("c")
    assert loaded is not None
    assert loaded.deferred_tool_requests is None


async def test_any_text_is_an_id(store: ConversationStore) -> None:
    odd = ["a:b", "a/b%2F?#", "\U0001f642", "__proto__", "messages", "..", "42"]
    for name in ("a", *odd):
        await store.save(talk(name, name))
    await store.delete("a")
    for name in odd:
        assert said(await store.load(name)) == [name, f"{name}!"]
    fork = await store.fork("a:b", new_conversation_id="a")
    assert said(fork) == ["a:b", "a:b!"]


async def test_arguments_that_cannot_be(store: ConversationStore) -> None:
    await store.save(talk("c", "one"))
    with pytest.raises(UserError, match="limit"):
        await store.load("c", limit=-1)
    with pytest.raises(UserError, match="not in the store"):
        await store.fork("none")
    with pytest.raises(UserError, match="not in the history"):
        await store.fork("c", from_entry="none")


async def test_of_many_who_save_at_once_one_wins(store: ConversationStore) -> None:
    await store.save(talk("c", "one"))

    async def save(name: str) -> bool:
        conversation = await store.load("c")
        assert conversation is not None
        conversation.messages += turn(name)
        await asyncio.sleep(0)
        try:
            await store.save(conversation)
        except ConversationConflict:
            return False
        return True

    won = await asyncio.gather(*[save(f"n{number}") for number in range(6)])
    kept = said(await store.load("c"))
    assert kept is not None
    assert len(kept) == 2 + 2 * sum(won)
    assert {f"n{n}" for n, one in enumerate(won) if one} == set(kept[2::2])


async def test_what_is_given_stays_the_callers(store: ConversationStore) -> None:
    conversation = talk("c", "one")
    await store.save(conversation)
    loaded = await store.load("c")
    assert loaded is not None
    loaded.messages.clear()
    loaded.usage.requests = 9
    again = await store.load("c")
    assert said(again) == ["one", "one!"]
    assert again is not None
    assert again.usage.requests == 0
