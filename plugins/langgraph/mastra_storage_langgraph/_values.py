"""The values of channels: reading those that checkpoints refer to, and writing what is new."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from mastra_storage import Row, Storage
from mastra_storage_langgraph._chains import (
    FIRST,
    Link,
    Version,
    count_of,
    elements_of,
    next_link,
    opened_version,
    value_of,
)
from mastra_storage_langgraph._codec import Codec, Text, size_of
from mastra_storage_langgraph._links import Links, Wholes, read_links
from mastra_storage_langgraph._saved import Chained, Inline, Ref, Saved, Snapshot, Whole
from mastra_storage_langgraph.tables import VALUES

__all__ = ["Head", "Plan", "Values"]

# A value of up to so many characters of base64 is shorter than what refers to it.
_INLINE: Final = 44
# A list of more elements is not tried as an inline value.
_FEW: Final = 4
# What a remembered element or name takes, besides its own bytes.
_AROUND: Final = 200


class Head(NamedTuple):
    """A checkpoint as it is remembered: what its values are, and what follows it is made from.

    `lists` has what is known of lists, `wholes` other values, both as far as they were seen.
    """

    saved: Saved
    versions: Mapping[str, Any]
    lists: dict[str, Version]
    wholes: dict[str, Text]

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        lists = [_AROUND + len(data) for one in self.lists.values() for _, data in one.forms]
        texts = [self.saved.checkpoint, self.saved.metadata, *self.wholes.values()]
        names = len(self.versions) + len(self.saved.values)
        return 1000 + sum(lists) + sum(map(size_of, texts)) + _AROUND * names

    def values(self, codec: Codec) -> dict[str, Any] | None:
        """The values of all channels, made anew; `None` where some were not seen."""
        found: dict[str, Any] = {}
        for name, ref in self.saved.values.items():
            if isinstance(ref, Inline):
                found[name] = codec.read(ref.text)
            elif name in self.lists:
                found[name] = self.lists[name].value(codec)
            elif name in self.wholes:
                found[name] = codec.read(self.wholes[name])
            else:
                return None
        return found


class Plan(NamedTuple):
    """The values of a checkpoint that is to be written.

    `inherits`: whether rows are among them that an earlier checkpoint has written.
    """

    refs: dict[str, Ref]
    snapshots: dict[str, Snapshot]
    lists: dict[str, Version]
    wholes: dict[str, Text]
    rows: list[Row]
    inherits: bool


class Values:
    """Reads and plans values, for one saver."""

    def __init__(self, storage: Storage, codec: Codec) -> None:
        self._storage = storage
        self._codec = codec

    # -- reading -----------------------------------------------------------------------------

    async def read(
        self,
        checkpoints: Sequence[Saved],
        channels: Collection[str] | None = None,
        *,
        links: Links | None = None,
    ) -> list[dict[str, Any]]:
        """The values of each checkpoint's channels; of `channels` alone where they are given.

        What is in `links` is not read again, and what was read is added.
        """
        wanted = [_chosen(saved, channels) for saved in checkpoints]
        links = Links() if links is None else links
        await read_links(self._storage, wanted, links)
        return [
            {name: self._value(links, saved.thread_id, name, ref) for name, ref in refs.items()}
            for saved, refs in wanted
        ]

    async def read_head(self, saved: Saved) -> tuple[dict[str, Any], Head]:
        """The values of a checkpoint, and all there is to remember of it."""
        links = Links()
        await read_links(self._storage, [(saved, saved.values)], links)
        head = Head(saved, saved.versions(self._codec), {}, {})
        values = {
            name: self._value(links, saved.thread_id, name, ref, head)
            for name, ref in saved.values.items()
        }
        return values, head

    async def complete(self, head: Head, channels: Iterable[str]) -> None:
        """Look up what is not yet known of the lists in some channels."""
        there = {**head.saved.snapshots, **head.saved.values}
        refs = {
            name: ref
            for name in channels
            if isinstance(ref := there.get(name), Chained) and name not in head.lists
        }
        if refs:
            links = Links()
            await read_links(self._storage, [(head.saved, refs)], links)
            for name, ref in refs.items():
                self._value(links, head.saved.thread_id, name, ref, head)

    def _value(
        self, links: Links, thread: str, name: str, ref: Ref, head: Head | None = None
    ) -> Any:
        """A value; `head` remembers it."""
        if isinstance(ref, Inline):
            return self._codec.read(ref.text)
        if isinstance(ref, Whole):
            text = links.wholes[thread, ref.chain][name]
            if head is not None:
                head.wholes[name] = text
            return self._codec.read(text)
        chain = links.links[thread, ref.chain]
        if head is not None:
            value, head.lists[name] = opened_version(self._codec, chain, ref.chain, ref.link)
            return value
        elements = list(map(self._codec.value, elements_of(chain, ref.link)))
        return value_of(chain[ref.link].kind, elements)

    # -- writing -----------------------------------------------------------------------------

    async def plan(
        self, thread: str, head: Head | None, checkpoint: Checkpoint, new: ChannelVersions
    ) -> Plan:
        """How the values of a checkpoint are kept, and the rows that takes.

        What its parent has is referred to: a channel of the same version, and the elements that
        a list has in common with what the channel held before.
        """
        values: dict[str, Any] = checkpoint["channel_values"]
        written = {name for name in values if name in new or _differs(name, head, checkpoint)}
        if head is not None:
            await self.complete(
                head, [name for name in written if count_of(values[name]) is not None]
            )
        writer = _Writer(self._storage, self._codec, thread)
        plan = Plan({}, {}, {}, {}, [], inherits=False)
        inherits = False
        for name, value in values.items():
            known = None if head is None else head.lists.get(name)
            if head is None or name in written:
                plan.refs[name], version = await writer.add(name, value, known)
                inherits |= (
                    version is not None and known is not None and (version.chain == known.chain)
                )
            else:
                plan.refs[name], version = head.saved.values[name], known
                if name in head.wholes:
                    plan.wholes[name] = head.wholes[name]
                inherits |= not isinstance(plan.refs[name], Inline)
            if version is not None:
                plan.lists[name] = version
        if head is not None:
            self._keep_snapshots(plan, head, checkpoint["channel_versions"])
        return plan._replace(
            wholes=plan.wholes | writer.wholes,
            rows=writer.rows(),
            inherits=inherits or bool(plan.snapshots),
        )

    def _keep_snapshots(self, plan: Plan, head: Head, versions: ChannelVersions) -> None:
        """Remember the snapshots of delta channels that have none in this checkpoint."""
        for name, ref in {**head.saved.snapshots, **head.saved.values}.items():
            if isinstance(ref, Snapshot) and name in versions and name not in plan.refs:
                plan.snapshots[name] = ref
                if name in head.lists:
                    plan.lists[name] = head.lists[name]


class _Writer:
    """Collects the rows of one checkpoint's values."""

    def __init__(self, storage: Storage, codec: Codec, thread: str) -> None:
        self._storage = storage
        self._codec = codec
        self._thread = thread
        self._token = secrets.token_urlsafe(9)
        self.wholes: dict[str, Text] = {}
        self._rows: list[Row] = []

    async def add(self, name: str, value: Any, known: Version | None) -> tuple[Ref, Version | None]:
        """Keep a value; gives how to refer to it, and what is known of it if it is a list."""
        count = count_of(value)
        if count is None or count <= _FEW:
            text = self._codec.text(value)
            if isinstance(text, str) and len(text) <= _INLINE:
                return Inline(text), None
            if count is None:
                self.wholes[name] = text
                return Whole(self._token), None
        chain = f"{self._token}{len(self._rows)}"
        link, version = await next_link(self._codec, known, value, chain=chain, link=self._token)
        if link is not None:
            self._add_row(version.chain, version.link, link)
        kind = Snapshot if version.kind == "snapshot" else Chained
        return kind(version.chain, version.link), version

    def rows(self) -> list[Row]:
        if self.wholes:
            self._add_row(self._token, FIRST, Wholes(self.wholes))
        return self._rows

    def _add_row(self, chain: str, link: str, record: Link | Wholes) -> None:
        key = {"thread_id": self._thread, "chain": chain, "link": link}
        self._rows.append(self._storage.new_row(VALUES, {**key, **msgspec.to_builtins(record)}))


def _chosen(saved: Saved, channels: Collection[str] | None) -> tuple[Saved, Mapping[str, Ref]]:
    if channels is None:
        return saved, saved.values
    return saved, {name: ref for name, ref in saved.values.items() if name in channels}


def _differs(name: str, head: Head | None, checkpoint: Checkpoint) -> bool:
    """Whether a channel may hold something else than in the checkpoint before."""
    version = checkpoint["channel_versions"].get(name)
    if head is None or version is None or name not in head.saved.values:
        return True
    return bool(version != head.versions.get(name))
