"""The records of the TypeScript store as ours, and ours as it writes them.

`read_record` gives our JSON of a stored value, `write_record` the value of our JSON. Members
that we do not know go through both unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import structs

from mastra_storage import Row, StorageError, Table
from mastra_storage_cloudflare.interop.values import (
    FormError,
    Members,
    compact,
    is_empty,
    iso_milliseconds,
    json_array,
    json_object,
    members_of,
    milliseconds,
    parsed,
    parsed_container,
    plain,
    stringified,
    time_text,
)

# What TypeScript stores as the type of a message that was given none.
_UNTYPED = "v2"
_TEXT = "text"


def row_of(table: Table, name: str, value: bytes) -> Row:
    """The row of a value stored under the key `name`; its `seq` is left to the caller.

    The values bear no version: a digest stands for it, so that live queries see changes.
    """
    try:
        members = _READ[table.name](members_of(value), name)
        row = Row(table, (), msgspec.json.encode(members), 0, 0, {}, 0)
        version = blake2b(value, digest_size=16).hexdigest()
        placed = table.row(table.record_of(row), seq=0, version=version)
    except (FormError, StorageError, KeyError, msgspec.MsgspecError) as exc:
        raise StorageError(
            f"the value under key {name!r} is not a record that the TypeScript store writes in "
            f"table {table.name!r}: it {_reason(exc)}; repair or delete it"
        ) from exc
    return structs.replace(placed, value=row.value)


def value_of(row: Row, *, owner: str | None = None) -> bytes:
    """The value that the TypeScript store would write for a row.

    `owner` is the resource id of a message that has none of its own.
    """
    members = members_of(row.value)
    if owner is not None and is_empty(members.get("resourceId")):
        members["resourceId"] = owner
    return compact(_WRITE[row.table.name](members))


def touched(at: datetime, old: bytes | None, value: bytes | None) -> bytes | None:
    """A thread's value updated at a time, unless it was later; `old` where it has no value."""
    value = value or old
    if value is None:
        return None
    members = members_of(value)
    before = time_text(members.get("updatedAt"), "updatedAt")
    after = time_text(at.isoformat(), "updatedAt")
    if before is None or milliseconds(before) < milliseconds(after):
        members["updatedAt"] = iso_milliseconds(after)
    return compact(members)


def _reason(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"has no {exc.args[0]}"
    return str(exc) if isinstance(exc, FormError) else f"has other members ({exc.__cause__ or exc})"


def _times(members: Members, *names: str) -> Members:
    """Times as our records carry them; the first has to be there, and stands for the others."""
    found = {name: time_text(members.pop(name, None), name) for name in names}
    first = found[names[0]]
    if first is None:
        raise FormError(f"has no {names[0]}")
    return {name: time or first for name, time in found.items()}


def _optional(members: Members, *names: str) -> Members:
    """Those of the members that say something, taken out of all."""
    found = {name: members.pop(name, None) for name in names}
    return {name: value for name, value in found.items() if not is_empty(value)}


# -- threads -----------------------------------------------------------------------------------


def _read_thread(members: Members, name: str) -> Members:
    return {
        "id": members.pop("id"),
        "resourceId": members.pop("resourceId"),
        "title": plain(members.pop("title", None)) or "",
        "metadata": json_object(members, "metadata"),
        **_times(members, "createdAt", "updatedAt"),
        **members,
    }


def _write_thread(members: Members) -> Members:
    return {
        "id": members.pop("id"),
        "resourceId": members.pop("resourceId"),
        "title": members.pop("title"),
        "metadata": members.pop("metadata"),
        "createdAt": iso_milliseconds(members.pop("createdAt")),
        "updatedAt": iso_milliseconds(members.pop("updatedAt")),
        **members,
    }


# -- messages ----------------------------------------------------------------------------------


def _read_message(members: Members, name: str) -> Members:
    kind = plain(members.pop("type", None))
    return {
        "id": members.pop("id"),
        "threadId": members.pop("threadId"),
        "role": members.pop("role"),
        "content": members.pop("content", None),
        "type": _TEXT if kind in (None, "", _UNTYPED) else kind,
        **_optional(members, "resourceId"),
        "metadata": json_object(members, "metadata"),
        **_times(members, "createdAt"),
        **members,
    }


def _write_message(members: Members) -> Members:
    kind = plain(members.pop("type"))
    return {
        "id": members.pop("id"),
        "threadId": members.pop("threadId"),
        **_optional(members, "resourceId"),
        "role": members.pop("role"),
        "type": _UNTYPED if kind == _TEXT else kind,
        "content": members.pop("content"),
        "createdAt": iso_milliseconds(members.pop("createdAt")),
        **_optional(members, "metadata"),
        **members,
    }


# -- workflow snapshots ------------------------------------------------------------------------


_RUN_TIMES = ("createdAt", "updatedAt")


def _status_of(snapshot: Any) -> str | None:
    """The status that a snapshot states."""
    found = plain(snapshot)
    status = plain(found.get("status")) if isinstance(found, dict) else None
    return status if isinstance(status, str) else None


def _read_run(members: Members, name: str) -> Members:
    if "snapshot" not in members:
        return _read_bare_snapshot(members, name)
    snapshot = parsed(members.pop("snapshot"))
    return {
        "runId": members.pop("run_id"),
        "workflowName": members.pop("workflow_name"),
        **_optional(members, "resourceId"),
        "snapshot": snapshot,
        # Later snapshots may not state the status; then it stays.
        "status": members.pop("status", _status_of(snapshot)),
        **_times(members, *_RUN_TIMES),
        **members,
    }


def _read_bare_snapshot(members: Members, name: str) -> Members:
    """A run of the first releases: the snapshot alone, its workflow named by the key.

    The key is `…mastra_workflow_snapshot:{namespace}:{workflow_name}:{run_id}`.
    """
    run_id = plain(members.get("runId"))
    parts = name.partition("mastra_workflow_snapshot:")[2].removesuffix(f":{run_id}").split(":", 1)
    if not isinstance(run_id, str) or len(parts) < 2 or not name.endswith(f":{run_id}"):
        raise FormError("is neither a run nor the snapshot of one")
    return {
        "runId": run_id,
        "workflowName": parts[1],
        "snapshot": members,
        **_times({"createdAt": members.get("timestamp", 0), "updatedAt": None}, *_RUN_TIMES),
    }


def _write_run(members: Members) -> Members:
    snapshot = members.pop("snapshot", None)
    status = plain(members.pop("status", None))
    return {
        "workflow_name": members.pop("workflowName"),
        "run_id": members.pop("runId"),
        **_optional(members, "resourceId"),
        "snapshot": stringified(snapshot),
        "createdAt": iso_milliseconds(members.pop("createdAt")),
        "updatedAt": iso_milliseconds(members.pop("updatedAt")),
        **({} if status in (None, _status_of(snapshot)) else {"status": status}),
        **{name: value for name, value in members.items() if not _is_unset(name, value)},
    }


# -- traces ------------------------------------------------------------------------------------


def _read_trace(members: Members, name: str) -> Members:
    started = time_text(members.pop("startTime", None), "startTime")
    ended = time_text(members.pop("endTime", None), "endTime")
    return {
        "id": members.pop("id"),
        **_optional(members, "parentSpanId", "traceId"),
        "name": plain(members.pop("name", None)) or "",
        "attributes": json_object(members, "attributes"),
        "status": parsed_container(members.pop("status", None)),
        "events": json_array(members, "events"),
        "links": json_array(members, "links"),
        **({} if started is None else {"startedAt": started}),
        **({} if ended is None else {"endedAt": ended}),
        **_times(members, "createdAt"),
        **members,
    }


def _write_trace(members: Members) -> Members:
    started, ended = members.pop("startedAt", None), members.pop("endedAt", None)
    return {
        "id": members.pop("id"),
        "parentSpanId": members.pop("parentSpanId", None),
        "name": members.pop("name", ""),
        "traceId": members.pop("traceId", None),
        "scope": members.pop("scope", None),
        "kind": members.pop("kind", None),
        "attributes": members.pop("attributes", {}),
        "status": members.pop("status", None),
        "events": members.pop("events", []),
        "links": members.pop("links", []),
        "other": members.pop("other", None),
        **({} if is_empty(started) else {"startTime": milliseconds(started)}),
        **({} if is_empty(ended) else {"endTime": milliseconds(ended)}),
        "createdAt": iso_milliseconds(members.pop("createdAt")),
        **{name: value for name, value in members.items() if not _is_unset(name, value)},
    }


# -- evals -------------------------------------------------------------------------------------

_SNAKE = {
    "agentName": "agent_name",
    "metricName": "metric_name",
    "instructions": "instructions",
    "testInfo": "test_info",
    "globalRunId": "global_run_id",
    "runId": "run_id",
    "threadId": "thread_id",
}


def _read_eval(members: Members, name: str) -> Members:
    created = [members.pop(time, None) for time in ("created_at", "createdAt")]
    ids = [members.pop("id", None), members.get("run_id")]
    found = {
        "id": next((each for each in ids if not is_empty(each)), None),
        **{ours: members.pop(theirs, None) for ours, theirs in _SNAKE.items()},
        "metadata": json_object(members, "metadata"),
        **_times({"createdAt": next((t for t in created if not is_empty(t)), None)}, "createdAt"),
        **members,
    }
    found["agentName"] = plain(found["agentName"]) or ""
    found["type"] = members.get("type", "live" if is_empty(found["testInfo"]) else "test")
    for ours in ("runId", "globalRunId", "threadId"):
        if is_empty(found[ours]):
            found[ours] = None
    return found


def _write_eval(members: Members) -> Members:
    created = iso_milliseconds(members.pop("createdAt"))
    metadata, kind = members.pop("metadata", None), plain(members.pop("type"))
    tested = members.get("testInfo")
    return {
        "id": members.pop("id"),
        "input": members.pop("input", None),
        "output": members.pop("output", None),
        "result": members.pop("result", None),
        **{
            theirs: members.pop(ours, None)
            for ours, theirs in _SNAKE.items()
            if ours != "threadId" or not is_empty(members.get(ours))
        },
        "created_at": created,
        "createdAt": created,
        "metadata": "" if is_empty(metadata) else metadata,
        **({} if kind == ("live" if is_empty(tested) else "test") else {"type": kind}),
        **{name: value for name, value in members.items() if not _is_unset(name, value)},
    }


# -- resources ---------------------------------------------------------------------------------


def _read_resource(members: Members, name: str) -> Members:
    return {
        "id": members.pop("id"),
        "workingMemory": members.pop("workingMemory", None),
        "metadata": json_object(members, "metadata"),
        **_times(members, "createdAt", "updatedAt"),
        **members,
    }


def _write_resource(members: Members) -> Members:
    return {
        "id": members.pop("id"),
        "workingMemory": members.pop("workingMemory"),
        "metadata": stringified(members.pop("metadata")),
        "createdAt": iso_milliseconds(members.pop("createdAt")),
        "updatedAt": iso_milliseconds(members.pop("updatedAt")),
        **members,
    }


# Members that only our records have, and what they are while they say nothing.
_OURS: Members = {
    "error": None,
    "completedAt": None,
    "threadId": None,
    "runId": None,
    "rootRunId": None,
    "transportId": None,
    "spans": [],
    "spanDurations": {},
    "properties": {},
    "data": {},
}


def _is_unset(name: str, value: Any) -> bool:
    return name in _OURS and bool(plain(value) == _OURS[name])


_READ: dict[str, Callable[[Members, str], Members]] = {
    "threads": _read_thread,
    "messages": _read_message,
    "workflow_snapshot": _read_run,
    "traces": _read_trace,
    "evals": _read_eval,
    "resources": _read_resource,
}
_WRITE: dict[str, Callable[[Members], Members]] = {
    "threads": _write_thread,
    "messages": _write_message,
    "workflow_snapshot": _write_run,
    "traces": _write_trace,
    "evals": _write_eval,
    "resources": _write_resource,
}
