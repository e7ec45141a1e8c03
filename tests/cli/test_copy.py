"""Copying from store to store, and telling whether they are equal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec import structs

from mastra_storage import (
    MESSAGES,
    Message,
    Op,
    PluginNotFoundError,
    Put,
    Resource,
    Row,
    Storage,
    Table,
    Thread,
    TooLargeError,
    UnavailableError,
    open_storage,
)
from mastra_storage.cli.transfer import copy_rows, rows
from mastra_storage.cli.transfer.copying import Digest
from mastra_storage.plugins import load_tables

from .chats import CHATS, all_rows, import_all, memory_storage


@pytest.fixture
async def source() -> AsyncIterator[Storage]:
    async with memory_storage() as opened:
        await import_all(opened, CHATS)
        await opened.persist_workflow_snapshot("w", "r", {"status": "running"})
        await opened.save_resource(Resource(id="me", working_memory="notes"))
        await opened.save_message(Message(thread_id="first", role="user", content="touches"))
        yield opened


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Storage]:
    async with open_storage(f"sqlite:///{tmp_path}/target.db") as opened:
        yield opened


async def test_a_copy_is_equal_and_a_second_one_writes_nothing(
    source: Storage, target: Storage
) -> None:
    compared = {each.table: each for each in await copy_rows(source, target)}
    assert all(each.equal for each in compared.values())
    assert [compared[name].written for name in ("threads", "messages", "resources")] == [3, 9, 1]
    assert compared["traces"].source == Digest(0, 0)
    assert await all_rows(target) == await all_rows(source)
    assert [each.written for each in await copy_rows(source, target)] == [0] * len(compared)


async def test_a_copy_goes_on_where_it_stopped(
    source: Storage, target: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = target.backend.write
    writes: list[Sequence[Op]] = []

    async def fail_at_second(ops: Sequence[Op]) -> None:
        writes.append(ops)
        if len(writes) == 2:
            raise UnavailableError("gone")
        await write(ops)

    monkeypatch.setattr(target.backend, "write", fail_at_second)
    with pytest.raises(UnavailableError, match="sqlite: copy: gone"):
        await copy_rows(source, target)
    compared = {each.table: each for each in await copy_rows(source, target)}
    assert all(each.equal for each in compared.values())
    assert (compared["threads"].written, compared["messages"].written) == (0, 9)


async def test_a_target_with_rows_of_its_own_differs_and_keeps_them(
    source: Storage, target: Storage
) -> None:
    await target.save_thread(Thread(id="own", resource_id="x"))
    await target.save_thread(Thread(id="first", resource_id="another"))
    compared = {each.table: each for each in await copy_rows(source, target)}
    assert not compared["threads"].equal
    assert compared["messages"].equal
    assert (compared["threads"].source.count, compared["threads"].target.count) == (3, 4)
    assert await target.get_thread_by_id("own") is not None
    assert await target.get_thread_by_id("first") == await source.get_thread_by_id("first")


async def test_rows_get_the_place_they_have_in_the_source(source: Storage, target: Storage) -> None:
    [row] = await source.backend.get(MESSAGES, [("first", "first-000000")])
    assert row is not None
    await target.backend.write([Put(structs.replace(row, seq=1))])
    compared = await copy_rows(source, target)
    assert all(each.equal for each in compared)


async def test_a_table_that_is_not_known_here_is_an_error_before_anything(
    source: Storage, target: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(name="notes", key=("a", "b"), fields=("kind",))
    row = Row(
        table=table,
        key=("", "1"),
        value=b'{"any":1}',
        order=1,
        seq=1,
        fields={"kind": "k"},
        updated=1,
    )
    await source.backend.write([Put(row)])
    with pytest.raises(PluginNotFoundError, match=r"memory: copy: .*notes; install the adapter"):
        await copy_rows(source, target)
    assert await all_rows(target) == []

    known = {**load_tables(), "notes": table}
    monkeypatch.setattr(rows, "load_tables", lambda: known)
    assert all(each.equal for each in await copy_rows(source, target))
    assert await target.backend.get(table, [("", "1")]) == [row]


async def test_a_row_that_the_target_cannot_hold_is_named(source: Storage) -> None:
    async with memory_storage() as small:
        small.backend.capabilities = structs.replace(small.capabilities, max_record_bytes=100)
        with pytest.raises(TooLargeError, match=r"memory: copy: the record \('first',\)"):
            await copy_rows(source, small)


async def test_digests_mind_every_member_but_not_order_version_or_spelling(
    source: Storage,
) -> None:
    def digest(rows: Sequence[Row]) -> Digest:
        found = Digest()
        for row in rows:
            found.add(row)
        return found

    everything = await all_rows(source)
    whole = digest(everything)
    assert digest(everything[::-1]) == whole
    first, *others = everything
    for same in (
        structs.replace(first, version="other"),
        structs.replace(first, value=first.value.replace(b'":', b'" : ')),
        structs.replace(first, fields={**first.fields, "empty": ""}),
    ):
        assert digest([same, *others]) == whole
    for other in (
        structs.replace(first, key=("other",)),
        structs.replace(first, value=b"{}"),
        structs.replace(first, order=first.order + 1),
        structs.replace(first, seq=first.seq + 1),
        structs.replace(first, fields={"resource_id": "other"}),
        structs.replace(first, updated=first.updated + 1),
        structs.replace(first, touched=1),
        structs.replace(first, expires_at=1),
        structs.replace(first, table=MESSAGES),
    ):
        assert digest([other, *others]) != whole
    assert digest(others) != whole
    assert digest([first, *everything]) != whole
