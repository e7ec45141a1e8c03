"""`convex://`: rows in a Convex deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from mastra_storage import (
    Backend,
    Capabilities,
    Key,
    Op,
    Query,
    Result,
    Row,
    Table,
    url_options,
)
from mastra_storage_convex.batching import MAX_OPS, Writer
from mastra_storage_convex.client import Client, Settings
from mastra_storage_convex.layout import CONVEX_NAMES
from mastra_storage_convex.options import address_in, settings_of
from mastra_storage_convex.queries import Finder
from mastra_storage_convex.wire import TableNames

if TYPE_CHECKING:
    from mastra_storage_convex.watching import Watches


class ConvexBackend(Backend):
    """Rows in the tables of a Convex deployment that has the functions of this package.

    `convex://HOST` is reached by https, `convex+http://HOST:PORT` by http; `convex://` alone
    takes the address from the environment. Options, also in the URL: `deploy_key`, `timeout`.
    """

    name = "convex"
    capabilities = Capabilities(
        atomic=True,
        compare_and_set=True,
        watch=True,
        strong_reads=True,
        max_atomic_rows=MAX_OPS,
        max_record_bytes=1_000_000,
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = Client(settings)
        self._finder = Finder(self._client)
        self._writer = Writer(self._client)
        self._watches: Watches | None = None

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        found = url_options(url, options, allowed=("deploy_key", "timeout"))
        return cls(
            settings_of(
                address_in(url),
                found.pop("deploy_key", None),
                names=("the host", "deploy_key"),
                **found,
            )
        )

    async def open(self) -> None:
        self._watches = None  # those of before are closed for good
        await self._client.open()

    async def close(self) -> None:
        try:
            if self._watches is not None:
                await self._watches.close()
            await self._writer.close()
        finally:
            await self._client.close()

    async def get(self, table: Table, keys: Sequence[Key]) -> list[Row | None]:
        return await self._finder.get(table, keys)

    async def query(self, query: Query) -> Result:
        return await self._finder.query(query)

    async def write(self, ops: Sequence[Op]) -> None:
        if ops:
            await self._writer.write(ops)

    def watch(self, query: Query) -> AsyncIterator[Result]:
        return self._watching().watch(query)

    async def tables(self) -> list[str]:
        core = {convex: name for name, convex in CONVEX_NAMES.items()}
        names: list[str] = []
        arguments: dict[str, str] = {}
        while True:
            found: TableNames = await self._client.query("system:tables", arguments, TableNames)
            names += [core.get(name, name) for name in found.core] + found.documents
            if found.next is None:
                return list(dict.fromkeys(names))
            arguments = {"after": found.next}

    def _watching(self) -> Watches:
        # Imported late: most stores are never watched.
        from mastra_storage_convex.watching import Watches

        if self._watches is None:
            self._watches = Watches(self._settings, self._client.check)
        return self._watches
