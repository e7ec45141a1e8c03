"""`MastraSaver`: LangGraph's checkpoints on any backend."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_id,
    get_checkpoint_metadata,
)

from mastra_storage import (
    ConflictError,
    DeletePrefix,
    InvalidArgumentError,
    NotFoundError,
    Op,
    Put,
    Touch,
)
from mastra_storage_langgraph._conversations import CHANNEL
from mastra_storage_langgraph._reading import Reading
from mastra_storage_langgraph._retention import Retention
from mastra_storage_langgraph._saved import Saved
from mastra_storage_langgraph._values import Head, Plan
from mastra_storage_langgraph._writes import add_writes
from mastra_storage_langgraph.tables import CHECKPOINTS, SAVER_TABLES, Place, key_part

__all__ = ["MastraSaver"]

# How often a checkpoint is written whose thread others change or delete meanwhile.
_ATTEMPTS: Final = 5


class MastraSaver(Reading):
    """Keeps LangGraph's checkpoints in a `Storage`, on any backend.

        async with open_storage("sqlite:///agent.db") as storage:
            graph = builder.compile(checkpointer=MastraSaver(storage))
            await graph.ainvoke({"messages": [("user", "Hello")]}, config)

    What an earlier checkpoint of the thread has stored is not stored again, elements of lists
    included: a step of a long conversation costs what is new in it.

    - `storage`: open, and left open; the saver is made in the event loop that it was opened in.
    - `serde`: how values become bytes: LangGraph's own by default, or its encrypting one.
    - `conversations`: whether messages in the state's channel `messages` are also kept as a
      thread and its messages, written with the checkpoint. The thread's id is `thread_id`; its
      resource is `resource_id` or `user_id` of the config's `configurable`, or the thread's id.
      They are readable, and so left out by default where `serde` is not LangGraph's own.

    Errors are those of `mastra_storage`; nothing is acknowledged that is not stored. The methods
    without `a` are for other threads than that of the event loop; see `SyncSaver`.
    """

    # -- writing -----------------------------------------------------------------------------

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint that follows the one in `config`; gives the config of the new one.

        One write, with all that is new in its channels and in the conversation.
        """
        checkpoint = _taken(checkpoint)
        for left in reversed(range(_ATTEMPTS)):
            try:
                await self._put(config, checkpoint, metadata, new_versions)
                break
            except (NotFoundError, ConflictError):
                # What it stands on was deleted meanwhile, or its conversation made by another.
                self._forget(Place.of(config).thread)
                if not left:
                    raise
        return {
            "configurable": {
                "thread_id": config["configurable"]["thread_id"],
                "checkpoint_ns": config["configurable"].get("checkpoint_ns", ""),
                "checkpoint_id": checkpoint["id"],
            }
        }

    async def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> None:
        place = Place.of(config)
        parent = get_checkpoint_id(config)
        head = await self._head(place, parent) if parent else None
        plan = await self._values.plan(place.thread, head, checkpoint, new_versions)
        saved = self._saved(config, checkpoint, metadata, plan)
        ops: list[Op] = [*map(Put, plan.rows), Put(saved.row(self._storage))]
        if head is not None and plan.inherits and self._storage.capabilities.atomic:
            # What it refers to is there as long as its parent is.
            ops.append(Touch(CHECKPOINTS, head.saved.key, time.time_ns() // 1000))
        new = Head(saved, checkpoint["channel_versions"], plan.lists, plan.wholes)
        shown = None
        if self._conversations.concerns(place):
            value = checkpoint["channel_values"].get(CHANNEL)
            digests = self._digests(new, value)
            change, shown = await self._conversations.change(config, saved.id, value, digests)
            ops += change
        if shown is not None:
            self._conversations.forget(place.thread)  # a write that fails may have been carried out
        await self._storage.write_rows(*ops)
        if parent:
            self._heads.pop((place, parent))  # what follows it mostly follows the new one
        self._heads.put((place, saved.id), new, new.size)
        if shown is not None:
            self._conversations.know(place.thread, shown)

    async def _head(self, place: Place, checkpoint_id: str) -> Head | None:
        """What a checkpoint can be followed from; `None` when it is not there."""
        known = self._heads.get((place, checkpoint_id))
        if known is not None:
            return known
        return next(
            (
                Head(saved, saved.versions(self._codec), {}, {})
                for saved in await self._rows(place, checkpoint_id)
            ),
            None,
        )

    def _saved(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        plan: Plan,
    ) -> Saved:
        codec = self._codec
        configurable = config["configurable"]
        kept = get_checkpoint_metadata(config, metadata)
        run_id = kept.get("run_id")
        names = (
            str(configurable["thread_id"]),
            configurable.get("checkpoint_ns") or "",
            checkpoint["id"],
        )
        key = Place.of(config).checkpoint(checkpoint["id"])
        return Saved(
            thread_id=key[0],
            checkpoint_ns=key[1],
            checkpoint_id=key[2],
            parent=get_checkpoint_id(config),
            run_id=key_part(str(run_id)) if run_id else None,
            checkpoint=codec.text({k: v for k, v in checkpoint.items() if k != "channel_values"}),
            metadata=codec.text(kept),
            values=plan.refs,
            snapshots=plan.snapshots,
            names=None if key == names else names,
        )

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task wrote on top of a checkpoint, which need not be stored yet."""
        checkpoint_id = config["configurable"]["checkpoint_id"]
        place = Place.of(config)
        await add_writes(
            self._storage, self._codec, place, checkpoint_id, writes, task_id, task_path
        )

    # -- deleting and copying ----------------------------------------------------------------

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all of a thread: checkpoints, writes, and its conversation."""
        thread = key_part(str(thread_id))
        self._forget(thread)
        await self._storage.write_rows(
            *[DeletePrefix(table, (thread,)) for table in SAVER_TABLES],
            *self._conversations.deletes(thread),
        )
        self._forget(thread)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that these runs made, and the writes on top of them.

        Values stay that other checkpoints refer to. A `DeltaChannel` whose ancestors are deleted
        loses what they held: see `aprune` for what keeps it whole. The conversation has the
        messages of the checkpoint that is the newest then.
        """
        for thread in await self._retention.delete_runs(run_ids):
            self._forget(thread)
            place = Place(thread, "")
            if self._conversations.concerns(place):
                newest = await self._rows(place, None)
                await (self._show(newest[0]) if newest else self._conversations.clear(thread))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another, and the conversation.

        The copy is independent. Its checkpoints appear when everything else has been copied.
        """
        source, target = str(source_thread_id), str(target_thread_id)
        newest = await self._retention.copy(source, target)
        self._forget(key_part(target))
        if newest is not None and self._conversations.concerns(newest.place):
            await self._conversations.copy(key_part(source), newest.thread_id)
            await self._show(newest)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads: all but the newest of each namespace, or all.

        - `strategy`: "keep_latest" also keeps the ancestors from which the newest checkpoint's
          delta channels are rebuilt, back to their nearest snapshot; "delete" keeps nothing.

        Raises `InvalidArgumentError` for another strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise InvalidArgumentError(
                f"strategy must be 'keep_latest' or 'delete', not {strategy!r}"
            )
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread_id)
            else:
                await self._retention.keep_latest(key_part(str(thread_id)))
                self._forget(key_part(str(thread_id)))

    @property
    def _retention(self) -> Retention:
        return Retention(self._storage, self._codec)

    def _forget(self, thread: str) -> None:
        self._heads.drop(lambda key: key[0].thread == thread)
        self._conversations.forget(thread)

    async def _show(self, saved: Saved) -> None:
        """Make the rows of a conversation show a checkpoint."""
        if CHANNEL not in saved.versions(self._codec):  # nothing was said yet
            await self._conversations.clear(saved.thread_id)
            return
        values, head = await self._values.read_head(saved)
        value = values.get(CHANNEL)
        digests = self._digests(head, value)
        ops, _ = await self._conversations.change(saved.config, saved.id, value, digests)
        await self._storage.write_rows(*ops)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`: a greater text, unlike that of any other branch."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():016}"


def _taken(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with lists and dicts of its own: the graph goes on while it is written."""
    values = {
        name: value.copy() if type(value) in (list, dict) else value
        for name, value in checkpoint["channel_values"].items()
    }
    return {**checkpoint, "channel_values": values}
