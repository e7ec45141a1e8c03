"""The methods without `a`: for other threads than that of the event loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)

from mastra_storage_langgraph._bridge import Bridge

__all__ = ["SyncSaver"]


class SyncSaver(BaseCheckpointSaver[str]):
    """The half of a saver that is not async.

    `graph.invoke` works in a thread of its own (`asyncio.to_thread`), while the event loop that
    the saver was made in goes on. In that loop's thread it raises `asyncio.InvalidStateError`.
    """

    _bridge: Bridge

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `aget_tuple`."""
        return self._bridge.run(self.aget_tuple(config), "await graph.ainvoke(...)")

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """See `alist`; reads as it is iterated over."""
        found = self.alist(config, filter=filter, before=before, limit=limit)

        async def following() -> CheckpointTuple | None:
            return await anext(found, None)

        while (one := self._bridge.run(following(), "saver.alist(...)")) is not None:
            yield one

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `aput`."""
        work = self.aput(config, checkpoint, metadata, new_versions)
        return self._bridge.run(work, "await graph.ainvoke(...)")

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """See `aput_writes`."""
        work = self.aput_writes(config, writes, task_id, task_path)
        self._bridge.run(work, "await graph.ainvoke(...)")

    def delete_thread(self, thread_id: str) -> None:
        """See `adelete_thread`."""
        self._bridge.run(self.adelete_thread(thread_id), "await saver.adelete_thread(...)")

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `adelete_for_runs`."""
        self._bridge.run(self.adelete_for_runs(run_ids), "await saver.adelete_for_runs(...)")

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `acopy_thread`."""
        work = self.acopy_thread(source_thread_id, target_thread_id)
        self._bridge.run(work, "await saver.acopy_thread(...)")

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `aprune`."""
        self._bridge.run(self.aprune(thread_ids, strategy=strategy), "await saver.aprune(...)")

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `aget_delta_channel_history`."""
        work = self.aget_delta_channel_history(config=config, channels=channels)
        return self._bridge.run(work, "await graph.ainvoke(...)")
