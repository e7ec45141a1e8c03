"""`MastraSession`: a session of the OpenAI Agents SDK as a thread and its messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, cast

from agents.items import TResponseInputItem
from agents.memory import SessionSettings
from agents.memory.session_settings import coerce_session_settings, resolve_session_limit
from msgspec import structs

from mastra_storage import (
    MESSAGES,
    THREADS,
    Delete,
    DeletePrefix,
    InvalidArgumentError,
    Message,
    NotFoundError,
    Op,
    Put,
    Query,
    Row,
    Storage,
    Thread,
    Touch,
)
from mastra_storage_openai_agents._compaction import Snapshot, compaction_snapshot
from mastra_storage_openai_agents._finishing import finished

__all__ = ["MastraSession"]

_MICROSECOND: Final = timedelta(microseconds=1)


class MastraSession:
    """A conversation, kept in a `Storage` that is open and stays the caller's.

        session = MastraSession("trip", storage, resource_id="ada")
        result = await Runner.run(agent, "To Oslo, please", session=session)

    The session is the thread `session_id`, made with the first items, and each item is the content
    of one of its messages. So `storage.list_threads(resource_id="ada")` lists the sessions of a
    user, and `storage.delete_thread(session_id)` removes one for good.

    - `resource_id`: whom the session belongs to; the session id when it is not given.
    - `title`, `metadata`: of the thread. These three are written when the thread is made, and
      never over those of a thread that is there.
    - `session_settings`: its `limit` is how many items a read without a limit gives.

    Any number of sessions, in any number of processes, may use one id at once. Errors are
    those of `mastra_storage`; an item that JSON cannot hold is an `InvalidRecordError`. A change
    whose caller is cancelled has happened or not when that one goes on, and does not come later.
    """

    session_id: str
    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        storage: Storage,
        *,
        resource_id: str | None = None,
        title: str = "",
        metadata: Mapping[str, Any] | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(storage, Storage):
            raise InvalidArgumentError(
                "a session is kept in a Storage that is open, not in "
                f"{type(storage).__name__}; make one with open_storage(url)"
            )
        self.session_id = session_id
        self.resource_id = session_id if resource_id is None else resource_id
        self.title = title
        self.metadata = dict(metadata or {})
        self.session_settings = coerce_session_settings(session_settings or SessionSettings())
        self._storage = storage
        self._newest = datetime.min.replace(tzinfo=timezone.utc)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session_id!r}, {self._storage!r})"

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The latest `limit` items in order, each as it was given; by default all, in one read.

        `None` takes the limit of `session_settings`; a limit of 0 or less gives nothing.
        """
        limit = resolve_session_limit(limit, self.session_settings)
        if limit is not None and limit <= 0:
            return []
        messages = await self._storage.get_messages(self.session_id, last=limit)
        if messages:
            self._newest = max(self._newest, messages[-1].created_at)
        return [message.content for message in messages]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items, in one write; items that others append meanwhile come before or after.

        All are checked before any is written. A cancelled call has appended all or none, where
        the backend is atomic.
        """
        if not items:
            return
        await finished(self._add(self._messages(items, at=self._time())))

    async def _add(self, messages: list[Message]) -> None:
        try:
            await self._storage.save_messages(messages)
        except NotFoundError:
            await self._begin(messages)
        self._newest = max(self._newest, messages[-1].created_at)

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item and give it; `None` when there is none.

        No two calls give the same item, in whatever process, where the backend has
        `compare_and_set`; elsewhere no two calls on one `Storage` do.
        """
        newest = Query(table=MESSAGES, prefix=(self.session_id,), descending=True, limit=1)
        seen: Row | None = None
        while rows := await self._storage.find_rows(newest):
            [row] = rows
            removed = await finished(self._remove(row))
            if removed is not None:
                return cast(TResponseInputItem, removed.content)
            if seen is not None and seen.key == row.key:
                # Without strong reads, what another process removed may still be listed.
                newest = structs.replace(newest, after=newest.position(row))
            seen = row
        return None

    async def clear_session(self) -> None:
        """Remove all items. The thread stays, with its title and metadata."""
        await finished(self._clear())

    async def _clear(self) -> None:
        items = DeletePrefix(MESSAGES, (self.session_id,))
        try:
            await self._storage.write_rows(self._touch(), items)
        except NotFoundError:
            await self._storage.write_rows(items)

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> Snapshot | None:
        """The latest items and how to replace them at once, for `OpenAIResponsesCompactionSession`.

        `None` where the backend cannot do that; and for subclasses, which may keep items in another
        form than they give them.
        """
        capabilities = self._storage.capabilities
        if type(self) is not MastraSession or not (
            capabilities.atomic and capabilities.compare_and_set
        ):
            return None
        return await compaction_snapshot(
            self._storage, self.session_id, limit, self._messages, prune_prefix
        )

    def _messages(self, items: Iterable[TResponseInputItem], *, at: datetime) -> list[Message]:
        """Messages of one time, which keeps those of a call together."""
        return [
            Message(
                thread_id=self.session_id,
                role=_role(item),
                type=_member(item, "type") or "message",
                content=item,
                created_at=at,
            )
            for item in items
        ]

    async def _begin(self, messages: Sequence[Message]) -> None:
        """Make the thread and put its first messages, unless another makes it meanwhile."""
        storage = self._storage
        thread = Thread(
            id=self.session_id,
            resource_id=self.resource_id,
            title=self.title,
            metadata=self.metadata,
            created_at=messages[0].created_at,
        )
        made = Put(storage.new_row(THREADS, thread))
        puts = [Put(storage.new_row(MESSAGES, message)) for message in messages]

        def change(rows: list[Row | None]) -> list[Op]:
            return [made if rows == [None] else self._touch(), *puts]

        await storage.change_rows([(THREADS, (self.session_id,))], change)

    async def _remove(self, row: Row) -> Message | None:
        """Remove a message and give it as it was last; `None` when another was first."""
        removed: Message | None = None

        def change(rows: list[Row | None]) -> list[Op]:
            nonlocal removed
            message, thread = rows
            removed = None if message is None else MESSAGES.record_of(message)
            if message is None:
                return []
            return [*([self._touch()] if thread else []), Delete(MESSAGES, message.key)]

        wanted = [(MESSAGES, row.key), (THREADS, (self.session_id,))]
        try:
            await self._storage.change_rows(wanted, change)
        except NotFoundError:
            return None  # the thread was deleted meanwhile, with its messages
        return removed

    def _touch(self) -> Touch:
        return Touch(THREADS, (self.session_id,), time.time_ns() // 1000)

    def _time(self) -> datetime:
        """Now, yet after all that was read or added here: the clocks of machines differ."""
        return max(datetime.now(timezone.utc), self._newest + _MICROSECOND)


def _role(item: TResponseInputItem) -> str:
    """Who an item is from; those of calls and reasoning name no role."""
    kind = _member(item, "type")
    if kind == "mcp_approval_response":
        return "user"
    return _member(item, "role") or ("tool" if kind.endswith("_output") else "assistant")


def _member(item: Any, name: str) -> str:
    value = item.get(name) if isinstance(item, Mapping) else None
    return value if isinstance(value, str) else ""
