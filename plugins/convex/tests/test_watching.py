"""Live queries on the functions themselves: what is seen, how soon, and what they outlast."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from convex_calls import message, messages
from convex_server import ConvexServer
from convex_stores import convex_backend, convex_store
from fake_sync import Conversation, FakeSync
from mastra_storage_convex import ConvexBackend, sync, watching
from mastra_storage_convex.client import Settings
from msgspec import structs
from watchers import (
    ROWS,
    no_socket,
    put,
    saves_are_seen,
    shown,
    sockets,
    ticking,
    value,
    watch,
)

from mastra_storage import (
    MESSAGES,
    THREADS,
    AuthenticationError,
    InvalidArgumentError,
    Message,
    Op,
    Query,
    Storage,
    StorageError,
    Thread,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)

T = TypeVar("T")
WRITER = Path(__file__).parent / "watch_writer.py"
_figures = logging.getLogger("figures")
FUNCTIONS = Path(watching.__file__).parent / "functions"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost is tried again soon."""
    monkeypatch.setattr(sync, "_LONGEST_PAUSE", 0.2)


@pytest.fixture
async def store(convex: ConvexServer) -> AsyncIterator[Storage]:
    async with convex_store(convex) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        yield storage


@pytest.fixture
async def backend(convex: ConvexServer) -> AsyncIterator[ConvexBackend]:
    backend = convex_backend(convex)
    await backend.open()
    yield backend
    await backend.close()


# -- how soon --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one query", "20 queries", "20 stores"])
async def test_twenty_watchers_soon_see_what_another_process_saves(
    convex: ConvexServer, store: Storage, kind: str
) -> None:
    await store.save_messages(messages(100))
    saves = 20
    seen: list[dict[Any, float]] = [{} for _ in range(20)]

    async def follow(number: int, values: AsyncGenerator[list[Message], None]) -> None:
        async with aclosing(values):
            async for found in values:
                seen[number].setdefault(found[-1].content, time.time())
                if found[-1].id == f"w{saves - 1}":
                    return

    async with AsyncExitStack() as stack, asyncio.timeout(60):
        stores = [store] * 20
        if kind == "20 stores":
            stores = [await stack.enter_async_context(convex_store(convex)) for _ in range(20)]
        lasts = range(1, 21) if kind == "20 queries" else [100] * 20
        watches = [
            one.watch_messages("t", last=last) for one, last in zip(stores, lasts, strict=True)
        ]
        followers = [asyncio.create_task(follow(*each)) for each in enumerate(watches)]
        while not all(seen):  # noqa: ASYNC110 - a short while
            await asyncio.sleep(0.01)
        async with ticking() as ticker:
            writer = await asyncio.create_subprocess_exec(
                *(sys.executable, str(WRITER), convex.url, "t", str(saves), "0.15"),
                env={**os.environ, "CONVEX_URL": convex.url, "CONVEX_DEPLOY_KEY": convex.admin_key},
                stdout=asyncio.subprocess.PIPE,
            )
            printed, _ = await writer.communicate()
            await asyncio.gather(*followers)
    returned = [float(line) for line in printed.split()]
    assert writer.returncode == 0
    assert len(returned) == saves
    began = sorted(content for content in seen[0] if isinstance(content, float))
    late = [each[at] - at for each in seen for at in began if at in each]
    assert len(late) >= 20 * saves / 2  # a watcher that is slow may skip some
    median, worst = statistics.median(late), max(late)
    _figures.info(
        f"20 watchers, {kind}: a save is seen {median * 1000:.0f} ms after it began at the "
        f"median, {worst * 1000:.0f} ms at worst (it returns after "
        f"{statistics.median(map(float.__sub__, returned, began)) * 1000:.0f} ms); the loop was "
        f"held {ticker.worst * 1000:.0f} ms at worst, {ticker.worst_cpu * 1000:.0f} ms of CPU time"
    )
    assert median < 1.0
    assert ticker.worst_cpu < 0.2


async def test_large_states_do_not_hold_the_loop(
    convex: ConvexServer, backend: ConvexBackend
) -> None:
    rows: list[Op] = [put(f"{n:04}", n, value=b'"%b"' % (b"x" * 1000)) for n in range(2000)]
    await backend.write(rows)
    query = Query(table=ROWS, descending=True)
    async with AsyncExitStack() as stack, ticking() as ticker:
        watches = [await stack.enter_async_context(aclosing(watch(backend, query)))] * 1
        watches += [
            await stack.enter_async_context(
                aclosing(watch(backend, structs.replace(query, limit=1000 + n)))
            )
            for n in range(4)
        ]
        await asyncio.gather(*[value(values) for values in watches])
        await backend.write([put("new", 5000)])
        for values in watches:
            await shown(values, lambda result: result.rows[0].key == ("b", "new"))
    _figures.info("6,000 rows, 6 MB: held %d ms of CPU time", ticker.worst_cpu * 1000)
    assert ticker.worst_cpu < 0.2


# -- what is lost ----------------------------------------------------------------------------------


async def test_it_goes_on_after_the_server_was_restarted(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    server = ConvexServer.start(data=data)
    try:
        async with convex_store(server) as store:
            await store.save_thread(Thread(id="t", resource_id="r"))
            async with (
                aclosing(store.watch_messages("t")) as values,
                aclosing(watch(cast(ConvexBackend, store.backend), Query(table=THREADS))) as kept,
            ):
                assert await value(values) == []
                await saves_are_seen(store, values, "before")
                threads = await shown(kept, lambda result: result.rows[0].touched is not None)
                server.stop()
                waiting = asyncio.ensure_future(anext(kept))
                await asyncio.sleep(0.3)
                server = ConvexServer.start(port=server.port, data=data)
                await asyncio.sleep(1.0)
                assert not waiting.done()  # what it gives is what it gave before
                await saves_are_seen(store, values, "after")
                async with asyncio.timeout(20):
                    assert (await waiting).rows[0].touched != threads.rows[0].touched
    finally:
        server.stop()


async def test_it_goes_on_after_dropped_sockets(convex: ConvexServer, store: Storage) -> None:
    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(aclosing(store.watch_messages("t", last=last)))
            for last in (1, 10, 100)
        ]
        for values in watches:
            await value(values)
        for number in range(8):
            saving = asyncio.create_task(store.save_messages([message(f"m{number}")]))
            await convex.control(dropSockets=True)
            await saving
            for values in watches:
                await shown(values, lambda found: found[-1].id == f"m{number}")  # noqa: B023


async def test_it_goes_on_after_sockets_were_refused(convex: ConvexServer, store: Storage) -> None:
    async with aclosing(store.watch_messages("t")) as values:
        await value(values)
        await convex.control(refuseSockets=True, dropSockets=True)
        waiting = asyncio.create_task(saves_are_seen(store, values, "m"))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await convex.control(refuseSockets=False)
        await waiting


@pytest.mark.parametrize("how", ["drop", "status", "delay"])
async def test_it_outlasts_queries_that_fail_by_turns(
    convex: ConvexServer, store: Storage, how: str
) -> None:
    fault = {"kind": how, "match": "^(watch|socket)", "probability": 0.3, "ms": 20}
    await convex.control(faults=[fault], seed=5)
    async with aclosing(store.watch_messages("t")) as values:
        await value(values)
        for number in range(12):
            await saves_are_seen(store, values, f"m{number}")


async def test_a_socket_that_fell_silent_is_replaced(
    convex: ConvexServer, store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_SILENCE_SECONDS", 0.5)
    await convex.control(pingMs=100)
    async with aclosing(store.watch_messages("t")) as values:
        await value(values)
        await asyncio.sleep(0.8)
        assert (await convex.counts())["socket connect"] == 1
        await convex.control(silenceSockets=True)
        waiting = asyncio.create_task(saves_are_seen(store, values, "m"))
        await asyncio.sleep(1.5)
        assert not waiting.done()
        assert (await convex.counts())["socket connect"] >= 3
        # What was kept back from the sockets there are is not sent later.
        await convex.control(silenceSockets=False, dropSockets=True)
        await waiting


# -- what does not begin ---------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["refused", "silent", "away"])
async def test_what_cannot_be_reached_is_said_in_time(
    convex: ConvexServer, unused_tcp_port: int, why: str
) -> None:
    backend = convex_backend(convex, timeout=1.0)
    if why == "away":
        url = f"http://127.0.0.1:{unused_tcp_port}"
        backend = ConvexBackend(Settings(url=url, key=convex.admin_key, timeout=1.0))
    else:
        await backend.open()
        await convex.control(**{"refuseSockets" if why == "refused" else "silenceSockets": True})
    start = time.monotonic()
    async with ticking() as ticker:
        with pytest.raises(UnavailableError, match="within 1 seconds") as raised:
            await value(watch(backend, Query(table=THREADS)))
    assert 0.9 < time.monotonic() - start < 5
    assert ticker.worst_cpu < 0.2
    assert raised.value.retryable
    await convex.reset()
    if why != "away":
        async with aclosing(watch(backend, Query(table=THREADS))) as values:
            assert (await value(values)).rows == []
    await backend.close()


async def test_a_refused_key_is_said_at_once(convex: ConvexServer, store: Storage) -> None:
    async with (
        convex_store(convex) as other,
        aclosing(store.watch_messages("t")) as values,
        aclosing(other.watch_messages("t")) as later,
    ):
        await value(values)
        await convex.control(refuseKeys=True)
        with pytest.raises(AuthenticationError) as raised:
            await value(later, 5)
        assert convex.admin_key not in f"{raised.value!r}"
        await convex.control(dropSockets=True)
        with pytest.raises(AuthenticationError):
            await value(values, 5)


async def test_a_reason_that_cannot_be_found_is_none() -> None:
    """The key is refused for no reason that HTTP would tell, as while Convex is overloaded."""
    asked = 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        raise UnavailableError("no Convex here", retryable=False)

    async def refuses(conversation: Conversation) -> None:
        await conversation.say({"type": "AuthError", "error": "WorkerOverloaded"})

    async with FakeSync() as fake:
        fake.values = {"threads:list": {"rows": [], "skipped": 0.0, "next": None}}
        fake.answer = refuses
        watches = watching.Watches(Settings(url=fake.url, key="key"), check)
        async with aclosing(watches.watch(Query(table=THREADS))) as values:
            waiting = asyncio.ensure_future(anext(values))
            await asyncio.sleep(0.5)
            assert asked > 1
            fake.answer = None
            async with asyncio.timeout(5):
                assert (await waiting).rows == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_missing_functions_are_said_at_once(
    convex: ConvexServer, store: Storage, when: str
) -> None:
    values = store.watch_messages("t")
    async with aclosing(values):
        if when == "meanwhile":
            await value(values)
        await convex.control(functions="none")
        with pytest.raises(UnsupportedError, match="npx convex deploy"):
            await value(values, 5)


async def test_functions_of_another_version_are_said(
    convex: ConvexServer, store: Storage, tmp_path: Path
) -> None:
    other = tmp_path / "functions"
    shutil.copytree(FUNCTIONS, other)
    module = other / "mastra" / "listing.ts"
    module.write_text(module.read_text().replace("descending: v.boolean()", "reverse: v.boolean()"))
    version = other / "mastra" / "version.ts"
    text, count = re.subn(r"(PROTOCOL = )1\b", r"\g<1>99", version.read_text())
    assert count == 1
    version.write_text(text)
    async with aclosing(store.watch_messages("t")) as values:
        await value(values)
        await convex.control(functions=str(other))
        with pytest.raises(UnsupportedError, match="protocol 99, not 1"):
            await value(values, 5)


STRANGE: dict[str, Any] = {
    "null": None,
    "text": "rows",
    "a list": [],
    "no rows": {"skipped": 0.0, "next": None},
    "rows of another kind": {"rows": [1.0, None, {}], "skipped": 0.0, "next": None},
    "a half row": {"rows": [{"id": "m", "row": {}}], "skipped": 0.0, "next": None},
    "a strange place": {"rows": [], "skipped": 0.0, "next": {"order": 1.0, "seq": "x", "key": []}},
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("skip", [0, 1])
async def test_strange_results_are_errors_of_this_library(
    convex: ConvexServer, store: Storage, strange: Any, skip: int
) -> None:
    fault = {"kind": "value", "match": "^watch", "skip": skip, "times": 9, "value": strange}
    await convex.control(faults=[fault])
    async with aclosing(store.watch_messages("t")) as values:
        if skip:
            await value(values)
            await store.save_messages([message("m")])
        with pytest.raises(UnsupportedError):
            await value(values, 5)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Uncaught Error: secret", StorageError),
        ("[Request ID: 0123456789abcdef] Server Error", StorageError),
        ("ArgumentValidationError: Object is missing the field `secret`", UnsupportedError),
        ("Could not find public function for 'messages:list'.", UnsupportedError),
        ("Too many bytes read in a single function execution (limit: 1 secret)", TooLargeError),
    ],
)
async def test_functions_that_fail_give_the_error_of_their_words(
    convex: ConvexServer, store: Storage, said: str, error: type[StorageError]
) -> None:
    await convex.control(faults=[{"kind": "error", "match": "^watch", "message": said}])
    with pytest.raises(error) as raised:
        await value(store.watch_messages("t"), 5)
    assert "secret" not in f"{raised.value!r}"
    assert raised.value.backend == "convex"


async def test_text_that_is_none_is_refused(backend: ConvexBackend) -> None:
    with pytest.raises(InvalidArgumentError, match="lone surrogate"):
        await value(watch(backend, Query(table=MESSAGES, prefix=("\ud800",))))


# -- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["beginning", "waiting", "given", "away", "silent", "refused"])
async def test_it_is_cancelled_in_any_state(
    convex: ConvexServer, store: Storage, state: str
) -> None:
    if state == "silent":
        await convex.control(silenceSockets=True)
    elif state == "refused":
        await convex.control(refuseSockets=True)

    async def follow() -> None:
        async with aclosing(store.watch_messages("t")) as values:
            if state not in ("beginning", "silent", "refused"):
                await anext(values)
            if state == "given":
                await asyncio.Event().wait()
            async for _ in values:
                pass

    following = asyncio.create_task(follow())
    await asyncio.sleep({"beginning": 0.001}.get(state, 0.5))
    if state == "away":
        await convex.control(refuseSockets=True, dropSockets=True)
        await asyncio.sleep(0.1)
    following.cancel()
    start = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert time.monotonic() - start < 5
    await convex.control(silenceSockets=False, refuseSockets=False)
    await no_socket(convex)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    async with aclosing(store.watch_messages("t")) as values:
        assert await value(values) == []


async def test_one_that_is_cancelled_leaves_the_others(
    convex: ConvexServer, store: Storage
) -> None:
    async with aclosing(store.watch_messages("t")) as kept:
        await value(kept)
        for number in range(5):
            other = store.watch_messages("t", last=1 + number % 2)
            await value(other)
            waiting = asyncio.ensure_future(anext(other))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await other.aclose()
            await saves_are_seen(store, kept, f"m{number}")
        assert await sockets(convex) == 1


@pytest.mark.parametrize("state", ["beginning", "waiting", "away"])
async def test_closing_the_store_ends_it(convex: ConvexServer, state: str) -> None:
    backend = convex_backend(convex)
    await backend.open()
    values = watch(backend, Query(table=THREADS))
    if state != "beginning":
        await value(values)
    if state == "away":
        await convex.control(refuseSockets=True, dropSockets=True)
    waiting = asyncio.ensure_future(anext(values, None))
    await asyncio.sleep(0.0001 if state == "beginning" else 0.05)
    await backend.close()
    async with asyncio.timeout(5):
        assert await waiting is None
    with pytest.raises(UnavailableError, match="closed"):
        await value(watch(backend, Query(table=THREADS)))
    await no_socket(convex)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_store_is_watched_in_one_event_loop_after_the_other(convex_server: ConvexServer) -> None:
    store = convex_store(convex_server)

    async def use() -> None:
        await convex_server.reset()
        async with store:
            await store.save_thread(Thread(id="t", resource_id="r"))
            watches = [store.watch_messages("t") for _ in range(5)]
            assert await asyncio.gather(*map(value, watches)) == [[]] * 5
            await asyncio.gather(*[values.aclose() for values in watches])

    for _ in range(2):
        asyncio.run(use())


# -- what it costs ---------------------------------------------------------------------------------


async def test_many_watchers_share_a_socket_and_a_query(
    convex: ConvexServer, store: Storage
) -> None:
    await convex.reset(clear=False)
    async with AsyncExitStack() as stack:
        watches = [
            await stack.enter_async_context(aclosing(store.watch_messages("t"))) for _ in range(50)
        ]
        assert await asyncio.gather(*map(value, watches)) == [[]] * 50
        await asyncio.gather(
            store.save_messages([message("m")]),
            *[shown(values, lambda found: len(found) == 1) for values in watches],
        )
        counts = await convex.counts()
    assert counts["socket connect"] == 1
    assert counts["watch messages:list"] == 2
    assert counts.keys() <= {"socket connect", "watch messages:list", "mutation system:write"} | {
        "query threads:get"
    }
    await no_socket(convex)


async def test_changes_elsewhere_cost_nothing(convex: ConvexServer, store: Storage) -> None:
    await store.save_thread(Thread(id="u", resource_id="r"))
    async with aclosing(store.watch_messages("t")) as values:
        await value(values)
        await convex.reset(clear=False)
        await store.save_messages([message("m", "u")])
        await saves_are_seen(store, values, "m")
        assert (await convex.counts())["watch messages:list"] == 1


async def test_unchanged_states_are_given_once(
    convex: ConvexServer, backend: ConvexBackend
) -> None:
    await backend.write([put("a", 1)])
    async with aclosing(watch(backend, Query(table=ROWS))) as values:
        first = await value(values)
        waiting = asyncio.ensure_future(anext(values))
        for _ in range(3):
            await convex.control(dropSockets=True)
            await asyncio.sleep(0.3)
        assert not waiting.done()
        await backend.write([put("b", 2)])
        async with asyncio.timeout(10):
            assert (await waiting).rows[0] is first.rows[0]  # not even decoded again


async def test_a_slow_reader_skips(store: Storage) -> None:
    async with aclosing(store.watch_messages("t")) as values:
        await value(values)
        for number in range(10):
            await store.save_messages([message(f"m{number}")])
        await asyncio.sleep(0.5)
        assert len(await value(values)) == 10
        waiting = asyncio.ensure_future(anext(values))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
