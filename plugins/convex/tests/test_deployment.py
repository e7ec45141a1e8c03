"""The kit on a real deployment: the one that `CONVEX_URL` and a key in the environment name.

    CONVEX_URL=… CONVEX_DEPLOY_KEY=… python -m pytest tests/test_deployment.py

It works in tables of its own, and deletes those. The typed tables cannot be kept apart like that:
with `CONVEX_TESTS_DELETE_EVERYTHING=yes`, for a deployment that is there for tests, the kit runs
on them as well, and empties them before each test.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from convex_server import ConvexServer
from mastra_storage_convex import ConvexBackend
from mastra_storage_convex.client import Settings
from mastra_storage_convex.options import settings_of
from mastra_storage_convex.verifying import State, checks_of

from mastra_storage import (
    TABLES,
    Backend,
    DeletePrefix,
    InvalidArgumentError,
    Message,
    Query,
    Storage,
    Table,
    Thread,
)
from mastra_storage.testing import StorageConformance, isolated

pytestmark = pytest.mark.once  # the kit once more, on what the environment names

MAY_DELETE = "CONVEX_TESTS_DELETE_EVERYTHING"


def named_deployment() -> Settings | None:
    """The deployment of the environment, if there is one."""
    try:
        return settings_of(None, None)
    except InvalidArgumentError:
        return None


DEPLOYMENT = named_deployment()
needs_deployment = pytest.mark.skipif(
    DEPLOYMENT is None, reason="needs a deployment: set CONVEX_URL and CONVEX_DEPLOY_KEY"
)


def deployed() -> ConvexBackend:
    assert DEPLOYMENT is not None
    return ConvexBackend(DEPLOYMENT)


async def empty(backend: Backend) -> None:
    """Delete all rows that `backend` sees."""
    await backend.open()
    try:
        names = await backend.tables()
        tables = [TABLES.get(name) or Table(name=name, key=("id",)) for name in names]
        if tables:
            await backend.write([DeletePrefix(table, ()) for table in tables])
        for table in tables:
            assert (await backend.query(Query(table=table, order_by="any", limit=1))).rows == []
    finally:
        await backend.close()


class Kit(StorageConformance):
    """Every rule; only where there is a deployment to hold to them, below."""

    __test__ = False
    machine_examples = 5
    machine_shrinks = False


class InTablesOfItsOwn(Kit):
    """With all rows in `documents`, where their tables have names of their own."""

    @pytest.fixture
    async def make_backend(self) -> AsyncIterator[Callable[[], Backend]]:
        prefix = f"kit{secrets.token_hex(4)}_"
        yield lambda: isolated(deployed(), prefix)
        await empty(isolated(deployed(), prefix))


class OnTheTypedTables(Kit):
    """On the tables that users have, emptied before and after each test."""

    @pytest.fixture
    async def make_backend(self) -> AsyncIterator[Callable[[], Backend]]:
        await empty(deployed())
        yield deployed
        await empty(deployed())


if DEPLOYMENT is not None:

    class TestInTablesOfItsOwn(InTablesOfItsOwn):
        __test__ = True


if DEPLOYMENT is not None and os.environ.get(MAY_DELETE) == "yes":

    class TestOnTheTypedTables(OnTheTypedTables):
        __test__ = True


@needs_deployment
async def test_the_deployment_has_everything() -> None:
    assert DEPLOYMENT is not None
    checks = await checks_of(DEPLOYMENT)
    assert [check for check in checks if check.state is not State.OK] == []


@needs_deployment
async def test_a_save_of_one_store_reaches_a_watch_of_another() -> None:
    thread = Thread(id=f"kit-{secrets.token_hex(8)}", resource_id="kit")
    async with Storage(deployed()) as one, Storage(deployed()) as other:
        await one.save_thread(thread)
        try:
            states = other.watch_messages(thread.id)
            assert await anext(states) == []
            message = Message(thread_id=thread.id, role="user", content="Hello")
            await one.save_message(message)
            async with asyncio.timeout(30):
                assert [found.id for found in await anext(states)] == [message.id]
            await states.aclose()
        finally:
            await one.delete_thread(thread.id)


@pytest.mark.skipif(DEPLOYMENT is not None, reason="is about runs without a deployment")
async def test_these_tests_run_where_the_environment_says(convex: ConvexServer) -> None:
    """A few of them, on the local server as the deployment that the environment names."""
    chosen = "deployment_has or reaches_a_watch or saving_a_thread_again or takes_its_messages"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, __file__],
        cwd=Path(__file__).parents[1],
        env={
            **os.environ,
            "CONVEX_URL": convex.url,
            "CONVEX_DEPLOY_KEY": convex.admin_key,
            MAY_DELETE: "yes",
        },
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout  # two of the kit twice
    counts = await convex.counts()
    assert counts["query documents:get"] > 0
    assert counts["query messages:list"] > 0
    left = (await convex.control())["documents"]
    assert [left.get(name, 0) for name in ("threads", "messages", "documents")] == [0, 0, 0]
