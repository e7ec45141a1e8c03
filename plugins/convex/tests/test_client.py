"""Calls over HTTP: what is sent, what is tried again, and what each failure stands for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import tenacity
import yarl
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from convex_server import ConvexServer
from convex_stores import convex_backend, convex_store
from mastra_storage_convex._answers import FunctionFailedError, TransactionTooLargeError
from mastra_storage_convex._connections import connection_failure
from mastra_storage_convex.client import Client, Settings
from mastra_storage_convex.wire import PROTOCOL
from msgspec import Struct

from mastra_storage import (
    AuthenticationError,
    InvalidArgumentError,
    Query,
    RateLimitedError,
    StorageError,
    Table,
    Thread,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)

KEY = "dev:lemur|secret-key"
OWN = Table(name="own", key=("id",))
VERSION = {"status": "success", "value": {"protocol": float(PROTOCOL), "version": "0.1.0"}}


class Numbers(Struct):
    numbers: list[float]


GOOD = {"status": "success", "value": {"numbers": [3.0]}, "logLines": ["private"]}


class Answers:
    """A server that gives the answers it was told, one after the other; the last one stays."""

    def __init__(self) -> None:
        self.left: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.connections: set[Any] = set()

    def __call__(self, *answers: dict[str, Any]) -> None:
        self.left = list(answers)
        self.requests.clear()

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.json()
        self.requests.append({"path": request.path, "headers": request.headers, "body": body})
        self.connections.add(request.transport)
        answer = dict(self.left.pop(0) if len(self.left) > 1 else self.left[0])
        await asyncio.sleep(answer.pop("seconds", 0))
        if answer.pop("drop", False):
            assert request.transport is not None
            request.transport.abort()
        if "payload" in answer:
            return web.json_response(answer["payload"], status=answer.get("status", 200))
        return web.Response(**answer)


def function_error(message: str) -> dict[str, Any]:
    return {"payload": {"status": "error", "errorMessage": message, "errorData": {"x": 1}}}


def refusal(status: int, code: str) -> dict[str, Any]:
    return {"status": status, "payload": {"code": code, "message": "private"}}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What comes instead of Convex's answers; calls are tried again at once."""
    monkeypatch.setattr("mastra_storage_convex.client._BACKOFF", tenacity.wait_fixed(0))
    return Answers()


@pytest.fixture
async def unopened(answers: Answers) -> AsyncIterator[Client]:
    async with RawTestServer(answers.respond) as server:
        url = str(server.make_url("/")).rstrip("/")
        client = Client(Settings(url=url, key=KEY, timeout=5.0))
        yield client
        await client.close()


@pytest.fixture
async def client(unopened: Client, answers: Answers) -> Client:
    answers({"payload": VERSION})
    await unopened.open()
    answers({"payload": GOOD})
    return unopened


async def failure(client: Client, path: str = "m:list") -> StorageError:
    """The error of a query, in which nothing private is told."""
    with pytest.raises(StorageError) as caught:
        await client.query(path, {"who": "private"}, Numbers)
    error: BaseException | None = caught.value
    while error is not None:
        for private in ("secret-key", "private"):
            assert private not in f"{error}{error!r}"
        error = error.__cause__ or error.__context__
    return caught.value


class TestRequests:
    async def test_are_as_convex_takes_them(self, client: Client, answers: Answers) -> None:
        found = await client.query("m:list", {"key": ("a", "é")}, Numbers)
        assert found == Numbers([3])
        await client.mutate("system:write", b"[1]", Numbers)
        query, mutation = answers.requests
        assert (query["path"], mutation["path"]) == ("/api/query", "/api/mutation")
        assert query["headers"]["Authorization"] == f"Convex {KEY}"
        assert query["headers"]["Content-Type"] == "application/json"
        assert query["body"] == {
            "path": "m:list",
            "format": "convex_encoded_json",
            "args": {"key": ["a", "é"]},
        }
        assert mutation["body"]["args"] == [1]

    async def test_share_connections(self, client: Client, answers: Answers) -> None:
        for _ in range(5):
            await client.query("m:list", {}, Numbers)
        assert len(answers.connections) == 1

    async def test_with_what_is_not_text_are_refused(
        self, client: Client, answers: Answers
    ) -> None:
        with pytest.raises(InvalidArgumentError, match="surrogate"):
            await client.query("m:list", {"key": "\ud800"}, Numbers)
        assert answers.requests == []


class TestOpening:
    async def test_asks_for_the_version(self, unopened: Client, answers: Answers) -> None:
        answers({"payload": VERSION})
        await unopened.open()
        assert [request["body"]["path"] for request in answers.requests] == ["system:version"]

    @pytest.mark.parametrize(
        ("protocol", "step"),
        [(PROTOCOL - 1, "npx convex deploy"), (PROTOCOL + 1, "upgrade mastra-storage-convex")],
    )
    async def test_refuses_functions_of_another_version(
        self, unopened: Client, answers: Answers, protocol: int, step: str
    ) -> None:
        value = {"protocol": float(protocol), "version": "9.9"}
        answers({"payload": {"status": "success", "value": value}})
        with pytest.raises(UnsupportedError, match=step):
            await unopened.open()

    @pytest.mark.parametrize(
        ("answer", "error", "step"),
        [
            (function_error("Could not find public function for 'x'."), UnsupportedError, "init"),
            ({"payload": {"status": "success", "value": "mine"}}, UnsupportedError, "init"),
            (refusal(401, "BadAdminKey"), AuthenticationError, "BadAdminKey"),
            (refusal(403, "BadDeployKey"), AuthenticationError, "deploy key"),
            ({"status": 404, "text": "<html>"}, UnavailableError, r"convex\.cloud"),
            ({"status": 308, "headers": {"Location": "/"}}, UnavailableError, r"convex\.cloud"),
            ({"text": "<html>"}, UnavailableError, "check the URL"),
        ],
    )
    async def test_that_fails_says_the_next_step(
        self,
        unopened: Client,
        answers: Answers,
        answer: dict[str, Any],
        error: type[StorageError],
        step: str,
    ) -> None:
        answers(answer)
        with pytest.raises(error, match=step):
            await unopened.open()

    @pytest.mark.parametrize(("seconds", "least", "most"), [(30.0, 1.0, 25.0), (0.5, 0.0, 4.5)])
    async def test_without_a_server_fails_soon(
        self, seconds: float, least: float, most: float
    ) -> None:
        async with RawTestServer(Answers().respond) as server:
            url = str(server.make_url("/")).rstrip("/")
        client = Client(Settings(url=url, key=KEY, timeout=seconds))
        started = asyncio.get_running_loop().time()
        with pytest.raises(UnavailableError, match="deployment is running"):
            await client.open()
        await client.close()
        assert least < asyncio.get_running_loop().time() - started < most

    async def test_counts_the_first_attempt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[object] = []

        async def send(self: Client, *request: object) -> bytes:
            sent.append(request)
            await asyncio.sleep(0.2)
            raise UnavailableError("away")

        monkeypatch.setattr(Client, "_send", send)
        monkeypatch.setattr("mastra_storage_convex.client._OPENING_SECONDS", 0.1)
        client = Client(Settings(url="http://127.0.0.1:9", key=KEY))
        with pytest.raises(UnavailableError, match="away"):
            await client.open()
        await client.close()
        assert len(sent) == 1

    async def test_waits_for_a_deployment_that_is_about_to_start(self) -> None:
        answers = Answers()
        answers(refusal(503, "WorkerOverloaded"), {"payload": VERSION})
        async with RawTestServer(answers.respond) as server:
            port = server.port
        assert port is not None
        client = Client(Settings(url=f"http://127.0.0.1:{port}", key=KEY))
        opening = asyncio.create_task(client.open())
        await asyncio.sleep(0.5)
        assert not opening.done()
        async with RawTestServer(answers.respond, port=port):
            await opening
        await client.close()
        assert len(answers.requests) == 2


class TestRetries:
    @pytest.mark.parametrize(
        "answer",
        [
            refusal(503, "OptimisticConcurrencyControlFailure"),
            refusal(503, "CommitterFullError"),
            refusal(500, "InternalServerError"),
            refusal(429, "TooManyConcurrentRequests"),
            {"status": 429, "headers": {"Retry-After": "0"}},
            {"status": 502, "text": "<html>"},
            {"drop": True},
            {"text": '{"status":"succ'},
            {"text": "[" * 200_000},
            {"status": 500, "text": "[" * 200_000},
        ],
    )
    async def test_happen_after_what_passes(
        self, client: Client, answers: Answers, answer: dict[str, Any]
    ) -> None:
        answers(answer, answer, {"payload": GOOD})
        assert await client.query("m:list", {}, Numbers) == Numbers([3])
        assert len(answers.requests) == 3
        answers(answer, answer, {"payload": GOOD})
        await client.mutate("system:write", b"[1]", Numbers)
        assert [request["body"]["args"] for request in answers.requests] == [[1]] * 3

    @pytest.mark.parametrize(
        "answer",
        [
            refusal(401, "BadAdminKey"),
            refusal(400, "BadJsonBody"),
            {"status": 429, "headers": {"Retry-After": "60"}},
            function_error("Uncaught Error: private"),
        ],
    )
    async def test_do_not_happen_after_what_stays(
        self, client: Client, answers: Answers, answer: dict[str, Any]
    ) -> None:
        answers(answer)
        await failure(client)
        assert len(answers.requests) == 1

    async def test_are_not_made_at_once_when_asked_to_wait_for_no_time(
        self, client: Client, answers: Answers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mastra_storage_convex.client._BACKOFF", tenacity.wait_fixed(0.1))
        answers(*[{"status": 429, "headers": {"Retry-After": "0"}}] * 3, {"payload": GOOD})
        loop = asyncio.get_running_loop()
        began = loop.time()
        await client.query("m:list", {}, Numbers)
        assert loop.time() - began > 0.29

    async def test_come_to_an_end(self, client: Client, answers: Answers) -> None:
        answers(refusal(503, "WorkerOverloaded"))
        error = await failure(client)
        assert isinstance(error, UnavailableError)
        assert "WorkerOverloaded" in str(error)
        assert len(answers.requests) == 8

    @pytest.mark.parametrize(
        "answer", [{"seconds": 30, "text": ""}, refusal(503, "ExpiredInQueue")]
    )
    async def test_end_with_the_time_of_the_call(
        self, answers: Answers, answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mastra_storage_convex.client._BACKOFF", tenacity.wait_fixed(0.2))
        async with RawTestServer(answers.respond) as server:
            url = str(server.make_url("/")).rstrip("/")
            client = Client(Settings(url=url, key=KEY, timeout=0.3))
            answers({"payload": VERSION})
            await client.open()
            answers(answer)
            started = asyncio.get_running_loop().time()
            error = await failure(client)
            assert asyncio.get_running_loop().time() - started < 10
            assert isinstance(error, UnavailableError)
            assert ("0.3 seconds" in str(error)) == ("seconds" in answer)
            await client.close()


class TestSilence:
    """Of a third of the time of a call."""

    @pytest.fixture
    async def soon(self, client: Client) -> Client:
        soon = Client(Settings(url=client.settings.url, key=KEY, timeout=1.5))
        soon._session = client._session
        return soon

    async def test_ends_an_attempt(self, soon: Client, answers: Answers) -> None:
        answers({"payload": GOOD, "seconds": 60}, {"payload": GOOD})
        await soon.query("m:list", {}, Numbers)
        assert len(answers.requests) == 2

    async def test_does_not_end_one_that_takes_long_to_send(
        self, soon: Client, answers: Answers
    ) -> None:
        answers({"payload": GOOD, "seconds": 0.8})
        await soon.query("m:list", {"text": "x" * 2**16}, Numbers)
        assert len(answers.requests) == 1

    async def test_to_the_end_is_told_with_the_time_of_the_call(
        self, soon: Client, answers: Answers
    ) -> None:
        answers({"payload": GOOD, "seconds": 60})
        with pytest.raises(UnavailableError, match=r"did not answer within 1\.5 seconds"):
            await soon.query("m:list", {}, Numbers)
        assert len(answers.requests) in (2, 3)


class TestFailures:
    @pytest.mark.parametrize(
        ("message", "error", "step"),
        [
            (
                "Could not find public function for 'm:list'. Did you forget to run …",
                UnsupportedError,
                "npx convex deploy",
            ),
            (
                "[Request ID: 0a1B] Server Error\nCould not find function for 'm:list'",
                UnsupportedError,
                "npx convex deploy",
            ),
            (
                "[Request ID: 0a1B] Server Error\nArgumentValidationError: private",
                UnsupportedError,
                "another version.*request 0a1B.*npx convex deploy",
            ),
            ("ReturnsValidationError: private", UnsupportedError, "another version"),
            ("Trying to execute m.js:list as Query, but …", UnsupportedError, "another version"),
            (
                "Failed to insert a document as it does not match the schema: private",
                UnsupportedError,
                "another version",
            ),
            (
                "Uncaught Error: Too many bytes read in a single function execution (limit: 1).",
                TransactionTooLargeError,
                "less at a time",
            ),
            ("Function execution timed out (maximum: 1s)", TransactionTooLargeError, "less"),
            ("Arguments for m:list are too large (actual: 1", TransactionTooLargeError, "less"),
            ("Value is too large (1 MiB > maximum size 1 MiB)", TooLargeError, "elsewhere"),
            ("Uncaught Error: private", FunctionFailedError, "m:list failed.*npx convex logs"),
            (
                "[Request ID: 0a1B] Server Error",
                FunctionFailedError,
                "request 0a1B.*npx convex logs",
            ),
            ("", FunctionFailedError, "npx convex logs"),
        ],
    )
    async def test_of_functions(
        self,
        client: Client,
        answers: Answers,
        message: str,
        error: type[StorageError],
        step: str,
    ) -> None:
        for status in (200, 560):
            answers(function_error(message) | {"status": status})
            found = await failure(client)
            assert type(found) is error
            assert len(answers.requests) == 1
        assert not found.retryable
        assert_matches(step, found)

    @pytest.mark.parametrize(
        ("answer", "error", "step"),
        [
            (refusal(401, "BadAdminKey"), AuthenticationError, "401 BadAdminKey.*deploy key"),
            (refusal(400, "BadJsonBody"), StorageError, "400 BadJsonBody"),
            (refusal(400, "TooManyReads"), TransactionTooLargeError, "less at a time"),
            (refusal(400, "private private"), StorageError, r"HTTP 400\)"),
            ({"status": 413, "text": "<html>"}, TransactionTooLargeError, "less at a time"),
            ({"status": 429, "headers": {"Retry-After": "60"}}, RateLimitedError, "60 seconds"),
            ({"status": 404, "text": "<html>"}, UnavailableError, r"convex\.cloud"),
            ({"status": 418, "text": "tea"}, StorageError, "HTTP 418"),
            ({"payload": {"status": "success", "value": {"numbers": 5}}}, UnsupportedError, "init"),
            ({"payload": {"status": "success"}}, UnavailableError, "not its API"),
            ({"payload": {"status": "maybe", "value": {}}}, UnavailableError, "not its API"),
            ({"payload": [1, 2]}, UnavailableError, "not its API"),
            ({"body": b"\xff\xfe{"}, UnavailableError, "not its API"),
            ({"text": ""}, UnavailableError, "not its API"),
        ],
        ids=str,
    )
    async def test_of_the_deployment(
        self,
        client: Client,
        answers: Answers,
        answer: dict[str, Any],
        error: type[StorageError],
        step: str,
    ) -> None:
        answers(answer)
        found = await failure(client)
        assert type(found) is error
        assert_matches(step, found)

    async def test_of_what_is_not_http(self, answers: Answers) -> None:
        async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.test ready\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = Client(Settings(url=f"http://127.0.0.1:{port}", key=KEY))
            with pytest.raises(UnavailableError, match="not HTTP"):
                await client.open()
            assert isinstance(await failure(client), UnavailableError)
            await client.close()

    async def test_of_connections_name_the_place_and_the_reason(self) -> None:
        async with RawTestServer(Answers().respond) as server:
            port = server.port
            tls = await failure_to_open(f"https://127.0.0.1:{port}")
        assert not tls.retryable
        assert f"127.0.0.1:{port}: TLS failed" in str(tls)
        assert "use convex+http:// for a server without TLS" in str(tls)
        refused = await failure_to_open(f"http://127.0.0.1:{port}")
        assert refused.retryable
        assert f"no connection to 127.0.0.1:{port}: it was refused" in str(refused)
        unknown = await failure_to_open("http://lemur.invalid:3210")
        assert "lemur.invalid:3210: a host of that name is not known" in str(unknown)

    def test_of_certificates_are_not_tried_again(self) -> None:
        url = yarl.URL("https://lemur.test")
        key: Any = None
        refused = ssl.SSLCertVerificationError("private")
        found = connection_failure(aiohttp.ClientConnectorCertificateError(key, refused), url)
        assert not found.retryable
        assert "lemur.test:443: its TLS certificate is not one" in str(found)

    async def test_of_a_closed_store(self, client: Client) -> None:
        await client.close()
        await client.close()
        found = await failure(client)
        assert isinstance(found, UnavailableError)
        assert not found.retryable
        assert "closed" in str(found)


async def failure_to_open(url: str) -> StorageError:
    client = Client(Settings(url=url, key=KEY, timeout=0.5))
    with pytest.raises(UnavailableError) as caught:
        await client.open()
    await client.close()
    return caught.value


def assert_matches(step: str, error: StorageError) -> None:
    with pytest.raises(type(error), match=step):
        raise error


class TestOnTheServer:
    async def test_closing_ends_the_calls_that_wait_for_a_connection(
        self, convex: ConvexServer
    ) -> None:
        client = Client(Settings(url=convex.url, key=convex.admin_key))
        await client.open()
        await convex.control(delayMs=1_000)

        async def call() -> Any:
            return await client.query("threads:get", {"keys": []}, dict[str, Any])

        calls = [asyncio.ensure_future(call()) for _ in range(60)]
        await asyncio.sleep(0.2)
        calls[-1].cancel()
        await client.close()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in found[:-1]} == {UnavailableError}
        assert isinstance(found[-1], asyncio.CancelledError)

    async def test_a_wrong_key_is_refused(self, convex: ConvexServer) -> None:
        backend = convex_backend(convex, key=convex.wrong_key)
        with pytest.raises(AuthenticationError, match="deploy key") as caught:
            await backend.open()
        await backend.close()
        assert convex.wrong_key not in f"{caught.value!r}{caught.value.__cause__!r}"

    async def test_a_deployment_without_functions_says_how_to_get_them(self) -> None:
        with ConvexServer.start(functions="none") as server:
            backend = convex_backend(server)
            with pytest.raises(UnsupportedError, match="mastra-storage-convex init"):
                await backend.open()
            await backend.close()

    async def test_a_repeated_delete_takes_nothing_that_came_after_it(
        self, convex: ConvexServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mastra_storage_convex.client._BACKOFF", tenacity.wait_fixed(0.3))
        thread = Thread(id="t", resource_id="r")
        async with convex_store(convex) as storage, convex_store(convex) as other:
            await storage.save_thread(thread)
            await convex.control(faults=[{"kind": "drop", "when": "after", "match": "write"}])
            deletion = asyncio.ensure_future(storage.delete_thread("t"))
            async with asyncio.timeout(5):
                while await other.get_thread_by_id("t") is not None:
                    pass
            await other.save_thread(thread)
            assert not deletion.done()
            await deletion
            assert await other.get_thread_by_id("t") == thread

    async def test_redacted_messages_name_the_request(self, convex: ConvexServer) -> None:
        backend = convex_backend(convex)
        await backend.open()
        await convex.control(faults=[{"kind": "error"}])
        with pytest.raises(StorageError, match="request 0123456789abcdef"):
            await backend.query(Query(table=OWN))
        await backend.close()


def test_settings_are_read_by_people_without_the_key() -> None:
    assert repr(Settings(url="http://host", key=KEY)) == (
        "Settings(url='http://host', key=…, timeout=30)"
    )
