"""A store of TypeScript's is moved to another backend whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from kv_server import KVServer

from interop.typescript import RawKV, interop_store, message, sdk_envelope, stringify, thread
from mastra_storage import Query, Row, Storage, Table, open_storage
from mastra_storage.cli.transfer import copy_rows
from mastra_storage.schema import TABLES

pytestmark = pytest.mark.once  # a copy, whose parts have tests beside it

START = datetime(2025, 6, 1, tzinfo=timezone.utc)
TIMES = {"createdAt": "2025-06-01T12:00:00.000Z", "updatedAt": "2025-06-01T12:00:01.000Z"}
MANY = 1_150


def clock(n: int) -> str:
    # Two messages of each time.
    at = START + timedelta(seconds=n // 2)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
async def source(kv: KVServer, raw: RawKV) -> AsyncIterator[Storage]:
    """A store with records of all kinds, written by several releases."""
    threads = {f"myapp_:mastra_threads:t{n}": thread(id=f"t{n}") for n in range(12)}
    await raw.put_many("myapp__mastra_threads", threads)
    await raw.put(
        "myapp__mastra_threads",
        "myapp_:mastra_threads:old",
        sdk_envelope(stringify(thread(id="old", metadata='{"a":1}', archivedAt=None))),
    )
    ids = [f"m{n * 7919 % MANY}" for n in range(MANY)]
    rows: dict[str, Any] = {
        f"myapp_:mastra_messages:t1:{each}": message(each, clock(n)) for n, each in enumerate(ids)
    }
    rows["myapp_:mastra_messages:t1:messages"] = [
        {"id": each, "score": n} for n, each in enumerate(ids)
    ]
    rows["myapp_:mastra_messages:t2:x"] = message("x", threadId="t2")
    await raw.put_many("myapp__mastra_messages", rows)
    run = {"workflow_name": "w", "run_id": "r1", "snapshot": '{"status":"done"}', **TIMES}
    await raw.put(
        "myapp__mastra_workflow_snapshot", "myapp_:mastra_workflow_snapshot:w:r1:user-1", run
    )
    span = {"id": "s1", "name": "n", "traceId": "x", "startTime": 1748779200123, **TIMES}
    await raw.put("myapp__mastra_traces", "myapp_:mastra_traces:s1", span)
    row = {"agent_name": "a", "run_id": "r1", "result": {"score": 1}, "test_info": None, **TIMES}
    await raw.put("myapp__mastra_evals", "myapp_:mastra_evals:r1", row)
    resource = {"id": "u1", "workingMemory": "notes", "metadata": '{"a":1}', **TIMES}
    await raw.put("myapp__mastra_resources", "u1", resource)
    async with interop_store(kv) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "memory"])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    path = f"/{tmp_path}/target.db" if request.param == "sqlite" else ""
    async with open_storage(f"{request.param}://{path}") as opened:
        yield opened


async def all_rows(storage: Storage, table: Table) -> list[Row]:
    return (await storage.backend.query(Query(table=table))).rows


async def test_a_copy_has_all_records_in_their_order(source: Storage, target: Storage) -> None:
    assert set(await source.backend.tables()) == set(TABLES)
    compared = {each.table: each for each in await copy_rows(source, target)}
    assert all(each.equal for each in compared.values())
    counts = {name: each.written for name, each in compared.items() if each.written}
    assert counts == {
        "threads": 13,
        "messages": MANY + 1,
        "workflow_snapshot": 1,
        "traces": 1,
        "evals": 1,
        "resources": 1,
    }
    for table in TABLES.values():
        assert await all_rows(target, table) == await all_rows(source, table)
    there = await target.get_messages("t1")
    assert there == await source.get_messages("t1")
    assert [m.id for m in there] == [f"m{n * 7919 % MANY}" for n in range(MANY)]
    assert await target.load_workflow_snapshot("w", "r1") == {"status": "done"}
    assert not any(each.written for each in await copy_rows(source, target))


async def test_a_copy_back_is_what_typescript_reads(
    source: Storage, kv: KVServer, raw: RawKV
) -> None:
    async with open_storage("memory://") as between, interop_store(kv, prefix="back") as back:
        await copy_rows(source, between)
        await copy_rows(between, back)
        assert await back.get_messages("t1") == await source.get_messages("t1")
        assert await back.list_threads() == await source.list_threads()
    found = await raw.json("back_mastra_threads", "back:mastra_threads:old")
    assert found == thread(id="old", metadata={"a": 1}, archivedAt=None)
    listed = await raw.json("back_mastra_messages", "back:mastra_messages:t1:messages")
    assert [entry["id"] for entry in listed] == [f"m{n * 7919 % MANY}" for n in range(MANY)]


async def test_an_early_store_is_copied_once(kv: KVServer, raw: RawKV, target: Storage) -> None:
    for start in ("old:", ""):
        for n in range(3):
            key = f"{start}mastra_threads:t{n}"
            await raw.put("old_mastra_threads", key, thread(id=f"t{n}", title=start))
    await raw.put("old_mastra_threads", "mastra_threads:t9", thread(id="t9", title=""))
    async with interop_store(kv, prefix="old") as opened:
        compared = {each.table: each for each in await copy_rows(opened, target)}
    assert (compared["threads"].written, compared["threads"].equal) == (4, True)
    titles = {found.id: found.title for found in await target.list_threads()}
    assert titles == {"t0": "old:", "t1": "old:", "t2": "old:", "t9": ""}


async def test_records_that_are_not_copied_are_named(
    kv: KVServer, raw: RawKV, target: Storage
) -> None:
    await raw.put("myapp__mastra_threads", "myapp_:mastra_threads:t1", thread())
    await raw.put("myapp__mastra_scorers", "a-score", {"id": "a-score"})
    await raw.put("myapp__mastra_schemas", "schema:mastra_threads", {})
    async with interop_store(kv) as opened:
        with pytest.warns(UserWarning, match="in the namespaces of: scorers$"):
            compared = await copy_rows(opened, target)
    assert sum(each.written for each in compared) == 1
