"""What the tests of the bindings do inside Pyodide. Each gives its findings as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import bindings  # type: ignore[import-not-found]
from mastra_storage_cloudflare import CloudflareStore, binding
from mastra_storage_cloudflare.binding import BindingKV
from mastra_storage_cloudflare.kv import MAX_VALUE_BYTES, Pair
from msgspec import structs
from plugin_tests.conversations import conversation, differing, save  # type: ignore[import-not-found]

from mastra_storage import Message, PartialWriteError, StorageError, Thread

MIB = 2**20
_ALL = range(24)


async def conversations(*, wrapped: bool) -> str:
    """24 conversations, in with one store and out with another: those that differ."""
    kv: Any = bindings.KV10
    if wrapped:
        kv = _workers_sdk().rpc._BindingWrapper(kv)
    options: dict[str, Any] = {
        "bindings": {"default": kv},
        "key_prefix": f"chats{wrapped:d}_",
        "key_interval": 0,
    }
    async with CloudflareStore(**options) as storage:
        await save(storage, _ALL)
    async with CloudflareStore(**options) as storage:
        listed = await storage.list_threads(resource_id="user:1")
        await storage.delete_thread(listed.items[0].id)
        left = await storage.list_threads(resource_id="user:1")
        return json.dumps(
            {
                "differing": await differing(storage, _ALL),
                "deleted": listed.items[0].id,
                "totals": [listed.total, left.total],
                "tables": sorted(await storage.backend.tables()),
                "missing": await storage.get_thread_by_id("nowhere"),
            }
        )


async def interop() -> str:
    """A conversation in the TypeScript layout: the keys that it takes, and what is read again."""
    kv = BindingKV({"default": bindings.KV6})
    options: dict[str, Any] = {"bindings": {"default": bindings.KV6}, "interop": "mastra"}
    thread, messages = conversation(0)
    async with CloudflareStore(key_prefix="ts", key_interval=0, **options) as storage:
        await storage.save_thread(structs.replace(thread, id="t"))
        await storage.save_messages(
            [structs.replace(m, id=m.role, thread_id="t") for m in messages]
        )
    async with CloudflareStore(key_prefix="ts", **options) as storage:
        found = await storage.get_messages("t")
    listing = await kv.keys("any", "", limit=100)
    same = [m.content for m in found] == [m.content for m in messages]
    return json.dumps({"keys": [entry.key for entry in listing.entries], "same": same})


async def shared(*, prefix: str, read: tuple[int, int], write: tuple[int, int]) -> str:
    """Conversations of the namespaces that the REST API serves, and new ones into them."""
    found: dict[str, Any] = {}
    for name in dir(bindings):
        if name.startswith("KV"):
            kv = getattr(bindings, name)
            for table in ("threads", "messages"):
                listing = await BindingKV({table: kv}).keys(
                    table, f"{prefix}mastra_{table}:", limit=10
                )
                if listing.entries:
                    found[table] = kv
    named = {"mastra_threads": found["threads"], "messages": found["messages"]}
    async with CloudflareStore(bindings=named, key_prefix=prefix) as storage:
        await save(storage, range(*write))
        return json.dumps(await differing(storage, range(*read)))


async def settled() -> str:
    """What is under way, and stored, once the block around a store is left."""
    kv = BindingKV({"default": bindings.KV9})
    async with CloudflareStore(bindings={"default": bindings.KV9}, key_prefix="done_") as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(Message(id="m", thread_id="t", role="user", content="Hi"))
        touched = (await storage.get_thread_by_id("t")).updated_at  # type: ignore[union-attr]
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    keys = (await kv.keys("threads", "done_mastra_threads", limit=100)).entries
    async with CloudflareStore(bindings={"default": bindings.KV9}, key_prefix="done_") as storage:
        again = (await storage.get_thread_by_id("t")).updated_at  # type: ignore[union-attr]
    return json.dumps(
        {"tasks": len(tasks), "keys": [entry.key for entry in keys], "same": touched == again}
    )


async def odd_keys() -> str:
    """A bulk get of keys that the runtime leaves out of its answer, of 101 others, of none."""
    kv = BindingKV({"default": bindings.KV9})
    keys = ["42", "__proto__", "constructor", "plain", "a:b"]
    await kv.write("any", [Pair(key, key.encode(), '{"w":"9007199254740993"}') for key in keys], ())
    found = await kv.get("any", [*keys, "7", "not there"])
    return json.dumps({key: [value.value.decode(), value.metadata] for key, value in found.items()})


async def large_values() -> str:
    """Values that are more together than one bulk get may be."""
    kv = BindingKV({"default": bindings.KV8})
    sizes = {"a": 12 * MIB, "b": 12 * MIB, "c": 12 * MIB, "d": 1}
    await kv.write("any", [Pair(key, b"x" * size, "{}") for key, size in sizes.items()], ())
    found = await kv.get("any", list(sizes))
    await kv.write("any", [], list(sizes))
    return json.dumps({key: len(value.value) for key, value in found.items()} | {"wanted": sizes})


async def failures() -> str:
    """How failures of a binding are shown: the class, and whether a new try may help."""
    binding._SECONDS_BETWEEN = 0.01
    real = BindingKV({"default": bindings.KV8})
    slow = _FailingKV("KV PUT failed: 429 Too Many Requests", times=2)
    outcomes = {
        "too large": await _failure(real, Pair("k", b"x" * (MAX_VALUE_BYTES + 1), "{}")),
        "key too long": await _failure(real, Pair("k" * 513, b"x", "{}")),
        "429 twice": await _failure(BindingKV({"default": slow})),
        "429 on and on": await _failure(_failing("KV PUT failed: 429 Too Many Requests")),
        "used up": await _failure(_failing("Too many API requests by single worker invocation.")),
        "400": await _failure(_failing("KV PUT failed: 400 Invalid expiration")),
        "500": await _failure(_failing("KV PUT failed: 500 Internal Server Error")),
    }
    return json.dumps({"outcomes": outcomes, "tries": slow.tries})


async def partial_failure() -> str:
    """What is named, and what is deleted, when one of two keys could not be written."""
    fake = _FailingKV("KV PUT failed: 500 Internal Server Error", times=1)
    kv = BindingKV({"default": fake})
    try:
        await kv.write("any", [Pair("bad", b"x", "{}"), Pair("good", b"x", "{}")], ["old"])
    except PartialWriteError as exc:
        failed = sorted(key for _, (key,) in exc.failed)
        return json.dumps({"failed": failed, "deleted": fake.deleted})
    raise AssertionError("all was written")


async def _failure(kv: BindingKV, pair: Pair | None = None) -> list[Any] | None:
    try:
        await kv.write("any", [pair or Pair("k", b"x", "{}")], ())
    except StorageError as exc:
        return [type(exc).__name__, exc.retryable]
    return None


def _failing(message: str) -> BindingKV:
    return BindingKV({"default": _FailingKV(message, times=10)})


class _FailingKV:
    """A binding whose first writes fail."""

    def __init__(self, message: str, times: int) -> None:
        self._message = message
        self._times = times
        self.tries = 0
        self.deleted: list[str] = []

    async def put(self, key: str, value: str, options: object) -> None:
        self.tries += 1
        if self.tries <= self._times:
            raise RuntimeError(self._message)

    async def delete(self, key: str) -> None:
        self.deleted.append(key)


async def worker() -> str:
    """The example, asked as the runtime asks it; every request with a new instance."""
    workers = _workers_sdk()
    sys.path.append("/lib/python3.14/site-packages/worker")
    import entry
    import js  # type: ignore[import-not-found]
    from pyodide.ffi import to_js  # type: ignore[import-not-found]

    env = SimpleNamespace(STORE=bindings.KV7)

    async def ask(method: str, path: str, body: str | None = None) -> list[Any]:
        options = {"method": method} | ({} if body is None else {"body": body})
        made = js.Request.new(
            f"https://agent.example{path}", to_js(options, dict_converter=js.Object.fromEntries)
        )
        answer = await entry.Default(SimpleNamespace(), env).fetch(workers.Request(made))
        answered = answer.js_object
        return [answered.status, json.loads(await answered.text())]

    def said(text: str) -> str:
        return json.dumps({"thread": "trip/é", "text": text})

    requests = {
        "unknown": ("GET", "/threads/trip%2F%C3%A9"),
        "first": ("POST", "/chat", said("Hello, my name is Ada")),
        "sum": ("POST", "/chat", said("What is 19 + 23?")),
        "name": ("POST", "/chat", said("Do you know my name?")),
        "thread": ("GET", "/threads/trip%2F%C3%A9"),
        "no json": ("POST", "/chat", "Hello"),
        "no text": ("POST", "/chat", '{"thread": "t"}'),
        "empty": ("POST", "/chat", '{"thread": "", "text": "Hello"}'),
        "elsewhere": ("GET", "/"),
    }
    return json.dumps({name: await ask(*request) for name, request in requests.items()})


def _workers_sdk() -> Any:
    """The SDK of the Workers runtime, beside two modules that only the runtime has."""
    runtime: dict[str, dict[str, Callable[..., None] | bool]] = {
        "_pyodide_entrypoint_helper": {"patchWaitUntil": lambda context: None},
        "_cloudflare_compat_flags": {"python_request_headers_preserve_commas": True},
    }
    for name, members in runtime.items():
        module = sys.modules.setdefault(name, ModuleType(name))
        module.__dict__.update(members)
    import workers  # type: ignore[import-not-found]

    return workers


def rest_modules() -> str:
    """The libraries of REST mode that are imported."""
    tops = {name.partition(".")[0] for name in sys.modules}
    return json.dumps(sorted(tops & {"aiohttp", "aiolimiter", "stamina", "tenacity", "yarl"}))
