"""The verbs that write and get, one by one: Put, Touch, Delete, DeletePrefix, expiry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from mastra_storage.backend import ABSENT, Backend, Delete, DeletePrefix, Op, Put, Query, Touch
from mastra_storage.errors import NotFoundError
from mastra_storage.records import now, to_microseconds
from mastra_storage.schema import Row, Table
from mastra_storage.testing.suite._base import Base, full, require
from mastra_storage.testing.suite._build import (
    ODD_IDS,
    ROWS,
    found_by,
    micros,
    names,
    put,
    refused,
    row,
    stored,
)

OTHER = structs.replace(ROWS, name="kit_others")
# Its name begins as that of `ROWS` does.
LONGER = structs.replace(ROWS, name="kit_rows_more")
# The last microsecond that a datetime has, and more than a float holds exactly.
END_OF_TIME = 253_402_300_799_999_999


async def rows_of(backend: Backend, **query: Any) -> list[Row]:
    """All rows of a query, of `ROWS` unless another table is named, in however many steps."""
    return (await found_by(backend, Query(**{"table": ROWS} | query))).rows


async def everything(backend: Backend, table: Table = ROWS) -> list[str]:
    """The ids of all rows of a table, oldest first."""
    return names(await rows_of(backend, table=table))


def soon() -> int:
    """Some hours from now."""
    return to_microseconds(now()) + 10**10


class VerbTests(Base):
    async def test_a_row_comes_back_as_it_was_put(self, backend: Backend) -> None:
        whole = row(
            id="whole",
            order=-1e9,
            seq=2**63 - 1,
            value='{"clé":"🧵\\u0000"}'.encode(),
            fields={"color": "réd", "owner": "me"},
            updated=micros(5),
            touched=micros(7),
            expires_at=to_microseconds(now()) + 10**12,
        )
        bare = row(id="bare")
        for one in (whole, bare):
            await put(backend, one)
            assert await stored(backend, ROWS, *one.key) == one
        assert await rows_of(backend) == [whole, bare]

    async def test_all_rows_of_a_write_are_stored(self, backend: Backend) -> None:
        rows = [row(id=id, order=n, value=b"%d" % n) for n, id in enumerate("abcdefgh")]
        others = [structs.replace(one, table=OTHER) for one in rows[:2]]
        await put(backend, *rows, *others)
        for one in (*rows, *others):
            assert await stored(backend, one.table, *one.key) == one
        assert await rows_of(backend) == rows
        assert await rows_of(backend, table=OTHER) == others

    async def test_get_gives_rows_in_the_order_asked(self, backend: Backend) -> None:
        await put(backend, row(id="1"), row(id="2"))
        found = await backend.get(
            ROWS, [("box", "2"), ("box", "3"), ("other", "1"), ("box", "1"), ("box", "2")]
        )
        assert [r and r.key[1] for r in found] == ["2", None, None, "1", "2"]
        assert await backend.get(ROWS, []) == []
        assert await backend.get(OTHER, [("box", "1")]) == [None]

    async def test_rows_of_one_order_are_in_the_order_of_seq(self, backend: Backend) -> None:
        await put(backend, *[row(id=id, seq=seq) for seq, id in ((7, "a"), (5, "c"), (6, "b"))])
        assert await everything(backend) == ["c", "b", "a"]
        assert names(await rows_of(backend, prefix=("box",), descending=True)) == ["a", "b", "c"]

    async def test_values_are_kept_byte_for_byte(self, backend: Backend) -> None:
        value = b'{ "b":1.0,"a":1e2 , "a2":10000000000000000000000000000000}'
        await put(backend, row(value=value))
        found = await stored(backend, ROWS, "box", "a")
        assert found.value == value
        assert type(found.value) is bytes

    async def test_numbers_are_kept_exactly(self, backend: Backend) -> None:
        last, before = (
            structs.replace(row(id=id), order=at, updated=at, touched=at, expires_at=at)
            for id, at in (("last", END_OF_TIME), ("before", END_OF_TIME - 1))
        )
        await put(backend, last, before)
        assert await backend.get(ROWS, [last.key, before.key]) == [last, before]
        assert await rows_of(backend) == [before, last]

    @full
    async def test_no_character_is_taken_for_the_end_of_a_part(self, backend: Backend) -> None:
        marks = (*"/|:.\0,;-_ %#\\~=+", "\x1f", "\t", "\n", "::", "%2F")
        keys = [key for mark in marks for key in ((f"a{mark}", "b"), ("a", f"{mark}b"))]
        rows = [row(*key) for key in keys]
        await put(backend, *rows)
        found = zip(rows, await backend.get(ROWS, keys), strict=True)
        mixed_up = [one.key for one, there in found if there != one]
        assert mixed_up == []
        assert {one.key for one in await rows_of(backend, prefix=("a",))} == {*keys[1::2]}
        await backend.write([DeletePrefix(ROWS, ("a",))])
        assert {one.key for one in await rows_of(backend)} == {*keys[::2]}

    @full
    async def test_keys_may_have_any_text_and_empty_parts(self, backend: Backend) -> None:
        keys = [*[("box", id) for id in ODD_IDS], *[(id, "x") for id in ODD_IDS], ("", "")]
        keys += [("a", "b:c"), ("a:b", "c"), ("", "a"), ("a", "")]
        rows = [row(*key, order=n) for n, key in enumerate(dict.fromkeys(keys))]
        await put(backend, *rows)
        assert await backend.get(ROWS, [r.key for r in rows]) == rows
        assert await rows_of(backend) == rows
        inside = await rows_of(backend, prefix=("",))
        assert {r.key for r in inside} == {("", ""), ("", "a")}

    async def test_long_keys_are_told_apart(self, backend: Backend) -> None:
        starts = ("x" * 255, "🧵" * 63 + "é_")
        longest = [start + end for start in starts for end in "ab"]
        keys = [*[("box", id) for id in longest], *[(id, "x") for id in longest]]
        rows = [row(*key, order=n) for n, key in enumerate(keys)]
        await put(backend, *rows)
        assert await backend.get(ROWS, keys) == rows
        assert await rows_of(backend) == rows
        await backend.write([DeletePrefix(ROWS, keys[-1][:1]), Delete(ROWS, keys[0])])
        assert await rows_of(backend) == rows[1:-1]

    async def test_put_replaces_a_row_whole(self, backend: Backend) -> None:
        old = row(value=b'{"a":1}', fields={"color": "red"}, updated=micros(9), expires_at=soon())
        await put(backend, old)
        new = row(value=b'{"b":2}', order=1, seq=9, fields={"owner": "me"})
        await put(backend, new)
        assert await stored(backend, ROWS, "box", "a") == new
        assert (await backend.query(Query(table=ROWS, count=True))).total == 1
        red = Query(table=ROWS, fields={"color": ("red",)})
        assert (await backend.query(red)).rows == []

    async def test_a_row_of_the_same_order_keeps_its_place(self, backend: Backend) -> None:
        await put(backend, row(id="a", seq=5), row(id="b", seq=6))
        await put(backend, row(id="a", seq=50))
        assert (await stored(backend, ROWS, "box", "a")).seq == 5
        assert await everything(backend) == ["a", "b"]
        await backend.write([Put(row(id="a", seq=51), keep_place=False)])
        assert await everything(backend) == ["b", "a"]
        await put(backend, row(id="a", seq=52, order=-1))
        assert (await stored(backend, ROWS, "box", "a")).seq == 52
        assert await everything(backend) == ["a", "b"]

    async def test_touch_raises_and_never_lowers(self, backend: Backend) -> None:
        await put(backend, row())
        for at, expected in ((5, 5), (3, 5), (9, 9)):
            await backend.write([Touch(ROWS, ("box", "a"), micros(at))])
            assert (await stored(backend, ROWS, "box", "a")).touched == micros(expected)

    async def test_a_touch_changes_nothing_else_of_a_row(self, backend: Backend) -> None:
        before = row(value=b'{"v":1}', seq=7, fields={"color": "red"}, expires_at=soon())
        await put(backend, before)
        await backend.write([Touch(ROWS, before.key, micros(5))])
        after = structs.replace(before, touched=micros(5))
        assert await stored(backend, ROWS, *before.key) == after
        assert await rows_of(backend, fields={"color": ("red",)}) == [after]

    async def test_put_keeps_the_later_touch(self, backend: Backend) -> None:
        await put(backend, row(touched=micros(5)))
        for given, expected in ((None, 5), (3, 5), (8, 8)):
            await put(backend, row(touched=None if given is None else micros(given)))
            assert (await stored(backend, ROWS, "box", "a")).touched == micros(expected)

    async def test_touching_nothing_fails_before_anything_happens(self, backend: Backend) -> None:
        await put(backend, row(id="a"))
        nobody = Touch(ROWS, ("box", "nobody"), micros())
        await refused(backend, NotFoundError, nobody)
        await refused(backend, NotFoundError, Put(row(id="b")), nobody)
        await refused(backend, NotFoundError, Delete(ROWS, ("box", "a")), nobody)
        await refused(backend, NotFoundError, DeletePrefix(ROWS, ("box",)), nobody)
        assert await everything(backend) == ["a"]

    async def test_delete_removes_a_row_and_minds_no_other(self, backend: Backend) -> None:
        await put(backend, row(id="a"), row(id="b"), row(id="a", table=OTHER))
        await backend.write([Delete(ROWS, ("box", "a")), Delete(ROWS, ("box", "nobody"))])
        assert await everything(backend) == ["b"]
        assert await everything(backend, OTHER) == ["a"]
        assert await backend.get(ROWS, [("box", "a")]) == [None]

    async def test_delete_prefix_takes_whole_parts(self, backend: Backend) -> None:
        boxes = ("a", "a:b", "ab", "a/b", "", "A")
        await put(backend, *[row(box, id) for box in boxes for id in "xy"])
        await put(backend, row("a", "x", table=OTHER), row("a", "x", table=LONGER))

        async def left() -> set[str]:
            return {r.key[0] for r in await rows_of(backend)}

        await backend.write([DeletePrefix(ROWS, ("a",))])
        assert await left() == {"a:b", "ab", "a/b", "", "A"}
        await backend.write([DeletePrefix(ROWS, ("nobody",)), DeletePrefix(ROWS, ("",))])
        assert await left() == {"a:b", "ab", "a/b", "A"}
        await backend.write([DeletePrefix(ROWS, ("ab", "x"))])
        assert await backend.get(ROWS, [("ab", "x"), ("ab", "y")]) != [None, None]
        await backend.write([DeletePrefix(ROWS, ())])
        assert await left() == set()
        assert await everything(backend, OTHER) == ["x"]
        assert await everything(backend, LONGER) == ["x"]

    async def test_ops_of_one_write_happen_in_order(self, backend: Backend) -> None:
        require(backend, "atomic")
        await put(backend, row(id="old"))
        first, second = row(id="a", value=b'{"n":1}'), row(id="a", value=b'{"n":2}', seq=3)
        ops: Sequence[Op] = [
            DeletePrefix(ROWS, ("box",)),
            Put(first),
            Touch(ROWS, ("box", "a"), micros(4)),
            Put(second),
        ]
        await backend.write(ops)
        assert await everything(backend) == ["a"]
        found = await stored(backend, ROWS, "box", "a")
        assert (found.value, found.touched, found.seq) == (b'{"n":2}', micros(4), first.seq)

    async def test_an_empty_write_is_fine(self, backend: Backend) -> None:
        await backend.write([])

    async def test_expired_rows_are_not_there(self, backend: Backend) -> None:
        past, future = to_microseconds(now()) - 1, soon()
        await put(backend, row(id="gone", expires_at=past), row(id="here", expires_at=future))
        assert await backend.get(ROWS, [("box", "gone")]) == [None]
        found = await backend.query(Query(table=ROWS, count=True))
        assert (names(found.rows), found.total) == (["here"], 1)
        found = await backend.query(Query(table=ROWS, prefix=("box",), limit=2, count=True))
        assert (names(found.rows), found.total, found.cursor) == (["here"], 1, None)
        await refused(backend, NotFoundError, Touch(ROWS, ("box", "gone"), micros()))
        new = row(id="gone", seq=7)
        condition = ABSENT if backend.capabilities.compare_and_set else None
        await backend.write([Put(new, condition)])
        assert await stored(backend, ROWS, "box", "gone") == new

    async def test_tables_names_those_that_hold_rows(self, backend: Backend) -> None:
        assert not {"kit_rows", "kit_others"} & set(await backend.tables())
        await put(backend, row(), row(table=OTHER))
        assert {"kit_rows", "kit_others"} <= set(await backend.tables())
        await backend.write([Delete(ROWS, ("box", "a")), DeletePrefix(OTHER, ())])
        assert not {"kit_rows", "kit_others"} & set(await backend.tables())

    async def test_closing_twice_is_safe(self, make_backend: object) -> None:
        backend: Backend = make_backend()  # type: ignore[operator]
        await backend.open()
        await backend.close()
        await backend.close()
