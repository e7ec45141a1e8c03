"""JSON and the client's CPU time: what a message costs, alone and from end to end.

Conversations are generated: texts, answers in parts, tool calls and their results.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from _conversations import messages_of
from _measure import Samples, duration, in_turns, machine, options, publish, table
from _servers import convex_server, convex_store, kv_server, kv_store

from mastra_storage import Message, Storage, Thread, open_storage

Coders = dict[str, tuple[Callable[[], object], Callable[[], object]]]

STRUCT = "msgspec Struct"
WRITE, AT_ONCE, READ = "one batch", "all at once", "read all"


def coders(messages: list[Message]) -> Coders:
    """What encodes all messages, and what decodes them, by library."""
    import orjson
    import pydantic

    fields: Any = {
        name: (dict[str, Any] if name == "metadata" else Any if name == "content" else str, ...)
        for name in ("id", "threadId", "role", "content", "type", "metadata")
    }
    fields |= {"resourceId": (str | None, None), "createdAt": (datetime, ...)}
    model: Any = pydantic.create_model("Message", **fields)
    texts = [msgspec.json.encode(message) for message in messages]
    plain = [msgspec.json.decode(text) for text in texts]
    models = [model.model_validate_json(text) for text in texts]
    struct, dicts = msgspec.json.Decoder(Message), msgspec.json.Decoder()
    encoder = msgspec.json.Encoder()
    compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    return {
        STRUCT: (
            lambda: [encoder.encode(message) for message in messages],
            lambda: [struct.decode(text) for text in texts],
        ),
        "msgspec dict": (
            lambda: [encoder.encode(value) for value in plain],
            lambda: [dicts.decode(text) for text in texts],
        ),
        "orjson": (
            lambda: [orjson.dumps(value) for value in plain],
            lambda: [orjson.loads(text) for text in texts],
        ),
        "json": (
            lambda: [compact.encode(value).encode() for value in plain],
            lambda: [json.loads(text) for text in texts],
        ),
        "pydantic": (
            lambda: [value.model_dump_json().encode() for value in models],
            lambda: [model.model_validate_json(text) for text in texts],
        ),
    }


async def coded(size: int, rounds: int) -> tuple[dict[str, Samples], dict[str, Samples]]:
    found = coders(messages_of("thread", size))
    encode = {name: _call(encode) for name, (encode, _) in found.items()}
    decode = {name: _call(decode) for name, (_, decode) in found.items()}
    clock = time.process_time
    return (
        await in_turns(encode, rounds=rounds, clock=clock),
        await in_turns(decode, rounds=rounds, clock=clock),
    )


def _call(work: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def run() -> None:
        work()

    return run


@asynccontextmanager
async def stores() -> AsyncIterator[dict[str, Storage]]:
    """A store of each kind; servers are processes of their own."""
    with tempfile.TemporaryDirectory() as directory, kv_server() as kv, convex_server() as convex:
        async with (
            open_storage("memory://") as memory,
            open_storage(f"sqlite:///{Path(directory) / 'bench.db'}") as sqlite,
            kv_store(kv) as cloudflare,
            convex_store(convex) as on_convex,
        ):
            yield {
                "memory": memory,
                "SQLite": sqlite,
                "Cloudflare KV": cloudflare,
                "Convex": on_convex,
            }


class EndToEnd:
    """Calls on every store that write or read `size` messages."""

    def __init__(self, found: Mapping[str, Storage], size: int) -> None:
        self._stores = found
        self._size = size
        self._numbers = count()
        self._messages: list[Message] = []

    async def prepare(self, store: str) -> None:
        """A new thread and new messages; not measured."""
        name = f"thread {next(self._numbers)}"
        await self._stores[store].save_thread(Thread(id=name, resource_id="ada"))
        self._messages = messages_of(name, self._size)

    async def fill(self) -> None:
        for storage in self._stores.values():
            await storage.save_thread(Thread(id="read", resource_id="ada"))
            await storage.save_messages(messages_of("read", self._size))

    async def call(self, kind: str, store: str) -> None:
        storage = self._stores[store]
        if kind == WRITE:
            await storage.save_messages(self._messages)
        elif kind == AT_ONCE:
            await asyncio.gather(*[storage.save_message(message) for message in self._messages])
        elif len(await storage.get_messages("read")) != self._size:
            raise RuntimeError("a store did not read what was written")

    async def cpu(self, kind: str, rounds: int) -> dict[str, Samples]:
        """CPU seconds of this process a message."""
        found = await in_turns(
            {store: partial(self.call, kind, store) for store in self._stores},
            before={store: partial(self.prepare, store) for store in self._stores},
            rounds=rounds,
            clock=time.process_time,
        )
        return {
            store: Samples([seconds / self._size for seconds in samples.seconds], samples.failure)
            for store, samples in found.items()
        }

    async def profile(self, kind: str, store: str, most: int = 5) -> str:
        """The modules in which the event loop's thread spends most of its time."""
        await self.prepare(store)
        profile = cProfile.Profile(time.thread_time)  # waiting is no work
        profile.enable()
        await self.call(kind, store)
        profile.disable()
        times: Counter[str] = Counter()
        statistics: Any = pstats.Stats(profile)
        for (file, _, function), (_, _, own, _, _) in statistics.stats.items():
            times[_module(file, function)] += own
        total = sum(times.values())
        return ", ".join(f"{name} {own / total:.0%}" for name, own in times.most_common(most))


def _module(file: str, function: str) -> str:
    """The name that a function's time is counted under."""
    if file == "~":
        natives = ("msgspec", "sqlite3", "asyncio", "socket")
        return next((name for name in natives if name in function), "built-ins")
    parts = Path(file).with_suffix("").parts
    for package in ("mastra_storage", "mastra_storage_cloudflare", "mastra_storage_convex"):
        if package in parts:
            return "/".join(parts[len(parts) - 1 - parts[::-1].index(package) :])
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    known = [name for name in ("asyncio", "json", "concurrent") if name in parts]
    return known[0] if known else "standard library"


Measured = tuple[
    dict[str, Samples], dict[str, Samples], dict[str, dict[str, Samples]], list[list[str]]
]


async def measured(size: int, rounds: int) -> Measured:
    encode, decode = await coded(size, 3 * rounds)
    async with stores() as found:
        whole = EndToEnd(found, size)
        await whole.fill()
        times = {kind: await whole.cpu(kind, rounds) for kind in (WRITE, AT_ONCE, READ)}
        profiles = [
            [store, kind, await whole.profile(kind, store)]
            for store in found
            for kind in (AT_ONCE, READ)
        ]
    return encode, decode, times, profiles


def report(size: int, found: Measured) -> str:
    encode, decode, times, profiles = found
    rows = [
        [
            name,
            duration(encode[name].median / size),
            encode[name].ratio(encode[STRUCT]),
            duration(decode[name].median / size),
            decode[name].ratio(decode[STRUCT]),
        ]
        for name in encode
    ]
    whole = [
        [store, *[duration(times[kind][store].median) for kind in times]] for store in times[WRITE]
    ]
    return f"""
## JSON and CPU time

{size:,} generated messages of about 1 KB: texts, answers in parts, tool calls and their results.
{machine(("msgspec", "orjson", "pydantic"))}

CPU time to make one message JSON and back. A Struct and a pydantic model are checked when decoded,
and carry a `datetime`; the others are dicts. Ratios are to the Struct.

{table(["", "encode", "ratio", "decode", "ratio"], rows)}

CPU time of the client's process for one message, from end to end: saved in one batch, saved all at
once by as many tasks, and all read. Servers are processes of their own and not counted.

{table(["", *times], whole)}

Where the event loop's thread spends its own time (a profiler slows small functions most; SQLite's
threads work beside it):

{table(["", "", "share"], profiles)}
"""


def main() -> int:
    chosen = options(__doc__)
    size, rounds = (200, 3) if chosen.quick else (1_000, 9)
    found = asyncio.run(measured(size, rounds))
    publish("json", report(size, found), chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
