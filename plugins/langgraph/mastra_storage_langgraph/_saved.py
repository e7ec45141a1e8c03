"""A checkpoint as its row has it: all but the values of its channels, which it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint
from msgspec import Struct, structs

from mastra_storage import Key, Row, Storage
from mastra_storage_langgraph._codec import Codec, Text
from mastra_storage_langgraph.tables import CHECKPOINTS, Place, decoded, order_of

__all__ = ["Chained", "Inline", "Ref", "Saved", "Snapshot", "Whole"]


class Inline(Struct, frozen=True, tag=0, array_like=True):
    """A value no longer than a reference to it would be."""

    text: Text


class Whole(Struct, frozen=True, tag=1, array_like=True):
    """A value in the first link of a chain of its own, which channels of one checkpoint share."""

    chain: str


class Chained(Struct, frozen=True, tag=2, array_like=True):
    """A version of a list, at a link of a chain."""

    chain: str
    link: str


class Snapshot(Chained, frozen=True, tag=3, array_like=True):
    """A version of the list in the snapshot of a delta channel."""


Ref: TypeAlias = Inline | Whole | Chained | Snapshot


class Saved(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The row of a checkpoint.

    `names` has the thread, namespace and id as they were given, where the key has hashes.
    `snapshots` are the latest of delta channels that have no value here, for the next to follow.
    """

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent: str | None
    run_id: str | None
    checkpoint: Text
    metadata: Text
    values: dict[str, Ref]
    names: tuple[str, str, str] | None = None
    snapshots: dict[str, Snapshot] = {}

    @classmethod
    def of(cls, row: Row) -> Saved:
        """What a row of `CHECKPOINTS` holds."""
        return decoded(row, _decode)

    @property
    def place(self) -> Place:
        return Place(self.thread_id, self.checkpoint_ns)

    @property
    def key(self) -> Key:
        """The key of the row."""
        return (self.thread_id, self.checkpoint_ns, self.checkpoint_id)

    @property
    def id(self) -> str:
        """The checkpoint's id as it was given."""
        return self.names[2] if self.names else self.checkpoint_id

    @property
    def config(self) -> RunnableConfig:
        """The config that leads to this checkpoint."""
        return self._config(self.id)

    @property
    def parent_config(self) -> RunnableConfig | None:
        return self._config(self.parent) if self.parent else None

    def _config(self, checkpoint_id: str) -> RunnableConfig:
        thread, ns, _ = self.names or (self.thread_id, self.checkpoint_ns, "")
        return {
            "configurable": {
                "thread_id": thread,
                "checkpoint_ns": ns,
                "checkpoint_id": checkpoint_id,
            }
        }

    def renamed(self, thread_id: str, name: str) -> Saved:
        """The same checkpoint in a thread of another id, with the thread's name as it was given."""
        names = (name, self.names[1] if self.names else self.checkpoint_ns, self.id)
        same = names == (thread_id, *self.key[1:])
        return structs.replace(self, thread_id=thread_id, names=None if same else names)

    def row(self, storage: Storage) -> Row:
        """The row to be put."""
        return storage.new_row(CHECKPOINTS, msgspec.to_builtins(self), order=order_of(self.id))

    def body(self, codec: Codec, values: Mapping[str, Any]) -> Checkpoint:
        """The checkpoint, with the values of its channels."""
        body: dict[str, Any] = codec.read(self.checkpoint)
        # In the order in which they were given.
        return {**body, "channel_values": {name: values[name] for name in self.values}}  # type: ignore[typeddict-item]

    def versions(self, codec: Codec) -> dict[str, Any]:
        """The versions of the channels."""
        found: dict[str, Any] = codec.read(self.checkpoint)["channel_versions"]
        return found


_decode = msgspec.json.Decoder(Saved).decode
