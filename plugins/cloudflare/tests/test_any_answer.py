"""Whatever answers in KV's place, calls give a result or a `StorageError`, and soon."""

from __future__ import annotations

import asyncio
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
from mastra_storage_cloudflare import CloudflareBackend
from mastra_storage_cloudflare.rest import RestKV

from mastra_storage import Message, MessageUpdate, Storage, StorageError, Thread
from mastra_storage.testing.strategies import json_values, texts

CALLS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "get_thread_by_id": lambda s: s.get_thread_by_id("t"),
    "get_messages": lambda s: s.get_messages("t"),
    "get_messages last": lambda s: s.get_messages("t", last=2),
    "get_messages_by_id": lambda s: s.get_messages_by_id("t", ["m"]),
    "list_threads": lambda s: s.list_threads(order_by="updated_at"),
    "get_traces": lambda s: s.get_traces(count=False),
    "get_workflow_run": lambda s: s.get_workflow_run("run"),
    "save_thread": lambda s: s.save_thread(Thread(id="t", resource_id="r")),
    "save_message": lambda s: s.save_message(Message(thread_id="t", role="user", content="")),
    "update_messages": lambda s: s.update_messages("t", [MessageUpdate("m", content="x")]),
    "delete_thread": lambda s: s.delete_thread("t"),
}
TITLES = ("threads", "messages", "traces", "workflow_snapshot")
NAMESPACES = {"result": [{"id": name, "title": f"mastra_{name}"} for name in TITLES]}

NUMBERS = st.sampled_from(["1", "9" * 18, "-1"]) | st.integers(-(10**40), 10**40).map(str) | texts()
METADATA = json_values(max_leaves=5) | st.fixed_dictionaries(
    {"o": NUMBERS, "s": NUMBERS},
    optional={
        "w": NUMBERS,
        "u": NUMBERS,
        "e": NUMBERS,
        "v": texts(),
        "k": st.lists(texts()),
        "f": st.lists(texts()),
    },
)
RECORD = (
    '{"id":"t","threadId":"t","runId":"run","workflowName":"w","resourceId":"r","role":"user",'
    '"content":1,"createdAt":"2026-01-01T00:00:00Z","updatedAt":"2026-01-01T00:00:00Z"}'
)
PLACE = "0" * 32
VALUES = st.sampled_from([RECORD, f"{PLACE}:t", PLACE]) | texts()
VALUES |= json_values(max_leaves=5).map(lambda value: msgspec.json.encode(value).decode())
PROBLEMS = st.lists(
    st.fixed_dictionaries({"code": st.sampled_from([971, 10000, 10001, 10009, 10013, 10014, 7])}),
    max_size=2,
)


class Answer(msgspec.Struct):
    """An answer to every request but the first: bytes, or what is made of the request."""

    status: int
    body: bytes | None
    value: str
    metadata: Any
    retry_after: str | None

    async def respond(self, request: web.BaseRequest) -> web.Response:
        if request.path.endswith("/namespaces"):
            return web.json_response(NAMESPACES)
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        body = self.body if self.body is not None else await self._fitting(request)
        return web.Response(status=self.status, body=body, headers=headers)

    async def _fitting(self, request: web.BaseRequest) -> bytes:
        """What has the form of an answer, with anything in it."""
        result: Any = {"unsuccessful_keys": [self.value]}
        if request.path.endswith("/bulk/get"):
            one = {"value": self.value, "metadata": self.metadata}
            result = {"values": dict.fromkeys((await request.json())["keys"], one)}
        elif request.path.endswith("/keys"):
            names = [request.query["prefix"] + self.value, request.query["prefix"] + "0" * 40]
            result = [{"name": name, "metadata": self.metadata} for name in sorted(names)]
        return msgspec.json.encode({"result": result, "success": True})


BODIES = (
    st.none()
    | st.binary(max_size=30)
    | json_values().map(msgspec.json.encode)
    | st.fixed_dictionaries(
        {"result": json_values(), "success": st.booleans(), "errors": PROBLEMS},
        optional={"result_info": json_values(max_leaves=3)},
    ).map(msgspec.json.encode)
)
ANSWERS = st.builds(
    Answer,
    status=st.sampled_from([200, 200, 200, 204, 301, 400, 401, 403, 404, 413, 429, 500, 503, 530]),
    body=BODIES,
    value=VALUES,
    metadata=METADATA,
    retry_after=st.none() | st.sampled_from(["0", "-1", "soon", "1e400", "NaN", "999999999999"]),
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mastra_storage_cloudflare.client._BACKOFF", tenacity.wait_none())
    monkeypatch.setattr("mastra_storage_cloudflare.client._ATTEMPTS", 2)
    monkeypatch.setattr("mastra_storage_cloudflare.rest._ATTEMPTS", 2)
    monkeypatch.setattr("mastra_storage_cloudflare.rest._SECONDS_BETWEEN_WRITES", 0.0)


@pytest.mark.usefixtures("impatient")
@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(Answer(200, None, "x", {"o": "x", "s": "1"}, None), "get_messages")
@example(Answer(200, None, "x", {"o": "1", "s": "1"}, None), "get_messages last")
@example(Answer(200, None, RECORD, {"o": "1", "s": "1", "w": "9" * 18}, None), "get_thread_by_id")
@given(ANSWERS, st.sampled_from([*CALLS]))
def test_only_errors_of_this_library_come_out(answer: Answer, name: str) -> None:
    asyncio.run(ask(answer, CALLS[name]))


async def ask(answer: Answer, call: Callable[[Storage], Awaitable[Any]]) -> None:
    async with RawTestServer(answer.respond) as server:
        kv = RestKV("account", "token", base_url=str(server.make_url("/")), timeout=5.0)
        storage = Storage(CloudflareBackend(kv, key_interval=0))
        await storage.open()
        with suppress(StorageError):
            async with asyncio.timeout(20):
                await call(storage)
        with suppress(StorageError):  # touches that could not be written
            await storage.close()
