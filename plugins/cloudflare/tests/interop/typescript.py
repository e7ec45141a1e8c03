"""What the TypeScript store leaves in KV, written as raw bytes over the REST API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
from kv_server import KVServer
from mastra_storage_cloudflare.interop import InteropBackend, title_prefix
from mastra_storage_cloudflare.rest import RestKV
from yarl import URL

from mastra_storage import Storage

PREFIX = "myapp_"


def stringify(value: Any) -> str:
    """As `JSON.stringify` writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sdk_envelope(value: str) -> str:
    """What releases 4.0.0 to 4.4.1 of Cloudflare's SDK made of a value that they stored."""
    return json.dumps({"value": value, "metadata": ""}, ensure_ascii=False, indent=2)


def binding_envelope(value: str) -> str:
    return stringify({"value": value, "metadata": None, "cacheStatus": None})


class RawKV:
    """Requests of the REST API, without anything of ours in between."""

    def __init__(self, server: KVServer, session: aiohttp.ClientSession) -> None:
        self._root = f"{server.url}/accounts/{server.account_id}/storage/kv/namespaces"
        self._headers = {"Authorization": f"Bearer {server.token}"}
        self._session = session

    async def _send(self, method: str, path: str = "", **options: Any) -> bytes:
        url = URL(self._root + path, encoded=True)
        async with self._session.request(method, url, headers=self._headers, **options) as response:
            body = await response.read()
            assert response.status == 200, body
            return body

    async def titles(self) -> dict[str, str]:
        """The ids of the namespaces by title."""
        found = json.loads(await self._send("GET", "?per_page=100"))["result"]
        return {each["title"]: each["id"] for each in found}

    async def _id(self, title: str) -> str:
        found = await self.titles()
        if title in found:
            return found[title]
        made = json.loads(await self._send("POST", json={"title": title}))
        return str(made["result"]["id"])

    async def put(self, title: str, key: str, value: Any) -> None:
        """Store a text as it is, anything else as JSON; the namespace is made when missing."""
        text = value if isinstance(value, str) else stringify(value)
        path = f"/{await self._id(title)}/values/{quote(key, safe='')}"
        await self._send("PUT", path, data=text.encode())

    async def put_many(self, title: str, values: dict[str, Any]) -> None:
        pairs = [{"key": key, "value": stringify(value)} for key, value in values.items()]
        await self._send("PUT", f"/{await self._id(title)}/bulk", json=pairs)

    async def text(self, title: str, key: str) -> str:
        path = f"/{await self._id(title)}/values/{quote(key, safe='')}"
        return (await self._send("GET", path)).decode()

    async def json(self, title: str, key: str) -> Any:
        return json.loads(await self.text(title, key))

    async def delete(self, title: str, key: str) -> None:
        await self._send("DELETE", f"/{await self._id(title)}/values/{quote(key, safe='')}")

    async def listed(self, title: str) -> list[dict[str, Any]]:
        """The keys of a namespace with what is beside them; no more than a thousand."""
        found = json.loads(await self._send("GET", f"/{await self._id(title)}/keys"))
        return list(found["result"])

    async def keys(self, title: str) -> list[str]:
        return [each["name"] for each in await self.listed(title)]


@asynccontextmanager
async def raw_kv(server: KVServer) -> AsyncIterator[RawKV]:
    async with aiohttp.ClientSession() as session:
        yield RawKV(server, session)


def interop_backend(
    server: KVServer, *, prefix: str = PREFIX, key_interval: float = 0.0, **options: Any
) -> InteropBackend:
    """A backend on the server, without limits of requests and of writes to a key."""
    kv = RestKV(
        server.account_id,
        server.token,
        prefix=title_prefix(prefix),
        base_url=server.url,
        rate_limit=10**6,
    )
    return InteropBackend(kv, prefix=prefix, key_interval=key_interval, **options)


def interop_store(server: KVServer, **options: Any) -> Storage:
    return Storage(interop_backend(server, **options))


THREAD = {
    "id": "t1",
    "resourceId": "user-1",
    "title": "Flüge 🛫",
    "metadata": {"topic": "travel", "n": 1.0},
    "createdAt": "2025-06-01T12:00:00.000Z",
    "updatedAt": "2025-06-01T12:00:05.250Z",
}


def thread(**changes: Any) -> dict[str, Any]:
    return THREAD | changes


def message(
    message_id: str, at: str = "2025-06-01T12:00:00.000Z", **changes: Any
) -> dict[str, Any]:
    """A message as the newer releases store it."""
    return {
        "id": message_id,
        "threadId": "t1",
        "resourceId": "user-1",
        "role": "user",
        "type": "v2",
        "content": {"format": 2, "parts": [{"type": "text", "text": f"{message_id} é"}]},
        "createdAt": at,
    } | changes
