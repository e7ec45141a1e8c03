"""Conversations as threads and messages: the newest state's messages, beside the checkpoints.

They are written with the checkpoint, in the same write, and of each checkpoint only what differs
from the one before it. What the rows show is known where this process read or wrote the newest
checkpoint; a checkpoint that follows another one is a branch, and the rows are compared.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import get_checkpoint_id
from msgspec import structs
from pydantic_core import PydanticSerializationError

from mastra_storage import (
    ABSENT,
    MESSAGES,
    THREADS,
    Delete,
    DeletePrefix,
    InvalidRecordError,
    Op,
    Put,
    Query,
    Row,
    Storage,
    Thread,
    Touch,
)
from mastra_storage_langgraph._messages import MARK, Messages, message_of, messages_by_id, unshown
from mastra_storage_langgraph._recent import Recent
from mastra_storage_langgraph.tables import Place, key_part

__all__ = ["CHANNEL", "NOTHING", "Conversations", "Shown"]

CHANNEL: Final = "messages"
"""The channel that holds a conversation."""

_MOMENT: Final = timedelta(microseconds=1)
_SECOND_MOMENT: Final = datetime.min.replace(tzinfo=timezone.utc) + _MOMENT

# How many messages, of all threads together, are known to be shown.
_BOUND: Final = 200_000


class Shown(NamedTuple):
    """Which checkpoint the rows of a thread show, and the digests of its messages, by their ids.

    `channel`: those digests in the order of the channel. `made`: whether there is a thread, as far
    as is known.
    """

    checkpoint_id: str | None
    digests: Mapping[str, bytes]
    channel: Sequence[bytes]
    made: bool


NOTHING: Final = Shown(None, {}, (), made=False)
"""A thread without checkpoints."""


class Conversations:
    """Keeps the rows of conversations; `enabled` or not."""

    def __init__(self, storage: Storage, *, enabled: bool) -> None:
        self._storage = storage
        self._enabled = enabled
        self._shown: Recent[str, Shown] = Recent(_BOUND)

    def concerns(self, place: Place) -> bool:
        """Whether checkpoints there are kept as conversations."""
        named = bool(place.thread) and not place.thread.startswith("sha256:")
        return self._enabled and not place.ns and named

    def know(self, thread: str, shown: Shown) -> None:
        """Take note of what the rows of a thread show."""
        self._shown.put(thread, shown, 1 + len(shown.digests))

    def read(self, thread: str, checkpoint_id: str, value: Any, digests: Sequence[bytes]) -> None:
        """Take note of the newest checkpoint, which the rows show."""
        shown = self._shown.get(thread)
        if shown is not None and (shown.checkpoint_id or "") > checkpoint_id:
            return  # a newer one was written while this one was read
        messages = messages_by_id(value, digests)
        if messages is not None:
            self.know(thread, _showing(checkpoint_id, messages, digests, made=bool(messages)))

    def forget(self, thread: str) -> None:
        self._shown.pop(thread)

    async def change(
        self, config: RunnableConfig, checkpoint_id: str, value: Any, digests: Sequence[bytes]
    ) -> tuple[list[Op], Shown | None]:
        """What makes the rows show a checkpoint that follows the one in `config`.

        And what they show then; nothing is done where the channel holds no messages.
        """
        thread = Place.of(config).thread
        shown = self._shown.get(thread)
        known = shown is not None and shown.checkpoint_id == get_checkpoint_id(config)
        if known and shown and digests and digests == shown.channel:
            return [], shown._replace(checkpoint_id=checkpoint_id)
        messages = messages_by_id(value, digests)
        if messages is None:
            # The channel has not been written to, or is somebody else's.
            return [], shown._replace(checkpoint_id=checkpoint_id) if shown and known else None
        now = datetime.now(timezone.utc)
        if shown is None or not known:
            ops = await self._compare(thread, messages, now)
            [there] = await self._storage.get_rows(THREADS, [(thread,)])
            is_new = there is None
        else:
            ops = await self._difference(thread, shown, messages, now)
            is_new = bool(ops) and not shown.made and await self._may_be_new(thread)
        if ops or (is_new and messages):
            ops = self._with_thread(ops, config, now, is_new=is_new)
        made = bool(ops) or (shown is not None and shown.made)
        return ops, _showing(checkpoint_id, messages, digests, made=made)

    async def _difference(
        self,
        thread: str,
        shown: Shown,
        messages: Messages,
        now: datetime,
    ) -> list[Op]:
        """The ops, given what the rows show."""
        other = [name for name, one in messages.items() if shown.digests.get(name) != one[1]]
        behind = _behind(messages, shown.digests)
        needed = {behind.get(name, name) for name in other}
        keys = [(thread, name) for name in needed if name in shown.digests]
        rows = await self._storage.get_rows(MESSAGES, keys)
        old = {row.key[1]: row for row in rows if row is not None}
        times = _times(messages, old, behind, now)
        puts = [self._put(thread, name, messages[name][0], times[name]) for name in other]
        gone = [name for name in shown.digests if name not in messages]
        return [*puts, *[Delete(MESSAGES, (thread, name)) for name in gone]]

    async def _compare(self, thread: str, messages: Messages, now: datetime) -> list[Op]:
        """The ops, with the rows read. Messages of somebody else in the thread are left alone."""
        rows = await self._storage.find_rows(Query(table=MESSAGES, prefix=(thread,)))
        old = {row.key[1]: row for row in rows}
        times = _times(messages, old, _behind(messages, old), now)
        ops: list[Op] = []
        for name, (message, _) in messages.items():
            put = self._put(thread, name, message, times[name])
            if name not in old or put.row.value != old[name].value:
                ops.append(put)
        for name, row in old.items():
            ours = MESSAGES.record_of(row).metadata.get("runtime") == MARK["runtime"]
            if ours and name not in messages:
                ops.append(Delete(MESSAGES, row.key))
        return ops

    def _put(self, thread: str, name: str, message: BaseMessage, created_at: datetime) -> Put:
        try:
            shown = message_of(thread, name, message, created_at)
            row = self._storage.new_row(MESSAGES, shown)
        except (InvalidRecordError, PydanticSerializationError):
            reason = "holds what is not JSON"
        else:
            limit = self._storage.capabilities.max_record_bytes
            if limit is None or len(row.value) <= limit:
                return Put(row)
            reason = f"{len(row.value):,} bytes"
        return Put(self._storage.new_row(MESSAGES, unshown(thread, name, reason, created_at)))

    async def _may_be_new(self, thread: str) -> bool:
        """Whether to make the thread; a store with compare-and-set finds out as it writes."""
        if self._storage.capabilities.compare_and_set:
            return True
        [there] = await self._storage.get_rows(THREADS, [(thread,)])
        return there is None

    def _with_thread(
        self, ops: list[Op], config: RunnableConfig, now: datetime, *, is_new: bool
    ) -> list[Op]:
        """The ops, and what makes the thread, or says that it changed."""
        thread = Place.of(config).thread
        if not is_new:
            return [*ops, Touch(THREADS, (thread,), int(now.timestamp() * 1_000_000))]
        configurable = config["configurable"]
        owner = configurable.get("resource_id") or configurable.get("user_id") or thread
        record = Thread(
            id=thread, resource_id=key_part(str(owner)), metadata=dict(MARK), created_at=now
        )
        row = self._storage.new_row(THREADS, record)
        condition = ABSENT if self._storage.capabilities.compare_and_set else None
        return [Put(row, condition), *ops]

    async def copy(self, source: str, target: str) -> None:
        """Copy the thread and its messages, where there is none of the target's id."""
        old, there = await self._storage.get_rows(THREADS, [(source,), (target,)])
        if old is None or there is not None:
            return
        rows = await self._storage.find_rows(Query(table=MESSAGES, prefix=(source,)))
        thread = structs.replace(THREADS.record_of(old), id=target)
        copies = [structs.replace(MESSAGES.record_of(row), thread_id=target) for row in rows]
        await self._storage.write_rows(
            Put(self._storage.new_row(THREADS, thread)),
            *[Put(self._storage.new_row(MESSAGES, message)) for message in copies],
        )

    async def clear(self, thread: str) -> None:
        """Delete the messages of a thread that no checkpoint has any more."""
        await self._storage.write_rows(*await self._compare(thread, {}, datetime.now(timezone.utc)))

    def deletes(self, thread: str) -> list[Op]:
        """What deletes the conversation of a thread."""
        if not self.concerns(Place(thread, "")):
            return []
        return [DeletePrefix(MESSAGES, (thread,)), Delete(THREADS, (thread,))]


def _behind(messages: Messages, there: Container[str]) -> dict[str, str]:
    """For each new message that comes before one that stays: that one."""
    found: dict[str, str] = {}
    stays = None
    for name in reversed(messages):
        if name in there:
            stays = name
        elif stays is not None:
            found[name] = stays
    return found


def _times(
    messages: Messages, old: Mapping[str, Row], behind: Mapping[str, str], now: datetime
) -> dict[str, datetime]:
    """The times of messages, which say where they stand.

    One that is replaced keeps its own. One that comes before one that stays, as a summary does,
    is a moment older than that one.
    """
    times: dict[str, datetime] = {}
    for name in messages:
        row = old.get(behind.get(name, name))
        times[name] = now if row is None else MESSAGES.record_of(row).created_at
        if row is not None and name in behind:
            times[name] = max(times[name], _SECOND_MOMENT) - _MOMENT
    return times


def _showing(
    checkpoint_id: str, messages: Messages, channel: Sequence[bytes], *, made: bool
) -> Shown:
    digests = {name: digest for name, (_, digest) in messages.items()}
    return Shown(checkpoint_id, digests, channel, made)
