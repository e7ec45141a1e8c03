"""What the backend needs of Workers KV, whichever way it is reached.

A `KV` is one of: the REST API (`rest.py`), a Worker's bindings (`binding.py`), or a layer over
another `KV` that batches (`batching.py`) or remembers one's own writes (`overlay.py`).
Namespaces are named by table: "threads", "messages", …
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct

from mastra_storage import StorageError

# The API's limits.
MAX_KEY_BYTES = 512
MAX_VALUE_BYTES = 25 * 1024 * 1024
MAX_METADATA_BYTES = 1024
MAX_KEYS_OF_GET = 100
MAX_KEYS_OF_LIST = 1000
MAX_KEYS_OF_WRITE = 10_000
LEAST_SECONDS_TO_EXPIRE = 60


class RefusedCursorError(StorageError):
    """KV does not go on from a cursor of its own (any more)."""


class Entry(Struct, frozen=True, gc=False):
    """A key as a listing shows it, with its metadata as JSON text (`None` when it has none)."""

    key: str
    metadata: str | None


class Found(Struct, frozen=True, gc=False):
    """A value that was read."""

    value: bytes
    metadata: str | None


class Pair(Struct, frozen=True, gc=False):
    """A value to write; empty `metadata` is none. `expiration` is in seconds since 1970."""

    key: str
    value: bytes
    metadata: str
    expiration: int | None = None


class Listing(Struct, frozen=True):
    """A page of a listing; `cursor` is `None` when it was the last."""

    entries: list[Entry]
    cursor: str | None


class KV(Protocol):
    """Keys and values in namespaces. All calls are idempotent."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def get(self, namespace: str, keys: Sequence[str]) -> dict[str, Found]:
        """The values of these keys; those that are not there are left out."""
        ...

    async def keys(
        self, namespace: str, prefix: str, *, cursor: str | None = None, limit: int
    ) -> Listing:
        """Keys with a prefix, in order of their UTF-8 bytes; may give fewer than `limit`.

        `RefusedCursorError` for a `cursor` that KV does not take.
        """
        ...

    async def write(self, namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
        """Store pairs and delete keys, no key in both; `PartialWriteError` when some stay."""
        ...

    async def namespaces(self) -> list[str]:
        """The namespaces that are there."""
        ...
