"""A backend around another backend, which wrappers of the kit refine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

from mastra_storage.backend import Backend, Op, Query, Result
from mastra_storage.errors import UnsupportedError
from mastra_storage.schema import Key, Row, Table
from mastra_storage.storage._lifecycle import name_of


class Wrapper(Backend):
    """Hands every call on to `wrapped`, and declares what that declares."""

    def __init__(self, wrapped: Backend) -> None:
        self.wrapped = wrapped
        self.name = name_of(wrapped)
        self.capabilities = wrapped.capabilities

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        raise UnsupportedError(f"{cls.__name__} wraps a backend that is there; it has no URL")

    async def open(self) -> None:
        await self.wrapped.open()

    async def close(self) -> None:
        await self.wrapped.close()

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return await self.wrapped.get(table, keys)

    async def query(self, query: Query) -> Result:
        return await self.wrapped.query(query)

    async def write(self, ops: Sequence[Op]) -> None:
        await self.wrapped.write(ops)

    def watch(self, query: Query) -> AsyncIterator[Result]:
        return self.wrapped.watch(query)

    async def tables(self) -> list[str]:
        return await self.wrapped.tables()
