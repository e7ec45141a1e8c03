"""What becomes of a span."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mastra_storage_opentelemetry import trace_of
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from spans import Recorder

from mastra_storage import TRACES, open_storage


def test_everything_of_a_span_is_kept() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "planner"}), shutdown_on_exit=False
    )
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("scope-of-it", "1.2", attributes={"team": "a"})
    other = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
    parent = tracer.start_span("parent")
    child = tracer.start_span(
        "chat",
        context=set_span_in_context(parent),
        kind=SpanKind.CLIENT,
        attributes={
            "gen_ai.conversation.id": "trip",
            "gen_ai.agent.call.id": "run-1",
            "gen_ai.usage.input_tokens": 51,
            "list": ("a", "b"),
        },
        links=[Link(other, {"why": "retry"})],
        start_time=1_748_779_200_123_456_789,
    )
    child.add_event("said", {"count": 2}, timestamp=1_748_779_200_200_000_001)
    child.set_status(Status(StatusCode.ERROR, "no such city"))
    child.end(end_time=1_748_779_201_000_000_000)
    [span] = exporter.get_finished_spans()

    trace = trace_of(span)

    assert span.context is not None
    assert trace.id == f"{span.context.span_id:016x}"
    assert trace.trace_id == f"{span.context.trace_id:032x}"
    assert trace.parent_span_id == f"{parent.get_span_context().span_id:016x}"
    assert (trace.name, trace.scope, trace.kind) == ("chat", "scope-of-it", 2)
    assert trace.status == {"code": 2, "message": "no such city"}
    assert (trace.thread_id, trace.run_id) == ("trip", "run-1")
    assert trace.attributes == {
        "gen_ai.conversation.id": "trip",
        "gen_ai.agent.call.id": "run-1",
        "gen_ai.usage.input_tokens": 51,
        "list": ["a", "b"],
    }
    assert trace.events == [
        {"name": "said", "time": "2025-06-01T12:00:00.200000Z", "attributes": {"count": 2}}
    ]
    assert trace.links == [
        {"trace_id": f"{1:032x}", "span_id": f"{2:016x}", "attributes": {"why": "retry"}}
    ]
    assert trace.started_at == datetime(2025, 6, 1, 12, 0, 0, 123456, timezone.utc)
    assert trace.created_at == trace.started_at
    assert trace.ended_at == datetime(2025, 6, 1, 12, 0, 1, 0, timezone.utc)
    assert trace.properties == {
        "resource": {"service.name": "planner"},
        "scope": {"name": "scope-of-it", "version": "1.2", "attributes": {"team": "a"}},
    }


def test_the_first_attribute_that_can_be_an_id_tells_the_thread() -> None:
    recorder = Recorder()
    attributes: dict[str, Any] = {"gen_ai.conversation.id": "x" * 257, "session.id": "s", "mine": 7}
    recorder.tracer.start_span("a", attributes=attributes).end()
    [span] = recorder.spans
    assert trace_of(span).thread_id == "s"
    assert trace_of(span, thread_id=["gen_ai.conversation.id", "mine"]).thread_id is None
    assert trace_of(span, run_id=["session.id"]).run_id == "s"
    assert trace_of(span).attributes == attributes


def test_what_limits_cut_off_and_the_state_of_the_trace_are_told() -> None:
    state = TraceState([("vendor", "x")])
    span = ReadableSpan("a", SpanContext(1, 2, is_remote=False, trace_state=state), start_time=1)
    assert trace_of(span).properties["trace_state"] == "vendor=x"
    recorder = Recorder()
    recorder.tracer.start_span("a", attributes={f"a{n}": n for n in range(130)}).end()
    [span] = recorder.spans
    assert trace_of(span).properties["dropped"] == {"attributes": 2, "events": 0, "links": 0}


def test_a_span_without_ids_gets_some() -> None:
    trace = trace_of(ReadableSpan("by hand", start_time=1_000))
    assert trace.id == trace.trace_id
    assert trace.started_at == datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=1)
    assert trace.ended_at is None


texts = st.text(st.characters())  # with lone surrogates
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(name=texts, attributes=st.dictionaries(texts, values, max_size=4))
def test_any_attributes_can_be_kept(name: str, attributes: dict[str, Any]) -> None:
    event = Event(name, attributes, timestamp=1)
    TRACES.check(trace_of(ReadableSpan(name, attributes=attributes, events=[event], start_time=1)))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (b"\x00\xff", "AP8="),
        ("\ud800", "?"),
        ({"deep": [1, float("inf")]}, {"deep": [1, "inf"]}),
        (object(), "<object>"),
    ],
)
async def test_what_json_does_not_have_is_kept_as_text(value: Any, kept: Any) -> None:
    span = ReadableSpan("a", attributes={"x": value}, start_time=1)
    async with open_storage("memory://") as storage:
        saved = await storage.save_trace(trace_of(span))
        found = await storage.get_trace(saved.id)
    assert found is not None
    assert found.attributes == {"x": kept}
