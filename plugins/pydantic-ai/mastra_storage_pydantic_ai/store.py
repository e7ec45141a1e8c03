"""`MastraConversationStore`: conversations of Pydantic AI as threads and their messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timezone

from msgspec import structs
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)

from mastra_storage import (
    MESSAGES,
    THREADS,
    Delete,
    DeletePrefix,
    Op,
    Put,
    Query,
    Row,
    Storage,
    Thread,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage_pydantic_ai.entries import (
    Stored,
    decoded,
    large_contents,
    let_others_run,
    puts,
    stored_of,
)
from mastra_storage_pydantic_ai.histories import Histories
from mastra_storage_pydantic_ai.records import (
    deferred_key,
    member_of,
    record_of,
    resource_of,
    thread_of,
)
from mastra_storage_pydantic_ai.tables import ENTRIES, LARGE

__all__ = ["MastraConversationStore"]


class MastraConversationStore(ConversationStore):
    """Keeps conversations in a `Storage` that is open and stays the caller's.

        store = MastraConversationStore(storage)
        conversation = await store.load("trip") or Conversation(conversation_id="trip")
        result = await agent.run("To Oslo, please", conversation=conversation)
        await store.save(result, scope="ada")

    A conversation is the thread of its id, each entry one of the thread's messages; the scope is
    the thread's resource id (without a scope, the conversation id is). So `storage.list_threads`,
    `watch_messages` and the command `mastra-storage` see conversations as they see any others.
    Ids have 1 to 256 bytes. Branches that were left stay in the thread.

    A fork begins with copies of the entries it goes on from, under their ids. So every
    conversation is whole in its own thread: deleting one, here or by `storage.delete_thread`,
    takes its messages along and nothing from any fork. (What is too large for a message goes by
    `delete` alone.)

    The checks of `revision` need a backend with `compare_and_set`. Elsewhere (Workers KV) two
    that save a conversation at once through different `Storage` objects both succeed, and what one
    of them added is no longer in the history, without a `ConversationConflict`. That breaks
    what a `ConversationStore` promises, so such a backend is refused with `UnsupportedError`
    unless `allow_races` says that nobody saves a conversation at two places at once.

    Errors other than `ConversationConflict` and `UserError` are those of `mastra_storage`.
    """

    def __init__(self, storage: Storage, *, allow_races: bool = False) -> None:
        if not storage.capabilities.compare_and_set and not allow_races:
            raise UnsupportedError(
                f"the backend {storage.backend.name!r} has no compare-and-set: when two processes "
                "save one conversation at once, the later replaces the earlier without a word. "
                "Where each conversation is saved at one place at a time, pass allow_races=True",
                backend=storage.backend.name,
            )
        storage.register(ENTRIES)
        storage.register(LARGE)
        self._storage = storage
        self._histories = Histories(storage)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._storage!r})"

    # -- records ---------------------------------------------------------------------------

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """The record of a conversation, or `None`."""
        seen: str | None = None
        while True:
            thread = await self._storage.get_thread_by_id(conversation_id)
            if thread is None or (member := member_of(thread)) is None:
                return None
            key = deferred_key(thread)
            if key is None:
                return self._remembered(record_of(thread))
            found = await large_contents(self._storage, [key])
            if key in found:
                return self._remembered(record_of(thread, found[key]))
            if seen == member["revision"]:  # else it was saved meanwhile
                raise UnavailableError(
                    f"what conversation {conversation_id!r} waits for is not there; the store may "
                    "show it in a while: try again"
                )
            seen = member["revision"]

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """The records, or those of a scope, newest `updated_at` first, and at most `limit`."""
        records: list[ConversationRecord] = []
        cursor: str | None = None
        while limit is None or len(records) < limit:
            page = await self._storage.list_threads(
                resource_id=None if scope is None else resource_of(scope),
                order_by="updated_at",
                per_page=None if limit is None else limit - len(records),
                cursor=cursor,
                count=False,
            )
            for thread in page:
                member = member_of(thread)
                if member is None or (scope is not None and member.get("scope") != scope):
                    continue  # a thread of something else, or a scope with the same resource id
                if deferred_key(thread) is None:
                    records.append(self._remembered(record_of(thread)))
                elif (record := await self.read_record(thread.id)) is not None:
                    records.append(record)
            cursor = page.next_cursor
            if cursor is None:
                break
        return records

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and new entries in one write, on condition of `expected_revision`.

        Raises `ConversationConflict` when the revision is another, when an entry that the history
        goes on from is not there, or when the thread belongs to another resource. Then nothing was
        written, or (more entries than one transaction of the backend holds) entries alone.
        """
        added = await self._new(record.conversation_id, new_entries)
        ids = {one.id for one in added}
        named = [record.head_id, *[one.parent_id for one in added]]
        needed = dict.fromkeys(
            entry_id for entry_id in named if entry_id is not None and entry_id not in ids
        )
        try:
            await self._replace(record, expected_revision, added, needed)
        except _NotKnownError:
            brought = await self._bring(record, list(needed), new=expected_revision is None)
            await self._replace(record, expected_revision, [*brought, *added], ())
        self._histories.remember(record)

    async def delete(self, conversation_id: str, *, scope: str | None = None) -> None:
        """Delete a conversation and all of its messages; a fork has its own, and keeps them.

        Where it was cut short, on a backend that is not atomic, another call completes it.
        """
        await super().delete(conversation_id, scope=scope)
        if self._storage.capabilities.atomic:
            return
        if await self._storage.get_thread_by_id(conversation_id) is None:
            await self._storage.write_rows(DeletePrefix(LARGE, (conversation_id,)))

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation and all of its messages; a fork has its own, and keeps them.

        Raises `ConversationConflict` when the revision is another, or nothing is there.
        """
        under = Query(table=MESSAGES, prefix=(conversation_id,))
        entries = [row.key[1] for row in await self._storage.find_rows(under)]

        def change(rows: list[Row | None]) -> list[Op]:
            member = member_of(_threads(rows)[0])
            if member is None or member["revision"] != expected_revision:
                raise ConversationConflict(conversation_id)
            return [
                DeletePrefix(MESSAGES, (conversation_id,)),
                Delete(THREADS, (conversation_id,)),
                DeletePrefix(LARGE, (conversation_id,)),
                *[Delete(ENTRIES, (entry_id, conversation_id)) for entry_id in entries],
            ]

        await self._storage.change_rows([(THREADS, (conversation_id,))], change)

    async def _replace(
        self,
        record: ConversationRecord,
        expected_revision: str | None,
        entries: Sequence[Stored],
        needed: Collection[str],
    ) -> None:
        """Put a record's thread, and entries. `_NotKnownError`: whether `needed` ones are there."""
        storage = self._storage
        new = await puts(storage, entries)

        def change(rows: list[Row | None]) -> list[Op]:
            [old] = _threads(rows)
            stored = member_of(old)
            if (stored["revision"] if stored else None) != expected_revision:
                raise ConversationConflict(record.conversation_id)
            if stored is None and not _may_have(old, record):
                raise ConversationConflict(record.conversation_id)
            if set(needed) - ({stored["head_id"], *stored["branches"]} if stored else set()):
                raise _NotKnownError
            thread, beside = thread_of(storage, record, old)
            left = None if old is None else deferred_key(old)
            return [
                *new,
                *([Put(beside)] if beside else []),
                Put(storage.new_row(THREADS, thread)),
                *([Delete(LARGE, left)] if left and not (beside and beside.key == left) else []),
            ]

        await storage.change_rows([(THREADS, (record.conversation_id,))], change)

    async def _new(
        self, conversation_id: str, entries: Sequence[ConversationEntry]
    ) -> list[Stored]:
        """What keeps new entries: messages of one time, so that those of a save stay together."""
        now = datetime.now(timezone.utc)
        limit = self._storage.capabilities.max_record_bytes
        stored = []
        for position, entry in enumerate(entries):
            await let_others_run(position)
            stored.append(stored_of(conversation_id, entry, now, limit))
        return stored

    async def _bring(
        self, record: ConversationRecord, needed: list[str], *, new: bool
    ) -> list[Stored]:
        """Copies of the histories up to these entries, of those that are in other conversations.

        A `new` conversation has none: what is in its thread is left of a save that was cut short.
        """
        home = record.conversation_id
        if not new:
            own = await self._storage.get_rows(MESSAGES, [(home, entry_id) for entry_id in needed])
            needed = [one for one, row in zip(needed, own, strict=True) if row is None]
        copies: dict[str, Stored] = {}
        for entry_id in needed:
            try:
                history = await self._histories.history(entry_id, home=record.forked_from)
            except KeyError:
                raise ConversationConflict(home) from None
            for one in history:
                message = structs.replace(one.message, thread_id=home, resource_id=None)
                copies[one.id] = Stored(message, one.content)
        return list(copies.values())

    # -- entries ---------------------------------------------------------------------------

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """The entry with this identifier. Raises `KeyError` when there is none."""
        [entry] = await decoded([await self._histories.entry(entry_id)])
        return entry

    async def read_history(
        self, head_id: str | None, *, limit: int | None = None
    ) -> list[ConversationEntry]:
        """The entries up to `head_id`, in order, or the last `limit` of them.

        One read of the thread, or two when branches stand among the last `limit` messages; one
        more when this store has not read the conversation's record. Raises `KeyError` when
        an entry is not there.
        """
        if head_id is None or limit == 0:
            return []
        return await decoded(await self._histories.history(head_id, limit))

    def _remembered(self, record: ConversationRecord) -> ConversationRecord:
        self._histories.remember(record)
        return record


class _NotKnownError(Exception):
    """It is not known whether an entry is in the conversation."""


def _may_have(thread: Thread | None, record: ConversationRecord) -> bool:
    """Whether a thread that is no conversation yet can become this one."""
    return thread is None or record.scope is None or thread.resource_id == resource_of(record.scope)


def _threads(rows: Iterable[Row | None]) -> list[Thread | None]:
    return [None if row is None else THREADS.record_of(row) for row in rows]
