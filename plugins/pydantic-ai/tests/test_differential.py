"""Whatever is done to it, our store answers as upstream's store in memory does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    rule,
    run_state_machine_as_test,
)
from mastra_storage_pydantic_ai import MastraConversationStore, entries
from pydantic_ai import Conversation
from pydantic_ai.conversation_store import (
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from talk import turn

from mastra_storage import Capabilities, Storage
from mastra_storage.backends.memory import MemoryBackend

names = st.sampled_from(["a", "b", "c", "a:b"])
scopes = st.none() | st.sampled_from(["ada", "bob"])
limits = st.none() | st.integers(0, 5)
texts = st.integers(0, 999).map(str)


class Pair:
    """A conversation as each of the two stores gave it."""

    def __init__(self, theirs: Conversation, ours: Conversation) -> None:
        self.sides = (theirs, ours)


class Sides(RuleBasedStateMachine):
    """The two stores, side by side; entries are known by the number of their making."""

    capabilities = MemoryBackend.capabilities
    held: Bundle[Pair] = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        backend = MemoryBackend()
        backend.capabilities = self.capabilities
        self.storage = Storage(backend)
        self.runner.run(self.storage.open())
        ours = MastraConversationStore(self.storage, allow_races=True)
        self.stores: tuple[ConversationStore, ConversationStore] = (
            InMemoryConversationStore(),
            ours,
        )
        self.entries: tuple[list[str], list[str]] = ([], [])

    def teardown(self) -> None:
        try:
            for name in ("a", "b", "c", "a:b"):
                self.load_all_of(name)
            self.list_all(None, None)
        finally:
            self.runner.run(self.storage.close())
            self.runner.close()

    def load_all_of(self, name: str) -> None:
        self.both(lambda store, _: store.load(name))

    def both(self, act: Callable[[ConversationStore, int], Awaitable[Any]]) -> list[Any]:
        """Do the same to each store; both give the same, or fail alike."""
        results: list[Any] = []
        outcomes: list[Any] = []
        for side, store in enumerate(self.stores):
            try:
                result = self.runner.run(self._run(act(store, side)))
            except (UserError, LookupError) as exc:
                outcomes.append(type(exc))
            else:
                results.append(result)
                outcomes.append(self.plain(result, side))
        assert outcomes[0] == outcomes[1]
        return results

    async def _run(self, awaitable: Awaitable[Any]) -> Any:
        return await awaitable

    def plain(self, result: Any, side: int) -> Any:
        """What can be compared of a result."""
        number: dict[str | None, int | None] = {
            entry: place for place, entry in enumerate(self.entries[side])
        }
        number_of = (number | {None: None}).__getitem__
        if isinstance(result, list):
            return [self.plain(item, side) for item in result]
        if isinstance(result, ConversationEntry):
            return number_of(result.id), number_of(result.parent_id), result.message
        if isinstance(result, Conversation):
            return result.messages, result.usage, result.new_message_index
        if isinstance(result, ConversationRecord):
            tips = number_of(result.head_id), [number_of(tip) for tip in result.branches]
            forked = result.forked_from, number_of(result.forked_at)
            return result.conversation_id, result.scope, tips, forked, result.usage
        return result

    def save(self, pair: Pair, scope: str | None) -> None:
        def known(new: list[ConversationEntry], side: int) -> list[ConversationEntry]:
            self.entries[side].extend(entry.id for entry in new)
            return new

        async def act(store: ConversationStore, side: int) -> list[ConversationEntry]:
            return known(await store.save(pair.sides[side], scope=scope), side)

        self.both(act)

    def entry(self, number: int, side: int) -> str:
        known = self.entries[side]
        return known[number % len(known)] if known else "none"

    @rule(target=held, name=names, scope=scopes, said=st.lists(texts, max_size=2))
    def begin(self, name: str, scope: str | None, said: list[str]) -> Pair:
        messages = [message for text in said for message in turn(text)]
        theirs = Conversation(conversation_id=name, messages=messages)
        pair = Pair(theirs, deepcopy(theirs))
        self.save(pair, scope)
        return pair

    @rule(target=held, name=names, limit=limits, scope=scopes)
    def load(self, name: str, limit: int | None, scope: str | None) -> Any:
        theirs, ours = self.both(lambda store, _: store.load(name, limit=limit, scope=scope))
        return multiple() if theirs is None else Pair(theirs, ours)

    @rule(pair=held, text=texts, scope=scopes)
    def go_on(self, pair: Pair, text: str, scope: str | None) -> None:
        new = turn(text)
        for conversation in pair.sides:
            conversation.messages = [*conversation.messages, *deepcopy(new)]
        self.save(pair, scope)

    @rule(target=held, pair=held, keep=st.integers(0, 6), text=texts, told=st.booleans())
    def rewrite(self, pair: Pair, keep: int, text: str, told: bool) -> Pair:
        new = turn(text)
        for conversation in pair.sides:
            conversation.messages = [*conversation.messages[:keep], *deepcopy(new)]
            if told:
                conversation.new_message_index = None
        self.save(pair, None)
        return pair

    @rule(target=held, pair=held, at=st.integers(0, 6), scope=scopes)
    def branch(self, pair: Pair, at: int, scope: str | None) -> Any:
        return self._branched(
            lambda store, side: store.branch(
                pair.sides[side].conversation_id,
                at=at,
                expected_revision=pair.sides[side].revision,
                scope=scope,
            )
        )

    @rule(target=held, pair=held, number=st.integers(0, 50))
    def branch_back(self, pair: Pair, number: int) -> Any:
        return self._branched(
            lambda store, side: store.branch(
                pair.sides[side].conversation_id,
                from_entry=self.entry(number, side),
                expected_revision=pair.sides[side].revision,
            )
        )

    @rule(target=held, name=names, new=names, number=st.none() | st.integers(0, 50), scope=scopes)
    def fork(self, name: str, new: str, number: int | None, scope: str | None) -> Any:
        return self._branched(
            lambda store, side: store.fork(
                name,
                from_entry=None if number is None else self.entry(number, side),
                new_conversation_id=new,
                scope=scope,
            )
        )

    def _branched(self, act: Callable[[ConversationStore, int], Awaitable[Any]]) -> Any:
        results = self.both(act)
        return Pair(*results) if results else multiple()

    @rule(name=names, scope=scopes)
    def delete(self, name: str, scope: str | None) -> None:
        self.both(lambda store, _: store.delete(name, scope=scope))

    @rule(scope=scopes, limit=limits)
    def list_all(self, scope: str | None, limit: int | None) -> None:
        self.both(lambda store, _: store.list_conversations(scope=scope, limit=limit))

    @rule(name=names, limit=limits)
    def load_entries(self, name: str, limit: int | None) -> None:
        self.both(lambda store, _: store.load_entries(name, limit=limit))

    @rule(number=st.integers(0, 50), limit=limits)
    def read(self, number: int, limit: int | None) -> None:
        self.both(lambda store, side: store.read_entry(self.entry(number, side)))
        self.both(lambda store, side: store.read_history(self.entry(number, side), limit=limit))

    @rule()
    def start_anew(self) -> None:
        """As in another process: nothing is remembered."""
        self.stores = (self.stores[0], MastraConversationStore(self.storage, allow_races=True))


class SidesWithoutCompareAndSet(Sides):
    capabilities = Capabilities()


@pytest.mark.parametrize("sides", [Sides, SidesWithoutCompareAndSet])
@pytest.mark.parametrize("message_bytes", [800_000, 500])
def test_it_answers_as_upstreams_store_does(
    sides: type[Sides], message_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "_MESSAGE_BYTES", message_bytes)  # answers have more than 500
    run_state_machine_as_test(
        sides,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
