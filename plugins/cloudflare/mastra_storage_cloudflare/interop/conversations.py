"""Threads, messages and resources of the TypeScript store as ours, and ours as its."""

from __future__ import annotations

from mastra_storage_cloudflare.interop.values import (
    Members,
    iso_milliseconds,
    json_object,
    optional,
    plain,
    stringified,
    times,
)

# What TypeScript stores as the type of a message that was given none.
_UNTYPED = "v2"
_TEXT = "text"


# -- threads -----------------------------------------------------------------------------------


def read_thread(members: Members, name: str) -> Members:
    return {
        "id": members.pop("id"),
        "resourceId": members.pop("resourceId"),
        "title": plain(members.pop("title", None)) or "",
        "metadata": json_object(members, "metadata"),
        **times(members, "createdAt", "updatedAt"),
        **members,
    }


def write_thread(members: Members) -> Members:
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


def read_message(members: Members, name: str) -> Members:
    kind = plain(members.pop("type", None))
    return {
        "id": members.pop("id"),
        "threadId": members.pop("threadId"),
        "role": members.pop("role"),
        "content": members.pop("content", None),
        "type": _TEXT if kind in (None, "", _UNTYPED) else kind,
        **optional(members, "resourceId"),
        "metadata": json_object(members, "metadata"),
        **times(members, "createdAt"),
        **members,
    }


def write_message(members: Members) -> Members:
    kind = plain(members.pop("type"))
    return {
        "id": members.pop("id"),
        "threadId": members.pop("threadId"),
        **optional(members, "resourceId"),
        "role": members.pop("role"),
        "type": _UNTYPED if kind == _TEXT else kind,
        "content": members.pop("content"),
        "createdAt": iso_milliseconds(members.pop("createdAt")),
        **optional(members, "metadata"),
        **members,
    }


# -- resources ---------------------------------------------------------------------------------


def read_resource(members: Members, name: str) -> Members:
    return {
        "id": members.pop("id"),
        "workingMemory": members.pop("workingMemory", None),
        "metadata": json_object(members, "metadata"),
        **times(members, "createdAt", "updatedAt"),
        **members,
    }


def write_resource(members: Members) -> Members:
    return {
        "id": members.pop("id"),
        "workingMemory": members.pop("workingMemory"),
        "metadata": stringified(members.pop("metadata")),
        "createdAt": iso_milliseconds(members.pop("createdAt")),
        "updatedAt": iso_milliseconds(members.pop("updatedAt")),
        **members,
    }
