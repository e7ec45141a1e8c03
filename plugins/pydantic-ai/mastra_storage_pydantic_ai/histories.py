"""Reading entries: which conversation has them, and the chain that ends with one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import structs
from pydantic_ai.conversation_store import ConversationRecord

from mastra_storage import MESSAGES, Message, Query, Row, Storage
from mastra_storage_pydantic_ai.entries import (
    MEMBER,
    Stored,
    is_entry,
    is_large,
    large_contents,
)
from mastra_storage_pydantic_ai.tables import ENTRIES

# Of so many entries it is remembered which conversation has them.
_REMEMBERED: Final = 10_000


class Histories:
    """Finds entries by their ids alone, as `ConversationStore` asks for them.

    Where an entry is stands in `ENTRIES`. That read is saved for the histories of records that were
    read before; the memory of them only ever saves reads.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._homes: dict[str, str] = {}

    def remember(self, record: ConversationRecord) -> None:
        """Keep in mind which conversation the entries that a record names are in."""
        for entry_id in (record.head_id, *record.branches):
            if entry_id is not None:
                self._homes.pop(entry_id, None)
                self._homes[entry_id] = record.conversation_id
        while len(self._homes) > _REMEMBERED:
            del self._homes[next(iter(self._homes))]

    async def entry(self, entry_id: str) -> Stored:
        """The entry; `KeyError` when no conversation has it."""
        for home in await self._find(entry_id):
            [row] = await self._storage.get_rows(MESSAGES, [(home, entry_id)])
            if row is not None:
                [stored] = await self._stored(_messages([row]).values())
                return stored
        raise KeyError(entry_id)

    async def history(
        self, head_id: str, limit: int | None = None, *, home: str | None = None
    ) -> list[Stored]:
        """The chain that ends with `head_id`, or the last `limit` of it, oldest first.

        `home` is the conversation to look into first. Raises `KeyError` when an entry is not there.
        """
        if (home := self._homes.get(head_id, home)) is not None:
            try:
                return await self._stored(await self._chain(home, head_id, limit))
            except KeyError:
                self._homes.pop(head_id, None)  # deleted since; a fork may have it
        missing = KeyError(head_id)
        for found in await self._find(head_id):
            try:
                return await self._stored(await self._chain(found, head_id, limit))
            except KeyError as exc:
                missing = exc
        raise missing

    async def _find(self, entry_id: str) -> list[str]:
        """The conversations that have an entry."""
        places = Query(table=ENTRIES, prefix=(entry_id,), order_by="any")
        return [row.key[1] for row in await self._storage.find_rows(places)]

    async def _chain(self, home: str, head_id: str, limit: int | None) -> list[Message]:
        """The messages that make up a history, out of one thread."""
        newest = Query(table=MESSAGES, prefix=(home,), descending=True, limit=limit)
        messages = _messages(await self._storage.find_rows(newest))
        if _break(messages, head_id, limit) is not None and limit is not None:
            whole = structs.replace(newest, limit=None)  # branches stand in between
            messages = _messages(await self._storage.find_rows(whole))
        while (missing := _break(messages, head_id, limit)) is not None:
            # A store without strong reads may list a message later than it gives it.
            [row] = await self._storage.get_rows(MESSAGES, [(home, missing)])
            if row is None or not (got := _messages([row])):
                raise KeyError(missing)
            messages |= got
        return _walk(messages, head_id, limit)[::-1]

    async def _stored(self, messages: Iterable[Message]) -> list[Stored]:
        """Messages of entries, with what is kept beside them."""
        messages = list(messages)
        large = await large_contents(
            self._storage, [(one.thread_id, one.id) for one in messages if is_large(one)]
        )
        return [
            Stored(one, large[one.thread_id, one.id] if is_large(one) else one.content)
            for one in messages
        ]


def _messages(rows: Iterable[Row]) -> dict[str, Message]:
    """Those of these messages that keep entries, by id."""
    messages: Iterable[Message] = map(MESSAGES.record_of, rows)
    return {message.id: message for message in messages if is_entry(message)}


def _walk(messages: dict[str, Message], head_id: str, limit: int | None) -> list[Message]:
    """The chain back from `head_id`, as far as it goes."""
    chain: list[Message] = []
    at: str | None = head_id
    while at in messages and (limit is None or len(chain) < limit):
        chain.append(messages[at])
        at = _parent(messages[at])
    return chain


def _break(messages: dict[str, Message], head_id: str, limit: int | None) -> str | None:
    """The entry that the chain lacks; `None` when it is whole."""
    chain = _walk(messages, head_id, limit)
    if not chain:
        return head_id
    return None if len(chain) == limit else _parent(chain[-1])


def _parent(message: Message) -> str | None:
    parent: str | None = message.metadata[MEMBER]["parent_id"]
    return parent
