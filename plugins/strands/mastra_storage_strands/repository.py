"""Sessions of Strands, message by message: threads and messages that every tool can show."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

from strands.session import SessionRepository
from strands.types.exceptions import SessionException
from strands.types.session import Session, SessionAgent, SessionMessage

from mastra_storage import (
    ABSENT,
    MESSAGES,
    THREADS,
    ConflictError,
    InvalidArgumentError,
    Key,
    Message,
    MessageUpdate,
    Op,
    Put,
    Row,
    Storage,
    StorageError,
    Thread,
    Touch,
)
from mastra_storage_strands.storage import MastraStrandsStorage
from mastra_storage_strands.tables import SESSIONS

if TYPE_CHECKING:
    from strands.multiagent import MultiAgentBase

__all__ = ["MastraStrandsRepository"]

T = TypeVar("T")

# The member of a message's metadata for what Strands keeps of it besides role and content.
_STRANDS: Final = "strands"


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

    def create_session(self, session: Session, **kwargs: Any) -> Session:
        """Store a session; `SessionException` when it is there."""
        self._put(session.session_id, "session", session.to_dict(), there=False)
        return session

    def read_session(self, session_id: str, **kwargs: Any) -> Session | None:
        """The session, or `None`."""
        value = self._get(session_id, "session")
        return None if value is None else Session.from_dict(value)

    def create_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Store an agent, in place of one of its id, and make its thread unless it is there."""
        key = _key(session_id, f"agent/{session_agent.agent_id}")
        thread = Thread(
            id=_thread_id(session_id, session_agent.agent_id),
            resource_id=self._resource_id or session_id,
            metadata=self._metadata,
        )

        async def create(storage: Storage) -> None:
            agent = Put(storage.new_row(SESSIONS, _record(key, session_agent.to_dict())))
            made = Put(storage.new_row(THREADS, thread))

            def change(rows: list[Row | None]) -> list[Op]:
                return [made, agent] if rows[0] is None else [agent]

            await storage.change_rows([(THREADS, (thread.id,)), (SESSIONS, key)], change)

        self._run(create)

    def read_agent(self, session_id: str, agent_id: str, **kwargs: Any) -> SessionAgent | None:
        """The agent, or `None`."""
        value = self._get(session_id, f"agent/{agent_id}")
        return None if value is None else SessionAgent.from_dict(value)

    def update_agent(self, session_id: str, session_agent: SessionAgent, **kwargs: Any) -> None:
        """Store an agent anew, made when it was; `SessionException` when it is not there."""
        part = f"agent/{session_agent.agent_id}"
        self._put(session_id, part, session_agent.to_dict(), there=True)

    def create_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        """Store a message of an agent; `SessionException` when it has one of that number.

        That is so where the backend has `compare_and_set`; elsewhere the later one stays.
        """
        role, content, metadata = _kept(session_message)
        message = Message(
            id=_message_id(session_message.message_id),
            thread_id=_thread_id(session_id, agent_id),
            role=role,
            content=content,
            metadata=metadata,
            created_at=datetime.fromisoformat(session_message.created_at),
        )

        async def create(storage: Storage) -> None:
            absent = ABSENT if storage.capabilities.compare_and_set else None
            made = Put(storage.new_row(MESSAGES, message), absent)
            touch = Touch(THREADS, (message.thread_id,), time.time_ns() // 1000)
            try:
                await storage.write_rows(made, touch)
            except ConflictError as exc:
                raise SessionException(
                    f"message {session_message.message_id} of {message.thread_id!r} is there "
                    "already: another agent goes on with this session; make this one anew"
                ) from exc

        self._run(create)

    def read_message(
        self, session_id: str, agent_id: str, message_id: int, **kwargs: Any
    ) -> SessionMessage | None:
        """The message, or `None`."""
        thread_id, ids = _thread_id(session_id, agent_id), [_message_id(message_id)]
        found = self._run(lambda storage: storage.get_messages_by_id(thread_id, ids))
        return next(map(_session_message, filter(_is_of_strands, found)), None)

    def update_message(
        self, session_id: str, agent_id: str, session_message: SessionMessage, **kwargs: Any
    ) -> None:
        """Change a message, in its place; `SessionException` when it is not there."""
        role, content, metadata = _kept(session_message)
        update = MessageUpdate(_message_id(session_message.message_id))
        update.role, update.content, update.metadata = role, content, metadata
        thread_id = _thread_id(session_id, agent_id)
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
        thread_id = _thread_id(session_id, agent_id)
        found = self._run(lambda storage: storage.get_messages(thread_id))
        # By their numbers: clocks differ between the machines that an agent runs on.
        messages = sorted(
            map(_session_message, filter(_is_of_strands, found)), key=lambda one: one.message_id
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

    def _get(self, session_id: str, part: str) -> dict[str, Any] | None:
        key = _key(session_id, part)
        [row] = self._run(lambda storage: storage.get_rows(SESSIONS, [key]))
        return None if row is None else SESSIONS.record_of(row)["value"]

    def _put(
        self, session_id: str, part: str, value: dict[str, Any], *, there: bool | None = None
    ) -> None:
        """Store a part of a session; `there` says whether it must be there already, or not be."""
        key = _key(session_id, part)

        async def put(storage: Storage) -> None:
            def change(rows: list[Row | None]) -> list[Op]:
                [old] = rows
                if there is not None and there != (old is not None):
                    state = "is not there" if old is None else "is there already"
                    raise SessionException(f"{part} of the session {session_id!r} {state}")
                made = SESSIONS.record_of(old)["value"] if old else {}
                kept = {name: made[name] for name in ("created_at",) if name in made}
                return [Put(storage.new_row(SESSIONS, _record(key, value | kept)))]

            await storage.change_rows([(SESSIONS, key)], change)

        self._run(put)

    def _run(self, work: Callable[[Storage], Awaitable[T]]) -> T:
        try:
            return self._bridge.run_sync(work)
        except StorageError as exc:
            raise SessionException(str(exc)) from exc


def _key(session_id: str, part: str) -> Key:
    return (_without_slash(session_id, "session"), part)


def _record(key: Key, value: Any) -> dict[str, Any]:
    return dict(zip(SESSIONS.key, key, strict=True)) | {"value": value}


def _thread_id(session_id: str, agent_id: str) -> str:
    return f"{_without_slash(session_id, 'session')}/{_without_slash(agent_id, 'agent')}"


def _without_slash(name: str, kind: str) -> str:
    if not name or "/" in name:
        raise SessionException(f"the {kind} id {name!r} must not be empty or have a slash")
    return name


def _message_id(number: int) -> str:
    return f"{number:08}"


def _kept(message: SessionMessage) -> tuple[str, list[Any], dict[str, Any]]:
    """Role, content and metadata of the message that keeps a message of Strands.

    The content is what the agent sees: that of the redaction, where there is one.
    """
    kept = message.to_dict()
    shown: dict[str, Any] = kept["redact_message"] or kept["message"]
    role, content = shown["role"], shown.pop("content")
    return role, content, {_STRANDS: kept}


def _is_of_strands(message: Message) -> bool:
    return _STRANDS in message.metadata  # other tools may write to the thread too


def _session_message(message: Message) -> SessionMessage:
    kept: dict[str, Any] = dict(message.metadata[_STRANDS])
    shown = "message" if kept["redact_message"] is None else "redact_message"
    kept[shown] = kept[shown] | {"role": message.role, "content": message.content}
    return SessionMessage.from_dict(kept)
