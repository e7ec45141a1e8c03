"""Traces: spans, or whole traces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from mastra_storage.arguments import id_argument, object_argument
from mastra_storage.records import Page, Trace
from mastra_storage.schema import TRACES
from mastra_storage.storage._engine import Engine, holds, operation

__all__ = ["Traces"]


class Traces(Engine):
    """The trace methods of `Storage`."""

    @operation
    async def save_trace(self, trace: Trace) -> Trace:
        """Store a span or trace, in place of the one with its id. Gives it as stored."""
        [saved] = await self._save(TRACES, [trace])
        return saved

    @operation
    async def save_traces(self, traces: Iterable[Trace]) -> list[Trace]:
        """Store several; all are checked before any is written."""
        return await self._save(TRACES, traces, "traces")

    @operation
    async def get_trace(self, id: str) -> Trace | None:
        """A span or trace by its own id, or `None`."""
        row = await self._get(TRACES, id_argument(id, "id"))
        return None if row is None else TRACES.record_of(row)

    @operation
    async def get_traces(
        self,
        *,
        trace_id: str | None = None,
        name: str | None = None,
        scope: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        thread_id: str | None = None,
        run_id: str | None = None,
        from_date: datetime | None = None,
        to_date: datetime | None = None,
        page: int = 0,
        per_page: int | None = 100,
        cursor: str | None = None,
        count: bool = True,
    ) -> Page[Trace]:
        """A page of spans or traces, the last created first.

        `attributes` keeps those that have these attributes with these values; attributes are
        not indexed, so every candidate is read. `from_date` and `to_date` (both included) are
        compared with `created_at`. Pages as in `get_messages_paginated`.
        """
        wanted = object_argument(attributes, "attributes")
        fields = {
            "trace_id": trace_id,
            "name": name,
            "scope": scope,
            "thread_id": thread_id,
            "run_id": run_id,
        }
        return await self._page(
            self._listing(TRACES, fields, from_date, to_date),
            page=page,
            per_page=per_page,
            cursor=cursor,
            count=count,
            accept=(lambda trace: holds(trace.attributes, wanted)) if wanted else None,
            accept_id=wanted,
        )
