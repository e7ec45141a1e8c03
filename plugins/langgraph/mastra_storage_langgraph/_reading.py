"""The reading half of the saver, and what it remembers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from mastra_storage import Query, Storage
from mastra_storage_langgraph._bridge import Bridge
from mastra_storage_langgraph._codec import Codec
from mastra_storage_langgraph._conversations import CHANNEL, NOTHING, Conversations
from mastra_storage_langgraph._history import delta_history
from mastra_storage_langgraph._links import DeletedError, Links
from mastra_storage_langgraph._listing import checkpoint_pages
from mastra_storage_langgraph._recent import Recent
from mastra_storage_langgraph._saved import Saved
from mastra_storage_langgraph._sync import SyncSaver
from mastra_storage_langgraph._tasks import together
from mastra_storage_langgraph._values import Head, Values
from mastra_storage_langgraph._writes import pending_writes, read_writes, writes_query
from mastra_storage_langgraph.tables import CHECKPOINTS, SAVER_TABLES, Place

__all__ = ["Reading"]

# How many bytes of values are remembered, of all threads together.
_BOUND: Final = 32 * 2**20
# How often the newest checkpoint is looked up that another process deletes meanwhile.
_ATTEMPTS: Final = 5


class Reading(SyncSaver):
    """A saver that reads checkpoints."""

    def __init__(
        self,
        storage: Storage,
        *,
        serde: SerializerProtocol | None = None,
        conversations: bool | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._bridge = Bridge()
        for table in SAVER_TABLES:
            storage.register(table)
        self._storage = storage
        if conversations is None:
            # Any other may be there to hide what it is given.
            conversations = serde is None or type(serde) is JsonPlusSerializer
        self._conversations = Conversations(storage, enabled=conversations)
        self._heads: Recent[tuple[Place, str], Head] = Recent(_BOUND)

    # Made anew for each call: `with_allowlist` makes copies of a saver with another `serde`.
    @property
    def _codec(self) -> Codec:
        return Codec(self.serde)

    @property
    def _values(self) -> Values:
        return Values(self._storage, self._codec)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, else the newest of its thread; `None` without one.

        Two round trips: the checkpoint, then pending writes together with its values, where they
        are not remembered from an earlier call (up to 32 MiB are, of the threads last used).
        """
        place, checkpoint_id = Place.of(config), get_checkpoint_id(config)
        for _ in range(_ATTEMPTS - 1):
            with suppress(DeletedError):
                return await self._read_tuple(place, checkpoint_id)
        return await self._read_tuple(place, checkpoint_id)

    async def _read_tuple(self, place: Place, checkpoint_id: str | None) -> CheckpointTuple | None:
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
        codec, links = self._codec, Links()
        left = limit
        # One more than is wanted, for `before` itself; as many as a page has where some may not do.
        size = None if filter or limit is None else limit + 1
        found = checkpoint_pages(self._storage, config, before=before, size=size)
        async with aclosing(found) as pages:
            async for page in pages:
                chosen = [one for one in page if _matches(codec.read(one.metadata), filter)][:left]
                for one in await self._tuples(chosen, links):
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

    async def _tuples(self, checkpoints: Sequence[Saved], links: Links) -> list[CheckpointTuple]:
        try:
            values = await self._values.read(checkpoints, links=links)
        except DeletedError as exc:
            left = [saved for saved in checkpoints if saved.key not in exc.keys]
            return await self._tuples(left, links)
        writes = await read_writes(self._storage, checkpoints)
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


def _matches(metadata: Mapping[str, Any], filter: Mapping[str, Any] | None) -> bool:
    return all(metadata.get(name) == value for name, value in (filter or {}).items())
