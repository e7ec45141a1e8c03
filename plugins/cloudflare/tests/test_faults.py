"""Failures on the way: nothing acknowledged is lost, and no failure looks like an empty store."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
import tenacity
from kv_server import KVServer
from mastra_storage_cloudflare.budget import RateBudget
from rest_stores import rest_backend, rest_store

from mastra_storage import (
    AuthenticationError,
    InvalidArgumentError,
    Message,
    PartialWriteError,
    RateLimitedError,
    Storage,
    StorageError,
    Thread,
    UnavailableError,
    open_storage,
)

Calls = dict[str, Callable[[Storage], Awaitable[Any]]]

READS: Calls = {
    "get_thread_by_id": lambda s: s.get_thread_by_id("t"),
    "get_messages": lambda s: s.get_messages("t"),
    "get_messages last": lambda s: s.get_messages("t", last=2),
    "list_threads": lambda s: s.list_threads(),
    "list_threads of one": lambda s: s.list_threads(resource_id="r", count=False),
}
WRITES: Calls = {
    "save_message": lambda s: s.save_message(message("new")),
    "save_thread": lambda s: s.save_thread(Thread(id="u", resource_id="r")),
    "update_thread": lambda s: s.update_thread("t", title="new"),
    "delete_messages": lambda s: s.delete_messages("t", ["m1"]),
}


def message(id: str, thread_id: str = "t", **members: Any) -> Message:
    return Message(id=id, thread_id=thread_id, role="user", content=id, **members)


def named(value: Any) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else ""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are tried again at once."""
    monkeypatch.setattr("mastra_storage_cloudflare.client._BACKOFF", tenacity.wait_fixed(0.01))


async def fill(server: KVServer) -> None:
    """A thread "t" with the messages m0, m1 and m2."""
    async with rest_store(server) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages([message(f"m{n}") for n in range(3)])


async def test_acknowledged_messages_of_two_stores_survive_everything(memory_kv: KVServer) -> None:
    kv = memory_kv
    async with rest_store(kv) as one, rest_store(kv) as other:
        thread = await one.save_thread(Thread(id="t", resource_id="r"))
        assert await other.get_thread_by_id("t") == thread
        faults = [
            {"kind": "status", "status": 429, "code": 10022, "retryAfter": 1, "probability": 0.05},
            {"kind": "status", "status": 503, "probability": 0.1, "when": "after"},
            {"kind": "status", "status": 503, "probability": 0.1},
            {"kind": "drop", "probability": 0.1, "when": "after"},
            {"kind": "drop", "probability": 0.1},
        ]
        stale = {"staleReadsMs": 1500, "staleListsMs": 1500, "staleShare": 0.5}
        await kv.control(reset=True, faults=faults, consistency=stale)

        async def save(n: int) -> Message:
            await asyncio.sleep(n * 0.005)
            return await (one, other)[n % 2].save_message(message(f"m{n}"))

        outcomes = await asyncio.gather(*[save(n) for n in range(400)], return_exceptions=True)
        counts = await kv.counts()
        await kv.control(reset=True)
        saved = [outcome for outcome in outcomes if isinstance(outcome, Message)]
        failed = [outcome for outcome in outcomes if not isinstance(outcome, Message)]
        assert all(isinstance(outcome, StorageError) for outcome in failed)
        assert len(saved) > 300
    saved.sort(key=lambda message: message.created_at)
    async with rest_store(kv) as third:
        found = await third.get_messages("t")
        acknowledged = {message.id for message in saved}
        assert [message for message in found if message.id in acknowledged] == saved
        assert len({message.id for message in found}) == len(found)
        assert await third.get_messages("t", last=len(found)) == found
    assert sum(counts.values()) < 200


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 500, "when": "after"},
        {"kind": "status", "status": 502, "when": "after"},
        {"kind": "status", "status": 429, "code": 10022},
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
    kv: KVServer, fault: dict[str, Any], impatient: None
) -> None:
    await fill(kv)
    async with rest_store(kv, key_interval=0.01) as storage:
        for name, call in [*READS.items(), *WRITES.items()]:
            await kv.control(faults=[fault])
            assert await call(storage) is not None or name == "delete_messages"
        await kv.control(faults=[])
        assert [m.id for m in await storage.get_messages("t")] == ["m0", "m2", "new"]
        thread = await storage.get_thread_by_id("t")
        assert thread is not None
        assert thread.title == "new"


@pytest.mark.parametrize(("asked", "waited"), [(1, 990), (0, 290)])
async def test_what_a_429_asks_for_is_waited(
    kv: KVServer, monkeypatch: pytest.MonkeyPatch, asked: int, waited: int
) -> None:
    monkeypatch.setattr("mastra_storage_cloudflare.client._BACKOFF", tenacity.wait_fixed(0.3))
    await fill(kv)
    async with rest_store(kv) as storage:
        fault = {"kind": "status", "status": 429, "code": 10022, "retryAfter": asked}
        await kv.control(reset=True, faults=[fault])
        assert await storage.get_thread_by_id("t") is not None
    first, second = await kv.log()
    assert second["at"] - first["at"] >= waited


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 503}, UnavailableError),
        ({"kind": "drop"}, UnavailableError),
        ({"kind": "html"}, UnavailableError),
        ({"kind": "malformed"}, UnavailableError),
        ({"kind": "truncate"}, UnavailableError),
        ({"kind": "delay", "ms": 60_000}, UnavailableError),
        ({"kind": "status", "status": 429, "code": 10022}, RateLimitedError),
        ({"kind": "status", "status": 429, "code": 971, "retryAfter": 300}, RateLimitedError),
        ({"kind": "status", "status": 429, "code": 10048}, RateLimitedError),
        ({"kind": "status", "status": 403, "code": 10000}, AuthenticationError),
        ({"kind": "status", "status": 400, "code": 10029}, StorageError),
    ],
    ids=named,
)
async def test_a_fault_that_stays_is_an_error_and_never_empty(
    kv: KVServer, fault: dict[str, Any], error: type[StorageError], impatient: None
) -> None:
    await fill(kv)
    calls = READS | WRITES
    async with AsyncExitStack() as stack:
        timeout = 3.0 if fault["kind"] == "delay" else 30.0
        stores = [await stack.enter_async_context(rest_store(kv, timeout=timeout)) for _ in calls]
        await kv.control(faults=[fault | {"times": 1000}])
        outcomes = await asyncio.gather(
            *(call(storage) for call, storage in zip(calls.values(), stores, strict=True)),
            return_exceptions=True,
        )
        await kv.control(faults=[])
    for name, outcome in zip(calls, outcomes, strict=True):
        assert isinstance(outcome, error), name
        assert (outcome.backend, outcome.operation) == ("cloudflare", name.split()[0])


@pytest.mark.parametrize("name", READS)
async def test_a_read_without_an_answer_is_asked_again(kv: KVServer, name: str) -> None:
    await fill(kv)
    async with rest_store(kv, timeout=3.0) as storage:
        await kv.control(reset=True, faults=[{"kind": "delay", "ms": 60_000}])
        assert await READS[name](storage)
        assert [bool(entry.get("fault")) for entry in await kv.log()][:2] == [True, False]


async def test_a_write_without_an_answer_is_not_repeated(kv: KVServer) -> None:
    """The first could take effect after a later one."""
    await fill(kv)
    async with rest_store(kv, timeout=1.5) as storage:
        await kv.control(reset=True, faults=[{"kind": "delay", "match": "PUT bulk", "ms": 60_000}])
        with pytest.raises(UnavailableError, match=r"within 1\.5 seconds"):
            await storage.save_message(message("new"))
        assert (await kv.counts())["PUT bulk"] == 1


async def test_each_of_merged_calls_fails_with_an_error_of_its_own(
    kv: KVServer, impatient: None
) -> None:
    await fill(kv)
    async with rest_store(kv) as storage:
        await kv.control(faults=[{"kind": "status", "status": 503, "times": 1000}])
        outcomes = await asyncio.gather(
            storage.get_thread_by_id("t"),
            storage.update_thread("t", title="x"),
            storage.save_thread(Thread(id="u", resource_id="r")),
            storage.save_thread(Thread(id="v", resource_id="r")),
            return_exceptions=True,
        )
        await kv.control(faults=[])
        assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 4
        assert len({id(outcome) for outcome in outcomes}) == 4
        operations = [o.operation for o in outcomes if isinstance(o, StorageError)]
        assert operations == ["get_thread_by_id", "update_thread", "save_thread", "save_thread"]


async def test_a_deleted_thread_takes_along_what_was_being_saved(kv: KVServer) -> None:
    async with rest_store(kv) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await kv.control(faults=[{"kind": "delay", "match": "PUT bulk", "ms": 600}])
        saving = []
        for name in ("sent", "waiting"):
            saving.append(asyncio.create_task(storage.save_message(message(name))))
            await asyncio.sleep(0.15)
        for task in saving:
            task.cancel()
        await asyncio.wait(saving)
        await storage.delete_thread("t")
        await storage.save_thread(Thread(id="t", resource_id="r"))
        assert await storage.get_messages("t") == []
    async with rest_store(kv) as other:
        assert await other.get_messages("t") == []


class TestPartialWrites:
    async def test_keys_left_out_are_written_again(self, kv: KVServer) -> None:
        await fill(kv)
        async with rest_store(kv) as storage:
            await kv.control(consistency={"bulkFailures": {"fraction": 0.5, "times": 2}})
            await storage.save_messages([message(f"n{n}") for n in range(20)])
            await kv.control(consistency={})
        async with rest_store(kv) as other:
            assert len(await other.get_messages("t", last=100)) == 23
            assert len(await other.get_messages("t")) == 23

    async def test_keys_that_stay_out_are_named_to_those_who_wrote_them(
        self, kv: KVServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mastra_storage_cloudflare.rest._SECONDS_BETWEEN_WRITES", 0.01)
        await fill(kv)
        async with rest_store(kv) as storage:
            bad = {"bulkFailures": {"keys": ["mastra_messages:t:bad"]}}
            await kv.control(consistency=bad)
            outcomes = await asyncio.gather(
                storage.save_messages([message("bad"), message("good")]),
                storage.save_messages([message("fine")]),
                return_exceptions=True,
            )
            assert isinstance(outcomes[0], PartialWriteError)
            assert outcomes[0].failed == [("messages", ("t", "bad"))]
            assert outcomes[0].retryable
            assert isinstance(outcomes[1], list)
            await kv.control(consistency={})
            await storage.save_messages([message("bad")])
            found = await storage.get_messages("t", last=3)
            assert sorted(m.id for m in found) == ["bad", "fine", "good"]


class TestAccess:
    async def test_a_wrong_token_fails_at_once(self, kv: KVServer) -> None:
        with pytest.raises(AuthenticationError, match="Workers KV Storage"):
            await rest_store(kv, token="wrong-token").open()

    async def test_a_missing_right(self, kv: KVServer) -> None:
        with pytest.raises(AuthenticationError):
            await rest_store(kv, token=kv.no_right_token).open()
        await fill(kv)
        async with rest_store(kv, token=kv.read_token) as storage:
            assert await storage.get_thread_by_id("t") is not None
            for call in WRITES.values():
                with pytest.raises(AuthenticationError):
                    await call(storage)

    async def test_an_unknown_account(self, kv: KVServer) -> None:
        url = f"cloudflare://{'0' * 32}"
        with pytest.raises(AuthenticationError):
            await open_storage(url, api_token=kv.token, base_url=kv.url).open()

    async def test_nothing_answers(self, impatient: None) -> None:
        url = "cloudflare://account?base_url=http://127.0.0.1:9/client/v4"
        storage = open_storage(url, api_token="secret-token")
        with pytest.raises(UnavailableError, match="ClientConnectorError") as caught:
            await storage.open()
        assert "127.0.0.1:9, which base_url or CLOUDFLARE_BASE_URL names," in str(caught.value)

    async def test_the_token_appears_nowhere(
        self, kv: KVServer, caplog: pytest.LogCaptureFixture, impatient: None
    ) -> None:
        caplog.set_level(logging.DEBUG)
        await fill(kv)
        texts = []
        for fault in ({"kind": "status", "status": 503}, {"kind": "malformed"}, {"kind": "drop"}):
            async with rest_store(kv) as storage:
                await kv.control(faults=[fault | {"times": 1000}])
                with pytest.raises(StorageError) as caught:
                    await storage.save_message(message("x"))
                await kv.control(faults=[])
                error: BaseException | None = caught.value
                while error is not None:
                    texts += [str(error), repr(error)]
                    error = error.__cause__ or error.__context__
                texts += [repr(storage), repr(storage.backend)]
        texts += [record.getMessage() for record in caplog.records]
        assert len(texts) > 20
        assert kv.token not in "\n".join(texts)

    @pytest.mark.parametrize("token", ["two words", "line\n", "tökén", "\x7f"])
    def test_a_token_that_cannot_be_is_refused_without_showing_it(self, token: str) -> None:
        with pytest.raises(InvalidArgumentError) as caught:
            open_storage("cloudflare://account", api_token=token)
        assert token.strip() not in str(caught.value)


async def test_retries_are_silent(
    kv: KVServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    await fill(kv)
    async with rest_store(kv) as storage:
        await kv.control(faults=[{"kind": "status", "status": 503, "times": 2}])
        assert await storage.get_thread_by_id("t") is not None
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


class TestNamespaces:
    async def test_reads_do_not_make_them(self, kv: KVServer) -> None:
        async with rest_store(kv) as storage:
            for name, call in READS.items():
                assert not await call(storage), name
        assert "POST namespaces" not in await kv.counts()

    async def test_two_stores_make_one_at_once(self, kv: KVServer) -> None:
        async with rest_store(kv) as one, rest_store(kv) as other:
            await asyncio.gather(
                *[
                    store.save_thread(Thread(id=f"t{n}", resource_id="r"))
                    for n, store in enumerate([one, other] * 3)
                ]
            )
            for store in (one, other):
                assert len(await store.get_threads_by_resource_id("r")) == 6

    @pytest.mark.parametrize("name", [*READS, *WRITES])
    async def test_one_that_was_deleted_meanwhile(self, kv: KVServer, name: str) -> None:
        await fill(kv)
        async with rest_store(kv) as storage:
            await kv.control(clear=True)
            with pytest.raises(UnavailableError, match="was deleted") as caught:
                await (READS | WRITES)[name](storage)
            assert not caught.value.retryable

    async def test_more_than_one_page_of_them(
        self, kv: KVServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mastra_storage_cloudflare.rest._NAMESPACES_PER_PAGE", 3)
        async with aiohttp.ClientSession(headers=bearer(kv)) as session:
            for n in range(7):
                async with session.post(namespaces(kv), json={"title": f"other-{n}"}) as answer:
                    assert answer.status == 200
        await fill(kv)
        backend = rest_backend(kv)
        async with Storage(backend) as storage:
            assert len(await storage.get_messages("t")) == 3
            assert sorted(await backend.tables()) == ["messages", "threads"]


def namespaces(kv: KVServer) -> str:
    return f"{kv.url}/accounts/{kv.account_id}/storage/kv/namespaces"


def bearer(kv: KVServer) -> dict[str, str]:
    return {"Authorization": f"Bearer {kv.token}"}


class TestForeignValues:
    @pytest.fixture
    async def foreign(self, kv: KVServer) -> KVServer:
        """The server with a value of somebody else among the messages."""
        await fill(kv)
        async with aiohttp.ClientSession(headers=bearer(kv)) as session:
            async with session.get(namespaces(kv)) as answer:
                found = {n["title"]: n["id"] for n in (await answer.json())["result"]}
            url = f"{namespaces(kv)}/{found['mastra_messages']}/bulk"
            pairs = [{"key": "mastra_messages:t:foreign", "value": "not ours"}]
            async with session.put(url, json=pairs) as answer:
                assert answer.status == 200
        return kv

    async def test_are_named_when_asked_for(self, foreign: KVServer) -> None:
        async with rest_store(foreign) as storage:
            with pytest.raises(StorageError, match="mastra_messages:t:foreign"):
                await storage.get_messages_by_id("t", ["foreign"])

    async def test_are_no_part_of_a_listing(self, foreign: KVServer) -> None:
        async with rest_store(foreign) as storage:
            assert [m.id for m in await storage.get_messages("t")] == ["m0", "m1", "m2"]


class TestBudget:
    async def test_it_never_walks_into_the_block(self, kv: KVServer) -> None:
        await fill(kv)
        limit = {"requests": 130, "periodMs": 3000}
        async with rest_store(kv, rate_limit=1200) as storage:
            await storage.get_thread_by_id("t")
            await kv.control(reset=True, rateLimit=limit)
            started = time.monotonic()
            for _ in range(140):
                assert await storage.get_thread_by_id("t") is not None
            assert time.monotonic() - started > 1
        assert all(entry["status"] == 200 for entry in await kv.log())

    async def test_a_block_is_waited_for_elsewhere(self, kv: KVServer) -> None:
        await fill(kv)
        async with rest_store(kv) as storage:
            refused = {"kind": "status", "status": 429, "code": 971, "retryAfter": 300}
            await kv.control(reset=True, faults=[refused])
            for _ in range(3):
                with pytest.raises(RateLimitedError) as caught:
                    await storage.get_thread_by_id("t")
                assert caught.value.retry_after == pytest.approx(300, abs=2)
        assert await kv.counts() == {"POST bulk/get": 1}

    async def test_a_block_that_was_announced_is_respected(self, kv: KVServer) -> None:
        budget = RateBudget()
        budget.update('"default";r=0;t=200')
        with pytest.raises(RateLimitedError) as caught:
            async with budget.request(asyncio.get_running_loop().time() + 30):
                pass
        assert caught.value.retry_after == pytest.approx(200, abs=1)

    async def test_what_is_under_way_is_left_no_more(self) -> None:
        until = asyncio.get_running_loop().time() + 5
        budget = RateBudget()
        async with AsyncExitStack() as under_way:
            for _ in range(60):
                await under_way.enter_async_context(budget.request(until))
            budget.update('"default";r=150;t=1000')
            with pytest.raises(RateLimitedError):  # 90 for the 1,000 seconds
                async with budget.request(until):
                    pass

    async def test_many_at_once_do_not_go_past_what_was_left(self) -> None:
        loop = asyncio.get_running_loop()
        budget = RateBudget()
        budget.update('"default";r=104;t=1000')
        for _ in range(5):  # until 99 are left
            async with budget.request(loop.time() + 5):
                pass
        with pytest.raises(RateLimitedError) as caught:
            async with budget.request(loop.time() + 5):
                pass
        assert caught.value.retry_after == pytest.approx(1000 / 100, rel=0.1)

    async def test_cancelled_requests_give_their_places_back(self) -> None:
        async def request(seconds: float) -> float:
            async with budget.request(loop.time() + seconds):
                return loop.time()

        loop = asyncio.get_running_loop()
        budget = RateBudget()
        budget.update('"default";r=49;t=10')  # one in 0.2 seconds
        waiting = [asyncio.ensure_future(request(60)) for _ in range(40)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimitedError):
            await request(5)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        started = loop.time()
        assert await request(5) - started < 1

        budget.pause(3)
        waiting = [asyncio.ensure_future(request(60)) for _ in range(10)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        with pytest.raises(RateLimitedError):  # the API's word stands
            await request(2)

    async def test_without_the_header_requests_are_counted(self) -> None:
        budget = RateBudget(requests=100)
        for _ in range(49):
            async with budget.request(asyncio.get_running_loop().time() + 30):
                pass
        with pytest.raises(RateLimitedError, match="used up"):
            async with budget.request(asyncio.get_running_loop().time() + 0.1):
                pass


def test_requests_are_counted_in_one_event_loop_after_another() -> None:
    budget = RateBudget(requests=100)

    async def use() -> None:
        budget.open()
        async with budget.request(asyncio.get_running_loop().time() + 30):
            pass

    asyncio.run(use())
    asyncio.run(use())


async def test_idle_connections_are_opened_anew(kv: KVServer) -> None:
    await fill(kv)
    await kv.control(idleMs=50)
    async with rest_store(kv) as storage:
        for n in range(4):
            assert len(await storage.get_messages("t", last=10)) == 3 + n
            await storage.save_message(message(f"n{n}"))
            await asyncio.sleep(0.1)


async def test_a_connection_that_was_closed_is_replaced_at_once(
    kv: KVServer, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(kv)
    caplog.set_level(logging.DEBUG, logger="mastra_storage.cloudflare")
    async with rest_store(kv) as storage:
        await kv.control(faults=[{"kind": "drop"}, {"kind": "status", "status": 503}])
        assert await storage.get_thread_by_id("t") is not None
    again = [record.getMessage() for record in caplog.records if "again in" in record.getMessage()]
    assert again[0].endswith("again in 0.00 s")
    assert not again[1].endswith("again in 0.00 s")


async def test_a_key_is_written_once_a_second(kv: KVServer) -> None:
    await kv.control(recordBodies=True)
    async with rest_store(kv) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages([message("same"), message("other")])
        await asyncio.gather(
            storage.save_message(message("same")),
            storage.update_thread("t", title="1"),
            storage.update_thread("t", title="2"),
        )
    times: dict[str, list[int]] = {}
    for entry in await kv.log():
        if entry["route"] in ("PUT bulk", "POST bulk/delete"):
            for item in json.loads(entry["body"]):
                key = item if isinstance(item, str) else item["key"]
                times.setdefault(key, []).append(entry["at"])
    assert len(times["mastra_threads:t"]) == 3
    assert len(times["mastra_messages:t:same"]) == 2
    for moments in times.values():
        assert all(later - earlier >= 980 for earlier, later in pairwise(moments))


async def test_touches_are_written_when_the_store_closes(kv: KVServer) -> None:
    await fill(kv)
    async with rest_store(kv) as storage:
        before = await storage.get_thread_by_id("t")
        await storage.save_message(message("late"))
        after = await storage.get_thread_by_id("t")
    async with rest_store(kv) as other:
        found = await other.get_thread_by_id("t")
    assert before is not None
    assert after is not None
    assert found == after
    assert found.updated_at > before.updated_at


async def test_touches_that_are_refused_are_tried_ever_less_often(kv: KVServer) -> None:
    await fill(kv)
    refused = {"kind": "status", "status": 403, "match": "PUT bulk", "times": 9}
    storage = rest_store(kv)
    await storage.open()
    await storage.save_message(message("late"))
    await kv.control(reset=True, faults=[refused])
    await asyncio.sleep(4.5)  # tried in seconds 1, 3, 7 …
    assert await kv.counts() == {"PUT bulk": 2}
    with pytest.raises(AuthenticationError):
        await storage.close()


async def test_cancelled_calls_leave_the_store_usable(kv: KVServer) -> None:
    await fill(kv)
    await kv.control(delayMs=20)
    async with rest_store(kv, key_interval=0.01) as storage:
        for call in [*READS.values(), *WRITES.values()]:
            for milliseconds in (0, 5, 15, 25, 35, 50):
                task = asyncio.ensure_future(call(storage))
                await asyncio.sleep(milliseconds / 1000)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await kv.control(delayMs=0)
        await storage.save_message(message("last"))
        assert [m.id for m in await storage.get_messages("t", last=1)] == ["last"]
    async with rest_store(kv) as other:
        assert [m.id for m in await other.get_messages("t", last=1)] == ["last"]
