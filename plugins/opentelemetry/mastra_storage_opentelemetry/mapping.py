"""How a span of OpenTelemetry becomes a `Trace`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from math import isfinite
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, format_span_id, format_trace_id

from mastra_storage import Trace

THREAD_ID: Final = ("gen_ai.conversation.id", "session.id", "thread_id")
"""The attributes that tell the thread of a span; the first that is there counts."""

RUN_ID: Final = ("gen_ai.agent.call.id", "run_id")
"""The attributes that tell the run of a span; the first that is there counts."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FIRST, _LAST = (
    (end.replace(tzinfo=timezone.utc) - _EPOCH) // timedelta(microseconds=1)
    for end in (datetime.min, datetime.max)
)
_MAX_ID_BYTES: Final = 256


def trace_of(
    span: ReadableSpan,
    *,
    thread_id: Sequence[str] = THREAD_ID,
    run_id: Sequence[str] = RUN_ID,
) -> Trace:
    """The record that keeps a finished span.

    `thread_id` and `run_id` name the attributes to take those from. Ids are hexadecimal, as
    OpenTelemetry writes them; times are cut to microseconds. What JSON does not have is kept
    as text: NaN as "nan", bytes as base64.
    """
    attributes = _members(span.attributes)
    scope = span.instrumentation_scope
    started = _time(span.start_time or 0)
    return Trace(
        **_ids(span),
        name=_text(span.name),
        scope=None if scope is None else _text(scope.name) or None,
        kind=span.kind.value,
        status={
            "code": span.status.status_code.value,
            "message": _text(span.status.description or ""),
        },
        thread_id=_first_id(attributes, thread_id),
        run_id=_first_id(attributes, run_id),
        attributes=attributes,
        events=[
            {
                "name": _text(event.name),
                "time": _iso(_time(event.timestamp)),
                "attributes": _members(event.attributes),
            }
            for event in span.events
        ],
        links=[_link(link) for link in span.links],
        properties=_properties(span, scope),
        started_at=started,
        ended_at=None if span.end_time is None else _time(span.end_time),
        created_at=started,
    )


def _ids(span: ReadableSpan) -> dict[str, Any]:
    if span.context is None:
        return {}
    return {
        "id": format_span_id(span.context.span_id),
        "trace_id": format_trace_id(span.context.trace_id),
        "parent_span_id": None if span.parent is None else format_span_id(span.parent.span_id),
    }


def _properties(span: ReadableSpan, scope: InstrumentationScope | None) -> dict[str, Any]:
    """What OpenTelemetry knows of a span besides: who made it, and what its limits cut off."""
    dropped = {
        "attributes": span.dropped_attributes,
        "events": span.dropped_events,
        "links": span.dropped_links,
    }
    found: dict[str, Any] = {"resource": _resource(span.resource)}
    if scope is not None:
        found["scope"] = {
            "name": _text(scope.name),
            "version": _text(scope.version or ""),
            "attributes": _members(scope.attributes),
        }
        if scope.schema_url:
            found["scope"]["schema_url"] = _text(scope.schema_url)
    if span.context is not None and span.context.trace_state:
        found["trace_state"] = _text(span.context.trace_state.to_header())
    if any(dropped.values()):
        found["dropped"] = dropped
    return found


def _resource(resource: Resource | None) -> dict[str, Any]:
    return {} if resource is None else _members(resource.attributes)


def _link(link: Link) -> dict[str, Any]:
    context: SpanContext = link.context
    return {
        "trace_id": format_trace_id(context.trace_id),
        "span_id": format_span_id(context.span_id),
        "attributes": _members(link.attributes),
    }


def _first_id(attributes: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of these attributes that can be an id."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and 0 < len(value.encode()) <= _MAX_ID_BYTES:
            return value
    return None


def _time(nanoseconds: int) -> datetime:
    """The time, or the nearest that a datetime can be."""
    microseconds = min(max(nanoseconds // 1000, _FIRST), _LAST)
    return _EPOCH + timedelta(microseconds=microseconds)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _members(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {_text(name): _plain(value) for name, value in (attributes or {}).items()}


def _plain(value: Any) -> Any:
    """An attribute's value as JSON has it."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return _members(value)
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"


def _text(value: Any) -> str:
    """Text that can be stored: a lone surrogate becomes a question mark."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
