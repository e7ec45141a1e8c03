"""Merging of concurrent writes, and what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import pytest
from mastra_storage_convex import batching
from mastra_storage_convex._answers import FunctionFailedError, TransactionTooLargeError
from mastra_storage_convex.batching import MAX_OPS, Writer
from mastra_storage_convex.client import Client, Settings
from mastra_storage_convex.ops import BusyError, failure_of
from mastra_storage_convex.wire import Outcome, Outcomes

from mastra_storage import (
    ABSENT,
    AuthenticationError,
    ConflictError,
    Delete,
    DeletePrefix,
    InvalidRecordError,
    NotFoundError,
    Op,
    PartialWriteError,
    Put,
    Row,
    StorageError,
    Table,
    TooLargeError,
    Touch,
    UnavailableError,
    UnsupportedError,
)

OWN = Table(name="own", key=("id",))
OK = Outcome(status="ok")

Answer = list[Outcome] | StorageError


class Functions:
    """In place of a client: keeps the mutations that are sent, and answers as told."""

    def __init__(self, timeout: float = 30.0) -> None:
        self.settings = Settings(url="http://example.com", key="k", timeout=timeout)
        self.sent: list[Any] = []
        self.answers: list[Answer] = []
        self.decide: Callable[[Any], Answer | None] = lambda call: None
        self.delay = 0.0
        self.called = asyncio.Event()
        self.under_way = self.most_under_way = 0

    async def mutate(self, path: str, arguments: bytes, kind: Any) -> Any:
        assert (path, kind) == ("system:write", Outcomes)
        self.called.set()
        given = msgspec.json.decode(arguments)
        self.sent.append(given)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.under_way -= 1
        answer = self.answers.pop(0) if self.answers else self.decide(given)
        if isinstance(answer, StorageError):
            raise answer
        return Outcomes(answer or [OK for _ in given["calls"]])

    @property
    def ids(self) -> list[list[str]]:
        """For each mutation sent, what each of its calls is about."""
        return [[" ".join(map(told, call["ops"])) for call in sent["calls"]] for sent in self.sent]


def told(op: dict[str, Any]) -> str:
    """An op as `put:a` …"""
    names = {"put": "doc", "deletePrefix": "prefix"}
    held = op[names.get(op["op"], "key")]
    return f"{op['op']}:{(held['key'] if op['op'] == 'put' else held)[-1]}"


def put(id: str = "a", size: int = 2, **given: Any) -> Put:
    return Put(Row(OWN, (id,), b"x" * size, 1, 1, {}, 1, version="v"), **given)


def conflict(id: str) -> Outcome:
    return Outcome(status="conflict", table="documents", key=("own", id))


@pytest.fixture
def functions() -> Functions:
    return Functions()


@pytest.fixture
def writer(functions: Functions) -> Writer:
    return Writer(cast(Client, functions))


async def outcomes_of(writer: Writer, *calls: Sequence[Op]) -> list[Any]:
    """What became of calls that were made together: `None`, or the type of the error."""
    found = await asyncio.gather(*map(writer.write, calls), return_exceptions=True)
    return [None if outcome is None else type(outcome) for outcome in found]


class TestMerging:
    async def test_a_lone_write_is_one_mutation(self, writer: Writer, functions: Functions) -> None:
        ops: list[Op] = [
            put("a"),
            put("b", if_version=ABSENT, keep_place=False),
            put("c", if_version="v1"),
            Touch(OWN, ("d",), 5),
            Delete(OWN, ("e",)),
            DeletePrefix(OWN, ()),
        ]
        await writer.write(ops)
        [sent] = functions.sent
        [call] = sent["calls"]
        document = call["ops"][0].pop("doc")
        assert document == {
            "table": "own",
            "key": ["a"],
            "value": "xx",
            "fields": {},
            "row": {
                "order": {"$integer": "AQAAAAAAAAA="},
                "seq": {"$integer": "AQAAAAAAAAA="},
                "updated": {"$integer": "AQAAAAAAAAA="},
                "version": "v",
            },
        }
        assert [{k: v for k, v in op.items() if k != "doc"} for op in call["ops"]] == [
            {"op": "put", "table": "documents", "keepPlace": True},
            {"op": "put", "table": "documents", "keepPlace": False, "ifVersion": None},
            {"op": "put", "table": "documents", "keepPlace": True, "ifVersion": "v1"},
            {
                "op": "touch",
                "table": "documents",
                "key": ["own", "d"],
                "at": {"$integer": "BQAAAAAAAAA="},
            },
            {"op": "delete", "table": "documents", "key": ["own", "e"]},
            {"op": "deletePrefix", "table": "documents", "prefix": ["own"]},
        ]

    async def test_writes_wait_for_the_one_under_way(
        self, writer: Writer, functions: Functions
    ) -> None:
        functions.delay = 0.01
        first = asyncio.ensure_future(writer.write([put("a")]))
        await asyncio.sleep(0.005)
        await asyncio.gather(first, *[writer.write([put(key)]) for key in "bcd"])
        assert functions.ids == [["put:a"], ["put:b", "put:c", "put:d"]]

    async def test_each_has_an_outcome_of_its_own(
        self, writer: Writer, functions: Functions
    ) -> None:
        missing = Outcome(status="missing", table="threads", key=("t",))
        functions.answers = [[OK, conflict("b"), missing, conflict("d")]]
        found = await asyncio.gather(
            writer.write([put("a")]),
            writer.write([put("b", if_version="v1")]),
            writer.write([put("c")]),
            writer.write([put("d", if_version=ABSENT)]),
            return_exceptions=True,
        )
        assert found[0] is None
        assert isinstance(found[1], ConflictError)
        assert isinstance(found[2], NotFoundError)
        assert isinstance(found[3], ConflictError)
        messages = [str(error) for error in found[1:]]
        assert messages == [
            "the row ('b',) of table 'own' has changed",
            "there is no row ('t',) in table 'threads' to touch",
            "there is already a row ('d',) in table 'own'",
        ]

    async def test_mutations_take_so_many_ops_and_bytes(
        self, writer: Writer, functions: Functions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batching, "_OPS_AT_ONCE", 10**6)  # the first is not overtaken
        many = [put(str(number)) for number in range(MAX_OPS - 1)]
        large = [put("large", 3 * 2**20)]
        await outcomes_of(writer, [*many], [put("a")], [put("b")], [*large], [*large], [put("c")])
        sizes = [[len(call["ops"]) for call in sent["calls"]] for sent in functions.sent]
        assert sizes == [[MAX_OPS - 1, 1], [1, 1], [1, 1]]

    async def test_a_large_write_goes_alone_and_whole(
        self, writer: Writer, functions: Functions
    ) -> None:
        large: list[Op] = [put(str(number), 2**20 - 1000) for number in range(14)]
        await outcomes_of(writer, [put("a")], large, [put("b")])
        sizes = [[len(call["ops"]) for call in sent["calls"]] for sent in functions.sent]
        assert sizes == [[1], [14], [1]]

    async def test_what_had_no_room_goes_next(self, writer: Writer, functions: Functions) -> None:
        functions.answers = [[OK], [OK, conflict("c")]]
        functions.delay = 0.01
        writes = [asyncio.ensure_future(writer.write([put(key)])) for key in "abcd"]
        await asyncio.sleep(0.005)
        writes.append(asyncio.ensure_future(writer.write([put("e")])))
        found = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(outcome) for outcome in found] == [
            type(None), type(None), ConflictError, type(None), type(None)
        ]  # fmt: skip
        assert functions.ids == [
            ["put:a", "put:b", "put:c", "put:d"],
            ["put:b", "put:c", "put:d", "put:e"],
            ["put:d", "put:e"],
        ]

    async def test_what_has_no_json_is_refused_before_it_waits(
        self, writer: Writer, functions: Functions
    ) -> None:
        broken = Row(OWN, ("\ud800",), b"{}", 1, 1, {}, 1)
        for ops in ([put("a"), Put(broken)], [Delete(OWN, ("\ud800",))]):
            with pytest.raises(InvalidRecordError, match="lone surrogate"):
                await writer.write(ops)
        assert functions.sent == []


class TestNames:
    """What says of a mutation that it happened already."""

    async def test_are_a_store_and_a_growing_number(
        self, writer: Writer, functions: Functions
    ) -> None:
        functions.answers = [[OK], UnavailableError("lost"), [OK]]
        await writer.write([put("a")])
        with pytest.raises(UnavailableError):
            await writer.write([put("b")])
        await writer.write([put("c")])
        await Writer(cast(Client, functions)).write([put("d")])
        *own, other = [(sent["store"], sent["number"]) for sent in functions.sent]
        store = own[0][0]
        assert len(store) == 32
        assert own == [(store, 1), (store, 2), (store, 3)]
        assert other[0] != store

    async def test_are_not_those_of_the_process_before_a_fork(
        self, writer: Writer, functions: Functions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await writer.write([put("a")])
        monkeypatch.setattr("os.getpid", lambda: -1)
        await writer.write([put("b")])
        first, second = [sent["store"] for sent in functions.sent]
        assert first != second


class TestCancelling:
    async def test_a_write_that_waits_is_not_sent(
        self, writer: Writer, functions: Functions
    ) -> None:
        functions.delay = 0.01
        writes = [asyncio.ensure_future(writer.write([put("a")]))]
        await asyncio.sleep(0.005)
        writes += [asyncio.ensure_future(writer.write([put(key)])) for key in "bcd"]
        await asyncio.sleep(0)
        writes[2].cancel()
        found = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(outcome) for outcome in found] == [
            type(None), type(None), asyncio.CancelledError, type(None)
        ]  # fmt: skip
        assert functions.ids == [["put:a"], ["put:b", "put:d"]]

    async def test_a_write_under_way_harms_no_other(
        self, writer: Writer, functions: Functions
    ) -> None:
        functions.delay = 0.01
        first, second = (asyncio.ensure_future(writer.write([put(key)])) for key in "ab")
        await asyncio.sleep(0.005)
        first.cancel()
        await second
        assert first.cancelled()
        await writer.write([put("c")])
        assert functions.ids == [["put:a", "put:b"], ["put:c"]]

    @pytest.mark.parametrize("turns", [0, 2], ids=["before it ran", "while it wrote"])
    async def test_the_task_that_was_to_write_leaves_nobody_waiting(
        self, writer: Writer, functions: Functions, turns: int
    ) -> None:
        functions.delay = 0.01
        first = asyncio.ensure_future(writer.write([put("a")]))
        for _ in range(turns):
            await asyncio.sleep(0)
        second = asyncio.ensure_future(writer.write([put("b")]))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {first, second, asyncio.current_task()}:
            task.cancel()
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(first, second, return_exceptions=True)
            assert type(outcomes[0]) is (UnavailableError if turns else type(None))
            assert outcomes[1] is None
            await writer.write([put("c")])
            await writer.close()
        assert functions.ids[-1] == ["put:c"]

    @pytest.mark.parametrize("turns", range(6))
    async def test_one_mutation_at_a_time_whenever_a_write_comes(
        self, writer: Writer, functions: Functions, turns: int
    ) -> None:
        async def later(key: str, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            await writer.write([put(key)])

        functions.delay = 0.01
        first = asyncio.ensure_future(later("a", 0))
        await functions.called.wait()
        others = asyncio.all_tasks() - {first, asyncio.current_task()}
        following = [asyncio.ensure_future(later("b", turns))]
        for task in others:
            task.cancel()
        following += [asyncio.ensure_future(later(f"c{n}", n)) for n in range(turns, 20)]
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(first, *following, return_exceptions=True)
        assert type(outcomes[0]) is UnavailableError
        assert outcomes[1:] == [None] * len(following)
        assert functions.most_under_way == 1

    async def test_a_write_in_parts_is_finished(self, writer: Writer, functions: Functions) -> None:
        functions.delay = 0.01
        ops: list[Op] = [put(str(number)) for number in range(2 * MAX_OPS)]
        write = asyncio.ensure_future(writer.write(ops))
        await functions.called.wait()
        write.cancel()
        await writer.close()
        assert write.cancelled()
        assert len(functions.sent) == 2


class TestFailing:
    async def test_what_passes_fails_all_with_an_error_each(
        self, writer: Writer, functions: Functions
    ) -> None:
        failure = UnavailableError("no")
        functions.answers = [failure]
        found = await asyncio.gather(
            *[writer.write([put(key)]) for key in "abc"], return_exceptions=True
        )
        assert [type(error) for error in found] == [UnavailableError] * 3
        assert len({id(error) for error in found}) == 3
        assert {id(cast(Exception, error).__cause__) for error in found} == {id(failure)}
        assert len(functions.sent) == 1

    async def test_a_refused_key_is_not_tried_for_each(
        self, writer: Writer, functions: Functions
    ) -> None:
        functions.decide = lambda _: AuthenticationError("no")
        found = await outcomes_of(writer, *[[put(key)] for key in "abcd"])
        assert found == [AuthenticationError] * 4
        assert len(functions.sent) == 1

    @pytest.mark.parametrize("error", [StorageError, TooLargeError])
    async def test_one_that_cannot_be_does_not_fail_the_others(
        self, writer: Writer, functions: Functions, error: type[StorageError]
    ) -> None:
        def decide(sent: Any) -> Answer | None:
            bad = any(told(op) == "put:bad" for call in sent["calls"] for op in call["ops"])
            return error("no") if bad else None

        functions.decide = decide
        found = await outcomes_of(writer, *[[put(key)] for key in ("a", "b", "bad", "c", "d")])
        assert found == [None, None, error, None, None]

    async def test_defects_reach_the_caller_and_stop_nothing(
        self, writer: Writer, functions: Functions
    ) -> None:
        def decide(_: Any) -> Answer | None:
            raise ZeroDivisionError

        functions.decide = decide
        with pytest.raises(ZeroDivisionError):
            await writer.write([put("a")])
        functions.decide = lambda _: None
        await writer.write([put("b")])

    @pytest.mark.parametrize("outcomes", [[], [OK, OK], [Outcome(status="strange")]])
    async def test_answers_of_other_functions_are_explained(
        self, writer: Writer, functions: Functions, outcomes: list[Outcome]
    ) -> None:
        async def mutate(*_: Any) -> Outcomes:
            return Outcomes(outcomes)

        functions.mutate = mutate  # type: ignore[assignment, method-assign]
        with pytest.raises(UnsupportedError, match="npx convex deploy"):
            await writer.write([put("a")])


class TestParts:
    """Writes that are more than a transaction may be."""

    async def test_are_in_order_but_for_touches(self, writer: Writer, functions: Functions) -> None:
        puts = [put(str(number)) for number in range(MAX_OPS)]
        touches = [Touch(OWN, ("0",), 5), Touch(OWN, ("other",), 5)]
        await writer.write([*puts, *touches, DeletePrefix(OWN, ("p",))])
        ops = [told(op) for sent in functions.sent for op in sent["calls"][0]["ops"]]
        assert ops == [
            "touch:other",
            *[f"put:{number}" for number in range(MAX_OPS - 1)],
            "touch:other",
            f"put:{MAX_OPS - 1}",
            "touch:0",
            "deletePrefix:p",
        ]
        assert [len(sent["calls"][0]["ops"]) for sent in functions.sent] == [MAX_OPS, 4]

    async def test_begin_with_the_touches_also_when_they_are_made_smaller(
        self, writer: Writer, functions: Functions
    ) -> None:
        large = TransactionTooLargeError("too much")
        functions.answers = [*[large] * 2, [OK], large, [OK], [conflict("3")]]
        ops = [put(str(number)) for number in range(4)]
        with pytest.raises(PartialWriteError, match=r"1 of its 5") as caught:
            await writer.write([*ops[:2], Touch(OWN, ("t",), 5), *ops[2:]])
        assert caught.value.failed == [("own", ("3",))]
        parts = [[told(op) for op in sent["calls"][0]["ops"]] for sent in functions.sent]
        assert parts[1:] == [
            ["touch:t", "put:0", "put:1", "put:2", "put:3"],
            ["touch:t", "put:0", "put:1"],
            ["touch:t", "put:2", "put:3"],
            ["touch:t", "put:2"],
            ["touch:t", "put:3"],
        ]

    async def test_of_very_many_touches_begin_with_them_once(
        self, writer: Writer, functions: Functions
    ) -> None:
        touches: list[Op] = [Touch(OWN, (str(number),), 5) for number in range(MAX_OPS + 1)]
        await writer.write([put("a"), *touches])
        ops = [[told(op) for op in sent["calls"][0]["ops"]] for sent in functions.sent]
        assert ops[0] == [f"touch:{number}" for number in range(MAX_OPS)]
        assert ops[1] == [f"touch:{MAX_OPS}", "put:a"]

    async def test_are_not_too_large_themselves(self, writer: Writer, functions: Functions) -> None:
        await writer.write([put(str(number), 2**20) for number in range(16)])
        assert [len(sent["calls"][0]["ops"]) for sent in functions.sent] == [3, 3, 3, 3, 3, 1]

    async def test_the_first_that_fails_has_changed_nothing(
        self, writer: Writer, functions: Functions
    ) -> None:
        functions.answers = [[conflict("0")]]
        with pytest.raises(ConflictError):
            await writer.write([put(str(number)) for number in range(2 * MAX_OPS)])
        assert len(functions.sent) == 1

    @pytest.mark.parametrize("failure", [UnavailableError("lost"), [conflict("x")]])
    async def test_a_later_one_that_fails_names_what_is_missing(
        self, writer: Writer, functions: Functions, failure: Answer
    ) -> None:
        functions.answers = [[OK], failure]
        ops = [put(str(number)) for number in range(2 * MAX_OPS)]
        last: list[Op] = [Touch(OWN, ("0",), 1), Delete(OWN, ("z",)), DeletePrefix(OWN, ())]
        with pytest.raises(PartialWriteError, match=r"2003 of its 4003") as caught:
            await writer.write([*ops, *last])
        keys = [(str(number),) for number in range(MAX_OPS, 2 * MAX_OPS)]
        assert caught.value.failed == [("own", key) for key in [*keys, ("0",), ("z",), ()]]
        assert len(functions.sent) == 2

    @pytest.mark.parametrize(
        "refusal",
        [
            TransactionTooLargeError("too much"),
            [Outcome(status="full", table="documents", key=("own", "0"))],
        ],
    )
    async def test_are_made_smaller_until_they_fit(
        self, writer: Writer, functions: Functions, refusal: Answer
    ) -> None:
        def decide(sent: Any) -> Answer | None:
            return refusal if sum(len(call["ops"]) for call in sent["calls"]) > 3 else None

        functions.decide = decide
        found = await outcomes_of(
            writer, [put(str(number)) for number in range(10)], [put("a")], [put("b")]
        )
        assert found == [None, None, None]
        stored = [
            told(op)
            for sent in functions.sent
            for call in sent["calls"]
            for op in call["ops"]
            if sum(len(call["ops"]) for call in sent["calls"]) <= 3
        ]
        assert sorted(stored) == sorted(f"put:{key}" for key in ("a", "b", *map(str, range(10))))

    async def test_are_tried_when_a_large_write_fails_for_a_hidden_reason(
        self, writer: Writer, functions: Functions
    ) -> None:
        def decide(sent: Any) -> Answer | None:
            return FunctionFailedError("no") if len(sent["calls"][0]["ops"]) > 300 else None

        functions.decide = decide
        await writer.write([put(str(number)) for number in range(1_000)])
        sizes = [len(sent["calls"][0]["ops"]) for sent in functions.sent]
        assert [size for size in sizes if size <= 300] == [250] * 4
        assert len(sizes) == 8

    async def test_are_not_tried_for_ever_for_a_hidden_reason(
        self, writer: Writer, functions: Functions
    ) -> None:
        def failing(attempts: int) -> list[Answer]:
            return [FunctionFailedError(f"attempt {number}") for number in range(attempts)]

        functions.answers = [*failing(10)]
        with pytest.raises(FunctionFailedError, match="attempt 0"):
            await writer.write([put(str(number)) for number in range(MAX_OPS)])
        assert len(functions.sent) == 7
        functions.answers = [*failing(1)]
        with pytest.raises(FunctionFailedError, match="attempt 0"):
            await writer.write([put(str(number)) for number in range(100)])
        assert len(functions.sent) == 8

    async def test_that_fail_for_a_hidden_reason_name_what_is_missing(
        self, writer: Writer, functions: Functions
    ) -> None:
        def decide(sent: Any) -> Answer | None:
            bad = any(told(op) == "put:180" for op in sent["calls"][0]["ops"])
            return FunctionFailedError("no") if bad else None

        functions.decide = decide
        with pytest.raises(PartialWriteError) as caught:
            await writer.write([put(str(number)) for number in range(200)])
        assert caught.value.failed == [("own", (str(number),)) for number in range(100, 200)]

    async def test_a_record_that_no_document_holds_is_refused(
        self, writer: Writer, functions: Functions
    ) -> None:
        functions.answers = [[OK, Outcome(status="large", table="documents", key=("own", "b"))]]
        first, second = await asyncio.gather(
            writer.write([put("a")]),
            writer.write([put("b"), put("c")]),
            return_exceptions=True,
        )
        assert first is None
        assert type(second) is TooLargeError
        assert "'b'" in str(second)
        assert len(functions.sent) == 1


class TestWaiting:
    async def test_a_write_that_finds_too_many_deletions_is_tried_again(
        self, writer: Writer, functions: Functions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batching, "_BUSY_PAUSE", 0.01)
        busy = Outcome(status="busy", table="documents", key=("own",))
        functions.answers = [[busy, OK], [busy]]
        found = await outcomes_of(writer, [DeletePrefix(OWN, ())], [put("b")])
        assert found == [None, None]
        assert functions.ids == [["deletePrefix:own", "put:b"], *[["deletePrefix:own"]] * 2]

    async def test_but_not_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batching, "_BUSY_PAUSE", 0.01)
        functions = Functions(timeout=0.5)
        functions.decide = lambda _: [Outcome(status="busy", table="messages", key=("t",))]
        with pytest.raises(BusyError, match="deletions of table 'messages'") as caught:
            await Writer(cast(Client, functions)).write([DeletePrefix(OWN, ())])
        assert caught.value.retryable
        assert len(functions.sent) > 1

    async def test_a_deletion_that_is_refused_a_turn_among_parts_waits_for_it(
        self, writer: Writer, functions: Functions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batching, "_BUSY_PAUSE", 0.01)
        busy = Outcome(status="busy", table="documents", key=("own",))
        functions.answers = [[OK], [busy], [busy], [OK]]
        await writer.write(
            [*[put(str(number)) for number in range(MAX_OPS)], DeletePrefix(OWN, ())]
        )
        assert [len(sent["calls"][0]["ops"]) for sent in functions.sent] == [MAX_OPS, 1, 1, 1]

    async def test_what_waited_longer_than_a_call_may_take_is_not_sent(self) -> None:
        functions = Functions(timeout=0.1)
        functions.delay = 0.3
        writer = Writer(cast(Client, functions))
        first = asyncio.ensure_future(writer.write([put("a")]))
        await functions.called.wait()
        with pytest.raises(UnavailableError, match="not carried out") as caught:
            await writer.write([put("b")])
        assert caught.value.retryable
        await first
        assert functions.ids == [["put:a"]]

    async def test_closing_finishes_what_was_begun(
        self, writer: Writer, functions: Functions
    ) -> None:
        functions.delay = 0.01
        writes = [asyncio.ensure_future(writer.write([put("a")]))]
        await asyncio.sleep(0.005)
        writes.append(asyncio.ensure_future(writer.write([put("b")])))
        await asyncio.sleep(0)
        await writer.close()
        assert functions.ids == [["put:a"], ["put:b"]]
        await asyncio.gather(*writes)
        await writer.close()


def test_tables_are_named_as_they_are_here() -> None:
    found = failure_of(Outcome(status="conflict", table="workflowRuns", key=("w", "r")), [])
    assert "'workflow_snapshot'" in str(found)
