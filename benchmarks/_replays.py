"""Sequences of requests that others would send to Workers KV, sent for real.

`TypeScript` sends what `@mastra/cloudflare` sends: before every operation it looks up the
namespace. `OfficialSDK` is the `cloudflare` package, its calls in `asyncio.gather`. Both find
values of about 1 KB, and an order list of 1,000 messages, under keys made for them. `Bare` sends
once more what this library itself sent.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import aiohttp
import httpx
import msgspec
import yarl
from _conversations import message_of

if TYPE_CHECKING:
    from kv_server import KVServer

KEYS = 1_000
# What the library says of a key, about.
_METADATA = {"o": "1741597200000000", "s": "1791234567890123776", "w": "1791234567890123", "v": "0"}
# A step of more operations than this is measured over so many, and the time scaled.
_SERIAL, _PARALLEL = 15, 500
# Seconds; workerd closes idle connections after 5.
_KEEP_ALIVE = 4.0

Operation = Literal["get", "put", "delete", "list", "get order", "put order"]


class Step(NamedTuple):
    """A number of operations, one after the other or all at once."""

    operation: Operation
    number: int = 1
    parallel: bool = False

    @property
    def measured(self) -> int:
        return min(self.number, _PARALLEL if self.parallel else _SERIAL)


class Replay(ABC):
    """Sends steps, all of them or as many as tell how long all would take."""

    requests_each = 1
    most_connections = 1000  # that are kept

    def __init__(self, server: KVServer) -> None:
        self._server = server

    @abstractmethod
    async def operate(self, operation: Operation, number: int) -> None: ...

    async def step(self, step: Step, count: int) -> None:
        if step.parallel:
            await asyncio.gather(*[self.operate(step.operation, n) for n in range(count)])
            return
        for number in range(count):
            await self.operate(step.operation, number)

    async def run(self, steps: Sequence[Step]) -> float:
        """Send the steps; the seconds that all of them would take."""
        clock = asyncio.get_running_loop().time
        seconds = 0.0
        for step in steps:
            start = clock()
            await self.step(step, step.measured)
            seconds += (clock() - start) * step.number / step.measured
        return seconds

    async def connect(self, steps: Sequence[Step]) -> None:
        """Have as many connections as the steps need at once."""
        widest = max(step.measured if step.parallel else 1 for step in steps)
        widest = min(widest, self.most_connections)
        await self.step(Step("get", widest, parallel=True), widest)

    def requests(self, steps: Sequence[Step]) -> int:
        return self.requests_each * sum(step.number for step in steps)


def _key(operation: Operation, number: int) -> str:
    if operation.endswith("order"):
        return "order"
    return f"{'m' if operation == 'get' else 'p'}:{number % KEYS}"


class TypeScript(Replay):
    """The requests of the TypeScript store, over as many connections as it likes."""

    requests_each = 2

    async def open(self) -> None:
        self._base = (
            f"{self._server.direct_url}/accounts/{self._server.account_id}/storage/kv/namespaces"
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
            headers={"Authorization": f"Bearer {self._server.token}"},
            raise_for_status=True,
        )
        title = {"title": "replay_mastra_threads"}
        async with self._session.post(self._base, json=title) as answer:
            self.namespace: str = (await answer.json())["result"]["id"]
        values = [msgspec.json.encode(message_of("replay", n)).decode() for n in range(KEYS)]
        order = [{"id": f"message-{n:032d}", "score": n} for n in range(KEYS)]
        self._value, self._order = values[0], msgspec.json.encode(order).decode()
        pairs = [{"key": f"m:{n}", "value": value} for n, value in enumerate(values)]
        pairs.append({"key": "order", "value": self._order})
        async with self._session.put(f"{self._base}/{self.namespace}/bulk", json=pairs) as answer:
            await answer.read()

    async def close(self) -> None:
        await self._session.close()

    async def operate(self, operation: Operation, number: int) -> None:
        query = {"page": "1", "per_page": "50"}
        async with self._session.get(self._base, params=query) as answer:
            msgspec.json.decode(await answer.read())
        space = f"{self._base}/{self.namespace}"
        url = yarl.URL(f"{space}/values/{_key(operation, number)}", encoded=True)
        if operation == "list":
            limit = {"prefix": "m:", "limit": "1000"}
            async with self._session.get(f"{space}/keys", params=limit) as answer:
                msgspec.json.decode(await answer.read())
        elif operation.startswith("get"):
            async with self._session.get(url) as answer:
                msgspec.json.decode(await answer.read())
        elif operation == "delete":
            async with self._session.delete(url) as answer:
                await answer.read()
        else:
            form = aiohttp.FormData(default_to_multipart=True)
            form.add_field("value", self._order if operation == "put order" else self._value)
            async with self._session.put(url, data=form) as answer:
                await answer.read()


class Bare:
    """The requests of a call once more, by aiohttp alone: nothing is done with the answers.

    Those of one route and namespace go out at once. What it takes without any delay is what
    the server, HTTP and the machine take of the time of a call.
    """

    def __init__(self, server: KVServer) -> None:
        self._server = server
        self._origin = str(yarl.URL(server.direct_url).origin())

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
            headers={"Authorization": f"Bearer {self._server.token}"},
            raise_for_status=True,
        )

    async def close(self) -> None:
        await self._session.close()

    async def connect(self, count: int) -> None:
        """Have so many connections."""
        space = f"/client/v4/accounts/{self._server.account_id}/storage/kv/namespaces"
        listing = {"route": "GET namespaces", "target": space, "body": ""}
        await asyncio.gather(*[self._send(listing) for _ in range(count)])

    async def run(self, log: Sequence[dict[str, Any]]) -> None:
        """`log`: the entries of the server, with bodies."""
        waves: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for entry in log:
            waves.setdefault((entry["route"], entry["namespace"]), []).append(entry)
        for wave in waves.values():
            await asyncio.gather(*[self._send(entry) for entry in wave])

    async def put_back(self, log: Sequence[dict[str, Any]]) -> None:
        """Store keys once more that a call deleted, so that its requests find them."""
        for entry in log:
            if entry["route"] == "POST bulk/delete":
                keys = msgspec.json.decode(entry["body"], type=list[str])
                pairs = [{"key": key, "value": "1", "metadata": _METADATA} for key in keys]
                body, target = msgspec.json.encode(pairs).decode(), entry["target"]
                target = target.removesuffix("/delete")
                await self._send({"route": "PUT bulk", "target": target, "body": body})

    async def _send(self, entry: dict[str, Any]) -> None:
        method, _, _ = entry["route"].partition(" ")
        url = yarl.URL(self._origin + entry["target"], encoded=True)
        body = entry["body"].encode() or None
        headers = {"Content-Type": "application/json"} if body else None
        async with self._session.request(method, url, data=body, headers=headers) as answer:
            await answer.read()


class OfficialSDK(Replay):
    """The `cloudflare` package; it knows its namespace."""

    most_connections = 20

    def __init__(self, server: KVServer, namespace: str) -> None:
        super().__init__(server)
        self._where = {"account_id": server.account_id, "namespace_id": namespace}

    async def open(self) -> None:
        from cloudflare import AsyncCloudflare, DefaultAsyncHttpxClient

        # As many connections as the SDK has by itself.
        limits = httpx.Limits(
            max_connections=100,
            max_keepalive_connections=self.most_connections,
            keepalive_expiry=_KEEP_ALIVE,
        )
        self._client = AsyncCloudflare(
            api_token=self._server.token,
            base_url=self._server.direct_url,
            http_client=DefaultAsyncHttpxClient(limits=limits),
        )
        self._value = msgspec.json.encode(message_of("replay", 0))

    async def close(self) -> None:
        await self._client.close()

    async def operate(self, operation: Operation, number: int) -> None:
        api: Any = self._client.kv.namespaces
        key = _key(operation, number)
        if operation == "list":
            await api.keys.list(**self._where, prefix="m:", limit=1000)
        elif operation.startswith("get"):
            answer = await api.values.get(key, **self._where)
            msgspec.json.decode(await answer.read())
        elif operation == "delete":
            await api.values.delete(key, **self._where)
        else:
            await api.values.update(key, **self._where, value=self._value, metadata={"v": 1})
