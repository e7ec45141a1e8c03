"""Sessions of Strands, message by message: threads and messages that every tool can show."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from strands.session import SessionRepository
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage

from mastra_storage import (
    ABSENT,
    MESSAGES,
    THREADS,
    ConflictError,
    Delete,
    DeletePrefix,
    InvalidArgumentError,
    Key,
    Message,
    MessageUpdate,
    NotFoundError,
    Op,
    Put,
    Query,
    Row,
    Storage,
    StorageError,
    Thread,
    Touch,
)
from mastra_storage_strands._mapping import (
    is_of_strands,
    kept,
    message_id_of,
    part_key,
    part_record,
    session_message_of,
    thread_id_of,
)
from mastra_storage_strands.storage import MastraStrandsStorage
from mastra_storage_strands.tables import SESSIONS

if TYPE_CHECKING:
    from strands.multiagent import MultiAgentBase

__all__ = ["MastraStrandsRepository"]

T = TypeVar("T")


class MastraStrandsRepository(SessionRepository):
    """Sessions, agents and messages of Strands, for `RepositorySessionManager`.

    The messages of an agent are those of the thread `SESSION_ID/AGENT_ID`, of which
    `resource_id` (the session id, when it is not given) and `metadata` are. The rest is in the
    table `strands_sessions`.

    Methods block until the storage has answered, as Strands has it; `MastraStrandsSessionManager`
    keeps them off an agent's event loop. Errors are Strands' `SessionException`.
    """

    def __init__(
        self,
        storage: MastraStrandsStorage,
        *,
        resource_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(storage, MastraStrandsStorage):
            raise InvalidArgumentError(
                "a session of Strands is kept in a MastraStrandsStorage, not in "
                f"{type(storage).__name__}; wrap a Storage that is not open: "
                "MastraStrandsStorage(open_storage(url))"
            )
        self._bridge = storage.bridge
        self._resource_id = resource_id
        self._metadata = dict(metadata or {})
        # Of the agents that were read or written here: what their rows may be now.
        self._versions: dict[Key, set[str]] = {}

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        """Store a session; `SessionException` when it is there."""
        self._put(session.session_id, "session", session.to_dict(), there=False)
        return session

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        """The session, or `None`."""
        value = self._get(session_id, "session")
        return None if value is None else Session.from_dict(value)

    def delete_session(self, session_id: str, **kwargs: Any) -> None:
        """Delete a session, its agents and orchestrators, and the threads of its agents.

        `SessionException` when it is not there. (`Storage.delete_thread` leaves what is kept of
        an agent besides its messages.)
        """
        everything = Query(table=SESSIONS, prefix=part_key(session_id, "")[:1], order_by="any")

        async def delete(storage: Storage) -> None:
            parts = [row.key[1] for row in await storage.find_rows(everything)]
            if not parts:
                raise _not_there(session_id, "session")
            agents = [part.removeprefix("agent/") for part in parts if part.startswith("agent/")]
            threads = [(thread_id_of(session_id, agent),) for agent in agents]
            await storage.write_rows(
                *[DeletePrefix(MESSAGES, thread) for thread in threads],
                *[Delete(THREADS, thread) for thread in threads],
                DeletePrefix(SESSIONS, (session_id,)),
            )

        self._run(delete)

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Store an agent, in place of one of its id, and make its thread unless it is there."""
        key = part_key(session_id, f"agent/{session_agent.agent_id}")
        thread = self._thread(session_id, session_agent.agent_id)

        async def create(storage: Storage) -> None:
            row = storage.new_row(SESSIONS, part_record(key, session_agent.to_dict()))
            made = Put(storage.new_row(THREADS, thread))

            def change(rows: list[Row | None]) -> list[Op]:
                return [made, Put(row)] if rows[0] is None else [Put(row)]

            await storage.change_rows([(THREADS, (thread.id,)), (SESSIONS, key)], change)
            self._versions[key] = {row.version}

        self._run(create)

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        """The agent, or `None`."""
        key = part_key(session_id, f"agent/{agent_id}")
        [row] = self._run(lambda storage: storage.get_rows(SESSIONS, [key]))
        if row is None:
            return None
        self._versions[key] = {row.version}
        return SessionAgent.from_dict(SESSIONS.record_of(row)["value"])

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Store an agent anew, made when it was; `SessionException` when it is not there.

        So it is, where the backend has `compare_and_set`, when the agent was read or written here
        before and another has changed it since; elsewhere the later one stays.
        """
        key = part_key(session_id, f"agent/{session_agent.agent_id}")
        known = self._versions.get(key, set())
        made: list[str] = []

        async def update(storage: Storage) -> None:
            def change(rows: list[Row | None]) -> list[Op]:
                [old] = rows
                if old is None:
                    raise _not_there(*key)
                checked = bool(known) and storage.capabilities.compare_and_set
                if checked and old.version not in known.union(made):
                    raise SessionException(
                        f"{key[1]} of the session {session_id!r} was changed by another that goes "
                        "on with it; make this one anew"
                    )
                value = session_agent.to_dict()
                value |= {"created_at": SESSIONS.record_of(old)["value"]["created_at"]}
                row = storage.new_row(SESSIONS, part_record(key, value))
                made.append(row.version)
                return [Put(row)]

            await storage.change_rows([(SESSIONS, key)], change)

        try:
            self._run(update)
        finally:  # one whose answer was lost may be there all the same
            if known:
                self._versions[key] = known.union(made)
        self._versions[key] = {made[-1]}

    def create_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        """Store a message of an agent; `SessionException` when it has one of that number.

        That is so where the backend has `compare_and_set`; elsewhere the later one stays.
        """
        role, content, metadata = kept(session_message)
        thread = self._thread(session_id, agent_id)
        message = Message(
            id=message_id_of(session_message.message_id),
            thread_id=thread.id,
            role=role,
            content=content,
            metadata=metadata,
            created_at=datetime.fromisoformat(session_message.created_at),
        )

        async def create(storage: Storage) -> None:
            try:
                await _create_message(storage, message)
            except NotFoundError:  # the thread was deleted, and the session was not
                made = Put(storage.new_row(THREADS, thread))
                await storage.change_rows(
                    [(THREADS, (thread.id,))], lambda rows: [made] if rows[0] is None else []
                )
                await _create_message(storage, message)

        self._run(create)

    def read_message(
        self, session_id: str, agent_id: str, message_id: int, **kwargs: Any
    ) -> SessionMessage | None:
        """The message, or `None`."""
        thread_id, ids = thread_id_of(session_id, agent_id), [message_id_of(message_id)]
        found = self._run(lambda storage: storage.get_messages_by_id(thread_id, ids))
        return next(map(session_message_of, filter(is_of_strands, found)), None)

    def update_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        """Change a message, in its place; `SessionException` when it is not there."""
        role, content, metadata = kept(session_message)
        update = MessageUpdate(message_id_of(session_message.message_id))
        update.role, update.content, update.metadata = role, content, metadata
        thread_id = thread_id_of(session_id, agent_id)
        if not self._run(lambda storage: storage.update_messages(thread_id, [update])):
            raise SessionException(f"message {session_message.message_id} is not there")

    def list_messages(
        self,
        session_id: str,
        agent_id: str,
        limit: int | None = None,
        offset: int = 0,
        **kwargs: Any,
    ) -> list[SessionMessage]:
        """The messages of an agent in order, from the one at `offset`, at most `limit`."""
        thread_id = thread_id_of(session_id, agent_id)
        found = self._run(lambda storage: storage.get_messages(thread_id))
        # By their numbers: clocks differ between the machines that an agent runs on.
        messages = sorted(
            map(session_message_of, filter(is_of_strands, found)), key=lambda one: one.message_id
        )
        return messages[offset:] if limit is None else messages[offset : offset + limit]

    def create_multi_agent(
        self, session_id: str, multi_agent: MultiAgentBase, **kwargs: Any
    ) -> None:
        """Store the state of an orchestrator, in place of what is there."""
        self._put(session_id, f"multi_agent/{multi_agent.id}", multi_agent.serialize_state())

    def read_multi_agent(
        self, session_id: str, multi_agent_id: str, **kwargs: Any
    ) -> dict[str, Any] | None:
        """The state of an orchestrator, or `None`."""
        return self._get(session_id, f"multi_agent/{multi_agent_id}")

    def update_multi_agent(
        self, session_id: str, multi_agent: MultiAgentBase, **kwargs: Any
    ) -> None:
        """Store the state of an orchestrator; `SessionException` when there is none."""
        state = multi_agent.serialize_state()
        self._put(session_id, f"multi_agent/{multi_agent.id}", state, there=True)

    def _thread(self, session_id: str, agent_id: str) -> Thread:
        return Thread(
            id=thread_id_of(session_id, agent_id),
            resource_id=self._resource_id or session_id,
            metadata=self._metadata,
        )

    def _get(self, session_id: str, part: str) -> dict[str, Any] | None:
        key = part_key(session_id, part)
        [row] = self._run(lambda storage: storage.get_rows(SESSIONS, [key]))
        return None if row is None else SESSIONS.record_of(row)["value"]

    def _put(
        self, session_id: str, part: str, value: dict[str, Any], *, there: bool | None = None
    ) -> None:
        """Store a part of a session; `there` says whether it must be there already, or not be."""
        key = part_key(session_id, part)

        async def put(storage: Storage) -> None:
            row = storage.new_row(SESSIONS, part_record(key, value))

            def change(rows: list[Row | None]) -> list[Op]:
                [old] = rows
                if there and old is None:
                    raise _not_there(*key)
                if there is False and old is not None:
                    raise SessionException(f"{part} of the session {session_id!r} is there already")
                return [Put(row)]

            await storage.change_rows([(SESSIONS, key)], change)

        self._run(put)

    def _run(self, work: Callable[[Storage], Awaitable[T]]) -> T:
        try:
            return self._bridge.run_sync(work)
        except StorageError as exc:
            raise SessionException(str(exc)) from exc


async def _create_message(storage: Storage, message: Message) -> None:
    """Store a message of a thread that is there: `NotFoundError` where it is not."""
    absent = ABSENT if storage.capabilities.compare_and_set else None
    made = Put(storage.new_row(MESSAGES, message), absent)
    touch = Touch(THREADS, (message.thread_id,), time.time_ns() // 1000)
    try:
        await storage.write_rows(made, touch)
    except ConflictError as exc:
        for there in await storage.get_messages_by_id(message.thread_id, [message.id]):
            if (there.content, there.metadata) == (message.content, message.metadata):
                return  # stored before, by a call whose answer got lost
        raise SessionException(
            f"message {message.id} of {message.thread_id!r} is there already: another agent goes "
            "on with this session; make this one anew"
        ) from exc


def _not_there(session_id: str, part: str) -> SessionException:
    return SessionException(f"{part} of the session {session_id!r} is not there")
