"""`MastraStrandsSessionManager`: an agent's conversation, kept while its event loop goes on."""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from strands.hooks import (
    AfterInvocationEvent,
    AfterMultiAgentInvocationEvent,
    AfterNodeCallEvent,
    AgentInitializedEvent,
    HookRegistry,
    MessageAddedEvent,
    MultiAgentInitializedEvent,
)
from strands.session import RepositorySessionManager
from strands.types.exceptions import SessionException
from strands.types.session import SessionMessage

from mastra_storage import InvalidArgumentError, TooLargeError
from mastra_storage_strands._bridge import in_thread
from mastra_storage_strands.repository import MastraStrandsRepository
from mastra_storage_strands.storage import MastraStrandsStorage

if TYPE_CHECKING:
    from strands.multiagent import MultiAgentBase
    from strands.types.agent import LocalAgent
    from strands.types.content import Message

__all__ = ["MastraStrandsSessionManager"]


class MastraStrandsSessionManager(RepositorySessionManager):
    """Keeps an agent's conversation message by message, without blocking its event loop.

        with MastraStrandsStorage(open_storage("sqlite:///agent.db")) as storage:
            session = MastraStrandsSessionManager("trip", storage, resource_id="ada")
            agent = Agent(session_manager=session)
            agent("To Oslo, please")

    A message is stored as soon as the agent has it, the agent's state when it has changed; neither
    is written again. What could not be stored ends the agent's turn, and is stored with its next
    message. The conversation is the thread `trip/default`: session id and agent id.
    Making the manager and the agent reads the session, and blocks meanwhile: within an event loop,
    make them in `asyncio.to_thread`.
    """

    def __init__(
        self,
        session_id: str,
        storage: MastraStrandsStorage,
        *,
        resource_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        repository = MastraStrandsRepository(storage, resource_id=resource_id, metadata=metadata)
        self._agents: defaultdict[str, _AgentWrites] = defaultdict(_AgentWrites)
        self._orchestrators: defaultdict[str, _Orchestrator] = defaultdict(_Orchestrator)
        super().__init__(session_id, repository)

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        """Store what happens to an agent, in a thread beside its event loop."""

        async def added(event: MessageAddedEvent) -> None:
            await in_thread(self.append_message, event.message, event.agent)
            await in_thread(self.sync_agent, event.agent)

        async def invoked(event: AfterInvocationEvent) -> None:
            await in_thread(self.sync_agent, event.agent)

        async def begun(event: MultiAgentInitializedEvent) -> None:
            await in_thread(self.initialize_multi_agent, event.source)

        async def orchestrated(event: AfterNodeCallEvent | AfterMultiAgentInvocationEvent) -> None:
            # As it is now: other nodes go on, and change it, while it is being written.
            orchestrator = self._orchestrators[event.source.id]
            state = orchestrator.taken(event.source)
            await in_thread(orchestrator.write, state, self.sync_multi_agent)

        registry.add_callback(AgentInitializedEvent, lambda event: self.initialize(event.agent))
        registry.add_callback(MessageAddedEvent, added)
        registry.add_callback(AfterInvocationEvent, invoked)
        registry.add_callback(MultiAgentInitializedEvent, begun)
        registry.add_callback(AfterNodeCallEvent, orchestrated)
        registry.add_callback(AfterMultiAgentInvocationEvent, orchestrated)

    def append_message(self, message: Message, agent: LocalAgent, **kwargs: Any) -> None:
        """Store a message that the agent has now, behind those that are still to be stored."""
        writes = self._agents[agent.agent_id]
        with writes.lock:
            latest = self._latest_agent_message[agent.agent_id]
            number = 0 if latest is None else latest.message_id + 1
            made = SessionMessage.from_message(message, number)
            self._latest_agent_message[agent.agent_id] = made
            writes.waiting.append(made)
            self._store_waiting(agent.agent_id, writes)

    def redact_latest_message(
        self, redact_message: Message, agent: LocalAgent, **kwargs: Any
    ) -> None:
        """Redact the message that was appended last."""
        writes = self._agents[agent.agent_id]
        with writes.lock:
            self._store_waiting(agent.agent_id, writes)
            super().redact_latest_message(redact_message, agent, **kwargs)

    def sync_agent(self, agent: LocalAgent, **kwargs: Any) -> None:
        """Store the state of an agent, if it has changed, behind its messages."""
        writes = self._agents[agent.agent_id]
        with writes.lock:
            self._store_waiting(agent.agent_id, writes)
            super().sync_agent(agent, **kwargs)

    def _store_waiting(self, agent_id: str, writes: _AgentWrites) -> None:
        while writes.waiting:
            message = writes.waiting[0]
            try:
                self.session_repository.create_message(self.session_id, agent_id, message)
            except SessionException as exc:
                if isinstance(exc.__cause__, (InvalidArgumentError, TooLargeError)):
                    writes.waiting.popleft()  # it can never be stored
                raise
            writes.waiting.popleft()
            self._held_records.setdefault(agent_id, []).append(message)


class _AgentWrites:
    """The messages of an agent that are to be stored, one thread at a time."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.waiting: deque[SessionMessage] = deque()


class _State(NamedTuple):
    """An orchestrator as it was at one moment: the first, the second … that was taken."""

    id: str
    number: int
    state: dict[str, Any]

    def serialize_state(self) -> dict[str, Any]:
        return self.state


class _Orchestrator:
    """The states of an orchestrator, of which none replaces one that is newer."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken = 0
        self._written = 0

    def taken(self, source: MultiAgentBase) -> _State:
        self._taken += 1
        # What it gives holds parts of its own that change.
        return _State(source.id, self._taken, copy.deepcopy(source.serialize_state()))

    def write(self, state: _State, write: Callable[[Any], None]) -> None:
        with self._lock:
            if state.number > self._written:
                write(state)
                self._written = state.number
