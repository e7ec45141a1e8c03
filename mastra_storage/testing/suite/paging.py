"""Pages, cursors, counts and date ranges, alike for every listing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from mastra_storage.errors import InvalidArgumentError
from mastra_storage.records import Eval, Message, Page, Thread, Trace, WorkflowRun
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base, full
from mastra_storage.testing.suite._build import at, thread_with

KINDS = ("threads", "messages", "runs", "traces", "evals")

_FILTERS = {
    "threads": ("resource_id",),
    "messages": ("resource_id",),
    "runs": ("workflow_name", "resource_id", "status"),
    "traces": ("trace_id", "name", "scope", "thread_id", "run_id"),
    "evals": ("agent_name", "type", "thread_id", "run_id"),
}
_DATED = ("messages", "runs", "traces", "evals")


async def add(storage: Storage, kind: str, numbers: Iterable[int]) -> None:
    """Store records of a kind, each a second after the one before."""
    for number in numbers:
        id, time = f"n{number}", at(number)
        if kind == "threads":
            await storage.save_thread(Thread(id=id, resource_id="r", created_at=time))
        elif kind == "messages":
            await storage.insert(
                "messages",
                Message(id=id, thread_id="t", role="user", content=number, created_at=time),
            )
        elif kind == "runs":
            await storage.save_workflow_run(
                WorkflowRun(run_id=id, workflow_name="w", resource_id="r", created_at=time)
            )
        elif kind == "traces":
            await storage.save_trace(Trace(id=id, name="n", created_at=time))
        else:
            await storage.save_eval(Eval(id=id, agent_name="a", created_at=time))


async def listed(storage: Storage, kind: str, **arguments: Any) -> Page[Any]:
    """A page, newest first."""
    if kind == "threads":
        return await storage.list_threads(**arguments)
    if kind == "messages":
        return await storage.get_messages_paginated("t", **{"direction": "desc"} | arguments)
    if kind == "runs":
        return await storage.get_workflow_runs(**arguments)
    if kind == "traces":
        return await storage.get_traces(**arguments)
    return await storage.get_evals(**arguments)


def numbers(page: Iterable[Any]) -> list[int]:
    return [int((getattr(item, "id", None) or item.run_id)[1:]) for item in page]


every_listing = pytest.mark.parametrize("kind", KINDS)


class PagingTests(Base):
    @every_listing
    async def test_pages_are_numbered_from_zero(self, storage: Storage, kind: str) -> None:
        await add(storage, kind, range(5))
        first = await listed(storage, kind, page=0, per_page=2)
        assert (numbers(first), first.total, first.has_more) == ([4, 3], 5, True)
        assert (first.page, first.per_page, len(first)) == (0, 2, 2)
        last = await listed(storage, kind, page=2, per_page=2)
        assert (numbers(last), last.total, last.has_more) == ([0], 5, False)
        assert (last.page, last.next_cursor) == (2, None)
        exact = await listed(storage, kind, per_page=5)
        assert (numbers(exact), exact.has_more, exact.next_cursor) == ([4, 3, 2, 1, 0], False, None)
        beyond = await listed(storage, kind, page=9, per_page=2)
        assert (beyond.items, beyond.total, beyond.has_more) == ([], 5, False)
        whole = await listed(storage, kind, per_page=None)
        assert (numbers(whole), whole.total, whole.has_more) == ([4, 3, 2, 1, 0], 5, False)
        none = await listed(storage, kind, per_page=0)
        assert (none.items, none.total) == ([], 5)
        assert (await listed(storage, kind, per_page=None, page=1)).items == []

    @every_listing
    async def test_cursors_stay_in_place_while_rows_are_added(
        self, storage: Storage, kind: str
    ) -> None:
        await add(storage, kind, range(5))
        page = await listed(storage, kind, per_page=2, count=False)
        assert (numbers(page), page.total, page.has_more) == ([4, 3], None, True)
        await add(storage, kind, (8, -3))
        page = await listed(storage, kind, per_page=2, cursor=page.next_cursor)
        assert (numbers(page), page.total, page.page) == ([2, 1], 7, 1)
        page = await listed(storage, kind, per_page=None, cursor=page.next_cursor)
        assert (numbers(page), page.has_more, page.next_cursor) == ([0, -3], False, None)

    @every_listing
    async def test_damaged_and_foreign_cursors_are_refused(
        self, storage: Storage, kind: str
    ) -> None:
        await add(storage, kind, range(2))
        cursor = (await listed(storage, kind, per_page=1)).next_cursor
        assert cursor is not None
        flipped = cursor[:9] + ("A" if cursor[9] != "A" else "B") + cursor[10:]
        for bad in (flipped, cursor[:-3], "", "é", "AAAA", 7):
            with pytest.raises(InvalidArgumentError):
                await listed(storage, kind, per_page=1, cursor=bad)
        other_filter = {_FILTERS[kind][0]: "elsewhere"}
        with pytest.raises(InvalidArgumentError):
            await listed(storage, kind, per_page=1, cursor=cursor, **other_filter)
        for other in set(KINDS) - {kind}:
            with pytest.raises(InvalidArgumentError):
                await listed(storage, other, per_page=1, cursor=cursor)
        with pytest.raises(InvalidArgumentError):
            await listed(storage, kind, per_page=1, page=1, cursor=cursor)

    @every_listing
    async def test_negative_and_fractional_paging_is_refused(
        self, storage: Storage, kind: str
    ) -> None:
        for bad in (-1, 0.5, 1.0, "1", True):
            with pytest.raises(InvalidArgumentError):
                await listed(storage, kind, page=bad)
            with pytest.raises(InvalidArgumentError):
                await listed(storage, kind, per_page=bad)
        with pytest.raises(InvalidArgumentError):
            await listed(storage, kind, page=None)

    @every_listing
    async def test_an_empty_text_is_no_filter(self, storage: Storage, kind: str) -> None:
        for name in _FILTERS[kind]:
            for bad in ("", 7):
                with pytest.raises(InvalidArgumentError):
                    await listed(storage, kind, **{name: bad})

    @full
    @pytest.mark.parametrize("kind", _DATED)
    async def test_date_ranges_include_both_ends_in_listings(
        self, storage: Storage, kind: str
    ) -> None:
        await add(storage, kind, range(5))
        page = await listed(storage, kind, from_date=at(1), to_date=at(3))
        assert (numbers(page), page.total) == ([3, 2, 1], 3)
        assert numbers(await listed(storage, kind, from_date=at(3.000001))) == [4]
        assert numbers(await listed(storage, kind, to_date=at(-0.000001))) == []
        with pytest.raises(InvalidArgumentError):
            await listed(storage, kind, from_date=at().replace(tzinfo=None))
        with pytest.raises(InvalidArgumentError):
            await listed(storage, kind, to_date="2024-01-01")

    @full
    async def test_cursors_belong_to_one_direction(self, storage: Storage) -> None:
        await add(storage, "threads", range(2))
        cursor = (await storage.list_threads(per_page=1)).next_cursor
        for other in ({"direction": "asc"}, {"order_by": "updated_at"}, {"metadata": {"a": 1}}):
            with pytest.raises(InvalidArgumentError):
                await storage.list_threads(per_page=1, cursor=cursor, **other)

    @full
    async def test_ascending_pages_meet_rows_added_behind_them(self, storage: Storage) -> None:
        await thread_with(storage)
        await add(storage, "messages", range(3))
        page = await storage.get_messages_paginated("t", per_page=2)
        assert numbers(page) == [0, 1]
        await add(storage, "messages", (-1, 5))
        page = await storage.get_messages_paginated("t", per_page=9, cursor=page.next_cursor)
        assert numbers(page) == [2, 5]

    @full
    async def test_a_cursor_outlives_the_row_it_points_at(self, storage: Storage) -> None:
        await thread_with(storage)
        await add(storage, "messages", range(4))
        page = await storage.get_messages_paginated("t", per_page=2)
        await storage.delete_messages("t", ["n1"])
        page = await storage.get_messages_paginated("t", per_page=9, cursor=page.next_cursor)
        assert (numbers(page), page.total) == ([2, 3], 3)
