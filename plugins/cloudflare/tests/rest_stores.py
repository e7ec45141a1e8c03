"""Stores over REST on the server of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kv_server import KVServer
from mastra_storage_cloudflare import CloudflareBackend
from mastra_storage_cloudflare.rest import RestKV

from mastra_storage import Storage

NO_LIMIT = 10**6


def rest_backend(
    server: KVServer,
    *,
    prefix: str = "",
    timeout: float = 30.0,
    rate_limit: int = NO_LIMIT,
    token: str | None = None,
    direct: bool = False,
    **options: Any,
) -> CloudflareBackend:
    """A backend on the server, which has no limit of requests unless a test sets one.

    `direct`: at the server's `direct_url`.
    """
    kv = RestKV(
        server.account_id,
        token or server.token,
        prefix=prefix,
        base_url=server.direct_url if direct else server.url,
        timeout=timeout,
        rate_limit=rate_limit,
    )
    return CloudflareBackend(kv, prefix=prefix, **options)


def rest_store(server: KVServer, **options: Any) -> Storage:
    return Storage(rest_backend(server, **options))


@asynccontextmanager
async def requests_of(server: KVServer) -> AsyncIterator[list[str]]:
    """The requests that reach the server inside `async with`; those that write touches apart."""
    await server.control(reset=True, recordBodies=True)
    requests: list[str] = []
    yield requests
    requests += [
        entry["route"]
        for entry in await server.log()
        if not (".touched:" in (entry.get("body") or "") and entry["route"] == "PUT bulk")
    ]
