"""Workflow runs and their snapshots."""

from __future__ import annotations

import pytest

from mastra_storage.errors import InvalidArgumentError
from mastra_storage.records import WorkflowRun
from mastra_storage.schema import WORKFLOW_SNAPSHOT
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base
from mastra_storage.testing.suite._build import at, members, plant


def runs_of(page: object) -> list[str]:
    return [run.run_id for run in page]  # type: ignore[attr-defined]


class WorkflowTests(Base):
    async def test_a_saved_run_reads_back_as_it_was(self, storage: Storage) -> None:
        run = WorkflowRun(
            run_id="1",
            workflow_name="w",
            resource_id="r",
            status="failed",
            snapshot={"status": "running", "context": {"$steps": [None]}},
            error={"message": "no"},
            created_at=at(),
            updated_at=at(1),
            completed_at=at(2),
        )
        assert await storage.save_workflow_run(run) == run
        assert await storage.get_workflow_run("1") == run
        assert await storage.get_workflow_run("1", workflow_name="w") == run
        assert await storage.load_workflow_snapshot("w", "1") == run.snapshot

    async def test_an_unknown_run_is_none(self, storage: Storage) -> None:
        await storage.save_workflow_run(WorkflowRun(run_id="1", workflow_name="w"))
        assert await storage.get_workflow_run("2") is None
        assert await storage.get_workflow_run("1", workflow_name="v") is None
        assert await storage.load_workflow_snapshot("v", "1") is None
        await storage.delete_workflow_run("v", "1")
        assert await storage.get_workflow_run("1") is not None

    async def test_a_first_snapshot_begins_a_run(self, storage: Storage) -> None:
        snapshot = {"status": "running", "value": {}}
        await storage.persist_workflow_snapshot("w", "1", snapshot, resource_id="r")
        run = await storage.get_workflow_run("1")
        assert run is not None
        assert (run.workflow_name, run.resource_id, run.status) == ("w", "r", "running")
        assert (run.snapshot, run.updated_at) == (snapshot, run.created_at)

    async def test_a_clock_that_is_behind_moves_no_run_back(self, storage: Storage) -> None:
        ahead = at(100 * 365 * 86_400)
        run = WorkflowRun(run_id="1", workflow_name="w", updated_at=ahead)
        await storage.save_workflow_run(run)
        await storage.persist_workflow_snapshot("w", "1", {})
        found = await storage.get_workflow_run("1")
        assert found is not None
        assert found.updated_at == ahead

    async def test_a_later_snapshot_keeps_what_it_does_not_state(self, storage: Storage) -> None:
        first = await storage.save_workflow_run(
            WorkflowRun(run_id="1", workflow_name="w", resource_id="r", created_at=at())
        )
        await storage.persist_workflow_snapshot("w", "1", {"status": "done"})
        run = await storage.get_workflow_run("1")
        assert run is not None
        assert (run.resource_id, run.status, run.created_at) == ("r", "done", at())
        assert run.updated_at > first.updated_at
        await storage.persist_workflow_snapshot("w", "1", ["no status"], resource_id="s")
        run = await storage.get_workflow_run("1")
        assert run is not None
        assert (run.resource_id, run.status, run.snapshot) == ("s", "done", ["no status"])
        assert runs_of(await storage.get_workflow_runs(resource_id="s", status="done")) == ["1"]
        assert runs_of(await storage.get_workflow_runs(resource_id="r")) == []

    async def test_a_snapshot_may_be_null(self, storage: Storage) -> None:
        await storage.persist_workflow_snapshot("w", "1", {"status": "running"})
        await storage.persist_workflow_snapshot("w", "1", None)
        assert await storage.load_workflow_snapshot("w", "1") is None
        run = await storage.get_workflow_run("1")
        assert run is not None
        assert run.status == "running"

    async def test_persisting_keeps_members_it_does_not_know(self, storage: Storage) -> None:
        await storage.persist_workflow_snapshot("w", "1", {"a": 1})
        await plant(storage.backend, WORKFLOW_SNAPSHOT, ("w", "1"), tenant="x")
        await storage.persist_workflow_snapshot("w", "1", {"a": 2})
        kept = await members(storage.backend, WORKFLOW_SNAPSHOT, "w", "1")
        assert (kept["tenant"], kept["snapshot"]) == ("x", {"a": 2})

    async def test_runs_of_one_id_are_of_their_workflow(self, storage: Storage) -> None:
        for name, second in (("v", 1), ("w", 2), ("u", 0)):
            await storage.save_workflow_run(
                WorkflowRun(run_id="1", workflow_name=name, snapshot=name, created_at=at(second))
            )
        newest = await storage.get_workflow_run("1")
        assert newest is not None
        assert newest.workflow_name == "w"
        assert await storage.load_workflow_snapshot("v", "1") == "v"
        await storage.delete_workflow_run("w", "1")
        newest = await storage.get_workflow_run("1")
        assert newest is not None
        assert newest.workflow_name == "v"

    async def test_runs_are_filtered(self, storage: Storage) -> None:
        for second, (id, name, owner, status) in enumerate(
            (("1", "w", "r", "done"), ("2", "w", None, "failed"), ("3", "v", "r", "done"))
        ):
            await storage.save_workflow_run(
                WorkflowRun(
                    run_id=id,
                    workflow_name=name,
                    resource_id=owner,
                    status=status,
                    created_at=at(second),
                )
            )
        for filters, expected in (
            ({}, ["3", "2", "1"]),
            ({"workflow_name": "w"}, ["2", "1"]),
            ({"resource_id": "r"}, ["3", "1"]),
            ({"status": "done", "workflow_name": "w"}, ["1"]),
            ({"status": "running"}, []),
        ):
            page = await storage.get_workflow_runs(**filters)  # type: ignore[arg-type]
            assert (runs_of(page), page.total) == (expected, len(expected))

    async def test_workflow_arguments_are_checked(self, storage: Storage) -> None:
        for name, id in (("", "1"), ("w", ""), (None, "1"), ("w", 7)):
            with pytest.raises(InvalidArgumentError):
                await storage.persist_workflow_snapshot(name, id, {})  # type: ignore[arg-type]
        for bad in ({"status": ""}, {"workflow_name": ""}, {"resource_id": ""}):
            with pytest.raises(InvalidArgumentError):
                await storage.get_workflow_runs(**bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            await storage.persist_workflow_snapshot("w", "1", {"n": float("nan")})
        with pytest.raises(InvalidArgumentError):
            await storage.persist_workflow_snapshot("w", "1", {}, resource_id="")
        assert (await storage.get_workflow_runs()).total == 0
