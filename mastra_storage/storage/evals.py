"""Evals: the outcomes of metrics on answers of agents."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from mastra_storage.arguments import choice_argument, id_argument
from mastra_storage.records import Eval, Page
from mastra_storage.schema import EVALS
from mastra_storage.storage._engine import Engine, operation

__all__ = ["Evals"]


class Evals(Engine):
    """The eval methods of `Storage`."""

    @operation
    async def save_eval(self, eval: Eval) -> Eval:
        """Store an eval, in place of the one with its id. Gives it as stored."""
        [saved] = await self._save(EVALS, [eval])
        return saved

    @operation
    async def get_eval(self, eval_id: str) -> Eval | None:
        """An eval, or `None`."""
        row = await self._get(EVALS, id_argument(eval_id, "eval_id"))
        return None if row is None else EVALS.record_of(row)

    @operation
    async def get_evals(
        self,
        *,
        agent_name: str | None = None,
        type: Literal["live", "test"] | None = None,
        thread_id: str | None = None,
        run_id: str | None = None,
        from_date: datetime | None = None,
        to_date: datetime | None = None,
        page: int = 0,
        per_page: int | None = 100,
        cursor: str | None = None,
        count: bool = True,
    ) -> Page[Eval]:
        """A page of evals, the last created first. `type` is "live" or "test".

        `from_date` and `to_date` (both included) are compared with `created_at`. Pages as in
        `get_messages_paginated`.
        """
        if type is not None:
            choice_argument(type, "type", ("live", "test"))
        fields = {"agent_name": agent_name, "type": type, "thread_id": thread_id, "run_id": run_id}
        query = self._listing(EVALS, fields, from_date, to_date)
        return await self._page(query, page=page, per_page=per_page, cursor=cursor, count=count)
