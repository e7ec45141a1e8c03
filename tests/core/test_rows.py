"""Rows of adapters' tables: places, changes that lose nothing, values of any size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec import structs

from mastra_storage import (
    ABSENT,
    Capabilities,
    ConflictError,
    Delete,
    DeletePrefix,
    InvalidArgumentError,
    InvalidRecordError,
    Key,
    Op,
    Put,
    Query,
    Row,
    Storage,
    StorageError,
    Table,
    Touch,
    UnavailableError,
    open_storage,
)
from mastra_storage.backends.memory import Memory, MemoryBackend
from mastra_storage.storage import rows as rows_module

NOTES = Table(name="notes", key=("owner", "id"), ordered=(1,), large=True)
PLAIN = Table(name="plain", key=("id",))
WHOLE = 'é"\\' * 300_000


class SmallBackend(MemoryBackend):
    """Holds 40,000 bytes a row, and has no compare-and-set."""

    capabilities = Capabilities(max_record_bytes=40_000)

    async def write(self, ops: Sequence[Op]) -> None:
        await asyncio.sleep(0)
        await super().write(ops)


@pytest.fixture(params=["memory", "sqlite", "small"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    found = {
        "memory": lambda: open_storage("memory://"),
        "sqlite": lambda: open_storage(f"sqlite:///{tmp_path / 'rows.db'}"),
        "small": lambda: Storage(SmallBackend(Memory())),
    }[request.param]()
    async with found:
        found.register(NOTES)
        yield found


async def parts(storage: Storage) -> list[Key]:
    found = await storage.backend.query(Query(table=NOTES.parts, order_by="any"))
    return [row.key for row in found.rows]


def note(storage: Storage, text: str, id: str = "n") -> Row:
    return storage.new_row(NOTES, {"owner": "o", "id": id, "text": text})


def text_of(row: Row | None) -> Any:
    assert row is not None
    return NOTES.record_of(row)["text"]


async def test_rows_are_put_found_and_deleted(storage: Storage) -> None:
    first, second = note(storage, "1", "b"), note(storage, "2", "a")
    await storage.write_rows(Put(first), Put(second))
    assert await storage.get_rows(NOTES, [("o", "a"), ("o", "x"), ("o", "b")]) == [
        second,
        None,
        first,
    ]
    found = await storage.find_rows(Query(table=NOTES, prefix=("o",), descending=True))
    assert [row.key[1] for row in found] == ["a", "b"]
    await storage.write_rows(Delete(NOTES, ("o", "a")))
    assert await storage.get_rows(NOTES, [("o", "a")]) == [None]
    assert await storage.get_rows(NOTES, []) == []
    await storage.write_rows()


async def test_a_row_has_the_place_and_the_end_it_was_given(storage: Storage) -> None:
    ends = datetime(2100, 1, 1, tzinfo=timezone.utc)
    row = storage.new_row(PLAIN, {"id": "p"}, order=7, expires_at=ends)
    assert (row.order, row.expires_at) == (7, 4_102_444_800_000_000)
    gone = storage.new_row(PLAIN, {"id": "q"}, expires_at=ends - timedelta(days=365 * 99))
    await storage.write_rows(Put(row), Put(gone))
    assert [found.key for found in await storage.find_rows(Query(table=PLAIN))] == [("p",)]


@pytest.mark.parametrize("key", [("o",), "on", ("o", 1), ("o", "n", "x")])
async def test_a_key_of_another_form_is_refused(storage: Storage, key: Any) -> None:
    with pytest.raises(InvalidArgumentError):
        await storage.get_rows(NOTES, [key])


@pytest.mark.parametrize(
    "op",
    [
        Delete(NOTES, ("o",)),
        Delete(NOTES, ("o", "n", "n")),
        DeletePrefix(NOTES, ("o", "n", "n")),
        DeletePrefix(NOTES, cast(Any, "o")),
        Touch(NOTES, ("o",), 1),
        Touch(NOTES, ("o", "n"), 2**63),
        Touch(NOTES, ("o", "n"), cast(Any, None)),
        Put(Row(NOTES, ("o",), b"{}", 1, 1, {}, 1)),
        cast(Any, ("o", "n")),
    ],
    ids=repr,
)
async def test_ops_of_no_row_of_their_table_are_refused(storage: Storage, op: Op) -> None:
    there = note(storage, "there")
    await storage.write_rows(Put(there))
    with pytest.raises(InvalidArgumentError):
        await storage.write_rows(Put(note(storage, "more", "m")), op)
    with pytest.raises(InvalidArgumentError):
        await storage.change_rows([(NOTES, there.key)], lambda rows: [op])
    assert [row.key for row in await storage.find_rows(Query(table=NOTES))] == [there.key]


async def test_a_change_sees_what_others_changed(storage: Storage) -> None:
    await storage.write_rows(Put(note(storage, "")))

    async def add(letter: str) -> None:
        def change(rows: list[Row | None]) -> list[Op]:
            return [Put(note(storage, text_of(rows[0]) + letter))]

        await storage.change_rows([(NOTES, ("o", "n"))], change)

    async with asyncio.TaskGroup() as group:
        for letter in "abcdefgh":
            group.create_task(add(letter))
    [row] = await storage.get_rows(NOTES, [("o", "n")])
    assert sorted(text_of(row)) == list("abcdefgh")


async def test_two_stores_change_one_row(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'two.db'}"
    async with open_storage(url) as one, open_storage(url) as other:

        async def add(storage: Storage, count: int) -> None:
            for _ in range(count):
                await storage.change_rows(
                    [(NOTES, ("o", "n"))],
                    lambda rows: [
                        Put(note(storage, "" if rows[0] is None else text_of(rows[0]) + "x"))
                    ],
                )

        async with asyncio.TaskGroup() as group:
            group.create_task(add(one, 20))
            group.create_task(add(other, 21))
        assert text_of((await one.get_rows(NOTES, [("o", "n")]))[0]) == "x" * 40


async def test_a_change_may_leave_all_as_it_is_or_give_up(storage: Storage) -> None:
    assert await storage.change_rows([(NOTES, ("o", "n"))], lambda rows: []) == []

    def give_up(rows: list[Row | None]) -> list[Op]:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await storage.change_rows([(NOTES, ("o", "n"))], give_up)
    assert await storage.get_rows(NOTES, [("o", "n")]) == [None]


async def test_a_change_of_rows_of_several_tables_is_conditional_on_each() -> None:
    async with open_storage("memory://") as storage:
        await storage.write_rows(Put(note(storage, "1")), Put(storage.new_row(PLAIN, {"id": "p"})))
        calls = 0

        def change(rows: list[Row | None]) -> list[Op]:
            nonlocal calls
            calls += 1
            assert [row and row.key for row in rows] == [("p",), ("o", "n"), None]
            return [Delete(PLAIN, ("p",)), Put(note(storage, "2")), Put(note(storage, "3", "m"))]

        keys: list[tuple[Table, Key]] = [(PLAIN, ("p",)), (NOTES, ("o", "n")), (NOTES, ("o", "m"))]
        ops = await storage.change_rows(keys, change)
        assert (calls, len(ops)) == (1, 3)
        with pytest.raises(ConflictError):
            await storage.write_rows(Put(note(storage, "4", "m"), ABSENT))


async def test_a_value_of_any_size_is_kept_in_parts(storage: Storage) -> None:
    await storage.write_rows(Put(note(storage, WHOLE)))
    limit = storage.capabilities.max_record_bytes or 900_000
    stored = await storage.backend.query(Query(table=NOTES.parts, order_by="any"))
    assert len(stored.rows) > 2
    assert all(len(row.value) <= limit for row in stored.rows)
    [row] = await storage.get_rows(NOTES, [("o", "n")])
    assert text_of(row) == WHOLE
    [row] = await storage.find_rows(Query(table=NOTES, prefix=("o",)))
    assert text_of(row) == WHOLE
    assert (await storage.load("notes", owner="o", id="n"))["text"] == WHOLE


@pytest.mark.parametrize("change", ["replace", "insert", "delete", "write", "prefix", "clear"])
async def test_what_replaces_or_deletes_a_value_takes_its_parts_along(
    storage: Storage, change: str
) -> None:
    await storage.insert("notes", {"owner": "o", "id": "n", "text": WHOLE})
    await storage.insert("notes", {"owner": "p", "id": "n", "text": WHOLE})
    key = (NOTES, ("o", "n"))
    match change:
        case "replace":
            await storage.change_rows([key], lambda _: [Put(note(storage, WHOLE + "!"))])
            assert text_of((await storage.get_rows(NOTES, [key[1]]))[0]) == WHOLE + "!"
            await storage.change_rows([key], lambda _: [Put(note(storage, "short"))])
        case "insert":
            await storage.insert("notes", {"owner": "o", "id": "n", "text": "short"})
        case "delete":
            await storage.change_rows([key], lambda _: [Delete(*key)])
        case "write":
            await storage.write_rows(Delete(*key))
        case "prefix":
            await storage.write_rows(DeletePrefix(NOTES, ("o",)))
        case _:
            await storage.clear_table("notes")
    left = set() if change == "clear" else {"p"}
    assert {part[0] for part in await parts(storage)} == left
    [row, other] = await storage.get_rows(NOTES, [key[1], ("p", "n")])
    assert (row is not None) == (change in ("replace", "insert"))
    assert (other is None) == (change == "clear")


async def test_a_row_that_gets_another_version_keeps_its_parts(storage: Storage) -> None:
    """As an import gives it one."""
    await storage.write_rows(Put(note(storage, WHOLE)))
    [stored] = await storage.backend.get(NOTES, [("o", "n")])
    assert stored is not None
    await storage.backend.write([Put(structs.replace(stored, version="another"))])
    [row] = await storage.get_rows(NOTES, [("o", "n")])
    assert text_of(row) == WHOLE
    await storage.change_rows([(NOTES, ("o", "n"))], lambda _: [Delete(NOTES, ("o", "n"))])
    assert await parts(storage) == []


async def test_a_row_whose_parts_are_not_there_is_an_error(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "_PARTS_WAIT", 0)
    await storage.write_rows(Put(note(storage, WHOLE)))
    keys = await parts(storage)
    await storage.backend.write([Delete(NOTES.parts, keys[1])])
    with pytest.raises(UnavailableError, match="parts of row") as caught:
        await storage.get_rows(NOTES, [("o", "n")])
    assert caught.value.retryable
    [first] = await storage.backend.get(NOTES.parts, [keys[0]])
    assert first is not None
    await storage.backend.write([Put(storage.new_row(PLAIN, {"id": "p"}))])
    broken = [Put(_at(first, key)) for key in keys]
    await storage.backend.write(broken)
    with pytest.raises(StorageError, match="do not make up"):
        await storage.load("notes", owner="o", id="n")


def _at(row: Row, key: Key) -> Row:
    return Row(row.table, key, b'{"data":"eHg="}', 0, 0, {}, 0, None, row.version)


async def test_a_value_may_speak_of_parts_but_not_have_that_member(storage: Storage) -> None:
    await storage.write_rows(Put(note(storage, '{"$parts": 1}')))
    assert text_of((await storage.get_rows(NOTES, [("o", "n")]))[0]) == '{"$parts": 1}'
    with pytest.raises(InvalidRecordError, match="parts"):
        storage.new_row(NOTES, {"owner": "o", "id": "n", "$parts": {"count": 1, "bytes": 1}})


async def test_parts_of_keys_and_fields_have_any_names(storage: Storage) -> None:
    table = Table(name="any_names", key=("value", "the_value"), fields=("max_value",))
    storage.register(table)
    record = {"value": "a", "the_value": "b", "max_value": "c", "text": "d"}
    await storage.write_rows(Put(storage.new_row(table, record)))
    for found in (
        await storage.get_rows(table, [("a", "b")]),
        await storage.find_rows(Query(table=table, fields={"max_value": ("c",)})),
    ):
        assert [row and table.record_of(row) for row in found] == [record]


def test_a_large_table_leaves_room_for_the_name_of_its_parts() -> None:
    assert Table(name="n" * 57, key=("id",), large=True).parts.name == "n" * 57 + "_parts"
    with pytest.raises(InvalidArgumentError, match="_parts"):
        Table(name="n" * 58, key=("id",), large=True)


async def test_a_row_that_was_not_there_is_not_deleted(storage: Storage) -> None:
    async def meanwhile() -> None:
        await storage.backend.write([Put(storage.new_row(NOTES, {"owner": "o", "id": "1"}))])

    writing: list[asyncio.Task[None]] = []

    def change(rows: list[Row | None]) -> list[Op]:
        assert rows == [None]
        writing.append(asyncio.ensure_future(meanwhile()))
        return [Delete(NOTES, ("o", "1"))]

    assert await storage.change_rows([(NOTES, ("o", "1"))], change) == []
    await writing[0]
    [row] = await storage.get_rows(NOTES, [("o", "1")])
    assert row is not None


@pytest.mark.parametrize("order", ["x", 1.5, True, 2**63, -(2**63) - 1])
async def test_an_order_that_is_no_place_is_refused(storage: Storage, order: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="order must be an int of 64 bits"):
        storage.new_row(PLAIN, {"id": "1"}, order=order)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prefix": ("o", "n", "x")}, r"query.prefix has the first parts .* owner, id"),
        ({"prefix": "o"}, "query.prefix"),
        ({"prefix": (1,)}, "owner must be a str"),
        ({"fields": {"kind": ("a",)}}, "indexes no field, not 'kind'"),
        ({"order_by": "updated_at"}, "query.order_by must be one of 'created', 'recent', 'any'"),
        ({"order_by": "recent"}, "table 'notes' is not `recent`"),
        ({"since": "2026-01-01"}, "query.since must be an int"),
        ({"until": 2**63}, "query.until must be an int of 64 bits"),
        ({"after": ("o", "n")}, "query.after must be of type Position"),
        ({"offset": -1}, "query.offset must be a whole number"),
        ({"limit": -1}, "query.limit must be a whole number"),
        ({"limit": True}, "query.limit must be a whole number"),
        ({"table": "notes"}, "query.table must be of type Table, not str"),
    ],
)
async def test_a_query_that_its_table_cannot_answer_is_refused(
    storage: Storage, wrong: dict[str, Any], said: str
) -> None:
    await storage.write_rows(Put(note(storage, "")))
    with pytest.raises(InvalidArgumentError, match=said) as caught:
        await storage.find_rows(Query(**{"table": NOTES, **wrong}))
    assert (caught.value.backend, caught.value.operation) == (storage.backend.name, "find_rows")


async def test_values_of_fields_are_texts(storage: Storage) -> None:
    table = Table(name="kinds", key=("id",), fields=("kind",))
    for values in ("a", ("a", None)):
        with pytest.raises(InvalidArgumentError, match=r"query.fields: kind takes a tuple of str"):
            await storage.find_rows(Query(table=table, fields={"kind": values}))  # type: ignore[dict-item]


def test_an_error_of_a_new_row_says_where_it_comes_from() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        open_storage("memory://").new_row(PLAIN, {"id": "p"}, order=2**63)
    assert (caught.value.backend, caught.value.operation) == ("memory", "new_row")
