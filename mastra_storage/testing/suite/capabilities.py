"""Each declared capability has a test here that fails when the declaration is untrue."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import structs

from mastra_storage.backend import ABSENT, Backend, Capabilities, Delete, Op, Put, Query, Touch
from mastra_storage.errors import ConflictError, NotFoundError, TooLargeError
from mastra_storage.records import Message
from mastra_storage.schema import Row, Table
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base, OpenStore, full, require
from mastra_storage.testing.suite._build import (
    ROWS,
    contents,
    messages,
    micros,
    names,
    put,
    refused,
    row,
    stored,
    thread_with,
)
from mastra_storage.validation import encode

OTHER = structs.replace(ROWS, name="kit_others")
_LARGE = 10_000_000
_WRITES = 50


class CapabilityTests(Base):
    huge = 64 * 2**20
    """A `max_record_bytes` past this many bytes is believed, and a record of 10 MB tried."""

    async def test_capabilities_are_declared(self, backend: Backend) -> None:
        declared = backend.capabilities
        assert isinstance(declared, Capabilities)
        assert declared.max_atomic_rows is None or declared.max_atomic_rows >= 1
        assert declared.max_record_bytes is None or declared.max_record_bytes >= 1
        assert declared.poll_interval > 0
        assert backend.name
        assert not declared.max_atomic_rows or declared.atomic, "max_atomic_rows needs atomic"

    async def test_atomic_a_refused_op_undoes_the_whole_write(self, backend: Backend) -> None:
        require(backend, "atomic")
        require(backend, "compare_and_set")
        kept = row(id="kept", value=b'{"n":1}')
        await put(backend, kept, row(id="deleted"))
        for op in (
            Put(row(id="kept"), ABSENT),
            Put(row(id="kept"), "another version"),
            Delete(ROWS, kept.key, "another version"),
        ):
            with pytest.raises(ConflictError):
                await backend.write(
                    [
                        Put(row(id="first")),
                        Touch(ROWS, kept.key, micros(99)),
                        Delete(ROWS, ("box", "deleted")),
                        Put(row(table=OTHER)),
                        op,
                        Put(row(id="last")),
                    ]
                )
            found = await backend.query(Query(table=ROWS, prefix=("box",)))
            assert names(found.rows) == ["deleted", "kept"]
            assert await stored(backend, ROWS, *kept.key) == kept
            assert await backend.get(OTHER, [("box", "a")]) == [None]

    async def test_atomic_a_batch_with_an_unknown_thread_leaves_nothing(
        self, storage: Storage
    ) -> None:
        require(storage.backend, "atomic")
        await thread_with(storage)
        batch = [*messages("t", "ab"), *messages("nobody", "c")]
        with pytest.raises(NotFoundError):
            await storage.save_messages(batch)
        assert await storage.get_messages("t") == []

    @full
    async def test_atomic_holds_up_to_the_declared_number_of_rows(self, backend: Backend) -> None:
        require(backend, "atomic")
        require(backend, "compare_and_set")
        size = min(backend.capabilities.max_atomic_rows or self.many, self.many)
        await put(backend, row(id="taken"))
        batch = [Put(row("batch", f"{n:06}")) for n in range(size - 1)]
        with pytest.raises(ConflictError):
            await backend.write([*batch, Put(row(id="taken"), ABSENT)])
        assert (await backend.query(Query(table=ROWS, count=True))).total == 1
        await backend.write([*batch, Put(row(id="free"), ABSENT)])
        assert (await backend.query(Query(table=ROWS, count=True))).total == size + 1

    @full
    async def test_writes_past_max_atomic_rows_are_stored_whole(self, backend: Backend) -> None:
        limit = backend.capabilities.max_atomic_rows
        if limit is None or limit > self.very_many:
            pytest.skip("no max_atomic_rows within reach")
        await put(backend, *[row(id=f"{n:06}") for n in range(limit + 1)])
        assert (await backend.query(Query(table=ROWS, count=True))).total == limit + 1

    async def test_absent_stores_only_a_first_row(self, backend: Backend) -> None:
        require(backend, "compare_and_set")
        first = row(value=b'{"n":1}')
        await backend.write([Put(first, ABSENT)])
        await refused(backend, ConflictError, Put(row(), ABSENT))
        assert await stored(backend, ROWS, "box", "a") == first
        await backend.write([Delete(ROWS, first.key)])
        await backend.write([Put(row(), ABSENT)])

    async def test_a_version_stores_only_over_that_version(self, backend: Backend) -> None:
        require(backend, "compare_and_set")
        first, second = row(value=b'{"n":1}'), row(value=b'{"n":2}')
        await refused(backend, ConflictError, Put(second, first.version))
        await put(backend, first)
        await backend.write([Put(second, first.version)])
        await refused(backend, ConflictError, Put(row(), first.version))
        await refused(backend, ConflictError, Delete(ROWS, first.key, first.version))
        assert await stored(backend, ROWS, "box", "a") == second
        await backend.write([Delete(ROWS, first.key, second.version)])
        await refused(backend, ConflictError, Delete(ROWS, first.key, second.version))

    async def test_a_touch_does_not_change_the_version(self, backend: Backend) -> None:
        require(backend, "compare_and_set")
        first = row()
        await put(backend, first)
        await backend.write([Touch(ROWS, first.key, micros(3))])
        await backend.write([Put(row(), first.version)])
        assert (await stored(backend, ROWS, "box", "a")).touched == micros(3)

    async def test_a_repeated_write_that_had_succeeded_succeeds(self, backend: Backend) -> None:
        require(backend, "compare_and_set")
        first = row(value=b'{"n":1}')
        second = row(value=b'{"n":2}')
        for _ in range(2):
            await backend.write([Put(first, ABSENT)])
        for _ in range(2):
            await backend.write([Put(second, first.version)])
        assert await stored(backend, ROWS, "box", "a") == second

    async def test_a_conflict_says_something_and_nothing_of_the_value(
        self, backend: Backend
    ) -> None:
        require(backend, "compare_and_set")
        await put(backend, row(value=b'"hunter2"'))
        new = row(value=b'"hunter3"')
        for op in (Put(new, ABSENT), Put(new, "another"), Delete(ROWS, new.key, "another")):
            said = await refused(backend, ConflictError, op)
            assert said.strip(), "an error needs a message"
            assert "hunter" not in said

    async def test_compare_and_set_lets_one_of_many_writers_win(
        self, open_store: OpenStore
    ) -> None:
        stores = [await open_store() for _ in range(2)]
        require(stores[0].backend, "compare_and_set")
        first = row()
        for expected in (ABSENT, first.version):
            rivals = [first] if expected is ABSENT else []
            rivals += [row() for _ in range(6)]
            outcomes = await asyncio.gather(
                *[
                    stores[n % 2].backend.write([Put(rival, expected)])
                    for n, rival in enumerate(rivals)
                ],
                return_exceptions=True,
            )
            won = [r for r, outcome in zip(rivals, outcomes, strict=True) if outcome is None]
            assert len(won) == 1
            lost = [outcome for outcome in outcomes if outcome is not None]
            assert all(isinstance(outcome, ConflictError) for outcome in lost), lost
            assert await stored(stores[1].backend, ROWS, "box", "a") == won[0]
            if expected is ABSENT:
                await put(stores[0].backend, first)

    async def test_strong_reads_see_every_acknowledged_write(self, open_store: OpenStore) -> None:
        one, other = (await open_store()).backend, (await open_store()).backend
        require(one, "strong_reads")
        query = Query(table=ROWS, prefix=("box",), count=True)
        assert (await other.query(query)).total == 0
        await put(one, row(id="a"), row(id="b"))
        assert (await other.query(query)).total == 2
        assert (await stored(other, ROWS, "box", "a")).key == ("box", "a")
        await other.write([Touch(ROWS, ("box", "a"), micros(5))])
        assert (await stored(one, ROWS, "box", "a")).touched == micros(5)
        replaced = row(id="b", value=b'{"n":2}')
        await put(other, replaced)
        assert await stored(one, ROWS, "box", "b") == replaced
        await one.write([Delete(ROWS, ("box", "a"))])
        assert names((await other.query(query)).rows) == ["b"]
        assert await other.get(ROWS, [("box", "a")]) == [None]

    async def test_strong_reads_keep_no_row_that_others_change(self, open_store: OpenStore) -> None:
        """A reader has seen each state before the next is written, and might have kept it."""
        reader, writer = (await open_store()).backend, (await open_store()).backend
        require(reader, "strong_reads")
        key = ("box", "a")
        assert await reader.get(ROWS, [key]) == [None]
        first, second = row(value=b'{"n":1}'), row(value=b'{"n":2}')
        touched = structs.replace(second, touched=micros(5))
        changes: list[tuple[Op, Row | None]] = [
            (Put(first), first),
            (Put(second), second),
            (Touch(ROWS, key, micros(5)), touched),
            (Delete(ROWS, key), None),
        ]
        for change, expected in changes:
            await writer.write([change])
            assert await reader.get(ROWS, [key]) == [expected], "a `get` gave what was there before"
            rows = [] if expected is None else [expected]
            assert (await reader.query(Query(table=ROWS))).rows == rows

    async def test_atomic_a_write_is_seen_whole(self, open_store: OpenStore) -> None:
        one, other = (await open_store()).backend, (await open_store()).backend
        require(one, "atomic")
        require(one, "strong_reads")
        if one.capabilities.max_atomic_rows == 1:
            pytest.skip("a write of two rows is more than max_atomic_rows")

        async def seen(table: Table) -> int:
            [found] = await other.get(table, [("box", "a")])
            return -1 if found is None else int(found.value)

        async def write() -> None:
            for n in range(_WRITES):
                value = b"%d" % n
                await one.write([Put(row(table=table, value=value)) for table in (ROWS, OTHER)])
                await asyncio.sleep(0)

        writing = asyncio.ensure_future(write())
        try:
            while not writing.done():
                order = [await seen(table) for table in (ROWS, OTHER, ROWS)]
                assert order == sorted(order)
                await asyncio.sleep(0)
            await writing
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        assert await seen(OTHER) == _WRITES - 1

    async def test_records_up_to_the_declared_size_are_kept(self, storage: Storage) -> None:
        limit = storage.capabilities.max_record_bytes
        if limit is not None and limit > self.huge:
            limit = None
        size = _LARGE if limit is None else limit
        await thread_with(storage)
        message = Message(id="m", thread_id="t", role="user", content="")
        message.content = "x" * (size - len(encode(message)))
        await storage.save_message(message)
        assert await storage.get_messages("t") == [message]
        if limit is not None:
            larger = structs.replace(message, id="n", content=message.content + "x")
            with pytest.raises(TooLargeError):
                await storage.save_messages([*messages("t", "ab"), larger])
            assert contents(await storage.get_messages("t")) == [message.content]
