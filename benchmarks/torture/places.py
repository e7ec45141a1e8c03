"""The stores under torture, and the servers behind them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec import Struct, structs

from mastra_storage import Backend, Capabilities
from mastra_storage.backends.sqlite import SqliteBackend

PLUGINS = Path(__file__).parents[2] / "plugins"
# Calls are given up sooner than by default, so that a campaign sees more of them.
TIMEOUT = 3.0
# How long a process waits for the lock of the SQLite file.
BUSY_TIMEOUT = 2.0
# A key of KV takes one write in this time; a second on the real one.
KEY_INTERVAL = 0.2
# Watches of KV look so often; every 5 seconds by default.
POLL_INTERVAL = 1.0
# What KV shows may be so old; the service's 60 seconds in small.
STALE_SECONDS = 0.4


class Place(Struct, frozen=True, kw_only=True):
    """Where a store is: all that a process needs to open one."""

    name: str
    url: str = ""
    key: str = ""
    account: str = ""

    def backend(self) -> Backend:
        """A backend there, not open yet."""
        if self.name == "sqlite":
            return SqliteBackend(self.url, busy_timeout=BUSY_TIMEOUT)
        if self.name == "cloudflare":
            from mastra_storage_cloudflare import CloudflareBackend
            from mastra_storage_cloudflare.rest import RestKV

            kv = RestKV(
                self.account, self.key, base_url=self.url, timeout=TIMEOUT, rate_limit=10**9
            )
            backend = CloudflareBackend(kv, key_interval=KEY_INTERVAL)
            backend.capabilities = structs.replace(
                backend.capabilities, poll_interval=POLL_INTERVAL
            )
            return backend
        from mastra_storage_convex import ConvexBackend
        from mastra_storage_convex.client import Settings

        return ConvexBackend(Settings(url=self.url, key=self.key, timeout=TIMEOUT))


def promised(name: str) -> Capabilities:
    """What a backend declares."""
    if name == "sqlite":
        return SqliteBackend.capabilities
    if name == "cloudflare":
        from mastra_storage_cloudflare import CloudflareBackend

        return CloudflareBackend.capabilities
    from mastra_storage_convex import ConvexBackend

    return ConvexBackend.capabilities


def module_of_tests(plugin: str, name: str) -> Any:
    """A module of a plugin's tests, which has its server."""
    path = PLUGINS / plugin / "tests" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
