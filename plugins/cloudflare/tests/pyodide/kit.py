"""The conformance kit, run inside Pyodide.

pytest collects it as anywhere; it cannot run it, since there is one event loop here and nobody
can wait for it. So each test's fixtures and the test itself are awaited one after the other.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import traceback
import warnings
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bindings import KV11  # type: ignore[import-not-found]
from mastra_storage_cloudflare import CloudflareBackend
from mastra_storage_cloudflare.binding import BindingKV
from msgspec import structs

from mastra_storage import Backend
from mastra_storage.testing import StorageConformance

_stores = count()

# One that hangs fails by its name, and the others run.
_TEST_SECONDS = 60.0


class _Backend(CloudflareBackend):
    capabilities = structs.replace(CloudflareBackend.capabilities, poll_interval=0.05)


class TestBinding(StorageConformance):
    @pytest.fixture
    def make_backend(self) -> Callable[[], Backend]:
        prefix = f"kit{next(_stores)}_"
        kv = BindingKV({"default": KV11}, prefix=prefix)
        return lambda: _Backend(kv, prefix=prefix, key_interval=0)


class _Collected:
    """A pytest plugin that keeps what was collected."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.items = items


async def run() -> str:
    """Run the quick tests: `{"passed": [...], "skipped": {name: why}, "failed": {name: why}}`."""
    collected = _Collected()
    options = ["--collect-only", "--noconftest", "--capture=no", "-pno:terminal"]
    options += ["-pno:cacheprovider", "-pno:faulthandler", "--disable-plugin-autoload"]
    options += ["-Wignore::pytest.PytestUnknownMarkWarning", "--rootdir=/", __file__]
    assert pytest.main(options, plugins=[collected]) == 0
    passed: list[str] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    warnings.simplefilter("error")
    for item in collected.items:
        name = f"{Path(inspect.getfile(item.function)).stem}: {item.name}"
        if hasattr(item.function, "kit_full"):
            continue
        try:
            async with asyncio.timeout(_TEST_SECONDS):
                await _run(item)
        except pytest.skip.Exception as exc:
            skipped[name] = str(exc)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - tests fail with anything
            failed[name] = traceback.format_exc()
        else:
            passed.append(name)
    return json.dumps({"passed": passed, "skipped": skipped, "failed": failed})


async def _run(item: Any) -> None:
    """Run one test that was collected, with its fixtures."""
    async with AsyncExitStack() as stack:
        fixtures = _Fixtures(item, stack)
        arguments = {name: await fixtures.get(name) for name in item._fixtureinfo.argnames}
        await getattr(fixtures.instance, item.function.__name__)(**arguments)


class _Fixtures:
    """The fixtures of one test, which are methods of its class, and its parameters."""

    def __init__(self, item: Any, stack: AsyncExitStack) -> None:
        self.instance = item.cls()
        self._definitions = item._fixtureinfo.name2fixturedefs
        self._parameters = item.callspec.params if hasattr(item, "callspec") else {}
        self._stack = stack
        self._made: dict[str, Any] = {}

    async def get(self, name: str) -> Any:
        if name not in self._made:
            is_fixture = hasattr(self.instance, name)
            self._made[name] = await self._make(name) if is_fixture else self._parameters[name]
        return self._made[name]

    async def _make(self, name: str) -> Any:
        definition = self._definitions[name][-1]
        function = getattr(definition.func, "__func__", definition.func)
        arguments = {
            needed: SimpleNamespace(param=self._parameters[name])
            if needed == "request"
            else await self.get(needed)
            for needed in definition.argnames
        }
        if inspect.isasyncgenfunction(function):
            manager = asynccontextmanager(function)(self.instance, **arguments)
            return await self._stack.enter_async_context(manager)
        value = function(self.instance, **arguments)
        return await value if inspect.isawaitable(value) else value
