"""Changing messages, and moving them to other threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import UNSET, structs

from mastra_storage.arguments import id_argument, list_argument
from mastra_storage.backend import Delete, Op, Put, Touch
from mastra_storage.errors import ConflictError, InvalidArgumentError
from mastra_storage.records import Message, MessageUpdate
from mastra_storage.schema import MESSAGES, THREADS, Key, Row
from mastra_storage.storage._engine import Engine, no_thread, together
from mastra_storage.storage._locks import Name
from mastra_storage.storage._merge import merge
from mastra_storage.validation import check_members


class MessageUpdates(Engine):
    """What `update_messages` does."""

    async def _update(self, thread_id: str, updates: Iterable[MessageUpdate]) -> list[Row]:
        """Carry out updates; gives the rows of the messages found, as they are now."""
        changes: dict[str, dict[str, Any]] = {}
        for update in list_argument(updates, "updates"):
            _add_changes(changes, update)
        keys = [(thread_id, message_id) for message_id in changes]
        keys += [
            (str(c["thread_id"]), key[1])
            for key, c in zip(keys, changes.values(), strict=True)
            if "thread_id" in c
        ]
        async with self._locks.hold([Name(MESSAGES.name, key) for key in keys]):
            return await self._compare_and_set(lambda: self._prepare_updates(thread_id, changes))

    async def _prepare_updates(
        self, thread_id: str, changes: Mapping[str, dict[str, Any]]
    ) -> tuple[list[Op], list[Row]]:
        """The ops that make the changes, given what is stored now, and the rows they make."""
        reads = [self.backend.get(MESSAGES, [(thread_id, message_id) for message_id in changes])]
        if not self.capabilities.atomic:
            # To be touched, the thread must be there: asked at once where each read is a trip.
            reads.append(self.backend.get(THREADS, [(thread_id,)]))
        olds, *owners = await together(*reads)
        if any(olds) and owners == [[None]]:
            raise no_thread(thread_id)
        version = self._version()
        rows: list[Row] = []
        puts: list[Op] = []
        deletes: list[Op] = []
        targets: list[Key] = []
        for old, members in zip(olds, changes.values(), strict=True):
            if old is None:
                continue
            key = (members.get("thread_id", thread_id), old.key[1])
            value = merge(MESSAGES, old.value, members)
            row = structs.replace(old, key=key, value=value, version=version)
            rows.append(row)
            if key == old.key:
                puts.append(Put(row, self._expecting(old)))
            else:
                targets.append(key)
                puts.append(Put(row, self._expecting(None)))
                deletes.append(Delete(MESSAGES, old.key, self._expecting(old)))
        await self._refuse_taken(targets)
        at = self._now()
        threads = {thread_id, *[key[0] for key in targets]} if rows else set()
        return [*puts, *[Touch(THREADS, (thread,), at) for thread in threads], *deletes], rows

    async def _refuse_taken(self, targets: Sequence[Key]) -> None:
        """Refuse a move to a thread that is not there, or onto a message that is."""
        if not targets:
            return
        threads = list({key[0] for key in targets})
        owners, taken = await together(
            self.backend.get(THREADS, [(thread,) for thread in threads]),
            self.backend.get(MESSAGES, targets),
        )
        for thread, owner in zip(threads, owners, strict=True):
            if owner is None:
                raise no_thread(thread)
        for row in taken:
            if row is not None:
                raise ConflictError(
                    f"thread {row.key[0]!r} has a message {row.key[1]!r} already; "
                    "a message cannot be moved onto another"
                )


def _add_changes(changes: dict[str, dict[str, Any]], update: MessageUpdate) -> None:
    """Add what `update` gives to the changes of its message."""
    if not isinstance(update, MessageUpdate):
        raise InvalidArgumentError(
            f"updates takes MessageUpdate objects, not {type(update).__name__}"
        )
    members = changes.setdefault(id_argument(update.id, "MessageUpdate.id"), {})
    given = {
        name: value
        for name in ("role", "content", "metadata", "thread_id")
        if (value := getattr(update, name)) is not UNSET
    }
    for name, value in check_members(Message, given).items():
        members[name] = members.get(name, {}) | value if name == "metadata" else value
