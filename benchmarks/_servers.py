"""The servers of the plugins' tests, and stores on them. They need Node.js and npm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convex_server import ConvexServer
    from kv_server import KVServer

    from mastra_storage import Storage

_PLUGINS = Path(__file__).parent.parent / "plugins"


def kv_server() -> KVServer:
    """Workers KV on this machine, its pairs in memory."""
    sys.path.append(str(_PLUGINS / "cloudflare" / "tests"))
    from kv_server import KVServer

    return KVServer.start(store="memory")


def kv_store(server: KVServer, **options: Any) -> Storage:
    """A store on it, over REST, without a limit of requests unless one is given."""
    from rest_stores import rest_store

    return rest_store(server, **options)


def convex_server() -> ConvexServer:
    """Convex on this machine, with the functions of the plugin."""
    sys.path.append(str(_PLUGINS / "convex" / "tests"))
    from convex_server import ConvexServer

    return ConvexServer.start()


def convex_store(server: ConvexServer) -> Storage:
    from mastra_storage_convex import ConvexStorage

    return ConvexStorage(server.url, server.admin_key)
