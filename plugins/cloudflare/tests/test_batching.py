"""Merging of concurrent calls."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Collection, Sequence

import pytest
from mastra_storage_cloudflare import batching
from mastra_storage_cloudflare.batching import BatchingKV
from mastra_storage_cloudflare.bulk_writes import MERGED_BYTES
from mastra_storage_cloudflare.kv import MAX_KEYS_OF_WRITE, Found, Listing, Pair
from memory_kv import MemoryKV, pair

from mastra_storage import (
    AuthenticationError,
    PartialWriteError,
    StorageError,
    TooLargeError,
    UnavailableError,
)


@pytest.fixture
def inner() -> MemoryKV:
    return MemoryKV()


@pytest.fixture
async def kv(inner: MemoryKV) -> AsyncIterator[BatchingKV]:
    kv = BatchingKV(inner, key_interval=0.05)
    await kv.open()
    yield kv
    await kv.close()


class TestGets:
    async def test_of_one_moment_are_one(self, kv: BatchingKV, inner: MemoryKV) -> None:
        await inner.write("n", [pair("a"), pair("b")], [])
        inner.calls.clear()
        one, two, three = await asyncio.gather(
            kv.get("n", ["a"]), kv.get("n", ["b", "a"]), kv.get("n", ["none"])
        )
        assert inner.calls == ["get a b none"]
        assert (list(one), list(two), list(three)) == (["a"], ["b", "a"], [])

    async def test_are_of_100_keys_at_most(self, kv: BatchingKV, inner: MemoryKV) -> None:
        await kv.get("n", [f"k{n}" for n in range(250)])
        assert [len(call.split()) - 1 for call in inner.calls] == [100, 100, 50]

    async def test_go_on_when_those_with_their_keys_are_answered(
        self, kv: BatchingKV, inner: MemoryKV, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await inner.write("n", [pair("k0"), pair("late")], [])
        get, answered = inner.get, asyncio.Event()

        async def held(namespace: str, keys: Sequence[str]) -> dict[str, Found]:
            if "late" in keys:
                await answered.wait()
            return await get(namespace, keys)

        monkeypatch.setattr(inner, "get", held)
        early = [asyncio.ensure_future(kv.get("n", [f"k{n}"])) for n in range(100)]
        late = asyncio.ensure_future(kv.get("n", ["late"]))
        both = asyncio.ensure_future(kv.get("n", ["late", "k0"]))
        async with asyncio.timeout(30):
            assert list(await early[0]) == ["k0"]
            assert await asyncio.gather(*early[1:]) == [{}] * 99
        assert not late.done()
        assert not both.done()
        answered.set()
        assert list(await late) == ["late"]
        assert list(await both) == ["late", "k0"]

    async def test_fail_when_one_with_their_keys_does(
        self, kv: BatchingKV, inner: MemoryKV, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner.errors = [UnavailableError("no"), None]
        keys = [f"k{n}" for n in range(100)]
        first, second, both = await asyncio.gather(
            kv.get("n", keys), kv.get("n", ["late"]), kv.get("n", ["k0", "late"]),
            return_exceptions=True,
        )  # fmt: skip
        assert isinstance(first, UnavailableError)
        assert isinstance(both, UnavailableError)
        assert second == {}
        # When a caller has failed, nothing of its own is under way: it may ask again at once.
        monkeypatch.setattr(batching, "_GATHERING", 60.0)
        async with asyncio.timeout(30):
            for _ in range(5):
                inner.errors = [UnavailableError("no")]
                with pytest.raises(UnavailableError):
                    await kv.get("n", [*keys, "late"])

    async def test_keep_the_keys_of_a_caller_together(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        wanted = [[f"{caller}-{n}" for n in range(7)] for caller in range(30)]
        await asyncio.gather(*[kv.get("n", keys) for keys in wanted])
        asked = [call.split()[1:] for call in inner.calls]
        assert [len(keys) for keys in asked] == [98, 98, 14]
        assert [key for keys in asked for key in keys] == [key for keys in wanted for key in keys]

    async def test_ask_for_each_key_once(self, kv: BatchingKV, inner: MemoryKV) -> None:
        await inner.write("n", [pair("a")], [])
        inner.calls.clear()
        found = await asyncio.gather(kv.get("n", ["a", "b", "a"]), kv.get("n", ["b", "a"]))
        assert [list(each) for each in found] == [["a"], ["a"]]
        assert inner.calls == ["get a b"]

    async def test_of_no_keys_ask_nobody(self, kv: BatchingKV, inner: MemoryKV) -> None:
        assert await kv.get("n", []) == {}
        assert inner.calls == []

    async def test_that_follow_while_others_are_under_way_are_gathered(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        inner.delay = 0.01

        async def later(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await kv.get("n", [f"k{turns}"])

        await asyncio.gather(kv.get("n", ["first"]), *[later(turns) for turns in range(5, 25)])
        assert inner.calls[0] == "get first"
        assert len(inner.calls) < 15

    async def test_of_one_caller_wait_for_nothing(
        self, kv: BatchingKV, inner: MemoryKV, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batching, "_GATHERING", 60.0)
        async with asyncio.timeout(30):
            for number in range(50):
                await kv.get("n", [str(number)])
        assert len(inner.calls) == 50

    async def test_fail_with_an_error_for_each(self, kv: BatchingKV, inner: MemoryKV) -> None:
        inner.errors = [UnavailableError("no")]
        outcomes = await asyncio.gather(
            kv.get("n", ["a"]), kv.get("n", ["b"]), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 2
        assert outcomes[0] is not outcomes[1]

    async def test_a_cancelled_one_harms_no_other(self, kv: BatchingKV, inner: MemoryKV) -> None:
        await inner.write("n", [pair("a")], [])
        first = asyncio.ensure_future(kv.get("n", ["a"]))
        second = asyncio.ensure_future(kv.get("n", ["a"]))
        await asyncio.sleep(0)
        first.cancel()
        assert list(await second) == ["a"]
        assert first.cancelled()

    async def test_that_are_gathered_are_answered_before_the_store_closes(
        self, kv: BatchingKV, inner: MemoryKV, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batching, "_GATHERING", 0.2)
        inner.delay = 0.01
        first = asyncio.ensure_future(kv.get("n", ["a"]))
        while not inner.calls:  # noqa: ASYNC110
            await asyncio.sleep(0)
        second = asyncio.ensure_future(kv.get("n", ["b"]))
        await asyncio.sleep(0)
        assert inner.calls == ["get a"]
        await kv.close()
        assert inner.calls == ["get a", "get b"]
        assert (await first, await second) == ({}, {})

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin later")
    async def test_are_merged_where_tasks_begin_at_once(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
        await kv.write("n", [pair("a")], [])
        inner.calls.clear()
        assert [
            list(found) for found in await asyncio.gather(kv.get("n", ["a"]), kv.get("n", ["b"]))
        ] == [["a"], []]
        assert inner.calls == ["get a b"]

    @pytest.mark.parametrize("turns", [1, 2], ids=["before it ran", "while it waited"])
    async def test_whose_task_is_cancelled_leave_nobody_waiting(
        self, kv: BatchingKV, inner: MemoryKV, monkeypatch: pytest.MonkeyPatch, turns: int
    ) -> None:
        """As every task is when a program ends, and what it does last goes on."""
        monkeypatch.setattr(batching, "_GATHERING", 60.0)
        inner.delay = 0.01
        first = asyncio.ensure_future(kv.get("n", ["a"]))
        while not inner.calls:  # noqa: ASYNC110
            await asyncio.sleep(0)
        second = asyncio.ensure_future(kv.get("n", ["b"]))
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {first, second, asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
            assert await kv.get("n", ["c"]) == {}
        assert type(outcomes[0]) is UnavailableError
        assert outcomes[1] == {}
        assert inner.calls == ["get a", "get b", "get c"]


class TestListings:
    async def test_that_are_the_same_at_one_moment_are_one(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        await inner.write("n", [pair("a1"), pair("a2"), pair("b")], [])
        inner.calls.clear()
        one, two, other, more = await asyncio.gather(
            kv.keys("n", "a", limit=10), kv.keys("n", "a", limit=10),
            kv.keys("n", "b", limit=10), kv.keys("n", "a", limit=1),
        )  # fmt: skip
        assert inner.calls == ["list a", "list b", "list a"]
        assert [[entry.key for entry in listing.entries] for listing in (one, two, other)] == [
            ["a1", "a2"],
            ["a1", "a2"],
            ["b"],
        ]
        await kv.keys("n", "a", limit=1, cursor=more.cursor)
        assert len(inner.calls) == 4

    async def test_of_a_later_moment_ask_anew(self, kv: BatchingKV, inner: MemoryKV) -> None:
        inner.delay = 0.01
        first = asyncio.ensure_future(kv.keys("n", "a", limit=10))
        while not inner.calls:  # noqa: ASYNC110
            await asyncio.sleep(0)
        inner.pairs["a"] = pair("a")
        second = await kv.keys("n", "a", limit=10)
        await first
        assert [entry.key for entry in second.entries] == ["a"]
        assert inner.calls == ["list a", "list a"]

    async def test_fail_with_an_error_for_each(self, kv: BatchingKV, inner: MemoryKV) -> None:
        inner.errors = [UnavailableError("no")]
        outcomes = await asyncio.gather(
            *[kv.keys("n", "a", limit=10) for _ in range(2)], return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 2
        assert outcomes[0] is not outcomes[1]

    async def test_a_cancelled_one_harms_no_other(self, kv: BatchingKV, inner: MemoryKV) -> None:
        await inner.write("n", [pair("a")], [])
        first = asyncio.ensure_future(kv.keys("n", "a", limit=10))
        second = asyncio.ensure_future(kv.keys("n", "a", limit=10))
        await asyncio.sleep(0)
        first.cancel()
        assert [entry.key for entry in (await second).entries] == ["a"]
        assert first.cancelled()

    @pytest.mark.parametrize("turns", [1, 3], ids=["before it ran", "while it asked"])
    async def test_whose_task_is_cancelled_leave_nobody_waiting(
        self, kv: BatchingKV, inner: MemoryKV, turns: int
    ) -> None:
        inner.delay = 0.01
        first = asyncio.ensure_future(kv.keys("n", "a", limit=10))
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {first, asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(30):
            [outcome] = await asyncio.gather(first, return_exceptions=True)
            assert (await kv.keys("n", "a", limit=10)).entries == []
        assert isinstance(outcome, Listing if turns == 1 else UnavailableError)


@pytest.mark.parametrize("what", ["get", "listing"])
async def test_what_nobody_waits_for_any_more_is_given_up(inner: MemoryKV, what: str) -> None:
    kv = BatchingKV(inner)
    await kv.open()
    inner.delay = 60.0

    def ask() -> asyncio.Future[object]:
        return asyncio.ensure_future(
            kv.get("n", ["a"]) if what == "get" else kv.keys("n", "a", limit=10)
        )

    callers = [ask(), ask()]
    while not inner.calls:  # noqa: ASYNC110
        await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait(callers)
        await kv.close()


class TestWrites:
    @pytest.mark.parametrize("turns", [0, 2], ids=["before it ran", "while it wrote"])
    async def test_go_on_when_the_task_that_was_to_write_was_cancelled(
        self, kv: BatchingKV, inner: MemoryKV, turns: int
    ) -> None:
        inner.delay = 0.01
        first = asyncio.ensure_future(kv.write("n", [pair("a")], []))
        for _ in range(turns):
            await asyncio.sleep(0)
        second = asyncio.ensure_future(kv.write("n", [pair("b")], []))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {first, second, asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
            await kv.write("n", [pair("c")], [])
        assert type(outcomes[0]) is (UnavailableError if turns else type(None))
        assert outcomes[1] is None
        assert sorted(inner.pairs) == (["b", "c"] if turns else ["a", "b", "c"])

    @pytest.mark.parametrize("turns", range(6))
    async def test_are_one_at_a_time_whenever_one_comes_as_the_task_is_cancelled(
        self, kv: BatchingKV, inner: MemoryKV, monkeypatch: pytest.MonkeyPatch, turns: int
    ) -> None:
        write, under_way, most = inner.write, 0, 0

        async def watched(namespace: str, pairs: Sequence[Pair], deletes: Collection[str]) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            try:
                await write(namespace, pairs, deletes)
            finally:
                under_way -= 1

        async def later(key: str, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await kv.write("n", [pair(key)], [])

        monkeypatch.setattr(inner, "write", watched)
        inner.delay = 0.01
        first = asyncio.ensure_future(later("a", 0))
        for _ in range(3):
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {first, asyncio.current_task()}
        following = [asyncio.ensure_future(later("b", turns))]
        for task in others:
            task.cancel()
        following += [asyncio.ensure_future(later(f"c{n}", n)) for n in range(turns, 20)]
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(first, *following, return_exceptions=True)
        assert type(outcomes[0]) is UnavailableError
        assert outcomes[1:] == [None] * len(following)
        assert most == 1

    async def test_refused_as_a_whole_cost_few_requests(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        inner.errors = [StorageError("a proxy's page")] * 10_000
        with pytest.raises(StorageError, match="a proxy's page"):
            await kv.write("n", [pair(f"k{n}") for n in range(2_000)], [])
        assert len(inner.calls) < 150

    async def test_wait_for_the_one_under_way(self, kv: BatchingKV, inner: MemoryKV) -> None:
        inner.delay = 0.01
        first = asyncio.ensure_future(kv.write("n", [pair("a")], []))
        await asyncio.sleep(0.005)
        await asyncio.gather(first, *[kv.write("n", [pair(key)], []) for key in "bcd"])
        assert inner.calls == ["put a", "put b c d"]

    async def test_the_later_of_one_key_wins_and_is_sent_once(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        await asyncio.gather(*[kv.write("n", [pair("a", str(n))], []) for n in range(5)])
        assert inner.pairs["a"].value == b"4"
        assert len(inner.calls) <= 2
        await asyncio.gather(kv.write("n", [], ["a"]), kv.write("n", [pair("a", "back")], []))
        assert inner.pairs["a"].value == b"back"
        await asyncio.gather(kv.write("n", [pair("a")], []), kv.write("n", [], ["a"]))
        assert inner.pairs == {}

    async def test_of_one_key_keep_their_distance(self, kv: BatchingKV, inner: MemoryKV) -> None:
        started = time.monotonic()
        for n in range(4):
            await kv.write("n", [pair("a", str(n))], [])
        assert time.monotonic() - started >= 0.15
        assert inner.calls == ["put a"] * 4

    async def test_do_not_wait_for_other_keys(self, inner: MemoryKV) -> None:
        kv = BatchingKV(inner, key_interval=60)
        await kv.write("n", [pair("a")], [])
        again = asyncio.ensure_future(kv.write("n", [pair("a")], []))
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await kv.write("other", [pair("b")], [])
        assert not again.done()
        again.cancel()

    async def test_close_waits_for_those_that_wait(self, inner: MemoryKV) -> None:
        kv = BatchingKV(inner, key_interval=0.1)
        await kv.open()
        await kv.write("n", [pair("a", "1")], [])
        last = asyncio.ensure_future(kv.write("n", [pair("a", "2")], []))
        await asyncio.sleep(0.01)
        await kv.close()
        await last
        assert inner.pairs["a"].value == b"2"
        assert not inner.is_open

    async def test_deletes_follow_the_pairs_of_their_call(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        await kv.write("n", [pair("old"), pair("record")], [])
        await kv.write("n", [pair("new"), pair("record")], ["old"])
        assert inner.calls == ["put old record", "put new", "put record", "delete old"]

    async def test_nothing_is_deleted_when_the_pairs_are_not_stored(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        await kv.write("n", [pair("old")], [])
        inner.errors = [UnavailableError("no")]
        with pytest.raises(UnavailableError):
            await kv.write("n", [pair("new")], ["old"])
        assert list(inner.pairs) == ["old"]

    async def test_a_call_hears_of_its_own_keys_alone(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        inner.errors = [PartialWriteError("some", failed=[("n", ("b",)), ("n", ("c",))])]
        outcomes = await asyncio.gather(
            kv.write("n", [pair("a")], []),
            kv.write("n", [pair("b"), pair("x")], []),
            kv.write("n", [pair("c")], []),
            return_exceptions=True,
        )
        assert outcomes[0] is None
        for outcome, key in zip(outcomes[1:], "bc", strict=True):
            assert isinstance(outcome, PartialWriteError)
            assert outcome.failed == [("n", (key,))]

    @pytest.mark.parametrize("refusal", [TooLargeError("too large"), StorageError("refused")])
    async def test_one_that_is_refused_fails_no_other(
        self, kv: BatchingKV, inner: MemoryKV, refusal: StorageError
    ) -> None:
        # Of a b c d: all, the half "a b", "a" alone; what else is asked for succeeds.
        inner.errors = [refusal, refusal, refusal]
        outcomes = await asyncio.gather(
            *[kv.write("n", [pair(key)], []) for key in "abcd"], return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes[:1]] == [type(refusal)]
        assert outcomes[1:] == [None] * 3
        assert inner.calls == ["put a b c d", "put a b", "put a", "put b", "put c d"]

    async def test_a_refused_token_is_not_tried_for_each(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        inner.errors = [AuthenticationError("no")]
        outcomes = await asyncio.gather(
            *[kv.write("n", [pair(key)], []) for key in "ab"], return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [AuthenticationError] * 2
        assert inner.calls == ["put a b"]

    async def test_a_cancelled_one_harms_no_other(self, kv: BatchingKV, inner: MemoryKV) -> None:
        calls = [asyncio.ensure_future(kv.write("n", [pair(key)], [])) for key in "abc"]
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert [call.cancelled() for call in calls] == [False, True, False]
        assert {"a", "c"} <= set(inner.pairs)

    async def test_a_defect_reaches_those_who_wait(
        self, kv: BatchingKV, inner: MemoryKV, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def broken(*arguments: object) -> None:
            raise TypeError("a defect")

        monkeypatch.setattr(inner, "write", broken)
        with pytest.raises(TypeError):
            await kv.write("n", [pair("a")], [])
        monkeypatch.undo()
        await kv.write("n", [pair("a")], [])
        assert list(inner.pairs) == ["a"]

    async def test_of_nothing_send_nothing(self, kv: BatchingKV, inner: MemoryKV) -> None:
        await kv.write("n", [], [])
        assert inner.calls == []

    async def test_are_sent_in_parts_that_one_request_takes(
        self, kv: BatchingKV, inner: MemoryKV
    ) -> None:
        await kv.write("n", [pair(f"k{n}") for n in range(MAX_KEYS_OF_WRITE + 5)], [])
        assert [len(call.split()) - 1 for call in inner.calls] == [MAX_KEYS_OF_WRITE, 5]
        inner.calls.clear()
        quotes = '"' * (MERGED_BYTES // 5)  # in JSON each takes two bytes
        await kv.write("n", [pair(key, quotes) for key in "abcd"], [])
        assert inner.calls == ["put a b", "put c d"]
        inner.calls.clear()
        await kv.write("n", [pair("e", quotes * 3), pair("f")], [])
        assert inner.calls == ["put e", "put f"]
