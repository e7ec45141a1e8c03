"""Stores on the server of a test."""

from __future__ import annotations

from typing import Any

from convex_server import ConvexServer
from mastra_storage_convex import ConvexBackend
from mastra_storage_convex.client import Settings

from mastra_storage import Storage


def convex_backend(
    server: ConvexServer, *, key: str | None = None, timeout: float = 30.0
) -> ConvexBackend:
    """A backend on the server, with the right key unless another is given."""
    return ConvexBackend(Settings(url=server.url, key=key or server.admin_key, timeout=timeout))


def convex_store(server: ConvexServer, **options: Any) -> Storage:
    return Storage(convex_backend(server, **options))
