"""`MastraSaver`: LangGraph's checkpoints on any backend."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from mastra_storage import (
    ConflictError,
    DeletePrefix,
    InvalidArgumentError,
    NotFoundError,
    Op,
    Put,
    Query,
    Storage,
    Touch,
)
from mastra_storage_langgraph._bridge import Bridge
from mastra_storage_langgraph._codec import Codec
from mastra_storage_langgraph._conversations import CHANNEL, NOTHING, Conversations
from mastra_storage_langgraph._history import delta_history
from mastra_storage_langgraph._listing import checkpoint_pages
from mastra_storage_langgraph._recent import Recent
from mastra_storage_langgraph._retention import Retention
from mastra_storage_langgraph._saved import Saved
from mastra_storage_langgraph._sync import SyncSaver
from mastra_storage_langgraph._tasks import together
from mastra_storage_langgraph._values import Head, Plan, Values
from mastra_storage_langgraph._writes import (
    add_writes,
    pending_writes,
    read_writes,
    writes_query,
)
from mastra_storage_langgraph.tables import CHECKPOINTS, SAVER_TABLES, Place, key_part

__all__ = ["MastraSaver"]

# How many bytes of values are remembered, of all threads together.
_BOUND: Final = 32 * 2**20
# How often a checkpoint is written whose thread others change or delete meanwhile.
_ATTEMPTS: Final = 5


class MastraSaver(SyncSaver):
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

    Errors are those of `mastra_storage`; nothing is acknowledged that is not stored. The methods
    without `a` are for other threads than that of the event loop; see `SyncSaver`.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        serde: SerializerProtocol | None = None,
        conversations: bool = True,
    ) -> None:
        super().__init__(serde=serde)
        self._bridge = Bridge()
        for table in SAVER_TABLES:
            storage.register(table)
        self._storage = storage
        self._conversations = Conversations(storage, enabled=conversations)
        self._heads: Recent[tuple[Place, str], Head] = Recent(_BOUND)

    # Made anew for each call: `with_allowlist` makes copies of a saver with another `serde`.
    @property
    def _codec(self) -> Codec:
        return Codec(self.serde)

    @property
    def _values(self) -> Values:
        return Values(self._storage, self._codec)

    # -- reading -----------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, else the newest of its thread; `None` without one.

        Two round trips: the checkpoint, then pending writes together with its values, where they
        are not remembered from an earlier call (up to 32 MiB are, of the threads last used).
        """
        place = Place.of(config)
        checkpoint_id = get_checkpoint_id(config)
        found = await self._rows(place, checkpoint_id)
        if not found:
            if not checkpoint_id and self._conversations.concerns(place):
                self._conversations.know(place.thread, NOTHING)
            return None
        saved = found[0]
        (values, head), rows = await together(
            self._read_head(saved), self._storage.find_rows(writes_query(place, saved.id))
        )
        if not checkpoint_id:
            self._know_conversation(found, head, values)
        return self._tuple(saved, values, pending_writes(self._codec, rows))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints from the newest on: of a thread and namespace, a thread, or all threads.

        `filter`: only with these members of the metadata. `before`: only those with a lesser id.
        """
        codec = self._codec
        left = limit
        found = checkpoint_pages(self._storage, config, before=before, limit=limit)
        async with aclosing(found) as pages:
            async for page in pages:
                chosen = [one for one in page if _matches(codec.read(one.metadata), filter)][:left]
                for one in await self._tuples(chosen):
                    yield one
                left = None if left is None else left - len(chosen)
                if left == 0:
                    return

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """The nearest value of each channel among the ancestors, and all writes since.

        Ancestors are read in pages, and the writes of all of them at once.
        """
        place = Place.of(config)
        found = await self._rows(place, get_checkpoint_id(config)) if channels else []
        if not found:
            return {channel: {"writes": []} for channel in channels}
        return await delta_history(self._storage, self._codec, self._values, found[0], channels)

    async def _read_head(self, saved: Saved) -> tuple[dict[str, Any], Head]:
        """The values of a checkpoint, from memory where they are: they never change."""
        known = self._heads.get((saved.place, saved.id))
        if known is not None and known.saved == saved:
            values = known.values(self._codec)
            if values is not None:
                return values, known
        values, head = await self._values.read_head(saved)
        self._heads.put((saved.place, saved.id), head, head.size)
        return values, head

    async def _rows(self, place: Place, checkpoint_id: str | None) -> list[Saved]:
        """The checkpoint of this id; without one the newest two, newest first."""
        if checkpoint_id:
            rows = await self._storage.get_rows(CHECKPOINTS, [place.checkpoint(checkpoint_id)])
        else:
            query = Query(table=CHECKPOINTS, prefix=place, descending=True, limit=2)
            rows = [*await self._storage.find_rows(query)]
        return [Saved.of(row) for row in rows if row is not None]

    async def _tuples(self, checkpoints: Sequence[Saved]) -> list[CheckpointTuple]:
        values, writes = await together(
            self._values.read(checkpoints), read_writes(self._storage, checkpoints)
        )
        return [
            self._tuple(saved, own, pending_writes(self._codec, rows))
            for saved, own, rows in zip(checkpoints, values, writes, strict=True)
        ]

    def _tuple(
        self, saved: Saved, values: Mapping[str, Any], writes: list[PendingWrite]
    ) -> CheckpointTuple:
        codec = self._codec
        return CheckpointTuple(
            config=saved.config,
            checkpoint=saved.body(codec, values),
            metadata=codec.read(saved.metadata),
            parent_config=saved.parent_config,
            pending_writes=writes,
        )

    def _know_conversation(
        self, newest: Sequence[Saved], head: Head, values: Mapping[str, Any]
    ) -> None:
        """Take note of what the rows of a conversation show, given its newest checkpoints."""
        saved = newest[0]
        # Unless branches grew at the same time: then the rows are compared by the next write.
        if self._conversations.concerns(saved.place) and (
            len(newest) == 1 or newest[1].id == saved.parent
        ):
            value = values.get(CHANNEL, [])
            self._conversations.read(saved.thread_id, saved.id, value, self._digests(head, value))

    def _digests(self, head: Head, value: Any) -> list[bytes]:
        version = head.lists.get(CHANNEL)
        if version is not None or not isinstance(value, list):
            return version.digests if version is not None else []
        return [self._codec.compare(one)[0] for one in value]

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
        loses what they held: see `aprune` for what keeps it whole.
        """
        for thread in await self._retention.delete_runs(run_ids):
            self._forget(thread)

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
        values, head = await self._values.read_head(saved)
        value = values.get(CHANNEL)
        digests = self._digests(head, value)
        ops, _ = await self._conversations.change(saved.config, saved.id, value, digests)
        await self._storage.write_rows(*ops)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version after `current`: a greater text, unlike that of any other branch."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():016}"


def _matches(metadata: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:
    return all(metadata.get(name) == value for name, value in (filter or {}).items())
