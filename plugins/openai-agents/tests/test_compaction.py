"""The SDK's compaction of long sessions, which replaces the items it has summed up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from agents import RunContextWrapper
from agents.memory import OpenAIResponsesCompactionSession
from backends import on_sqlite, on_sqlite_and_convex, on_sqlite_and_kv
from mastra_storage_openai_agents import MastraSession

from mastra_storage import Storage

NewStorage = Callable[[], Storage]
SUMMARY: Any = {"type": "compaction", "id": "cmp", "encrypted_content": "summary"}


def said(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


class OpenAI:
    """The one endpoint of the API that compaction calls."""

    def __init__(self) -> None:
        self.responses = self
        self.given: list[Any] = []

    async def compact(self, **given: Any) -> Any:
        self.given.append(given)
        return SimpleNamespace(output=[SUMMARY], usage=None)


@on_sqlite_and_kv
async def test_the_sdk_compacts_a_session(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        session = MastraSession("trip", storage, metadata={"a": 1})
        await session.add_items(said("one", "two"))
        client: Any = OpenAI()
        compacting = OpenAIResponsesCompactionSession(
            "trip", session, client=client, compaction_mode="input"
        )
        await compacting.run_compaction({"force": True})
        assert client.given[0]["input"] == said("one", "two")
        assert await MastraSession("trip", storage).get_items() == [SUMMARY]
        thread = await storage.get_thread_by_id("trip")
        assert thread is not None
        assert thread.metadata == {"a": 1}


@on_sqlite_and_convex
async def test_what_is_replaced_is_the_suffix(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said("a", "b", "c", "d"))
        snapshot = await session._get_compaction_snapshot(3)
        assert snapshot is not None
        assert snapshot.items == said("b", "c", "d")
        assert not snapshot.complete
        # What others append meanwhile stays, behind.
        await MastraSession("trip", storage).add_items(said("e"))
        assert await snapshot.replace_suffix(1, [SUMMARY, *said("f")])
        assert await session.get_items() == [*said("a", "b"), SUMMARY, *said("f", "e")]
        assert not await snapshot.replace_suffix(1, said("late"))
        assert not await snapshot.replace_suffix(3, said("nothing"))
        whole = await session._get_compaction_snapshot(5)
        assert whole is not None
        assert whole.complete


@on_sqlite_and_convex
async def test_one_of_a_pop_and_a_replacement_wins(new_storage: NewStorage) -> None:
    async with new_storage() as one, new_storage() as other:
        for name in map(str, range(6)):
            session = MastraSession(name, one)
            await session.add_items(said("a", "b"))
            snapshot = await session._get_compaction_snapshot(2)
            assert snapshot is not None
            replaced, popped = await asyncio.gather(
                snapshot.replace_suffix(0, [SUMMARY]),
                MastraSession(name, other).pop_item(),
            )
            left = await session.get_items()
            assert (left, popped) in ([([], SUMMARY)] if replaced else [(said("a"), said("b")[0])])


@on_sqlite
async def test_expired_items_at_the_front_are_pruned(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said("old", "old", "old", "kept", "old", "x", "y"))
        snapshot = await session._get_compaction_snapshot(
            2, prune_prefix=lambda item: item.get("content") == "old"
        )
        assert snapshot is not None
        assert await snapshot.replace_suffix(0, [SUMMARY])
        assert await session.get_items() == [*said("kept", "old"), SUMMARY]


@on_sqlite_and_kv
async def test_there_is_no_snapshot_where_it_would_not_be_sound(
    new_storage: NewStorage, backend: str
) -> None:
    class Own(MastraSession):
        pass

    async with new_storage() as storage:
        assert await Own("trip", storage)._get_compaction_snapshot(1) is None
        snapshot = await MastraSession("trip", storage)._get_compaction_snapshot(1)
        assert (snapshot is None) == (backend == "cloudflare")


@on_sqlite
async def test_automatic_compaction_replaces_what_the_model_saw(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        session = MastraSession("trip", storage)
        await session.add_items(said("long ago", "a", "b"))
        client: Any = OpenAI()
        compacting = OpenAIResponsesCompactionSession(
            "trip", session, client=client, should_trigger_compaction=lambda _: True
        )
        from agents.run_internal.items import digest_input_item

        seen = tuple(digest_input_item(item) for item in said("a", "b"))
        wrapper: Any = RunContextWrapper(None)
        wrapper._session_compaction_is_automatic = True
        wrapper._session_compaction_model_exchange = (seen, None)
        await compacting.run_compaction({"compaction_mode": "auto"}, wrapper=wrapper)
        assert await session.get_items() == [*said("long ago"), SUMMARY]
