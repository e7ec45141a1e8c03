"""Without the deploy key nothing can be called, whatever the way and whatever the function."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from convex_calls import messages
from convex_server import ConvexServer
from convex_stores import convex_store

from mastra_storage import AuthenticationError, Storage, Thread

pytestmark = pytest.mark.once

SOURCES = Path(__file__).parents[1] / "mastra_storage_convex" / "functions"
EXPORT = re.compile(
    r"^export (?:(?:type|interface) \w+|\{ ?(.*?) ?\} from|(default)\b|"
    r"(?:async )?(?:const|class|function\*?) (\w+))"
    r"(?: = (\w*(?:[qQ]uery|[mM]utation|[aA]ction)\w*)\()?",
    re.MULTILINE,
)

WAYS = ("query", "mutation", "action")
CONNECT = {
    "type": "Connect",
    "sessionId": "00000000-0000-4000-8000-000000000000",
    "connectionCount": 0,
    "lastCloseReason": "InitialConnect",
    "clientTs": 0,
}
PUT = {
    "calls": [{"ops": [{"op": "deletePrefix", "table": "messages", "prefix": []}]}],
    "store": "s",
    "number": 1,
}


def module(path: Path) -> str:
    return path.relative_to(SOURCES).with_suffix("").as_posix()


def exports() -> dict[str, str | None]:
    """All values that the modules export, by path, with the builder of those that are functions."""
    found: dict[str, str | None] = {}
    for path in sorted(SOURCES.rglob("*.ts")):
        source = path.read_text(encoding="utf-8")
        lines = list(EXPORT.finditer(source))
        assert len(lines) == len(re.findall("^export", source, re.MULTILINE)), path
        for several, default, name, builder in (line.groups() for line in lines):
            for each in several.split(", ") if several else [default or name]:
                if each:
                    found[f"{module(path)}:{each}"] = builder
    return found


def functions() -> dict[str, str]:
    """The builder of each exported function, by the function's path."""
    return {path: builder for path, builder in exports().items() if builder}


def test_the_source_has_the_functions_of_the_design() -> None:
    modules = {path.partition(":")[0] for path in functions()}
    tables = {"threads", "messages", "workflowRuns", "traces", "evals", "resources", "documents"}
    assert modules == tables | {"system"}
    for table in tables:
        assert {f"{table}:get", f"{table}:list", f"{table}:count"} <= functions().keys()
    assert "system:write" in functions()


def test_all_functions_are_internal() -> None:
    assert set(functions().values()) == {"internalQuery", "internalMutation"}


class Caller:
    """Calls functions over HTTP with a key, or without."""

    def __init__(self, session: aiohttp.ClientSession, server: ConvexServer) -> None:
        self._session = session
        self._url = server.url

    async def __call__(
        self, way: str, path: str, args: Any = None, key: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        headers = {} if key is None else {"Authorization": f"Convex {key}"}
        body = {"path": path, "args": args or {}, "format": "convex_encoded_json"}
        url = f"{self._url}/api/{way}"
        async with self._session.post(url, json=body, headers=headers) as answer:
            found: dict[str, Any] = await answer.json()
            return answer.status, found


@pytest.fixture
async def call(convex: ConvexServer) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as session:
        yield Caller(session, convex)


@pytest.fixture
async def filled(convex: ConvexServer) -> AsyncIterator[Storage]:
    """A store with something that could be read or deleted."""
    async with convex_store(convex) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(messages(3))
        yield storage
        assert await storage.get_thread_by_id("t") is not None
        assert len(await storage.get_messages("t")) == 3


async def test_no_export_can_be_called_without_the_key(filled: Storage, call: Caller) -> None:
    paths = exports()
    assert len(paths) > len(functions()) > 20
    for path in paths:
        for way in WAYS:
            status, found = await call(way, path)
            assert (status, found["status"]) == (200, "error"), path
            assert "Could not find public function" in found["errorMessage"], path
            assert "value" not in found


async def test_what_is_right_but_for_the_key_is_refused_too(filled: Storage, call: Caller) -> None:
    for way, path, args in (
        ("mutation", "system:write", PUT),
        ("query", "system:version", {}),
        ("query", "system:tables", {}),
        ("query", "messages:get", {"keys": [["t", "m1"]]}),
    ):
        status, found = await call(way, path, args)
        assert (status, found["status"]) == (200, "error")
        assert "Could not find public function" in found["errorMessage"]


async def test_with_the_key_they_are_there(
    convex: ConvexServer, filled: Storage, call: Caller
) -> None:
    for path, builder in functions().items():
        way = builder.removeprefix("internal").lower()
        if path != "system:sweep":  # it takes no arguments, and would run
            status, found = await call(way, path, {"no": "such argument"}, convex.admin_key)
            assert (status, found["status"]) == (200, "error")
            assert "ArgumentValidationError" in found["errorMessage"], path
    assert await call("query", "system:version", {}, convex.admin_key) == (
        200,
        {"status": "success", "value": {"protocol": 1.0, "version": "0.1.0"}},
    )


async def test_a_wrong_key_is_refused(convex: ConvexServer, filled: Storage, call: Caller) -> None:
    for key in (convex.wrong_key, convex.admin_key[:-1], "0", f"{convex.admin_key} x"):
        for path, builder in functions().items():
            way = builder.removeprefix("internal").lower()
            status, found = await call(way, path, {}, key)
            assert status == 401, path
            assert "value" not in found
    with pytest.raises(AuthenticationError):
        await convex_store(convex, key=convex.wrong_key).open()


@asynccontextmanager
async def socket(server: ConvexServer) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    url = f"{server.url}/api/1.48.0/sync"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as opened:
        await opened.send_json(CONNECT)
        yield opened


def watch(query_id: int, path: str) -> dict[str, Any]:
    return {"type": "Add", "queryId": query_id, "udfPath": path, "args": [{}]}


async def answers(opened: aiohttp.ClientWebSocketResponse, count: int) -> list[dict[str, Any]]:
    """The outcomes of so many queries, mutations and actions, as they come."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            message = json.loads(await opened.receive_str())
            if message["type"] == "Transition":
                found += message["modifications"]
            elif message["type"] != "Ping":
                found.append(message)
    return found


async def test_nothing_can_be_called_over_a_socket_without_the_key(
    convex: ConvexServer, filled: Storage
) -> None:
    paths = list(exports())
    async with socket(convex) as opened:
        adds = [watch(number, path) for number, path in enumerate(paths)]
        await opened.send_json(
            {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": adds}
        )
        for found in await answers(opened, len(paths)):
            assert found["type"] == "QueryFailed", paths[found["queryId"]]
            assert "Could not find public function" in found["errorMessage"]
        for number, path in enumerate(paths):
            for kind in ("Mutation", "Action"):
                await opened.send_json(
                    {"type": kind, "requestId": number, "udfPath": path, "args": [{}]}
                )
        for found in await answers(opened, 2 * len(paths)):
            assert found["type"] in ("MutationResponse", "ActionResponse")
            assert not found["success"], paths[found["requestId"]]
            assert "Could not find public function" in found["result"]
        right = {"type": "Mutation", "requestId": 1000, "udfPath": "system:write", "args": [PUT]}
        await opened.send_json(right)
        [found] = await answers(opened, 1)
        assert not found["success"]


@pytest.mark.parametrize("kind", ["Admin", "User"])
async def test_a_wrong_key_is_refused_over_a_socket(
    convex: ConvexServer, filled: Storage, kind: str
) -> None:
    async with socket(convex) as opened:
        key = {"tokenType": kind, "value": convex.wrong_key, "baseVersion": 0}
        await opened.send_json({"type": "Authenticate", **key})
        [found] = await answers(opened, 1)
        assert found["type"] == "AuthError"
