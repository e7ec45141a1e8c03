"""Rows as documents and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mastra_storage_convex.layout import SLOTS, CoreLayout, DocumentLayout, layout_of, read
from msgspec import structs

from mastra_storage import TABLES, InvalidRecordError, Message, Row, Table, Thread, WorkflowRun
from mastra_storage.testing.strategies import json_values

OWN = Table(
    name="own",
    key=("box", "id"),
    fields=("color", "owner"),
    ordered=(0, 1),
)

texts = st.text(max_size=12)
int64s = st.integers(-(2**63), 2**63 - 1)
objects = st.dictionaries(texts, json_values(max_leaves=4), max_size=4)


def names_of(table: Table) -> list[str]:
    """The members of a table's record, as they are in JSON."""
    assert table.record is not None
    return [member.encode_name for member in structs.fields(table.record)]


@st.composite
def values(draw: st.DrawFn, table: Table) -> dict[str, Any]:
    """Members of a record that may be of any type, be missing, or not belong to it."""
    plain = texts | st.none()
    kinds = {name: plain | json_values(max_leaves=4) for name in names_of(table)}
    members = draw(st.fixed_dictionaries({}, optional=kinds) | st.fixed_dictionaries(kinds))
    others = draw(objects | st.just({}) | st.just({"$value": 1}))
    return members | others


@st.composite
def rows(draw: st.DrawFn, table: Table, value: st.SearchStrategy[bytes]) -> Row:
    key = draw(st.tuples(*[texts for _ in table.key]))
    own = [name for name in table.fields if name not in table.key]
    fields = draw(st.fixed_dictionaries({}, optional=dict.fromkeys(own, texts.filter(bool))))
    # A part of the key that is an indexed field as well is one column.
    parts = zip(table.key, key, strict=True)
    fields |= {name: part for name, part in parts if name in table.fields and part}
    return Row(
        table=table,
        key=key,
        value=draw(value),
        order=draw(int64s),
        seq=draw(int64s),
        fields=fields,
        updated=draw(int64s),
        touched=draw(st.none() | int64s),
        version=draw(texts),
        expires_at=draw(st.none() | int64s),
    )


def written(row: Row) -> dict[str, Any]:
    """The document of a row, as it goes to Convex."""
    document = msgspec.json.encode(layout_of(row.table).write(row))
    return msgspec.json.decode(document, type=dict[str, Any])


def there_and_back(row: Row) -> Row:
    """The row as it comes back from Convex, which keeps the text of numbers in text only."""
    layout = layout_of(row.table)
    document = msgspec.json.encode([layout.write(row)])
    assert_convex_keeps(msgspec.json.decode(document))
    [found] = read(row.table, msgspec.json.decode(document, type=list[layout.document]))  # type: ignore[name-defined]
    return found


def assert_convex_keeps(value: Any) -> None:
    """Nothing of a document is a number but in text or as int64, nor has a name with `$`."""
    if isinstance(value, dict) and list(value) == ["$integer"]:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            assert not name.startswith(("$", "_"))
            assert_convex_keeps(item)
    elif isinstance(value, list):
        for item in value:
            assert_convex_keeps(item)
    else:
        assert value is None or isinstance(value, str)


def exactly(value: bytes) -> str:
    """A text that tells 1 from 1.0; members in one order."""
    return json.dumps(json.loads(value), sort_keys=True)


@pytest.mark.parametrize("name", TABLES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_of_core_tables_come_back_whatever_they_hold(name: str, data: st.DataObject) -> None:
    table = TABLES[name]
    value = values(table) | json_values(max_leaves=3)
    row = data.draw(rows(table, value.map(msgspec.json.encode)))
    found = there_and_back(row)
    assert structs.replace(found, value=b"") == structs.replace(row, value=b"")
    assert exactly(found.value) == exactly(row.value)


@given(row=rows(OWN, texts.map(str.encode)))
@settings(deadline=None)
def test_rows_of_other_tables_come_back_byte_for_byte(row: Row) -> None:
    assert there_and_back(row) == row


class TestCore:
    def test_a_record_is_typed_columns(self) -> None:
        message = Message(
            id="m", thread_id="t", role="user", content=[1.0, 10**30], metadata={"$k": -0.0}
        )
        row = TABLES["messages"].row(message, seq=1, version="v")
        document = written(row)
        assert document.pop("row")["version"] == "v"
        assert document == {
            "id": "m",
            "threadId": "t",
            "role": "user",
            "content": "[1.0,1000000000000000000000000000000]",
            "type": "text",
            "resourceId": None,
            "metadata": '{"$k":-0.0}',
            "createdAt": json.loads(msgspec.json.encode(message.created_at)),
        }
        assert there_and_back(row) == row

    def test_free_form_null_is_null(self) -> None:
        run = WorkflowRun(run_id="r", workflow_name="w", snapshot=None, error="null")
        row = TABLES["workflow_snapshot"].row(run, seq=1, version="v")
        document = written(row)
        assert (document["snapshot"], document["error"]) == (None, '"null"')
        assert row.table.record_of(there_and_back(row)) == run

    def test_members_of_another_version_are_extra(self) -> None:
        row = TABLES["threads"].row(Thread(id="t", resource_id="r"), seq=1, version="v")
        members = json.loads(row.value) | {"title": 5, "colour": {"hue": 1.0}}
        odd = structs.replace(row, value=msgspec.json.encode(members))
        document = written(odd)
        assert document["title"] == ""
        assert json.loads(document["extra"]) == {"title": 5, "colour": {"hue": 1.0}}
        assert json.loads(there_and_back(odd).value) == members

    def test_keys_and_fields_are_those_of_the_row(self) -> None:
        thread = Thread(id="t", resource_id="r")
        row = TABLES["threads"].row(thread, seq=1, version="v")
        other = structs.replace(row, key=("other",), fields={"resource_id": "another"})
        document = written(other)
        assert (document["id"], document["resourceId"]) == ("other", "another")
        found = there_and_back(other)
        assert (found.key, found.fields) == (("other",), {"resource_id": "another"})
        assert row.table.record_of(found) == thread

    def test_a_value_that_is_no_record_is_kept_once(self) -> None:
        row = TABLES["messages"].row(
            Message(id="m", thread_id="t", role="user", content="x" * 1000), seq=1, version="v"
        )
        members = json.loads(row.value)
        del members["role"]
        odd = structs.replace(row, value=msgspec.json.encode(members))
        assert str(written(odd)).count("x" * 1000) == 1
        assert there_and_back(odd).value == odd.value

    def test_what_is_not_json_is_refused(self) -> None:
        row = TABLES["threads"].row(Thread(id="t", resource_id="r"), seq=1, version="v")
        for value in (b"[1, no", b"\xff", b"", b'"\xff"'):
            with pytest.raises(InvalidRecordError, match="is no JSON"):
                layout_of(row.table).write(structs.replace(row, value=value))


class TestDocuments:
    def test_only_the_tables_of_the_contract_have_their_own(self) -> None:
        assert isinstance(layout_of(TABLES["threads"]), CoreLayout)
        other = structs.replace(TABLES["threads"], name="kit_threads")
        assert isinstance(layout_of(other), DocumentLayout)
        changed = structs.replace(TABLES["threads"], recent=False)
        assert isinstance(layout_of(changed), DocumentLayout)

    def test_listings_are_groups(self) -> None:
        row = Row(OWN, ("b", "i"), b"{}", 1, 2, {"color": "red"}, 1)
        document = written(row)
        groups = {name: value for name, value in document.items() if name.startswith("group")}
        assert groups == {"group7": ["b"], "group0": ["red"]}
        assert document["key"] == ["b", "i"]
        assert layout_of(OWN).key(("b",)) == ("own", "b")

    def test_a_table_may_gain_a_listing(self) -> None:
        row = Row(OWN, ("b", "i"), b"{}", 1, 2, {"color": "red"}, 1)
        wider = structs.replace(OWN, fields=(*OWN.fields, "new"))
        assert written(structs.replace(row, table=wider)) == written(row)

    def test_there_are_so_many_groups_at_most(self) -> None:
        fields = tuple(f"f{number}" for number in range(12))
        table = structs.replace(OWN, fields=fields)
        row = Row(table, ("b", "i"), b"{}", 1, 2, dict.fromkeys(fields, "x"), 1)
        document = written(row)
        assert sum(name.startswith("group") for name in document) == SLOTS
        assert there_and_back(row) == row

    def test_what_is_not_text_is_refused(self) -> None:
        with pytest.raises(InvalidRecordError, match="is no UTF-8"):
            layout_of(OWN).write(Row(OWN, ("b", "i"), b"\xff", 1, 2, {}, 1))
