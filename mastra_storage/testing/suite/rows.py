"""Rows of adapters' tables: changes that lose nothing, values of any size, rows that expire."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mastra_storage.backend import Delete, DeletePrefix, Op, Put, Query
from mastra_storage.records import now
from mastra_storage.schema import Row, Table
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import OpenStore, full
from mastra_storage.testing.suite.concurrency import ConcurrencyTests

LARGE = Table(name="kit_large", key=("box", "id"), ordered=(1,), large=True)
"""A table of the kit's own, whose values are kept in parts past what a row holds."""

_KEY = ("box", "a")
_WHOLE = 'é"\\\n' * 200_000
"""More than a row holds, and dear to escape."""


def large_row(
    storage: Storage, value: Any, *, box: str = "box", id: str = "a", **given: Any
) -> Row:
    return storage.new_row(LARGE, {"box": box, "id": id, "value": value}, **given)


async def value_of(storage: Storage, *key: str) -> Any:
    [row] = await storage.get_rows(LARGE, [key or _KEY])
    return None if row is None else LARGE.record_of(row)["value"]


class RowTests(ConcurrencyTests):
    async def rows_changes(self, open_store: OpenStore, writers: int) -> None:
        async def change(store: Storage, new: dict[str, int]) -> None:
            def merged(rows: list[Row | None]) -> list[Op]:
                old = {} if rows[0] is None else LARGE.record_of(rows[0])["value"]
                return [Put(large_row(store, old | new))]

            await store.change_rows([(LARGE, _KEY)], merged)

        async def read(store: Storage) -> dict[str, int]:
            return await value_of(store) or {}

        await self.all_keys_stay(await self.two(open_store), writers, change, read)

    async def test_concurrent_changes_of_a_row_are_all_kept(self, open_store: OpenStore) -> None:
        await self.rows_changes(open_store, 4)

    @full
    async def test_many_concurrent_changes_of_a_row_are_all_kept(
        self, open_store: OpenStore
    ) -> None:
        await self.rows_changes(open_store, self.writers)

    async def test_a_value_of_any_size_is_kept(self, storage: Storage) -> None:
        await storage.write_rows(
            Put(large_row(storage, _WHOLE)), Put(large_row(storage, 1, id="b"))
        )
        assert await value_of(storage) == _WHOLE
        rows = await storage.find_rows(Query(table=LARGE, prefix=("box",), descending=True))
        assert [LARGE.record_of(row)["value"] for row in rows] == [1, _WHOLE]

    async def test_what_replaces_a_large_value_takes_its_parts_along(
        self, storage: Storage
    ) -> None:
        await storage.write_rows(Put(large_row(storage, _WHOLE)))
        for value in (_WHOLE + "!", "short"):
            await storage.change_rows(
                [(LARGE, _KEY)],
                lambda _, value=value: [Put(large_row(storage, value))],  # type: ignore[misc]
            )
            assert await value_of(storage) == value
        assert await storage.find_rows(Query(table=LARGE.parts, order_by="any")) == []

    async def test_what_deletes_a_large_value_takes_its_parts_along(self, storage: Storage) -> None:
        boxes = ["kept", "deleted", "emptied"]
        await storage.write_rows(*[Put(large_row(storage, _WHOLE, box=box)) for box in boxes])
        await storage.write_rows(Delete(LARGE, ("deleted", "a")), DeletePrefix(LARGE, ("emptied",)))
        parts = await storage.find_rows(Query(table=LARGE.parts, order_by="any"))
        assert {row.key[0] for row in parts} == {"kept"}
        assert [await value_of(storage, box, "a") for box in boxes] == [_WHOLE, None, None]

    async def test_a_row_has_an_end(self, storage: Storage) -> None:
        past, future = now() - timedelta(seconds=1), now() + timedelta(hours=1)
        await storage.write_rows(
            Put(large_row(storage, _WHOLE, id="gone", expires_at=past)),
            Put(large_row(storage, _WHOLE, id="here", expires_at=future)),
        )
        rows = await storage.find_rows(Query(table=LARGE))
        assert [row.key for row in rows] == [("box", "here")]
