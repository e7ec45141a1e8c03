"""Records: defaults, JSON, reprs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import msgspec
import pytest

from mastra_storage import (
    Eval,
    Include,
    Message,
    MessageUpdate,
    Page,
    Resource,
    Thread,
    Trace,
    WorkflowRun,
)
from mastra_storage.records import Record, from_microseconds, to_microseconds

SECRET = "what nobody but the user shall read"


def test_defaults() -> None:
    thread = Thread(resource_id="r")
    assert thread.id != Thread(resource_id="r").id
    assert (thread.title, thread.metadata) == ("", {})
    assert thread.updated_at is thread.created_at
    assert thread.created_at.tzinfo is timezone.utc
    message = Message(thread_id="t", role="user", content=None)
    assert (message.type, message.resource_id, message.metadata) == ("text", None, {})
    trace = Trace()
    assert (trace.trace_id, trace.started_at, trace.ended_at) == (trace.id, trace.created_at, None)
    outcome = Eval(agent_name="a")
    assert (outcome.type, outcome.metric_name, outcome.data) == ("live", None, {})
    assert Resource(id="r").working_memory is None


def test_defaults_are_not_shared() -> None:
    Thread(resource_id="r").metadata["a"] = 1
    assert Thread(resource_id="r").metadata == {}


@pytest.mark.parametrize(
    ("snapshot", "status"),
    [
        ({"status": "running"}, "running"),
        ({"status": 3}, None),
        ({}, None),
        ("x", None),
        (None, None),
    ],
)
def test_a_run_takes_its_status_from_its_snapshot(snapshot: object, status: str | None) -> None:
    assert WorkflowRun(run_id="1", workflow_name="w", snapshot=snapshot).status == status
    assert WorkflowRun(run_id="1", workflow_name="w", snapshot=snapshot, status="x").status == "x"


def test_json_is_camel_case_with_utc_times() -> None:
    time = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
    thread = Thread(id="t", resource_id="r", created_at=time)
    assert msgspec.json.decode(msgspec.json.encode(thread)) == {
        "id": "t",
        "resourceId": "r",
        "title": "",
        "metadata": {},
        "createdAt": "2026-01-02T03:04:05.000006Z",
        "updatedAt": "2026-01-02T03:04:05.000006Z",
    }
    assert msgspec.json.decode(msgspec.json.encode(thread), type=Thread) == thread


@pytest.mark.parametrize(
    "record",
    [
        Thread(resource_id="r", title=SECRET, metadata={"a": SECRET}),
        Message(thread_id="t", role="user", content=SECRET, metadata={"a": SECRET}),
        WorkflowRun(run_id="1", workflow_name="w", snapshot={"a": SECRET}, error=SECRET),
        Trace(attributes={"a": SECRET}, events=[SECRET], properties={"a": SECRET}, status=SECRET),
        Eval(agent_name="a", input=SECRET, output=SECRET, instructions=SECRET, data={"a": SECRET}),
        Resource(id="r", working_memory=SECRET, metadata={"a": SECRET}),
        MessageUpdate("m", content=SECRET, metadata={"a": SECRET}),
    ],
    ids=lambda record: type(record).__name__,
)
def test_reprs_show_which_record_it_is_and_nothing_private(record: object) -> None:
    assert SECRET not in repr(record)
    assert SECRET not in repr(Page(items=[record]))
    assert type(record).__name__ in repr(record)


@pytest.mark.parametrize("kind", Record.__subclasses__(), ids=lambda kind: kind.__name__)
def test_the_garbage_collector_does_not_look_at_records(kind: type[Record]) -> None:
    assert not kind.__struct_config__.gc


def test_every_shown_field_is_one() -> None:
    for kind in Record.__subclasses__():
        assert set(kind._shown) <= set(kind.__struct_fields__)


@pytest.mark.parametrize(
    "time",
    [
        datetime.min.replace(tzinfo=timezone.utc),
        datetime.max.replace(tzinfo=timezone.utc),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, timezone.utc),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    ],
)
def test_microseconds_are_exact(time: datetime) -> None:
    assert from_microseconds(to_microseconds(time)) == time


def test_pages_are_collections() -> None:
    page = Page(items=[1, 2, 3], has_more=True)
    assert list(page) == [1, 2, 3]
    assert len(page) == 3
    assert (page.total, page.next_cursor) == (None, None)


def test_includes_and_updates_take_their_id_by_position() -> None:
    assert Include("m", previous=2) == Include(id="m", thread_id=None, previous=2, next=0)
    assert MessageUpdate("m", content=None).content is None
    assert MessageUpdate("m").content is msgspec.UNSET
