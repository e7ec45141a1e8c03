"""Over REST: conversations, retention, sizes, and answers that no KV server gives."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest
import tenacity
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from conversations import differing, save
from kv_server import KVServer
from mastra_storage_cloudflare.client import _is_stale
from mastra_storage_cloudflare.kv import Pair
from mastra_storage_cloudflare.rest import RestKV
from rest_stores import rest_store

from mastra_storage import (
    AuthenticationError,
    Eval,
    InvalidArgumentError,
    Message,
    Put,
    RateLimitedError,
    Storage,
    StorageError,
    Table,
    Thread,
    Trace,
    UnavailableError,
    open_storage,
)


@pytest.mark.parametrize(
    ("cause", "stale"),
    [
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer"), True),
        (aiohttp.ClientOSError(errno.EPIPE, "Broken pipe"), True),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), True),
        (aiohttp.ClientOSError(errno.ECONNREFUSED, "Connection refused"), False),
        (aiohttp.ClientPayloadError(), False),
        (None, False),
    ],
    ids=repr,
)
def test_which_failures_are_of_a_connection_that_was_idle(
    cause: BaseException | None, stale: bool
) -> None:
    assert _is_stale(cause) is stale


@pytest.mark.parametrize("id", ["?", "a?b", "\0", "a\0b", "a\0", "%00"])
async def test_odd_ids_are_listed_and_deleted_by_stores_that_did_not_write_them(
    kv: KVServer, id: str
) -> None:
    async with rest_store(kv) as storage:
        for thread in (id, "a", f"{id}!"):
            await storage.save_thread(Thread(id=thread, resource_id=f"r{thread}"))
            messages = [Message(thread_id=thread, role="user", content=n) for n in range(3)]
            await storage.save_messages(messages)
    async with rest_store(kv) as other:
        assert [thread.id for thread in await other.get_threads_by_resource_id(f"r{id}")] == [id]
        assert [m.content for m in await other.get_messages(id)] == [0, 1, 2]
        assert [m.content for m in await other.get_messages(id, last=2)] == [1, 2]
        await other.delete_thread(id)
    async with rest_store(kv) as third:
        assert await third.get_messages(id) == []
        assert len(await third.get_messages("a")) == len(await third.get_messages(f"{id}!")) == 3


def test_a_store_can_be_opened_in_one_event_loop_after_another(kv: KVServer) -> None:
    storage = rest_store(kv, prefix="loops")

    async def use() -> None:
        async with storage:
            # Of namespaces that are not there, so that calls wait for each other's listing.
            await asyncio.gather(
                storage.get_evals(), storage.get_traces(), storage.get_resource("r")
            )

    asyncio.run(use())
    asyncio.run(use())


@pytest.mark.filterwarnings("ignore:unclosed")  # sockets, of the loop that is gone
@pytest.mark.parametrize("interop", [None, "mastra"])
def test_a_store_can_be_closed_in_another_event_loop(kv: KVServer, interop: str | None) -> None:
    def make() -> Storage:
        return open_storage(
            f"cloudflare://{kv.account_id}",
            api_token=kv.token,
            base_url=kv.url,
            namespace_prefix="elsewhere",
            **({"interop": interop} if interop else {}),
        )

    storage = make()
    thread = Thread(id=f"t-{interop}", resource_id="r")

    async def use() -> None:
        await storage.__aenter__()
        await storage.save_thread(thread)
        await storage.save_message(Message(thread_id=thread.id, role="user", content="hi"))

    async def updated_at() -> datetime:
        async with make() as other:
            found = await other.get_thread_by_id(thread.id)
            assert found is not None
            return found.updated_at

    asyncio.run(use())
    asyncio.run(storage.close())
    assert asyncio.run(updated_at()) > thread.updated_at  # the touch that waited was written
    gc.collect()  # while its warnings are expected


async def test_conversations_come_back_as_they_went_in(kv: KVServer) -> None:
    numbers = range(50)
    async with rest_store(kv, prefix="mine_") as storage:
        await save(storage, numbers)
        assert await differing(storage, numbers) == []
    async with rest_store(kv, prefix="mine_") as other:
        assert await differing(other, numbers) == []
    async with rest_store(kv, prefix="other_") as stranger:
        assert await stranger.get_threads_by_resource_id("user:1") == []


async def test_retention_lets_rows_expire(kv: KVServer) -> None:
    kept = {"traces": timedelta(minutes=10), "threads": timedelta(days=1)}
    await kv.control(recordBodies=True)
    async with rest_store(kv, retention=kept, key_interval=0.01) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(Message(id="m", thread_id="t", role="user", content="x"))
        await storage.save_trace(Trace(id="x"))
        await storage.save_eval(Eval(id="e", agent_name="a"))
    written = [
        pair
        for entry in await kv.log()
        if entry["route"] == "PUT bulk"
        for pair in json.loads(entry["body"])
    ]
    lives = {pair["key"]: pair.get("expiration", 0) - time.time() for pair in written}
    for name, life in lives.items():
        expected = 600 if "_traces" in name else 86_400 if "_threads" in name else -time.time()
        assert life == pytest.approx(expected, abs=5), name
    assert len([name for name in lives if "_threads.touched:t" in name]) == 1
    await kv.control(consistency={"clockAheadMs": 700_000})
    async with rest_store(kv) as other:
        assert await other.get_trace("x") is None
        assert (await other.get_traces()).items == []
        assert await other.get_eval("e") is not None


async def test_retention_of_large_values_reaches_their_parts(kv: KVServer) -> None:
    table = Table(name="large_ones", key=("id",), large=True)
    await kv.control(recordBodies=True)
    async with rest_store(kv, retention={table: timedelta(minutes=10)}) as storage:
        row = storage.new_row(table, {"id": "x", "text": "x" * 2_000_000})
        await storage.write_rows(Put(row))
    lives = {
        pair["key"]: pair.get("expiration", 0) - time.time()
        for entry in await kv.log()
        if entry["route"] == "PUT bulk"
        for pair in json.loads(entry["body"])
    }
    parts = [life for name, life in lives.items() if "_large_ones_parts:" in name]
    assert len(parts) == 3
    assert parts == pytest.approx([660] * 3, abs=5)
    await kv.control(consistency={"clockAheadMs": 630_000})
    async with rest_store(kv) as other:
        assert await other.get_rows(table, [("x",)]) == [None]


@pytest.mark.parametrize("character", ['"', "\\", "\n", "\x01", "é", "a"])
async def test_traces_are_found_by_any_text_their_fields_may_have(
    kv: KVServer, character: str
) -> None:
    text = character * (100 // len(character.encode()))
    trace = Trace(id="x", trace_id=text, name=text, scope=text, thread_id=text, run_id=text)
    async with rest_store(kv) as storage:
        await storage.save_trace(trace)
        await storage.save_trace(Trace(id="y"))
    async with rest_store(kv) as other:
        assert (await other.get_traces(name=text, scope=text, run_id=text)).items == [trace]
        assert (await other.get_traces(name=text + character)).items == []


async def test_values_too_large_for_one_answer_are_read_in_parts(memory_kv: KVServer) -> None:
    large = [
        Message(id=f"m{n}", thread_id="t", role="user", content=str(n) * 9_000_000)
        for n in range(4)
    ]
    async with rest_store(memory_kv) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(large)
    async with rest_store(memory_kv) as other:
        assert await other.get_messages("t") == large


GOOD = {"result": [{"id": "1", "title": "mastra_n"}], "success": True, "errors": []}


class Answers:
    """A server that gives the answers it was told, by the end of the URL."""

    def __init__(self) -> None:
        self.by_url: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []

    def __call__(self, url: str, **answer: Any) -> None:
        self.by_url[url] = answer

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        answer = next(a for url, a in self.by_url.items() if request.path_qs.endswith(url))
        if "payload" in answer:
            return web.json_response(answer["payload"], status=answer.get("status", 200))
        return web.Response(**answer)


@pytest.fixture
async def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What comes instead of Cloudflare's answers; calls are tried again at once."""
    monkeypatch.setattr("mastra_storage_cloudflare.client._BACKOFF", tenacity.wait_none())
    return Answers()


@pytest.fixture
async def unopened(answers: Answers) -> AsyncIterator[RestKV]:
    async with RawTestServer(answers.respond) as server:
        kv = RestKV("account", "secret-token", base_url=str(server.make_url("/")))
        yield kv
        await kv.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"text": ""}, UnavailableError),
        ({"text": "[1, 2"}, UnavailableError),
        ({"body": b"\xff\xfe{"}, UnavailableError),
        ({"text": "null"}, UnavailableError),
        ({"payload": {"result": 5, "success": True}}, UnavailableError),
        ({"payload": {"result": [{"id": 5}], "success": True}}, UnavailableError),
        ({"text": "<html>Sign in</html>", "content_type": "text/html"}, UnavailableError),
        ({"status": 302, "headers": {"Location": "https://elsewhere.test"}}, StorageError),
        ({"status": 404, "text": "<html>Not found</html>"}, AuthenticationError),
        ({"status": 530, "text": "error code: 1016"}, UnavailableError),
        ({"status": 418, "payload": {"errors": "none of yours"}}, StorageError),
        (
            {"payload": {"result": None, "success": False, "errors": [{"code": 10001}]}},
            UnavailableError,
        ),
        (
            {"status": 400, "payload": {"success": False, "errors": [{"code": 10048}]}},
            RateLimitedError,
        ),
    ],
    ids=str,
)
async def test_odd_answers_are_errors(
    answers: Answers, unopened: RestKV, answer: dict[str, Any], error: type[StorageError]
) -> None:
    answers("/namespaces?page=1&per_page=100", **answer)
    with pytest.raises(error) as caught:
        await unopened.open()
    assert "secret-token" not in f"{caught.value}{caught.value!r}{caught.value.__cause__!r}"


async def test_what_the_api_says_at_length_is_cut(answers: Answers, unopened: RestKV) -> None:
    said = [{"code": 10029, "message": "long " * 9_999}] * 3
    answers("/namespaces?page=1&per_page=100", status=400, payload={"errors": said})
    with pytest.raises(StorageError, match="10029 long long") as caught:
        await unopened.open()
    assert len(str(caught.value)) < 700


async def test_lists_that_are_null_are_empty(answers: Answers, unopened: RestKV) -> None:
    fine = {"success": True, "errors": None, "messages": None, "result_info": None}
    answers("/namespaces?page=1&per_page=100", payload=GOOD | fine)
    await unopened.open()
    answers("/1/bulk", payload=fine | {"result": {"unsuccessful_keys": None}})
    await unopened.write("n", [Pair("k", b"1", "")], [])
    answers("/1/bulk/get", payload=fine | {"result": {"values": {"k": {"value": "1"}}}})
    assert [*await unopened.get("n", ["k"])] == ["k"]


@pytest.mark.parametrize("errors", [None, [], [{"code": None, "message": None}]])
async def test_a_refusal_may_say_nothing(answers: Answers, unopened: RestKV, errors: Any) -> None:
    refusal = {"result": None, "success": False, "errors": errors}
    answers("/namespaces?page=1&per_page=100", status=400, payload=refusal)
    with pytest.raises(StorageError, match="refused the request") as caught:
        await unopened.open()
    assert type(caught.value) is StorageError


async def test_an_answer_that_is_nested_without_end_is_an_error(
    answers: Answers, unopened: RestKV
) -> None:
    nested = "[" * 5_000 + "]" * 5_000
    for status in (200, 500):
        text = f'{{"result": [], "result_info": {{"a": {nested}}}, "errors": {nested}}}'
        answers("/namespaces?page=1&per_page=100", status=status, text=text)
        with pytest.raises(UnavailableError):
            await unopened.open()


async def test_what_is_not_http_is_an_error_without_the_token(answers: Answers) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test ready\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        kv = RestKV("account", "secret-token", base_url=f"http://127.0.0.1:{port}")
        with pytest.raises(UnavailableError) as caught:
            await kv.open()
        await kv.close()
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret-token" not in f"{error}{error!r}"
        error = error.__cause__ or error.__context__


class TestOneAnswer:
    @pytest.fixture
    async def kv(self, answers: Answers, unopened: RestKV) -> RestKV:
        answers("/namespaces?page=1&per_page=100", payload=GOOD)
        await unopened.open()
        return unopened

    async def test_keys_left_out_of_a_bulk_get_are_asked_for(
        self, kv: RestKV, answers: Answers
    ) -> None:
        found = {"a": {"value": "1", "metadata": {"w": "5"}}, "gone": None}
        answers("/1/bulk/get", payload={"result": {"values": found}})
        answers("/1/values/42", text="value of 42")
        answers("/1/metadata/42", payload={"result": {"w": "6"}})
        answers("/1/values/none", status=404, payload={"errors": [{"code": 10009}]})
        values = await kv.get("n", ["a", "gone", "42", "none"])
        assert {key: (found.value, found.metadata) for key, found in values.items()} == {
            "a": (b"1", '{"w": "5"}'),
            "42": (b"value of 42", '{"w": "6"}'),
        }

    async def test_an_empty_page_is_not_the_end(self, kv: RestKV, answers: Answers) -> None:
        url = "/1/keys?prefix=p&limit=10"
        answers(url, payload={"result": [], "result_info": {"cursor": "more"}})
        answers(f"{url}&cursor=more", payload={"result": [{"name": "pa"}], "result_info": {}})
        first = await kv.keys("n", "p", limit=5)
        assert (first.entries, first.cursor) == ([], "more")
        second = await kv.keys("n", "p", cursor=first.cursor, limit=5)
        assert ([entry.key for entry in second.entries], second.cursor) == (["pa"], None)

    async def test_keys_that_were_not_asked_for_are_an_error(
        self, kv: RestKV, answers: Answers
    ) -> None:
        """Or deleting by a prefix would delete them."""
        answers(
            "/1/keys?prefix=p%3F&limit=10", payload={"result": [{"name": "p?a"}, {"name": "q"}]}
        )
        with pytest.raises(StorageError, match="other keys than those with the prefix"):
            await kv.keys("n", "p?", limit=5)

    async def test_a_write_without_a_result_has_succeeded(
        self, kv: RestKV, answers: Answers
    ) -> None:
        answers("/1/bulk/delete", payload={"result": None, "success": True})
        await kv.write("n", [], ["a"])

    async def test_a_closed_store_says_so(self, kv: RestKV) -> None:
        await kv.close()
        await kv.close()
        with pytest.raises(UnavailableError, match="closed"):
            await kv.get("n", ["a"])


@pytest.mark.parametrize(
    "base_url", ["api.cloudflare.com", "", "/client/v4", "https://", "ftp://gateway.test", 5]
)
def test_a_base_url_that_is_none_is_refused(base_url: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="base_url"):
        RestKV("account", "token", base_url=base_url)


@pytest.mark.parametrize(
    ("base_url", "fault"),
    [
        ("https://ann:s3cret@gateway.test/v4", "user or a password"),
        ("https://:s3cret@gateway.test/v4", "user or a password"),
        ("https://s3cret@gateway.test/v4", "user or a password"),
        ("https://gateway.test/v4?key=s3cret", r"'\?' or '#'"),
        ("https://gateway.test/v4#s3cret", r"'\?' or '#'"),
        ("https://ann:s3cret@gateway.test:port/", "not an http or https URL"),
        ("gateway.test/s3cret", "not an http or https URL"),
    ],
)
def test_what_a_base_url_cannot_have_is_refused_and_not_shown(base_url: str, fault: str) -> None:
    with pytest.raises(InvalidArgumentError, match=fault) as caught:
        RestKV("account", "token", base_url=base_url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in f"{error}{error!r}"
        error = error.__cause__ or error.__context__


async def test_a_base_url_keeps_its_escapes(answers: Answers) -> None:
    answers("/namespaces?page=1&per_page=100", payload=GOOD)
    async with RawTestServer(answers.respond) as server:
        url = str(server.make_url("/")) + "team%2Fa/b%20c%3F/"
        kv = RestKV("account", "token", base_url=url)
        await kv.open()
        await kv.close()
    path = "/accounts/account/storage/kv/namespaces?page=1&per_page=100"
    assert answers.asked == [f"/team%2Fa/b%20c%3F{path}"]
