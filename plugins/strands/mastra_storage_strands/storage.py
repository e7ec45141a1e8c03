"""`MastraStrandsStorage`: where Strands keeps snapshots, offloaded content and memories."""

from __future__ import annotations

import builtins
import copy
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Self, TypeVar

import strands.storage
from strands.types.exceptions import StorageError

import mastra_storage
from mastra_storage import Delete, Op, Put, Query, Row, Storage
from mastra_storage_strands import tables
from mastra_storage_strands._bridge import Bridge, Bridged
from mastra_storage_strands.tables import DATA, NAMES, SESSIONS

__all__ = ["MastraStrandsStorage"]

T = TypeVar("T")


class MastraStrandsStorage(Bridged, strands.storage.Storage):
    """Bytes by key on any backend, for everything in Strands that takes a `Storage`.

        with MastraStrandsStorage(open_storage("sqlite:///agent.db")) as storage:
            agent = Agent(session_manager=SnapshotSessionManager("trip", storage=storage))
            agent("To Oslo, please")

    It opens the storage that it is given, in an event loop of its own, and closes it: Strands calls
    from loops that come and go, and blocks the one in which an agent is made. So it can be used in
    any thread, with an event loop or without; `async with` opens it without blocking.

    Keys are paths, normalised as those of Strands' own storages. A value may be of any size, and
    is replaced as a whole. Errors are Strands' `StorageError`, caused by those of `mastra_storage`.
    """

    def __init__(self, storage: AbstractAsyncContextManager[Storage]) -> None:
        self.bridge = Bridge(storage, NAMES, DATA, SESSIONS)
        self._prefix = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.bridge!r}, {self._prefix!r})"

    def namespace(self, prefix: str) -> Self:
        """A view of the keys below `prefix/`, which opens and closes with this one."""
        below = _normal_prefix(prefix).rstrip("/")
        view = copy.copy(self)
        view._prefix = f"{self._prefix}{below}/" if below else self._prefix  # noqa: SLF001
        return view

    async def write(self, key: str, data: bytes) -> None:
        """Store `data` under `key`, in place of what is there."""
        name = self._key(key)

        async def write(storage: Storage) -> None:
            puts: list[Op] = [
                Put(storage.new_row(NAMES, tables.name_record(name))),
                Put(storage.new_row(DATA, tables.data_record(name, bytes(data)))),
            ]
            await storage.change_rows([(DATA, tables.data_key(name))], lambda _: puts)

        await self._run(f"write {key!r}", write)

    async def read(self, key: str) -> bytes | None:
        """The bytes under `key`; `None` when there are none."""
        name = self._key(key)

        async def read(storage: Storage) -> bytes | None:
            [row] = await storage.get_rows(DATA, [tables.data_key(name)])
            return None if row is None else tables.data_of(DATA.record_of(row))

        return await self._run(f"read {key!r}", read)

    async def delete(self, key: str) -> None:
        """Remove what is under `key`; it need not be there."""
        name = self._key(key)
        data_key, named = tables.data_key(name), Delete(NAMES, tables.name_key(name))

        async def delete(storage: Storage) -> None:
            # A name without a value is left only by a write that ended half-way.
            leftover = [] if storage.capabilities.atomic else [named]

            def change(rows: builtins.list[Row | None]) -> builtins.list[Delete]:
                return leftover if rows == [None] else [Delete(DATA, data_key), named]

            await storage.change_rows([(DATA, data_key)], change)

        await self._run(f"delete {key!r}", delete)

    async def list(self, query: str = "") -> builtins.list[str]:
        """All keys that begin with `query`, in order. Values are not read.

        Of the parts between slashes in `query`, the first three narrow what is looked at.
        """
        prefix = self._prefix + _normal_prefix(query)

        async def names(storage: Storage) -> builtins.list[str]:
            found = Query(table=NAMES, prefix=tables.name_prefix(prefix), order_by="any")
            return [NAMES.record_of(row)["name"] for row in await storage.find_rows(found)]

        found = await self._run(f"list {query!r}", names)
        return sorted(name[len(self._prefix) :] for name in found if name.startswith(prefix))

    def _key(self, key: str) -> str:
        return self._prefix + _normal_key(key)

    async def _run(self, what: str, work: Callable[[Storage], Awaitable[T]]) -> T:
        try:
            return await self.bridge.run(work)
        except mastra_storage.StorageError as exc:
            raise StorageError(f"could not {what}: {exc}") from exc


def _normal_key(key: str) -> str:
    """The key as Strands' own storages keep it: single slashes, none at the ends.

    `StorageError` for an empty key, a backslash or a part `..`.
    """
    if not (normal := _normal_prefix(key).rstrip("/")):
        raise StorageError("a storage key must not be empty")
    return normal


def _normal_prefix(prefix: str) -> str:
    """The beginning of a key as `_normal_key` gives it; a slash at its end stays."""
    normal = re.sub("/+", "/", prefix).lstrip("/")
    if "\\" in prefix or ".." in normal.split("/"):
        raise StorageError(f"the storage key {prefix!r} must not have a backslash or a part '..'")
    return normal
