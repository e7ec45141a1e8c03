"""Whatever answers in Convex's place, calls give a result or a `StorageError`, and soon."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import tenacity
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mastra_storage_convex import ConvexBackend
from mastra_storage_convex.client import Settings
from mastra_storage_convex.wire import PROTOCOL, int64

from mastra_storage import Message, MessageUpdate, Storage, StorageError, Thread
from mastra_storage.testing.strategies import json_values, texts

CALLS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "get_thread_by_id": lambda s: s.get_thread_by_id("t"),
    "get_messages": lambda s: s.get_messages("t"),
    "get_messages last": lambda s: s.get_messages("t", last=2),
    "get_messages_paginated": lambda s: s.get_messages_paginated("t", page=1),
    "get_messages_by_id": lambda s: s.get_messages_by_id("t", ["m", "n"]),
    "list_threads": lambda s: s.list_threads(order_by="updated_at"),
    "get_workflow_run": lambda s: s.get_workflow_run("run"),
    "save_thread": lambda s: s.save_thread(Thread(id="t", resource_id="r")),
    "save_message": lambda s: s.save_message(Message(thread_id="t", role="user", content="")),
    "update_messages": lambda s: s.update_messages("t", [MessageUpdate("m", content="x")]),
    "delete_thread": lambda s: s.delete_thread("t"),
    "tables": lambda s: s.backend.tables(),
}
VERSION = {"status": "success", "value": {"protocol": float(PROTOCOL), "version": "1"}}

INT64 = (st.binary(min_size=8, max_size=8) | st.just(bytes(8)) | st.binary(max_size=12)).map(
    lambda data: {"$integer": base64.b64encode(data).decode()}
)
JSON_TEXT = json_values(max_leaves=4).map(lambda value: msgspec.json.encode(value).decode())
TIME = st.just("2026-01-01T00:00:00Z") | texts(max_size=5)
ROW = st.fixed_dictionaries(
    {"order": INT64, "seq": INT64, "updated": INT64, "version": texts(max_size=5)},
    optional={"touched": INT64, "expiresAt": INT64},
)
DOCUMENT = st.fixed_dictionaries(
    {
        "id": st.just("m") | texts(max_size=3),
        "threadId": st.just("t") | texts(max_size=3),
        "resourceId": st.just("r") | st.none(),
        "role": texts(max_size=3),
        "type": texts(max_size=3),
        "title": texts(max_size=3),
        "content": JSON_TEXT | texts(max_size=4) | st.none(),
        "metadata": st.just("{}") | JSON_TEXT | texts(max_size=4),
        "createdAt": TIME,
        "updatedAt": TIME,
        "row": ROW,
    },
    optional={"extra": JSON_TEXT | texts(max_size=4), "unknown": json_values(max_leaves=2)},
)
POSITION = st.none() | st.fixed_dictionaries(
    {"order": INT64, "seq": INT64, "key": st.lists(texts(max_size=3), max_size=3)}
)
OUTCOME = st.fixed_dictionaries(
    {"status": st.sampled_from(["ok", "conflict", "missing", "large", "full", "gone"])},
    optional={"table": st.sampled_from(["threads", ""]), "key": st.just(["t"])},
)
LISTS = st.lists(DOCUMENT, max_size=3)
RESULTS = st.one_of(
    json_values(),
    st.fixed_dictionaries(
        {
            "rows": LISTS | st.lists(DOCUMENT | st.none(), max_size=2),
            "skipped": st.sampled_from([0.0, 1.0, -1.0, 1e300]),
            "count": st.sampled_from([0.0, 2.0, 0.5, -1.0, 1e300]),
            "next": POSITION,
            "outcomes": st.lists(OUTCOME, max_size=3),
            "core": st.lists(texts(max_size=4), max_size=2),
            "documents": st.lists(texts(max_size=4), max_size=2),
        }
    ),
)
BODIES = st.one_of(
    st.binary(max_size=30),
    json_values().map(msgspec.json.encode),
    RESULTS.map(lambda value: msgspec.json.encode({"status": "success", "value": value})),
    RESULTS.map(lambda value: msgspec.json.encode({"status": "success", "value": value})),
    st.fixed_dictionaries(
        {"status": st.sampled_from(["error", "success"]) | texts(max_size=3)},
        optional={"errorMessage": texts() | st.integers(), "errorData": json_values(max_leaves=3)},
    ).map(msgspec.json.encode),
)


class Answer(msgspec.Struct):
    """An answer to every call but that of the version."""

    status: int
    body: bytes
    retry_after: str | None

    async def respond(self, request: web.BaseRequest) -> web.Response:
        if (await request.json())["path"] == "system:version":
            return web.json_response(VERSION)
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        return web.Response(status=self.status, body=self.body, headers=headers)


def listed(next_: Any = None, **changes: Any) -> Answer:
    """An answer that lists one document, which is fine but for the changes."""
    number = int64(2**60)
    document = {
        **dict.fromkeys(["id", "threadId", "resourceId", "role", "type", "title"], "t"),
        **dict.fromkeys(["createdAt", "updatedAt"], "2026-01-01T00:00:00Z"),
        "content": "1",
        "metadata": "{}",
        "row": {"order": number, "seq": number, "updated": int64(0), "version": "v"},
    }
    value = {"rows": [document | changes], "skipped": 0.0, "count": 1.0, "next": next_}
    return Answer(200, msgspec.json.encode({"status": "success", "value": value}), None)


def touched(at: Any) -> dict[str, Any]:
    return {"order": int64(0), "seq": int64(0), "updated": int64(0), "version": "", "touched": at}


WHERE = {"order": int64(7), "seq": int64(7), "key": ["t", "m"]}

ANSWERS = st.builds(
    Answer,
    status=st.sampled_from([200, 200, 200, 204, 301, 400, 401, 403, 404, 413, 429, 500, 503, 530]),
    body=BODIES,
    retry_after=st.none() | st.sampled_from(["0", "-1", "soon", "1e400", "NaN", "999999999999"]),
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mastra_storage_convex.client._BACKOFF", tenacity.wait_none())
    monkeypatch.setattr("mastra_storage_convex.client._ATTEMPTS", 2)


@pytest.mark.usefixtures("impatient")
@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(listed(extra="[1]"), "get_messages")
@example(listed(extra="{}", content="x"), "get_messages")
@example(listed(row=touched(int64(2**63 - 1))), "get_thread_by_id")
@example(listed(next_=WHERE), "get_messages")
@example(listed(next_=WHERE), "get_messages_paginated")
@example(listed(next_=WHERE), "list_threads")
@given(ANSWERS, st.sampled_from([*CALLS]))
def test_only_errors_of_this_library_come_out(answer: Answer, name: str) -> None:
    asyncio.run(ask(answer, CALLS[name]))


async def ask(answer: Answer, call: Callable[[Storage], Awaitable[Any]]) -> None:
    async with RawTestServer(answer.respond) as server:
        url = str(server.make_url("/")).rstrip("/")
        storage = Storage(ConvexBackend(Settings(url=url, key="key", timeout=5.0)))
        await storage.open()
        with suppress(StorageError):
            async with asyncio.timeout(20):
                await call(storage)
        await storage.close()
