"""`MastraStrandsSessionManager`: an agent's conversation, kept while its event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

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

from mastra_storage_strands.repository import MastraStrandsRepository
from mastra_storage_strands.storage import MastraStrandsStorage

__all__ = ["MastraStrandsSessionManager"]


class MastraStrandsSessionManager(RepositorySessionManager):
    """Keeps an agent's conversation message by message, without blocking its event loop.

        with MastraStrandsStorage(open_storage("sqlite:///agent.db")) as storage:
            session = MastraStrandsSessionManager("trip", storage, resource_id="ada")
            agent = Agent(session_manager=session)
            agent("To Oslo, please")

    A message is stored as soon as the agent has it, the agent's state when it has changed; neither
    is written again. The conversation is the thread `trip/default`: session id and agent id.
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
        super().__init__(session_id, repository)

    def register_hooks(self, registry: HookRegistry, **kwargs: Any) -> None:
        """Store what happens to an agent, in a thread beside its event loop."""

        async def added(event: MessageAddedEvent) -> None:
            await asyncio.to_thread(self.append_message, event.message, event.agent)
            await asyncio.to_thread(self.sync_agent, event.agent)

        async def invoked(event: AfterInvocationEvent) -> None:
            await asyncio.to_thread(self.sync_agent, event.agent)

        async def begun(event: MultiAgentInitializedEvent) -> None:
            await asyncio.to_thread(self.initialize_multi_agent, event.source)

        async def orchestrated(event: AfterNodeCallEvent | AfterMultiAgentInvocationEvent) -> None:
            await asyncio.to_thread(self.sync_multi_agent, event.source)

        registry.add_callback(AgentInitializedEvent, lambda event: self.initialize(event.agent))
        registry.add_callback(MessageAddedEvent, added)
        registry.add_callback(AfterInvocationEvent, invoked)
        registry.add_callback(MultiAgentInitializedEvent, begun)
        registry.add_callback(AfterNodeCallEvent, orchestrated)
        registry.add_callback(AfterMultiAgentInvocationEvent, orchestrated)
