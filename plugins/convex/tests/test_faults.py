"""Failures on the way: nothing is stored twice or by half, and no failure looks like no data."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import tenacity
from convex_calls import WRITE, ids, message, messages
from convex_server import ConvexServer
from convex_stores import convex_backend, convex_store
from mastra_storage_convex import ConvexStorage

from mastra_storage import (
    THREADS,
    AuthenticationError,
    ConflictError,
    Delete,
    InvalidArgumentError,
    Message,
    MessageUpdate,
    NotFoundError,
    RateLimitedError,
    Storage,
    StorageError,
    Thread,
    UnavailableError,
    UnsupportedError,
    open_storage,
)

Calls = dict[str, Callable[[Storage], Coroutine[Any, Any, Any]]]

SECRET = "what only the two of us know"

READS: Calls = {
    "get_thread_by_id": lambda s: s.get_thread_by_id("t"),
    "get_messages": lambda s: s.get_messages("t"),
    "get_messages last": lambda s: s.get_messages("t", last=2),
    "get_messages_by_id": lambda s: s.get_messages_by_id("t", ["m1"]),
    "list_threads": lambda s: s.list_threads(),
    "list_threads of one": lambda s: s.list_threads(resource_id="r", count=False),
}
WRITES: Calls = {
    "save_message": lambda s: s.save_message(message("new", content=SECRET)),
    "save_thread": lambda s: s.save_thread(Thread(id="u", resource_id="r")),
    "update_thread": lambda s: s.update_thread("t", title="new"),
    "update_messages": lambda s: s.update_messages("t", [MessageUpdate("m0", content=SECRET)]),
    "delete_messages": lambda s: s.delete_messages("t", ["m1"]),
}
CALLS = READS | WRITES


def named(value: Any) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else ""


def status(number: int, **members: Any) -> dict[str, Any]:
    return {"kind": "status", "status": number, **members}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are tried again at once."""
    monkeypatch.setattr("mastra_storage_convex.client._BACKOFF", tenacity.wait_fixed(0.01))


async def fill(server: ConvexServer) -> None:
    """A thread "t" with the messages m0, m1 and m2."""
    async with convex_store(server) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(messages(3))


@pytest.fixture
async def filled(convex: ConvexServer) -> ConvexServer:
    await fill(convex)
    return convex


@pytest.fixture
async def store(filled: ConvexServer, impatient: None) -> AsyncIterator[Storage]:
    async with convex_store(filled) as storage:
        yield storage


def texts_of(error: BaseException | None) -> str:
    """All that an error shows to those who print or log it."""
    assert error is not None
    chain = "".join(traceback.format_exception(error))
    while error is not None:
        chain += f"{error}{error!r}{error.__dict__}"
        error = error.__cause__ or error.__context__
    return chain


# -- what passes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        status(503),
        status(503, when="after"),
        status(503, code="CommitterFullError"),
        status(500),
        status(502, when="after"),
        status(429),
        {"kind": "drop"},
        {"kind": "drop", "when": "after"},
        {"kind": "html"},
        {"kind": "html", "when": "after"},
        {"kind": "truncate"},
        {"kind": "malformed"},
    ],
    ids=named,
)
async def test_a_fault_that_passes_is_not_noticed(
    filled: ConvexServer, store: Storage, fault: dict[str, Any]
) -> None:
    for name, call in CALLS.items():
        await filled.control(faults=[fault])
        assert await call(store) or name == "delete_messages"
    await filled.control(faults=[])
    assert ids(await store.get_messages("t")) == ["m0", "m2", "new"]
    thread = await store.get_thread_by_id("t")
    assert thread is not None
    assert thread.title == "new"


async def test_a_call_without_an_answer_is_made_anew(filled: ConvexServer) -> None:
    async with convex_store(filled, timeout=3.0) as storage:
        for call in CALLS.values():
            await filled.control(faults=[{"kind": "delay", "ms": 60_000}])
            await call(storage)
        await filled.control(faults=[])
        assert ids(await storage.get_messages("t")) == ["m0", "m2", "new"]


async def test_a_write_given_up_never_comes_after_a_later_one(filled: ConvexServer) -> None:
    async with convex_store(filled, timeout=1.5) as storage:
        await filled.control(faults=[{"kind": "delay", "ms": 1000}])
        await storage.update_thread("t", title="given up, and repeated")
        await storage.update_thread("t", title="later")
        await asyncio.sleep(0.8)
        thread = await storage.get_thread_by_id("t")
        assert thread is not None
        assert thread.title == "later"


async def test_what_a_429_asks_for_is_waited(filled: ConvexServer) -> None:
    async with convex_store(filled) as storage:
        await filled.control(reset=True, faults=[status(429, retryAfter=1)])
        assert await storage.get_thread_by_id("t") is not None
    first, second = await filled.log()
    assert second["at"] - first["at"] >= 990


async def test_retries_are_silent(
    filled: ConvexServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with convex_store(filled) as storage:
        await filled.control(faults=[status(503, times=2)])
        assert await storage.get_thread_by_id("t") is not None
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


# -- replies that get lost -----------------------------------------------------------------------

LOST = {"kind": "drop", "when": "after", "match": "system:write"}


class TestLostReplies:
    """The mutation happened, and nobody heard of it."""

    @pytest.fixture
    async def losing(self, filled: ConvexServer, store: Storage) -> Storage:
        """A store that does not get the reply to its next write."""
        await filled.control(reset=True, faults=[LOST])
        return store

    @pytest.fixture(autouse=True)
    async def was_lost(self, filled: ConvexServer, losing: Storage) -> AsyncIterator[None]:
        yield
        writes = [each for each in await filled.log() if each["label"] == WRITE]
        assert [each.get("fault") for each in writes[:2]] == ["drop", None]

    async def test_saves_are_stored_once(self, filled: ConvexServer, losing: Storage) -> None:
        saved = await losing.save_messages(messages(3, start=3))
        assert ids(await losing.get_messages("t")) == ids(messages(6))
        assert (await losing.get_messages("t"))[3:] == saved
        assert (await losing.get_messages_paginated("t")).total == 6
        written = [each["documentsWritten"] for each in await filled.log() if "fault" in each]
        assert written[0] > 0
        [again] = [e for e in await filled.log() if e["label"] == WRITE and not e.get("fault")]
        assert again["documentsWritten"] == 0

    async def test_merged_saves_are_stored_once_each(self, losing: Storage) -> None:
        batch = messages(40, start=3)
        await asyncio.gather(*[losing.save_message(each) for each in batch])
        assert (await losing.get_messages("t"))[3:] == batch

    async def test_a_message_is_moved_once(self, filled: ConvexServer, losing: Storage) -> None:
        await filled.control(faults=[])
        await losing.save_thread(Thread(id="u", resource_id="r"))
        await filled.control(reset=True, faults=[LOST])
        [moved] = await losing.update_messages("t", [MessageUpdate("m1", thread_id="u")])
        assert moved.thread_id == "u"
        assert ids(await losing.get_messages("t")) == ["m0", "m2"]
        assert await losing.get_messages("u") == [moved]
        assert (await filled.counts())[WRITE] == 2

    async def test_a_thread_is_updated_once(self, filled: ConvexServer, losing: Storage) -> None:
        updated = await losing.update_thread("t", title="new", metadata={"a": 1})
        assert await losing.get_thread_by_id("t") == updated
        assert (await filled.counts())[WRITE] == 2

    async def test_a_thread_is_deleted(self, losing: Storage) -> None:
        await losing.delete_thread("t")
        assert await losing.get_thread_by_id("t") is None
        assert await losing.get_messages("t") == []

    async def test_a_conditional_delete_succeeds(
        self, filled: ConvexServer, losing: Storage
    ) -> None:
        [row] = await losing.backend.get(THREADS, [("t",)])
        assert row is not None
        await losing.backend.write([Delete(THREADS, row.key, row.version)])
        assert await losing.backend.get(THREADS, [row.key]) == [None]
        with pytest.raises(ConflictError):
            await losing.backend.write([Delete(THREADS, row.key, row.version)])
        assert (await filled.control())["documents"]["receipts"] > 0
        await filled.control(clockAheadMs=20 * 60 * 1000)
        await filled.control(settle=True)
        assert (await filled.control())["documents"]["receipts"] == 0

    async def test_what_was_refused_stays_refused(self, losing: Storage) -> None:
        with pytest.raises(NotFoundError):
            await losing.save_message(message("m", "nowhere"))
        assert await losing.get_messages("nowhere") == []


async def test_acknowledged_messages_of_two_stores_survive_everything(
    filled: ConvexServer,
) -> None:
    faults = [
        status(429, probability=0.05),
        status(503, probability=0.1, when="after"),
        status(503, probability=0.1),
        {"kind": "drop", "probability": 0.1, "when": "after"},
        {"kind": "drop", "probability": 0.1},
        {"kind": "truncate", "probability": 0.05},
    ]
    async with convex_store(filled) as one, convex_store(filled) as other:
        await filled.control(reset=True, faults=faults)

        async def save(number: int) -> Message:
            await asyncio.sleep(number * 0.003)
            return await (one, other)[number % 2].save_message(message(f"n{number}"))

        outcomes = await asyncio.gather(*[save(n) for n in range(300)], return_exceptions=True)
        await filled.control(faults=[])
        saved = [outcome for outcome in outcomes if isinstance(outcome, Message)]
        failed = [outcome for outcome in outcomes if not isinstance(outcome, Message)]
        assert all(isinstance(outcome, StorageError) for outcome in failed)
        assert len(saved) > 250
    saved.sort(key=lambda each: each.created_at)
    async with convex_store(filled) as third:
        found = await third.get_messages("t")
    acknowledged = set(ids(saved))
    assert [each for each in found if each.id in acknowledged] == saved
    assert len(set(ids(found))) == len(found)


# -- what stays ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "says"),
    [
        (status(503), UnavailableError, "OptimisticConcurrencyControlFailure"),
        (status(503, code="ExpiredInQueue"), UnavailableError, "too busy"),
        (status(500), UnavailableError, "HTTP 500 InternalServerError"),
        ({"kind": "drop"}, UnavailableError, "check the URL"),
        ({"kind": "html"}, UnavailableError, "not its API"),
        ({"kind": "malformed"}, UnavailableError, "not its API"),
        ({"kind": "truncate"}, UnavailableError, "connection"),
        ({"kind": "delay", "ms": 5000}, UnavailableError, "within 1.5 seconds"),
        ({"kind": "slow", "ms": 5000}, UnavailableError, "within 1.5 seconds"),
        (status(429), RateLimitedError, "slow down"),
        (status(429, retryAfter=300), RateLimitedError, "300 seconds"),
        (status(401), AuthenticationError, "deploy key"),
        (status(403), AuthenticationError, "deploy key"),
        (status(400, code="BadFormat"), StorageError, "BadFormat"),
        ({"kind": "error"}, StorageError, "0123456789abcdef.*dashboard"),
        ({"kind": "error", "message": f"Uncaught Error: {SECRET}"}, StorageError, "convex logs"),
        ({"kind": "value"}, UnsupportedError, "mastra-storage-convex init"),
        (
            {"kind": "error", "message": "ArgumentValidationError: Object has extra field `x`"},
            UnsupportedError,
            "npx convex deploy",
        ),
    ],
    ids=named,
)
async def test_a_fault_that_stays_is_an_error_and_never_empty(
    filled: ConvexServer,
    impatient: None,
    fault: dict[str, Any],
    error: type[StorageError],
    says: str,
) -> None:
    async with convex_store(filled, timeout=1.5) as storage:
        await filled.control(faults=[fault | {"times": 1000}])
        for name in ("get_messages last", "list_threads", "save_message", "update_thread"):
            with pytest.raises(error, match=says) as caught:
                await CALLS[name](storage)
            assert caught.value.backend == "convex"
            assert caught.value.operation == name.split()[0]
            transient = issubclass(error, UnavailableError | RateLimitedError)
            assert caught.value.retryable == transient
            assert SECRET not in f"{caught.value}"
        await filled.control(faults=[])


async def test_a_long_pause_that_is_asked_for_is_told_at_once(filled: ConvexServer) -> None:
    async with convex_store(filled) as storage:
        await filled.control(reset=True, faults=[status(429, retryAfter=300)])
        with pytest.raises(RateLimitedError) as caught:
            await storage.get_thread_by_id("t")
    assert caught.value.retry_after == 300
    assert len(await filled.log()) == 1


async def test_what_would_fail_again_is_not_tried_again(
    filled: ConvexServer, store: Storage
) -> None:
    for fault in (status(401), status(400), {"kind": "error"}, {"kind": "value"}):
        await filled.control(reset=True, faults=[fault | {"times": 10}])
        with pytest.raises(StorageError):
            await store.get_thread_by_id("t")
        assert len(await filled.log()) == 1


async def test_each_of_merged_calls_fails_with_an_error_of_its_own(
    filled: ConvexServer,
) -> None:
    async with convex_store(filled, timeout=1.5) as storage:
        await filled.control(faults=[status(503, times=1000)])
        outcomes = await asyncio.gather(
            storage.get_thread_by_id("t"),
            storage.update_thread("t", title="x"),
            storage.save_thread(Thread(id="u", resource_id="r")),
            storage.save_thread(Thread(id="v", resource_id="r")),
            return_exceptions=True,
        )
        await filled.control(faults=[])
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 4
    assert len(set(map(id, outcomes))) == 4
    operations = [each.operation for each in outcomes if isinstance(each, StorageError)]
    assert operations == ["get_thread_by_id", "update_thread", "save_thread", "save_thread"]


async def test_a_call_ends_at_its_deadline(filled: ConvexServer) -> None:
    async with convex_store(filled, timeout=2.0) as storage:
        await filled.control(delayMs=60_000)
        started = time.monotonic()
        outcomes = await asyncio.gather(
            *(call(storage) for call in CALLS.values()), return_exceptions=True
        )
        assert time.monotonic() - started < 20
        for outcome in outcomes:
            assert isinstance(outcome, UnavailableError)
            assert "within 2 seconds" in str(outcome)
        await filled.control(delayMs=0)
        await storage.save_message(message("last"))


async def test_a_store_that_closes_waits_for_its_writes(filled: ConvexServer) -> None:
    async with convex_store(filled) as storage:
        await filled.control(delayMs=100)
        saving = asyncio.ensure_future(storage.save_message(message("late")))
        await asyncio.sleep(0.02)
    await filled.control(delayMs=0)
    assert (await saving).id == "late"
    async with convex_store(filled) as other:
        assert ids(await other.get_messages("t", last=1)) == ["late"]


# -- the wrong place, the wrong key --------------------------------------------------------------


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Something that gives each request this answer, or none; its address, and what it was sent."""
    sent: list[bytes] = []
    serving: list[asyncio.Task[Any] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with suppress(EOFError, ConnectionError):
            sent.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer or b"")
            if answer is None:
                await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1")
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent
        await asyncio.gather(*[task for task in serving if task])


def http(status: str, body: bytes, *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


KEY = "prod:somewhere|0123456789abcdef"


class TestSomethingElseAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            http("200 OK", b"<!doctype html><title>Sign in</title>"),
            http("200 OK", b'{"ok": true}'),
            http("200 OK", b'{"status": "success"}'),
            http("200 OK", b"[]"),
            http("200 OK", b"\xff\xfe\x00"),
            http("200 OK", b""),
            http("204 No Content", b""),
            http("404 Not Found", b"<h1>Not Found</h1>"),
            http("405 Method Not Allowed", b""),
            http("302 Found", b"", "Location: http://127.0.0.1:9/login"),
            http("502 Bad Gateway", b"<h1>Bad Gateway</h1>"),
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
            b"",
        ],
    )
    async def test_that_is_said(self, impatient: None, answer: bytes) -> None:
        async with answering(answer) as (url, sent):
            storage = ConvexStorage(url, KEY, timeout=2)
            with pytest.raises(StorageError) as caught:
                await storage.open()
        assert type(caught.value) in (UnavailableError, StorageError)
        assert "URL" in str(caught.value) or "try again later" in str(caught.value)
        assert sent
        assert KEY not in texts_of(caught.value)

    async def test_the_key_does_not_follow_a_redirect(self, impatient: None) -> None:
        async with answering(http("200 OK", b"{}")) as (elsewhere, sent_on):
            redirect = http("307 Temporary Redirect", b"", f"Location: {elsewhere}/")
            async with answering(redirect) as (url, sent):
                with pytest.raises(UnavailableError, match="no Convex deployment") as caught:
                    await ConvexStorage(url, KEY).open()
        assert not caught.value.retryable
        assert (len(sent), sent_on) == (1, [])
        assert KEY.encode() in sent[0]

    async def test_silence_ends_at_the_deadline(self) -> None:
        async with answering(None) as (url, _):
            started = time.monotonic()
            with pytest.raises(UnavailableError, match=r"(within 0\.2|for 0\.0667) seconds"):
                await ConvexStorage(url, KEY, timeout=0.2).open()
            assert time.monotonic() - started < 10

    async def test_nothing_answers(self, impatient: None) -> None:
        storage = ConvexStorage("http://127.0.0.1:9", KEY, timeout=5)
        with pytest.raises(UnavailableError, match="deployment is running") as caught:
            await storage.open()
        assert (caught.value.backend, caught.value.operation) == ("convex", "open")
        assert KEY not in texts_of(caught.value)


class TestAccess:
    async def test_a_wrong_key_fails_at_once(self, filled: ConvexServer) -> None:
        await filled.control(reset=True)
        with pytest.raises(AuthenticationError, match="deploy key of this very deployment"):
            await convex_store(filled, key=filled.wrong_key).open()
        assert len(await filled.log()) <= 1

    @pytest.mark.parametrize("name", CALLS)
    async def test_a_key_that_was_revoked(
        self, filled: ConvexServer, store: Storage, name: str
    ) -> None:
        await filled.control(refuseKeys=True)
        with pytest.raises(AuthenticationError) as caught:
            await CALLS[name](store)
        assert not caught.value.retryable

    def test_no_key(self, convex_server: ConvexServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("CONVEX_DEPLOY_KEY", "CONVEX_SELF_HOSTED_ADMIN_KEY"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(InvalidArgumentError, match="CONVEX_DEPLOY_KEY"):
            open_storage(f"convex+{convex_server.url}")

    async def test_keys_and_contents_appear_nowhere(
        self, filled: ConvexServer, caplog: pytest.LogCaptureFixture, impatient: None
    ) -> None:
        caplog.set_level(logging.DEBUG)
        asyncio.get_running_loop().set_debug(True)
        shown = ""
        faults = [
            status(503),
            status(401),
            status(429),
            {"kind": "malformed"},
            {"kind": "drop"},
            {"kind": "truncate"},
            {"kind": "html"},
            {"kind": "error", "message": f"Uncaught Error: {SECRET} {filled.admin_key}"},
            {"kind": "value", "value": {"outcomes": [{"status": SECRET}]}},
            {"kind": "delay", "ms": 5000},
        ]
        for fault in faults:
            async with convex_store(filled, timeout=1.0) as storage:
                await filled.control(faults=[fault | {"times": 1000}])
                for name in ("save_message", "get_messages"):
                    with pytest.raises(StorageError) as caught:
                        await CALLS[name](storage)
                    shown += texts_of(caught.value)
                await filled.control(faults=[])
                shown += f"{storage!r}{storage.backend!r}{convex_backend(filled)!r}"
        with pytest.raises(AuthenticationError) as refused:
            await convex_store(filled, key=filled.wrong_key).open()
        shown += texts_of(refused.value)
        shown += "\n".join(
            f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records
        )
        assert len(caplog.records) > 20
        for private in (filled.admin_key, filled.wrong_key, SECRET):
            assert private not in shown


# -- functions that are not there, or others -----------------------------------------------------


class TestFunctions:
    @pytest.mark.parametrize("redact", [False, True])
    async def test_that_were_not_deployed(self, convex: ConvexServer, redact: bool) -> None:
        await convex.control(functions="none", redact=redact)
        with pytest.raises(UnsupportedError, match="mastra-storage-convex init") as caught:
            await convex_store(convex).open()
        assert "npx convex deploy" in str(caught.value)

    @pytest.mark.parametrize("redact", [False, True])
    async def test_that_disappear_while_the_store_is_open(
        self, filled: ConvexServer, store: Storage, redact: bool
    ) -> None:
        await filled.control(functions="none", redact=redact)
        for call in CALLS.values():
            with pytest.raises(StorageError, match="mastra-storage-convex init") as caught:
                await call(store)
            # A production deployment does not tell why a call failed.
            assert isinstance(caught.value, UnsupportedError) is not redact
            assert not caught.value.retryable
        await filled.control(functions="default", redact=False)
        assert ids(await store.get_messages("t")) == ["m0", "m1", "m2"]

    @pytest.mark.parametrize(
        ("protocol", "says"), [(0, "older.*npx convex deploy"), (2, "newer.*upgrade")]
    )
    async def test_of_another_version(self, convex: ConvexServer, protocol: int, says: str) -> None:
        version = {"protocol": protocol, "version": "9.9"}
        await convex.control(
            faults=[{"kind": "value", "match": "system:version", "value": version}]
        )
        with pytest.raises(UnsupportedError, match=says):
            await convex_store(convex).open()

    async def test_of_somebody_else(self, convex: ConvexServer, tmp_path: Path) -> None:
        source = (
            'import { queryGeneric } from "convex/server";\n'
            "export const version = queryGeneric({ args: {}, handler: () => 7 });\n"
        )
        (tmp_path / "system.ts").write_text(source)
        await convex.control(functions=str(tmp_path))
        with pytest.raises(UnsupportedError, match="npx convex deploy"):
            await convex_store(convex).open()


async def test_a_server_that_is_started_again_is_not_noticed(tmp_path: Path) -> None:
    data = tmp_path / "documents"
    async with AsyncExitStack() as stack:
        with ConvexServer.start(data=data) as server:
            await fill(server)
            storage = await stack.enter_async_context(convex_store(server))
            assert ids(await storage.get_messages("t")) == ["m0", "m1", "m2"]
        waiting = asyncio.ensure_future(storage.save_message(message("meanwhile")))
        await asyncio.sleep(0.05)
        with ConvexServer.start(data=data, port=server.port):
            assert (await waiting).id == "meanwhile"
            assert await storage.save_message(message("after"))
            assert ids(await storage.get_messages("t")) == ["m0", "m1", "m2", "meanwhile", "after"]


# -- cancellation --------------------------------------------------------------------------------


class CancelledAt(Coroutine[Any, Any, Any]):
    """A call whose task is cancelled at the await of this number; it may end before."""

    def __init__(self, call: Coroutine[Any, Any, Any], number: int) -> None:
        self._call = call
        self._left = number

    def send(self, value: Any) -> Any:
        return self._waiting(self._call.send(value))

    def throw(self, *error: Any) -> Any:
        return self._waiting(self._call.throw(*error))

    def close(self) -> None:
        self._call.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._call.__await__()

    def _waiting(self, future: Any) -> Any:
        if self._left == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        self._left -= 1
        return future


async def whole(storage: Storage) -> bool:
    """Whether a save to two threads happened; fails when half of it did."""
    one, two = await storage.get_messages("t"), await storage.get_messages("u")
    assert ("new" in ids(one)) == ("new" in ids(two))
    return "new" in ids(one)


async def updated(storage: Storage) -> bool:
    thread = await storage.get_thread_by_id("t")
    assert thread is not None
    assert (thread.title, thread.metadata) in (("", {}), ("new", {"a": 1}))
    return thread.title == "new"


async def moved(storage: Storage) -> bool:
    places = [ids(await storage.get_messages(thread)) for thread in ("t", "u")]
    assert ("m1" in places[0]) != ("m1" in places[1])
    return "m1" in places[1]


async def deleted(storage: Storage) -> bool:
    there = await storage.get_thread_by_id("t") is not None
    assert len(await storage.get_messages("t")) == (3 if there else 0)
    return not there


async def cleared(storage: Storage) -> bool:
    left = ids(await storage.get_messages("t"))
    assert left in (["m0", "m1", "m2"], ["m2"])
    return len(left) == 1


CANCELLED: dict[
    str, tuple[Callable[[Storage], Coroutine[Any, Any, Any]], Callable[[Storage], Awaitable[bool]]]
] = {
    "save": (lambda s: s.save_messages([message("new"), message("new", "u")]), whole),
    "update": (lambda s: s.update_thread("t", title="new", metadata={"a": 1}), updated),
    "move": (lambda s: s.update_messages("t", [MessageUpdate("m1", thread_id="u")]), moved),
    "delete messages": (lambda s: s.delete_messages("t", ["m0", "m1"]), cleared),
    "delete": (lambda s: s.delete_thread("t"), deleted),
}


class TestCancellation:
    @pytest.mark.parametrize("name", CANCELLED)
    async def test_at_every_await_a_write_is_whole_or_nothing(
        self, convex: ConvexServer, name: str
    ) -> None:
        call, happened = CANCELLED[name]
        seen = set()
        async with convex_store(convex) as storage:
            for number in count():
                await storage.clear_table("messages")
                await storage.clear_table("threads")
                await storage.save_thread(Thread(id="t", resource_id="r"))
                await storage.save_thread(Thread(id="u", resource_id="r"))
                await storage.save_messages(messages(3))
                task = asyncio.ensure_future(CancelledAt(call(storage), number))
                await asyncio.wait([task])
                # A write of the same store waits for those before it.
                await storage.save_thread(Thread(id="after", resource_id="r"))
                seen.add((task.cancelled(), await happened(storage)))
                if not task.cancelled():
                    await task
                    break
        assert number > 0
        assert (False, True) in seen
        assert (False, False) not in seen

    async def test_cancelled_reads_leave_the_store_usable(
        self, filled: ConvexServer, store: Storage
    ) -> None:
        for call in READS.values():
            for number in count():
                task = asyncio.ensure_future(CancelledAt(call(store), number))
                await asyncio.wait([task])
                if not task.cancelled():
                    assert await task
                    break
            assert number > 0
        assert ids(await store.get_messages("t")) == ["m0", "m1", "m2"]

    async def test_at_any_time_calls_leave_the_store_usable(
        self, filled: ConvexServer, store: Storage
    ) -> None:
        await filled.control(delayMs=20)
        for call in CALLS.values():
            for milliseconds in (0, 5, 15, 25, 45):
                task = asyncio.ensure_future(call(store))
                await asyncio.sleep(milliseconds / 1000)
                task.cancel()
                await asyncio.wait([task])
        await filled.control(delayMs=0)
        await store.save_message(message("last"))
        assert ids(await store.get_messages("t", last=1)) == ["last"]
        async with convex_store(filled) as other:
            assert ids(await other.get_messages("t", last=1)) == ["last"]

    async def test_a_cancelled_save_that_waited_is_not_sent(
        self, filled: ConvexServer, store: Storage
    ) -> None:
        await filled.control(delayMs=50)
        first = asyncio.ensure_future(store.save_message(message("first")))
        await asyncio.sleep(0.01)
        others = [asyncio.ensure_future(store.save_message(m)) for m in messages(10, start=3)]
        await asyncio.sleep(0.01)
        for task in others[::2]:
            task.cancel()
        await asyncio.wait([first, *others])
        await filled.control(delayMs=0)
        found = ids(await store.get_messages("t"))
        assert found == ["m0", "m1", "m2", "first", "m4", "m6", "m8", "m10", "m12"]

    async def test_a_store_may_be_closed_while_it_is_called(self, filled: ConvexServer) -> None:
        storage = convex_store(filled)
        await storage.open()
        await filled.control(delayMs=50)
        tasks = [asyncio.ensure_future(call(storage)) for call in CALLS.values()]
        await asyncio.sleep(0.02)
        await storage.close()
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            assert not isinstance(outcome, Exception) or isinstance(outcome, StorageError)
