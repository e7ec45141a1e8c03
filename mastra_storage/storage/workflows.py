"""Workflow runs and their snapshots."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mastra_storage.arguments import filter_argument, id_argument
from mastra_storage.backend import Delete, Query
from mastra_storage.records import Page, WorkflowRun, status_of
from mastra_storage.schema import WORKFLOW_SNAPSHOT, Row
from mastra_storage.storage._engine import Engine, operation
from mastra_storage.storage._merge import updated
from mastra_storage.validation import check_members

__all__ = ["Workflows"]


class Workflows(Engine):
    """The workflow methods of `Storage`."""

    @operation
    async def persist_workflow_snapshot(
        self, workflow_name: str, run_id: str, snapshot: Any, *, resource_id: str | None = None
    ) -> None:
        """Store the latest snapshot of a run; a run that is not there yet is begun.

        The run's `created_at` stays, its resource id too unless another is given, and its
        status becomes the one that the snapshot states, if it states one.
        """
        run = WorkflowRun(
            workflow_name=id_argument(workflow_name, "workflow_name"),
            run_id=id_argument(run_id, "run_id"),
            resource_id=filter_argument(resource_id, "resource_id"),
            snapshot=snapshot,
        )
        given = {
            "snapshot": snapshot,
            "resource_id": run.resource_id,
            "status": status_of(snapshot),
        }
        changes = {k: v for k, v in given.items() if v is not None or k == "snapshot"}
        changes = check_members(WorkflowRun, changes)

        def change(old: Row | None) -> Row:
            if old is None:
                return self._first_row(WORKFLOW_SNAPSHOT, run)
            return updated(old, changes, at=self._now(), version=self._version())

        await self._change(WORKFLOW_SNAPSHOT, (run.workflow_name, run.run_id), change)

    @operation
    async def load_workflow_snapshot(self, workflow_name: str, run_id: str) -> Any:
        """The latest snapshot of a run, or `None`."""
        run = await self._workflow_run(run_id, id_argument(workflow_name, "workflow_name"))
        return None if run is None else run.snapshot

    @operation
    async def save_workflow_run(self, run: WorkflowRun) -> WorkflowRun:
        """Store a run, in place of the one with its workflow name and id. Gives it as stored."""
        [saved] = await self._save(WORKFLOW_SNAPSHOT, [run])
        return saved

    @operation
    async def get_workflow_run(
        self, run_id: str, *, workflow_name: str | None = None
    ) -> WorkflowRun | None:
        """A run, or `None`. Without `workflow_name`, the newest run of that id of any workflow."""
        return await self._workflow_run(run_id, filter_argument(workflow_name, "workflow_name"))

    async def _workflow_run(self, run_id: str, workflow_name: str | None) -> WorkflowRun | None:
        run_id = id_argument(run_id, "run_id")
        row: Row | None
        if workflow_name is not None:
            row = await self._get(
                WORKFLOW_SNAPSHOT, id_argument(workflow_name, "workflow_name"), run_id
            )
        else:
            rows = await self._all(workflow_run_query(run_id))
            row = rows[0] if rows else None
        return None if row is None else WORKFLOW_SNAPSHOT.record_of(row)

    @operation
    async def get_workflow_runs(
        self,
        *,
        workflow_name: str | None = None,
        resource_id: str | None = None,
        status: str | None = None,
        from_date: datetime | None = None,
        to_date: datetime | None = None,
        page: int = 0,
        per_page: int | None = 20,
        cursor: str | None = None,
        count: bool = True,
    ) -> Page[WorkflowRun]:
        """A page of runs, the last begun first.

        `status` is compared as text, `from_date` and `to_date` (both included) with
        `created_at`. Pages as in `get_messages_paginated`.
        """
        name = filter_argument(workflow_name, "workflow_name")
        query = self._listing(
            WORKFLOW_SNAPSHOT,
            {"resource_id": resource_id, "status": status},
            from_date,
            to_date,
            prefix=() if name is None else (name,),
        )
        return await self._page(query, page=page, per_page=per_page, cursor=cursor, count=count)

    @operation
    async def delete_workflow_run(self, workflow_name: str, run_id: str) -> None:
        """Delete a run; nothing happens when it is not there."""
        key = (id_argument(workflow_name, "workflow_name"), id_argument(run_id, "run_id"))
        await self._write(Delete(WORKFLOW_SNAPSHOT, key))


def workflow_run_query(run_id: str) -> Query:
    """The newest run of an id, of whatever workflow."""
    return Query(table=WORKFLOW_SNAPSHOT, fields={"run_id": (run_id,)}, descending=True, limit=1)
