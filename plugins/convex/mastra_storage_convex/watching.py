"""Live queries: the rows of a query now, and again after each change."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw, structs

from mastra_storage import (
    AuthenticationError,
    Position,
    Query,
    Result,
    Row,
    StorageError,
    Table,
    UnavailableError,
    UnsupportedError,
    select,
)
from mastra_storage_convex._answers import DEPLOY, UNREADABLE, function_failure
from mastra_storage_convex.client import Settings, encoded
from mastra_storage_convex.feeds import Call, Failed, Feed
from mastra_storage_convex.layout import layout_of
from mastra_storage_convex.queries import all_of, list_arguments, sorts_here
from mastra_storage_convex.sync import SyncClient
from mastra_storage_convex.wire import Documents

__all__ = ["Watches"]

# A change sends the whole page that it is in, so these are smaller than those of other reads.
_PAGE_ROWS = 1_024
# How many rows are decoded before others get their turn.
_ROWS_AT_ONCE = 64


_log = logging.getLogger("mastra_storage.convex")
_decode_page = msgspec.json.Decoder(Documents[Raw]).decode


class Watches:
    """The live queries of a store, over one WebSocket."""

    def __init__(self, settings: Settings, check: Callable[[], Awaitable[object]]) -> None:
        """`check` asks over HTTP whether key and functions are right, and raises when not."""
        self._timeout = settings.timeout
        self._check = check
        self._sync = SyncClient(
            settings.url, settings.key, check=self._find_reason, build=_Page.made
        )
        self._turn = asyncio.Lock()
        self._is_closed = False

    async def close(self) -> None:
        """End all live queries; there are no more after that."""
        self._is_closed = True
        await self._sync.close()

    async def watch(self, query: Query) -> AsyncGenerator[Result, None]:
        """The result of `query` now, then the newest after each change, until `close`.

        Raises `UnavailableError` when there is no first result in time. After it a deployment
        that is not there is waited for.
        """
        if self._is_closed:
            raise UnavailableError("the store is closed", retryable=False)
        pages = _Pages(query)
        given: Result | None = None
        async with self._sync.feed() as feed:
            while True:
                result = await self._result(query, pages, feed)
                if result is not None and result != given:
                    given = result
                    yield result
                seconds = self._timeout if given is None else None
                if not await self._changed(feed, seconds):
                    return

    async def _changed(self, feed: Feed[_Page], seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await feed.wait()
        except TimeoutError as exc:
            raise UnavailableError(
                f"Convex gave no live result within {seconds:g} seconds ({self._sync.trouble}); "
                "see whether the deployment runs, and whether its WebSocket can be reached"
            ) from exc

    async def _result(self, query: Query, pages: _Pages, feed: Feed[_Page]) -> Result | None:
        """What is there now; `None` while not all of it is known."""
        async with self._turn:  # watchers that wake together do not block the loop together
            while True:
                found = pages.walk(feed)
                if not isinstance(found, _Page):
                    break
                await found.read(query.table)
        if isinstance(found, Failed):
            await self._find_reason()
            raise function_failure(found.message, pages.path)
        return found

    async def _find_reason(self) -> None:
        """Raise what is wrong with key or functions, and cannot get better by itself."""
        try:
            await self._check()
        except (AuthenticationError, UnsupportedError):
            raise
        except StorageError as exc:
            _log.debug("watch: nothing to be learnt over HTTP: %s", type(exc).__name__)


class _Page:
    """What one `M:list` gave, decoded as far as it is needed."""

    def __init__(self, text: bytes, before: _Page | None) -> None:
        self.known: dict[bytes, Row] = {} if before is None else before.known
        self.rows: list[Row] | None = None
        self.texts: list[bytes] = []
        self.skipped = 0
        self.next: Position | None = None
        self._problem: Exception | None = None
        try:
            page = _decode_page(text)
        except UNREADABLE as exc:
            self._problem = exc
            return
        self.texts = [bytes(raw) for raw in page.rows]
        self.skipped = int(page.skipped)
        self.next = None if page.next is None else page.next.position()

    @classmethod
    def made(cls, text: bytes, before: _Page | None) -> _Page:
        """The page of a text: the one before, when nothing has changed."""
        page = cls(text, before)
        if before is None or before.rows is None:
            return page
        same = (page.texts, page.next, page.skipped) == (before.texts, before.next, before.skipped)
        return before if same and page._problem is None else page

    async def read(self, table: Table) -> None:
        """Decode the rows; those that the page before had as well are taken over."""
        layout = layout_of(table)
        decode: Any = msgspec.json.Decoder(layout.document).decode
        rows: list[Row] = []
        try:
            if self._problem is not None:
                raise self._problem
            for start in range(0, len(self.texts), _ROWS_AT_ONCE):
                texts = self.texts[start : start + _ROWS_AT_ONCE]
                new = [text for text in texts if text not in self.known]
                found = dict(zip(new, layout.read(map(decode, new)), strict=True))
                rows += [found.get(text) or self.known[text] for text in texts]
                await asyncio.sleep(0)
        except UNREADABLE as exc:
            raise UnsupportedError(
                "the functions of the deployment give something else than this version reads; "
                + DEPLOY
            ) from exc
        self.known = dict(zip(self.texts, rows, strict=True))
        self.rows = rows


class _Pages:
    """The pages that together have what a query asks for, each of them followed.

    Where a page ends moves with every row that comes before it. So the next one begins at a
    row well before that end, and stays there for as long as the page reaches that far.
    """

    def __init__(self, query: Query) -> None:
        self._asked = query
        self._in_order = not (query.count or sorts_here(query))
        self.query = query if self._in_order else all_of(query)
        self.path = list_arguments(query)[0]
        self._starts: list[Position] = []

    def walk(self, feed: Feed[_Page]) -> Result | Failed | _Page | None:
        """The result; or a page to be read first, a failure, or `None` for "not known yet"."""
        rows: list[Row] = []
        calls: list[Call] = []
        skip, start = self.query.offset, self.query.after
        while True:
            calls.append(self._call(start, skip))
            page = feed.answer(calls[-1])
            if not isinstance(page, _Page) or page.rows is None:
                self._follow_more(calls, feed)
                return page
            if page.next is None or self._has_enough(len(rows) + len(page.rows)):
                break
            skip -= page.skipped
            start = self._next_start(len(calls) - 1, page.rows, page.next)
            rows += page.rows[: self._count_until(start, page.rows)]
        feed.keep(calls)
        del self._starts[len(calls) - 1 :]
        return self._finished(rows + page.rows, page.next is not None)

    def _follow_more(self, calls: list[Call], feed: Feed[_Page]) -> None:
        """Follow what will be needed behind the last of `calls`, as far as that is known."""
        calls += [self._call(start, 0) for start in self._starts[len(calls) - 1 :]]
        for call in calls:
            feed.answer(call)
        feed.keep(calls)

    def _call(self, after: Position | None, skip: int) -> Call:
        limit = _PAGE_ROWS if self.query.limit is None else min(self.query.limit, _PAGE_ROWS)
        part = structs.replace(self.query, after=after, offset=skip, limit=max(limit, 1))
        path, arguments = list_arguments(part)
        return Call(path, encoded(arguments).decode())

    def _has_enough(self, count: int) -> bool:
        return self.query.limit is not None and count >= self.query.limit

    def _next_start(self, number: int, rows: list[Row], end: Position) -> Position:
        """Behind which row the next page begins, after the page of this number."""
        reached = [start for start in self._starts[number:] if self._is_up_to(start, end)]
        if reached:
            self._starts[number:] = self._starts[number + len(reached) - 1 :]
            return reached[-1]
        early = 3 * len(rows) // 4
        start = self.query.position(rows[early]) if early else end
        self._starts[number:] = [start]
        return start

    def _count_until(self, start: Position, rows: list[Row]) -> int:
        """How many of the rows are not behind `start`."""
        places = range(len(rows))
        return bisect_right(
            places, False, key=lambda n: not self._is_up_to(self.query.position(rows[n]), start)
        )

    def _is_up_to(self, place: Position, other: Position) -> bool:
        """Whether `place` is not behind `other` in the query's order."""
        one, two = self._rank(place), self._rank(other)
        return one >= two if self.query.descending else one <= two

    def _rank(self, place: Position) -> tuple[Any, ...]:
        if self.query.order_by == "any":
            return place.key
        return place.order, place.seq, place.key

    def _finished(self, rows: list[Row], more: bool) -> Result:
        if not self._in_order:
            return select(rows, self._asked)
        found = rows[: self.query.limit]
        more = bool(found) and (more or len(found) < len(rows))
        return Result(rows=found, cursor=self.query.position(found[-1]) if more else None)
