"""Keys in KV: of any id, never two of one, in the order of time."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mastra_storage_cloudflare.kv import (
    LEAST_SECONDS_TO_EXPIRE,
    MAX_KEY_BYTES,
    MAX_METADATA_BYTES,
    Entry,
    Found,
)
from mastra_storage_cloudflare.layout import Layout
from mastra_storage_cloudflare.places import newest_first, place_of, place_of_index
from msgspec import structs

from mastra_storage import (
    InvalidRecordError,
    Key,
    Query,
    Row,
    StorageError,
    Table,
    TooLargeError,
)
from mastra_storage.schema import MESSAGES, TABLES, THREADS, TRACES

WIDE = Table(
    name="a_table_of_some_adapter",
    key=("one", "two", "three", "four"),
    fields=("color", "owner"),
    ordered=(0, 3),
    listings=(3, "color"),
    recent=True,
)

PARTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(alphabet=":%~/.\\\"' 2A35é🧵\0", max_size=300),
).filter(lambda part: len(part.encode()) <= 256)
KEYS = st.tuples(PARTS, PARTS, PARTS, PARTS)
ORDERS = st.integers(-(2**62), 2**62)
SEQS = st.integers(0, 2**63 - 1)


def row(key: Key, *, table: Table = WIDE, order: int = 0, seq: int = 0, **members: object) -> Row:
    defaults = {
        "fields": {"color": "x"},
        "updated": order,
        "version": "v",
        "value": msgspec.json.encode(dict(zip(table.key, key, strict=True)) | {"color": "x"}),
    }
    return Row(table=table, key=key, order=order, seq=seq, **(defaults | members))  # type: ignore[arg-type]


layout = Layout("prefix:", WIDE)


def every_key(key: Key) -> list[str]:
    names = [pair.key for pair in layout.pairs(row(key))]
    return [*names, layout.touched_key(key)]


@given(KEYS)
def test_keys_are_short_enough_for_kv(key: Key) -> None:
    for name in every_key(key):
        assert 0 < len(name.encode()) <= MAX_KEY_BYTES
        assert name not in (".", "..")
        assert "\0" not in name
        assert name.startswith("prefix:mastra_a_table_of_some_adapter")


@given(KEYS, KEYS)
def test_two_rows_never_share_a_key(one: Key, other: Key) -> None:
    if one != other:
        assert not set(every_key(one)) & set(every_key(other))


@given(KEYS, KEYS, st.integers(0, 3))
def test_a_prefix_holds_its_rows_and_no_others(one: Key, other: Key, length: int) -> None:
    prefix = one[:length]
    for key in (one, other):
        inside = key[:length] == prefix
        assert layout.record_key(key).startswith(layout.record_prefix(prefix)) == inside
        under = tuple(layout.prefixes(prefix))
        if inside:
            assert layout.record_key(key).startswith(under)


@given(st.tuples(ORDERS, SEQS), st.tuples(ORDERS, SEQS))
def test_later_places_sort_first(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (newest_first(*one) < newest_first(*other)) == (one > other)
    assert place_of_index("start:" + newest_first(*one), "start:") == one


@given(KEYS, ORDERS, SEQS)
def test_an_index_key_leads_to_its_record(key: Key, order: int, seq: int) -> None:
    index_keys = layout.index_keys(row(key, order=order, seq=seq))
    for name, start, prefix in zip(
        index_keys,
        (layout.newest_prefix(key[:3]), layout.field_prefix("color", "x")),
        (key[:3], ()),
        strict=True,
    ):
        assert name.startswith(start)
        assert layout.record_key_of_index(name, start, prefix) == layout.record_key(key)


@given(
    KEYS,
    ORDERS,
    SEQS,
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.none() | ORDERS,
)
def test_a_row_comes_back(key: Key, order: int, seq: int, color: str, touched: int | None) -> None:
    given_row = row(
        key,
        order=order,
        seq=seq,
        fields={"color": color} if color else {},
        value=msgspec.json.encode(dict(zip(WIDE.key, key, strict=True)) | {"color": color}),
        updated=order + 5,
    )
    try:
        record = layout.pairs(given_row)[0]
    except TooLargeError:
        assert len(msgspec.json.encode((key, color))) > MAX_METADATA_BYTES // 2
        return
    assert len(record.metadata.encode()) <= MAX_METADATA_BYTES
    back = layout.row(record.key, Found(record.value, record.metadata), touched)
    assert back == structs.replace(given_row, touched=touched)


@pytest.mark.parametrize("name", ["plain", '"' * 100])
def test_a_field_is_found_as_it_is_and_as_a_hash(name: str) -> None:
    traces = Layout("", TRACES)
    fields = {"trace_id": "x", "name": name}
    record = traces.pairs(row(("x",), table=TRACES, fields=fields))[0]
    place = place_of(record)
    assert place is not None
    unhashed = structs.replace(place, fields=("x", name))
    for wanted, found in ((name, True), (name + "!", False)):
        matches = traces.matching(Query(table=TRACES, fields={"name": (wanted,)}))
        assert matches(place) is matches(unhashed) is found


@pytest.mark.parametrize("size", [1, 100, 101, 256])
def test_fields_of_any_length_are_found_and_come_back(size: int) -> None:
    found = Layout("", THREADS)
    long = "r" * size
    value = msgspec.json.encode({"id": "t", "resourceId": long})
    given_row = row(("t",), table=THREADS, fields={"resource_id": long}, value=value)
    record, index = found.pairs(given_row)
    assert found.row(record.key, Found(record.value, record.metadata), None) == given_row
    assert index.key.startswith(found.field_prefix("resource_id", long))
    place = place_of(Entry(record.key, record.metadata))
    assert place is not None
    for wanted, matches in ((long, True), (long + "x", False)):
        query = Query(table=THREADS, fields={"resource_id": (wanted,)})
        assert found.matching(query)(place) == matches


def test_metadata_that_has_no_room_is_refused_by_name() -> None:
    huge = Table(
        name="rows",
        key=("id",),
        fields=tuple(f"field_{n}" for n in range(12)),
    )
    full = dict.fromkeys(huge.fields, "f" * 95)
    with pytest.raises(TooLargeError, match="of table 'rows' need"):
        Layout("", huge).pairs(row(("id",), table=huge, fields=full))


def test_a_table_whose_keys_cannot_fit_is_refused() -> None:
    table = Table(name="t" * 60, key=("a", "b", "c", "d", "e", "f"))
    Layout("", Table(name="t", key=table.key))
    with pytest.raises(InvalidRecordError, match="key parts"):
        Layout("p" * 60, table)


@pytest.mark.parametrize("name", ["langgraph_values", "n" * 57])
def test_a_long_prefix_leaves_room_for_the_parts_of_large_values(name: str) -> None:
    listed = ("f" * 63,)
    table = Table(name=name, key=("a", "b", "c"), fields=listed, listings=listed, large=True)
    for one in (table, table.parts):
        found = Layout("p" * 40, one)
        for part in ("x" * 256, ":" * 256, "🧵" * 64):
            given_row = row((part,) * len(one.key), table=one, fields=dict.fromkeys(listed, part))
            names = [*found.index_keys(given_row), found.touched_key(given_row.key)]
            for key in (found.record_key(given_row.key), *names):
                assert len(key.encode()) <= MAX_KEY_BYTES


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_the_tables_of_the_contract_hold_the_longest_ids(table: Table) -> None:
    found = Layout("production:", table)
    for part in ("x" * 256, ":" * 256, "🧵" * 64, "%" * 256):
        key = (part,) * len(table.key)
        fields = dict.fromkeys(table.fields, part)
        for pair in found.pairs(row(key, table=table, fields=fields)):
            assert len(pair.key.encode()) <= MAX_KEY_BYTES
            assert len(pair.metadata.encode()) <= MAX_METADATA_BYTES


def test_values_of_others_are_named() -> None:
    messages = Layout("", MESSAGES)
    for metadata in (None, "{}", '{"o":1}', "[]", "null"):
        assert place_of(Entry("mastra_messages:t:m", metadata)) is None
        with pytest.raises(StorageError, match=r"mastra_messages:t:m.*not written by"):
            messages.row("mastra_messages:t:m", Found(b"{}", metadata), None)


def test_what_expires_soon_is_kept_for_the_minute_that_kv_asks_for() -> None:
    past = layout.pairs(row(("a", "b", "c", "d"), expires_at=1))[0]
    assert past.expiration is not None
    later = (past.expiration + 1000) * 1_000_000 + 1
    record, *beside = layout.pairs(row(("a", "b", "c", "d"), expires_at=later))
    assert record.expiration == past.expiration + 1001
    assert {pair.expiration for pair in beside} == {record.expiration}
    assert LEAST_SECONDS_TO_EXPIRE == 60
