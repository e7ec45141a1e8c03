"""Reading the rows of values, all that some checkpoints refer to at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from mastra_storage import Key, NotFoundError, Query, Row, Storage, UnavailableError
from mastra_storage_langgraph._chains import FIRST, Link, is_complete
from mastra_storage_langgraph._codec import Text
from mastra_storage_langgraph._saved import Chained, Inline, Ref, Saved, Whole
from mastra_storage_langgraph._tasks import together
from mastra_storage_langgraph.tables import CHECKPOINTS, VALUES, decoded

__all__ = ["DeletedError", "Links", "Wanted", "Wholes", "read_links"]

Wanted = Sequence[tuple[Saved, Mapping[str, Ref]]]
"""Checkpoints, and which of their values are wanted."""

# How often rows are looked for that a checkpoint refers to, and how long after, in seconds: some
# stores show a row before those that were written ahead of it.
_ATTEMPTS: Final = 5
_WAIT: Final = 0.1


class DeletedError(NotFoundError):
    """Checkpoints were deleted while their values were read; `keys` has those."""

    def __init__(self, message: str, *, keys: Sequence[Key] = ()) -> None:
        super().__init__(message)
        self.keys = set(keys)


class Wholes(Struct, frozen=True):
    """What a row holds of channels that are no lists; that of a link has no `values`."""

    values: dict[str, Text] | None = None


_wholes = msgspec.json.Decoder(Wholes).decode
_link = msgspec.json.Decoder(Link).decode


class Links:
    """Values that were read, by thread and chain."""

    def __init__(self) -> None:
        self.links: dict[Key, dict[str, Link]] = {}
        self.wholes: dict[Key, dict[str, Text]] = {}

    def add(self, rows: Iterable[Row | None]) -> None:
        for row in rows:
            if row is None:
                continue
            chain = row.key[:2]
            if (wholes := decoded(row, _wholes).values) is not None:
                self.wholes[chain] = wholes
            else:
                self.links.setdefault(chain, {})[row.key[2]] = decoded(row, _link)


async def read_links(storage: Storage, wanted: Wanted, links: Links) -> None:
    """Add to `links` what the values need and what is not there yet.

    Raises `DeletedError` when a checkpoint is no longer there, `UnavailableError` when one is
    there without its values.
    """
    for attempt in range(_ATTEMPTS):
        keys: dict[Key, None] = {}
        chains: dict[Key, None] = {}
        for saved, refs in wanted:
            for ref in refs.values():
                if isinstance(ref, Inline) or _is_there(links, saved.thread_id, ref):
                    continue
                chain = (saved.thread_id, ref.chain)
                if isinstance(ref, Whole) or ref.link == FIRST:
                    keys[*chain, FIRST] = None
                else:
                    chains[chain] = None
        if not keys and not chains:
            return
        if attempt:
            await _check_checkpoints(storage, [saved.key for saved, _ in wanted])
            await asyncio.sleep(_WAIT * 2**attempt)
        queries = [Query(table=VALUES, prefix=chain, order_by="any") for chain in chains]
        reads = [storage.get_rows(VALUES, list(keys))] if keys else []
        for rows in await together(*reads, *map(storage.find_rows, queries)):
            links.add(rows)
    raise UnavailableError(
        f"values of checkpoints of thread {wanted[0][0].thread_id!r} are not there: the store may "
        "show them in a while, or they were deleted while the thread went on"
    )


async def _check_checkpoints(storage: Storage, keys: Sequence[Key]) -> None:
    rows = await storage.get_rows(CHECKPOINTS, keys)
    gone = [key for key, row in zip(keys, rows, strict=True) if row is None]
    if gone:
        raise DeletedError(
            f"checkpoints of thread {gone[0][0]!r} were deleted while they were read", keys=gone
        )


def _is_there(links: Links, thread: str, ref: Whole | Chained) -> bool:
    chain = (thread, ref.chain)
    if isinstance(ref, Whole):
        return chain in links.wholes
    return is_complete(links.links.get(chain, {}), ref.link)
