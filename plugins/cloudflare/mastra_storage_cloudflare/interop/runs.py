"""Workflow runs, traces and evals of the TypeScript store as ours, and ours as its."""

from __future__ import annotations

from typing import Any

from mastra_storage_cloudflare.interop.values import (
    FormError,
    Members,
    is_empty,
    iso_milliseconds,
    json_array,
    json_object,
    milliseconds,
    optional,
    parsed,
    parsed_container,
    plain,
    stringified,
    time_text,
    times,
)

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


# -- workflow snapshots ------------------------------------------------------------------------


_RUN_TIMES = ("createdAt", "updatedAt")


def _status_of(snapshot: Any) -> str | None:
    """The status that a snapshot states."""
    found = plain(snapshot)
    status = plain(found.get("status")) if isinstance(found, dict) else None
    return status if isinstance(status, str) else None


def read_run(members: Members, name: str) -> Members:
    if "snapshot" not in members:
        return _read_bare_snapshot(members, name)
    snapshot = parsed(members.pop("snapshot"))
    return {
        "runId": members.pop("run_id"),
        "workflowName": members.pop("workflow_name"),
        **optional(members, "resourceId"),
        "snapshot": snapshot,
        # Later snapshots may not state the status; then it stays.
        "status": members.pop("status", _status_of(snapshot)),
        **times(members, *_RUN_TIMES),
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
        **times({"createdAt": members.get("timestamp", 0), "updatedAt": None}, *_RUN_TIMES),
    }


def write_run(members: Members) -> Members:
    snapshot = members.pop("snapshot", None)
    status = plain(members.pop("status", None))
    return {
        "workflow_name": members.pop("workflowName"),
        "run_id": members.pop("runId"),
        **optional(members, "resourceId"),
        "snapshot": stringified(snapshot),
        "createdAt": iso_milliseconds(members.pop("createdAt")),
        "updatedAt": iso_milliseconds(members.pop("updatedAt")),
        **({} if status in (None, _status_of(snapshot)) else {"status": status}),
        **{name: value for name, value in members.items() if not _is_unset(name, value)},
    }


# -- traces ------------------------------------------------------------------------------------


def read_trace(members: Members, name: str) -> Members:
    started = time_text(members.pop("startTime", None), "startTime")
    ended = time_text(members.pop("endTime", None), "endTime")
    return {
        "id": members.pop("id"),
        **optional(members, "parentSpanId", "traceId"),
        "name": plain(members.pop("name", None)) or "",
        "attributes": json_object(members, "attributes"),
        "status": parsed_container(members.pop("status", None)),
        "events": json_array(members, "events"),
        "links": json_array(members, "links"),
        **({} if started is None else {"startedAt": started}),
        **({} if ended is None else {"endedAt": ended}),
        **times(members, "createdAt"),
        **members,
    }


def write_trace(members: Members) -> Members:
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


def read_eval(members: Members, name: str) -> Members:
    created = [members.pop(time, None) for time in ("created_at", "createdAt")]
    ids = [members.pop("id", None), members.get("run_id")]
    found = {
        "id": next((each for each in ids if not is_empty(each)), None),
        **{ours: members.pop(theirs, None) for ours, theirs in _SNAKE.items()},
        "metadata": json_object(members, "metadata"),
        **times({"createdAt": next((t for t in created if not is_empty(t)), None)}, "createdAt"),
        **members,
    }
    found["agentName"] = plain(found["agentName"]) or ""
    found["type"] = members.get("type", "live" if is_empty(found["testInfo"]) else "test")
    for ours in ("runId", "globalRunId", "threadId"):
        if is_empty(found[ours]):
            found[ours] = None
    return found


def write_eval(members: Members) -> Members:
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
