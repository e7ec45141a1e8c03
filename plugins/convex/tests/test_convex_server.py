"""The local Convex server answers as a deployment does, and fails as it and networks do."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from convex_server import SERVER, ConvexServer
from deployments import APP, Deployment, FunctionError, int64, note, to_int
from local_server import LocalServerError, install
from mastra_storage_convex import ConvexStorage

from mastra_storage import Thread

pytestmark = pytest.mark.once

MIB = 1024 * 1024
EXTRA_FIELD = (
    "ArgumentValidationError: Object contains extra field `other` that is not in the validator.\n\n"
    'Object: {other: 1.0, owner: "a"}\nValidator: v.object({owner: v.string()})\n'
)
WRONG_TYPE = (
    "ArgumentValidationError: Value does not match validator.\n"
    'Path: .notes[1].stars\nValue: "many"\nValidator: v.float64()\n'
)


@pytest.fixture(scope="module")
def app_server() -> Iterator[ConvexServer]:
    with ConvexServer.start(functions=APP) as server:
        yield server


@pytest.fixture
async def app(app_server: ConvexServer) -> AsyncIterator[Deployment]:
    await app_server.reset()
    async with aiohttp.ClientSession() as session:
        yield Deployment(app_server, session)


async def last(app: Deployment) -> dict[str, Any]:
    """What the log says of the last call."""
    return (await app.server.log())[-1]


class TestFunctions:
    async def test_are_called_and_give_values(self, app: Deployment) -> None:
        assert await app.query("notes:get", owner="a") is None
        assert await app.mutation("notes:add", notes=[note("a", 1), note("a", 2)]) == 2
        assert await app.query("notes:get", owner="a") == "a 1"
        assert (await app.call("action", "system:relay", text="relayed")).value == 1
        assert await app.query("notes:get", owner="relay") == "relayed"

    async def test_their_modules_may_be_named_as_files(self, app: Deployment) -> None:
        assert await app.query("notes.js:get", owner="a") is None

    async def test_values_come_back_as_they_went(self, app: Deployment) -> None:
        big = int64(2**63 - 1)
        value = [1, -2.5, 1e300, big, int64(-5), None, True, "é😀\u0000", {"a b": [], "c": {}}]
        value.append({"$bytes": "AAH/"})
        value.append({"$float": "AAAAAAAA+H8="})  # not a number
        assert await app.query("system:echo", value=value) == value

    async def test_floats_have_a_fraction(self, app: Deployment) -> None:
        answer = await app.call("query", "system:echo", value=[3, 1e21, 0.5, 2**53])
        assert answer.body == b'{"status":"success","value":[3.0,1e+21,0.5,9007199254740992.0]}'

    async def test_the_format_json_has_no_integers_and_bytes(self, app: Deployment) -> None:
        value = [int64(5), {"$bytes": "AAH/"}, 1, {"$float": "AAAAAAAA8H8="}]
        answer = await app.call("query", "system:echo", "json", value=value)
        assert answer.body == b'{"status":"success","value":["5","AAH/",1.0,"Infinity"]}'

    async def test_a_call_without_a_format_is_answered_in_json(self, app: Deployment) -> None:
        body = json.dumps({"path": "system:echo", "args": {"value": int64(5)}})
        assert (await app.post("/api/query", body)).value == "5"

    async def test_what_they_print_is_in_the_answer(self, app: Deployment) -> None:
        answer = await app.call("query", "system:talk")
        assert answer.json["logLines"] == ["[LOG] 'hello' { n: 1 }"]

    async def test_the_version_needs_no_key(self, app: Deployment) -> None:
        async with app.session.get(f"{app.server.url}/version") as response:
            assert response.status == 200
            assert await response.text()


class TestErrorsOfFunctions:
    @pytest.mark.parametrize(
        ("kind", "function", "args", "message"),
        [
            ("query", "notes:none", {}, "Could not find public function for 'notes:none'."),
            ("query", "none:get", {}, "Could not find public function for 'none:get'."),
            ("query", "notes", {}, "Could not find public function for 'notes:default'."),
            ("query", "shared/note:note", {}, "Could not find public function for"),
            (
                "mutation",
                "notes:get",
                {"owner": "a"},
                "Trying to execute notes.js:get as Mutation, but it is defined as Query.",
            ),
            ("mutation", "system:boom", {}, "Uncaught Error: boom\n    at "),
            (
                "query",
                "notes:get",
                {},
                "ArgumentValidationError: Object is missing the required field `owner`. ",
            ),
            (
                "query",
                "notes:get",
                {"owner": "a", "other": 1},
                EXTRA_FIELD,
            ),
            (
                "mutation",
                "notes:add",
                {"notes": [note("a", 1), note("a", 2, stars="many")]},
                WRONG_TYPE,
            ),
            ("query", "system:lie", {}, "ReturnsValidationError: Value does not match"),
        ],
    )
    async def test_have_the_messages_of_the_backend(
        self, app: Deployment, kind: str, function: str, args: dict[str, Any], message: str
    ) -> None:
        answer = await app.call(kind, function, **args)
        assert answer.status == 200
        assert answer.json["status"] == "error"
        pattern = r"\[Request ID: [0-9a-f]{16}\] Server Error\n" + re.escape(message)
        assert re.match(pattern, answer.json["errorMessage"])

    async def test_are_redacted_as_in_production(self, app: Deployment) -> None:
        await app.server.control(redact=True)
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("query", "notes:none", {}),
            ("mutation", "system:boom", {}),
            ("query", "notes:get", {}),
        ]
        for kind, function, args in calls:
            message = (await app.call(kind, function, **args)).json["errorMessage"]
            assert re.fullmatch(r"\[Request ID: [0-9a-f]{16}\] Server Error", message)

    async def test_carry_the_data_of_a_convex_error(self, app: Deployment) -> None:
        for redact in (False, True):
            await app.server.control(redact=redact)
            with pytest.raises(FunctionError) as error:
                await app.mutation("notes:edit", owner="a", remove=[], text="new", fail=True)
            assert error.value.data == {"texts": ["new"]}

    async def test_undo_all_that_the_function_wrote(self, app: Deployment) -> None:
        with pytest.raises(FunctionError):
            await app.mutation("system:boom")
        assert await app.query("system:things") == []
        await app.add("a", 1)
        with pytest.raises(FunctionError):
            await app.mutation("notes:edit", owner="a", remove=["a 1"], text="new", fail=True)
        assert await app.texts() == ["a 1"]


class TestAccess:
    async def test_internal_functions_are_missing_without_the_key(self, app: Deployment) -> None:
        app.key = None
        for kind, function in [
            ("query", "notes:get"),
            ("query", "system:echo"),
            ("mutation", "notes:add"),
        ]:
            with pytest.raises(FunctionError, match="Could not find public function for"):
                await getattr(app, kind)(function)
        assert await app.server.counts() != {}
        assert await app.query("notes:count", owner="a") == 0
        assert await app.mutation("notes:publicAdd", owner="a", text="x") is None

    async def test_a_wrong_key_is_refused(self, app: Deployment) -> None:
        app.key = app.server.wrong_key
        assert app.key != app.server.admin_key
        assert (await app.call("query", "notes:count", owner="a")).refusal == (401, "BadAdminKey")
        app.key = app.server.admin_key
        await app.server.control(refuseKeys=True)
        answer = await app.call("mutation", "notes:publicAdd", owner="a", text="x")
        assert answer.refusal == (401, "BadAdminKey")
        await app.server.control(refuseKeys=False)
        assert await app.query("notes:count", owner="a") == 0

    async def test_the_type_of_a_key_does_not_count(self, app: Deployment) -> None:
        app.key = f"prod:{app.server.admin_key}"
        assert await app.query("notes:get", owner="a") is None

    async def test_headers_of_other_kinds_are_refused(self, app: Deployment) -> None:
        body = '{"path": "notes:count", "args": {"owner": "a"}}'
        for header, status in [("Bearer a.b.c", 401), ("nonsense", 400)]:
            assert (await app.post("/api/query", body, Authorization=header)).status == status


class TestRequests:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ("{", "BadJsonBody"),
            ("[]", "BadJsonBody"),
            ('{"path": "notes:get"}', "BadJsonBody"),
            ('{"path": "notes:get", "args": 1}', "BadJsonBody"),
            ('{"path": "a b:c", "args": {}}', "BadConvexFunctionIdentifier"),
            ('{"path": "notes:get", "args": {}, "format": "xml"}', "BadFormat"),
            ('{"path": "notes:get", "args": {"owner": "\\ud800"}}', "BadJsonBody"),
        ],
    )
    async def test_that_cannot_be_read_are_refused(
        self, app: Deployment, body: str, code: str
    ) -> None:
        assert (await app.post("/api/query", body)).refusal == (400, code)

    async def test_to_other_paths_are_refused(self, app: Deployment) -> None:
        assert (await app.post("/api/none", "{}")).refusal == (404, "NotFound")


class TestIndexes:
    async def test_have_the_order_of_convex(self, app: Deployment) -> None:
        ordered: list[Any] = [
            None,
            *(int64(number) for number in (-(2**63), -1, 0, 1, 2**63 - 1)),
            {"$float": "AAAAAAAA8P8="},  # minus infinity
            *(-1.5, {"$float": "AAAAAAAAAIA="}, 0.0, 0.5, 1e300),  # and minus zero
            *(False, True),
            *("", "\u0000", "\u0000a", "a", "a\u0000", "ab", "b", "é", "\uffff", "😀"),
            *({"$bytes": ""}, {"$bytes": "AA=="}, {"$bytes": "AAE="}, {"$bytes": "/w=="}),
            *([], [None], ["a"], ["a", "b"], ["ab"], [[]]),
            *({}, {"a": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 2.0}, {"b": 0.0}),
        ]
        for value in reversed(ordered):
            await app.mutation("system:store", value=value)
        assert await app.query("system:things") == ordered
        assert (await last(app))["documentsRead"] == len(ordered)

    async def test_ranges_of_nested_fields(self, app: Deployment) -> None:
        await app.add("a", *range(-5, 6))
        await app.add("b", 0, 300)
        await app.add("a:b", 7)
        await app.add("a\u0000", 8)
        await app.add("a\u0001", 9)
        bounds = {"since": int64(-2), "until": int64(1)}
        assert await app.texts(owner="a", **bounds) == ["a -2", "a -1", "a 0", "a 1"]
        assert await app.texts(since=int64(5), until=int64(7)) == ["a 5", "a:b 7"]
        assert len(await app.texts(owner="a")) == 11
        assert await app.texts(owner="a\u0000") == ["a\u0000 8"]
        assert await app.texts(owner="a\u0001") == ["a\u0001 9"]
        assert await app.texts(owner="a", descending=True, limit=2) == ["a 5", "a 4"]
        assert await app.texts(owner="none") == []
        rows = await app.query("notes:list", owner="b", descending=True, limit=1)
        assert to_int(rows[0]["order"]) == 300

    async def test_see_what_the_transaction_has_staged(self, app: Deployment) -> None:
        await app.add("a", -1, 1, 2)
        texts = await app.mutation("notes:edit", owner="a", remove=["a 1"], text="new", fail=False)
        assert texts == ["a -1", "new", "a 2"]
        assert await app.texts(owner="a") == texts

    async def test_follow_large_and_small_changes(self, app: Deployment) -> None:
        assert await app.texts() == []  # from here on the index is kept up to date
        numbers = [(7 * i) % 500 for i in range(500)]
        await app.add("a", *numbers[:300])
        for number in numbers[300:320]:
            await app.add("a", number)
        await app.add("a", *numbers[320:])
        assert await app.texts(owner="a") == [f"a {number}" for number in range(500)]
        await app.mutation("notes:clear", owner="a")
        assert await app.texts() == []

    async def test_only_what_is_given_is_read(self, app: Deployment) -> None:
        reads = set()
        for size in (100, 4900):
            await app.add("a", *range(size))
            await app.texts(owner="a", descending=True, limit=10)
            entry = await last(app)
            reads.add((entry["documentsRead"], entry["databaseQueries"]))
            assert 1000 < entry["bytesRead"] < 2000
        assert reads == {(10, 1)}

    async def test_a_call_is_fast_in_a_large_table(self, app: Deployment) -> None:
        for start in range(0, 10_000, 2_000):
            await app.add("a", *range(start, start + 2_000))
        times = []
        for _ in range(50):
            started = time.perf_counter()
            await app.texts(owner="a", since=int64(9_000), limit=3)
            times.append(time.perf_counter() - started)
        assert statistics.median(times) < 0.03


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


class TestLimits:
    @pytest.mark.parametrize(
        ("fits", "too_much", "message"),
        [
            ("x" * (MIB - 200), "x" * MIB, "Value is too large .* maximum size 1 MiB"),
            ("é" * (MIB // 2 - 100), "é" * (MIB // 2), "Value is too large"),
            (nested(15), nested(16), "too deeply nested .nested 17 levels deep"),
            ([None] * 8192, [None] * 8193, "Array length is too long .8193 > maximum length 8192"),
            (
                {f"f{i}": None for i in range(1024)},
                {f"f{i}": None for i in range(1025)},
                "Object has too many fields .1025 > maximum number 1024",
            ),
            ({"a b~": 1.0}, {"$a": 1.0}, r"starts with a '\$'"),
            ({"_a": 1.0}, {"é": 1.0}, "ASCII"),
        ],
        ids=["size", "utf-8", "nesting", "array", "fields", "dollar", "ascii"],
    )
    async def test_of_a_document(
        self, app: Deployment, fits: Any, too_much: Any, message: str
    ) -> None:
        await app.mutation("system:store", value=fits)
        with pytest.raises(FunctionError, match=message):
            await app.mutation("system:store", value=too_much)
        assert await app.query("system:things") == [fits]

    async def test_of_arguments_and_results(self, app: Deployment) -> None:
        value = ["x" * MIB] * 15
        assert await app.query("system:echo", value=value) == value
        with pytest.raises(FunctionError, match=r"Arguments for system.js:echo are too large"):
            await app.query("system:echo", value=["x" * MIB] * 16)
        assert len(await app.query("system:repeat", text="x" * MIB, times=15)) == 15
        with pytest.raises(FunctionError, match=r"system.js:repeat return value is too large"):
            await app.query("system:repeat", text="x" * MIB, times=16)

    async def test_of_a_transaction(self, app: Deployment) -> None:
        for ranges in (4096, 4097):
            call = app.query("system:ranges", times=ranges)
            if ranges == 4096:
                assert await call is None
            else:
                with pytest.raises(FunctionError, match="Too many index ranges read"):
                    await call
        with pytest.raises(FunctionError, match="Wrote too much data"):
            await app.mutation("system:fill", text="x" * 900_000, times=20)
        assert await app.query("system:things") == []
        for _ in range(2):
            await app.mutation("system:fill", text="x" * 900_000, times=10)
        with pytest.raises(FunctionError, match="Read too much data"):
            await app.query("system:things")

    async def test_documents_match_the_schema(self, app: Deployment) -> None:
        with pytest.raises(
            FunctionError, match='insert or update a document in table "notes" because it does not'
        ):
            await app.mutation("system:misfit")


class TestScheduled:
    async def test_functions_run_when_they_are_due(self, app: Deployment) -> None:
        await app.mutation("system:remind", delayMs=0, text="now")
        await app.mutation("system:remind", delayMs=5_000_000_000, text="in two months")
        await app.server.control(settle=True)
        assert await app.texts(owner="scheduled") == ["now"]
        assert (await app.server.counts())["scheduled notes:add"] == 1
        state = await app.server.control(clockAheadMs=5_000_000_001, settle=True)
        assert state["scheduled"] == {"pending": 0, "next": None}
        assert await app.texts(owner="scheduled") == ["now", "in two months"]

    async def test_functions_can_be_held(self, app: Deployment) -> None:
        await app.server.control(holdScheduled=True)
        await app.mutation("system:remind", delayMs=0, text="held")
        await asyncio.sleep(0.1)
        assert await app.texts() == []
        assert (await app.server.control())["scheduled"]["pending"] == 1
        await app.server.control(holdScheduled=False, settle=True)
        assert await app.texts() == ["held"]

    async def test_a_transaction_that_failed_schedules_nothing(self, app: Deployment) -> None:
        with pytest.raises(FunctionError, match="changed its mind"):
            await app.mutation("system:remindAndFail")
        assert (await app.server.control(settle=True))["scheduled"]["pending"] == 0
        assert await app.texts() == []

    async def test_a_function_that_fails_is_in_the_log(self, app: Deployment) -> None:
        await app.mutation("system:remindToFail")
        await app.server.control(settle=True)
        entry = await last(app)
        assert entry["label"] == "scheduled system:boom"
        assert "Uncaught Error: boom" in entry["error"]

    async def test_clearing_forgets_them(self, app: Deployment) -> None:
        await app.mutation("system:remind", delayMs=200, text="never")
        await app.server.reset()
        await asyncio.sleep(0.3)
        assert await app.texts() == []

    async def test_the_clock_of_functions_can_be_ahead(self, app: Deployment) -> None:
        await app.server.control(clockAheadMs=3_600_000)
        for now in await app.query("system:now"):
            assert abs(now / 1000 - time.time() - 3600) < 5


class TestCounting:
    async def test_calls_by_kind_and_function(self, app: Deployment) -> None:
        await app.add("a", 1)
        await app.texts()
        await app.texts()
        await app.call("query", "none:at")
        counts = {"mutation notes:add": 1, "query notes:list": 2, "query none:at": 1}
        assert await app.server.counts() == counts
        await app.server.reset(clear=False)
        assert await app.server.counts() == {}
        assert await app.texts() == ["a 1"]
        state = await app.server.control()
        assert state["documents"]["notes"] == 1
        assert state["functions"] == str(APP)

    async def test_the_log_tells_every_call(self, app: Deployment) -> None:
        await app.server.control(recordBodies=True)
        await app.add("a", 1, 2)
        entry = await last(app)
        assert entry["label"] == "mutation notes:add"
        assert (entry["status"], entry["documentsWritten"]) == (200, 2)
        assert entry["bytesWritten"] > 100
        assert json.loads(entry["body"])["args"]["notes"][1]["text"] == "a 2"
        assert abs(entry["at"] / 1000 - time.time()) < 5
        assert entry["bytesOut"] == len('{"status":"success","value":2.0}')


class TestFaults:
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (503, "OptimisticConcurrencyControlFailure"),
            (429, "TooManyConcurrentRequests"),
            (500, "InternalServerError"),
        ],
    )
    async def test_a_status_before_or_after_the_commit(
        self, app: Deployment, status: int, code: str
    ) -> None:
        for when, texts in [("before", []), ("after", ["a 1"])]:
            fault = {"kind": "status", "status": status, "when": when, "retryAfter": 7}
            await app.server.control(faults=[fault])
            answer = await app.call("mutation", "notes:add", notes=[note("a", 1)])
            assert answer.refusal == (status, code)
            assert answer.headers["retry-after"] == "7"
            assert await app.texts() == texts

    async def test_match_by_label_skip_and_number(self, app: Deployment) -> None:
        fault = {"kind": "status", "match": "^mutation notes:", "skip": 1, "times": 2}
        await app.server.control(faults=[fault])
        assert (await app.call("query", "notes:count", owner="a")).status == 200
        statuses = [
            (await app.call("mutation", "notes:add", notes=[note("a", i)])).status for i in range(4)
        ]
        assert statuses == [200, 503, 503, 200]
        assert [entry.get("fault") for entry in await app.server.log()] == [
            None, None, "status", "status", None,
        ]  # fmt: skip

    async def test_with_a_probability_repeat_with_the_seed(self, app: Deployment) -> None:
        async def run(seed: int) -> list[int]:
            fault = {"kind": "status", "probability": 0.3}
            await app.server.control(faults=[fault], seed=seed)
            return [(await app.call("query", "notes:get", owner="a")).status for _ in range(60)]

        first = await run(1)
        assert 5 < first.count(503) < 35
        assert await run(1) == first
        assert await run(2) != first

    @pytest.mark.parametrize(("when", "texts"), [("before", []), ("after", ["a 1"])])
    async def test_a_lost_connection(self, app: Deployment, when: str, texts: list[str]) -> None:
        await app.server.control(faults=[{"kind": "drop", "when": when}])
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await app.add("a", 1)
        assert await app.texts() == texts

    async def test_another_answer_of_the_function(self, app: Deployment) -> None:
        value = {"protocol": 2, "version": "9.9"}
        await app.server.control(
            faults=[{"kind": "value", "value": value}, {"kind": "error", "message": "no"}]
        )
        assert await app.query("notes:get", owner="a") == value
        with pytest.raises(FunctionError, match=r"^no$"):
            await app.query("notes:get", owner="a")

    async def test_a_page_of_a_proxy(self, app: Deployment) -> None:
        await app.server.control(faults=[{"kind": "html"}])
        answer = await app.call("query", "notes:get", owner="a")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/html")
        assert b"<html>" in answer.body

    async def test_a_truncated_body(self, app: Deployment) -> None:
        await app.server.control(faults=[{"kind": "truncate"}])
        with pytest.raises(aiohttp.ClientPayloadError):
            await app.query("system:echo", value="x" * 1000)

    async def test_a_malformed_body(self, app: Deployment) -> None:
        await app.server.control(faults=[{"kind": "malformed"}])
        answer = await app.call("query", "notes:get", owner="a")
        assert answer.status == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer.body)

    async def test_slowness(self, app: Deployment) -> None:
        every: list[dict[str, Any]] = [
            {"faults": [{"kind": "slow", "ms": 200}]},
            {"faults": [{"kind": "delay", "ms": 200}]},
            {"faults": [], "delayMs": 200},
        ]
        for settings in every:
            await app.server.control(**settings)
            started = time.monotonic()
            assert await app.texts() == []
            assert 0.1 < time.monotonic() - started < 2

    @pytest.mark.parametrize("kind", ["slow", "delay"])
    async def test_a_client_that_does_not_wait_is_no_defect(
        self, app: Deployment, kind: str
    ) -> None:
        await app.server.control(faults=[{"kind": kind, "ms": 300}])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await app.texts()
        await asyncio.sleep(0.4)  # past the end of the answer that nobody waits for
        assert await app.texts() == []

    async def test_clearing_forgets_a_call_that_waits(self, app: Deployment) -> None:
        await app.server.control(delayMs=200)
        adding = asyncio.ensure_future(app.add("a", 1))
        await asyncio.sleep(0.05)
        await app.server.reset()
        with pytest.raises(aiohttp.ClientError):
            await adding
        assert await app.texts() == []

    @pytest.mark.parametrize(
        "settings",
        [
            {"fault": []},
            {"faults": [{"kind": "none"}]},
            {"faults": [{"kind": "drop", "when": "during"}]},
            {"faults": [{"kind": "drop", "number": 1}]},
            {"functions": "no/such/directory"},
        ],
    )
    async def test_misspelt_settings_are_refused(
        self, app: Deployment, settings: dict[str, Any]
    ) -> None:
        with pytest.raises(LocalServerError):
            await app.server.control(**settings)
        assert await app.texts() == []


class TestOtherFunctions:
    async def test_documents_stay(self, app: Deployment) -> None:
        await app.add("a", 1)
        await app.server.control(functions="none")
        with pytest.raises(FunctionError, match="Could not find public function"):
            await app.texts()
        await app.server.control(functions=str(APP))
        assert await app.texts() == ["a 1"]

    async def test_a_reset_brings_the_first_ones_back(self, app: Deployment) -> None:
        await app.server.control(functions="none")
        await app.server.reset()
        assert await app.texts() == []

    async def test_nothing_is_lost_on_the_way(self, app: Deployment) -> None:
        async def add(number: int) -> None:
            await app.add("a", number)

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(add(number))
                if number % 50 == 25:
                    group.create_task(app.server.control(functions=str(APP)))
                    await asyncio.sleep(0)
        assert len(await app.texts()) == 200


class TestStarting:
    def test_says_what_is_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(LocalServerError, match=r"node was not found.*need Node\.js 20\.11"):
            ConvexServer.start()
        for name, text in [("npm", ""), ("node", "echo v18.20.1")]:
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        with pytest.raises(LocalServerError, match=r"node is v18\.20\.1"):
            ConvexServer.start()

    def test_functions_that_cannot_be_loaded(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "broken.ts").write_text("export const x = {")
        with pytest.raises(LocalServerError, match="did not start"):
            ConvexServer.start(functions=tmp_path)
        assert "broken.ts:1:18" in capfd.readouterr().err

    def test_a_schema_past_the_limits(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        index = '.index("by_a%s", ["a"])'
        schema = """
            import { defineSchema, defineTable } from "convex/server";
            import { v } from "convex/values";
            export default defineSchema({ t: defineTable({ a: v.string() })%s });
        """
        for indexes in (32, 33):
            text = schema % "".join(index % number for number in range(indexes))
            (tmp_path / "schema.ts").write_text(text)
            if indexes == 32:
                ConvexServer.start(functions=tmp_path).stop()
            else:
                with pytest.raises(LocalServerError, match="did not start"):
                    ConvexServer.start(functions=tmp_path)
        assert 'Table "t" has 33 indexes' in capfd.readouterr().err

    def test_a_defect_ends_it_with_its_output(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        program = tmp_path / "defect.mjs"
        later = "setTimeout(() => { throw new Error('a defect'); }, 200);"
        program.write_text(f"import {json.dumps(str(SERVER / 'server.mjs'))};\n{later}\n")
        server = ConvexServer.start(functions="none", program=program)
        time.sleep(0.5)
        with pytest.raises(LocalServerError, match="defect of its own"):
            server.stop()
        assert "Error: a defect" in capfd.readouterr().err

    def test_ends_with_the_process_that_started_it(self) -> None:
        install(SERVER)
        command = ["node", "server.mjs", "--functions", "none"]
        with subprocess.Popen(
            command, cwd=SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert b"url" in process.stdout.readline()
            process.communicate()  # closes its input, as the end of a parent does
        assert process.returncode == 0

    def test_runs_a_command_with_the_server_in_its_environment(self) -> None:
        names = ["URL", "DEPLOY_KEY", "SELF_HOSTED_URL", "SELF_HOSTED_ADMIN_KEY"]
        code = f"import os; print(*(os.environ['CONVEX_' + name] for name in {names}))"
        script = SERVER.parent / "convex_server.py"
        output = subprocess.run(
            [sys.executable, script, sys.executable, "-c", code], capture_output=True, check=True
        ).stdout.decode()
        assert re.fullmatch(r"(http://127\.0\.0\.1:\d+ [\w|-]+ ?){2}\n", output)

    def test_stays_until_it_is_interrupted_and_keeps_its_documents(self, tmp_path: Path) -> None:
        command = [sys.executable, str(SERVER.parent / "convex_server.py")]
        command += ["--port", "0", "--data", str(tmp_path / "dev.json")]

        async def save(url: str, key: str) -> bool:
            async with ConvexStorage(url, key) as storage:
                found = await storage.get_thread_by_id("t")
                await storage.save_thread(Thread(id="t", resource_id="r"))
            return found is not None

        for kept in (False, True):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
            assert process.stdout is not None
            said = "".join(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
            found = re.search(r"export CONVEX_URL=(\S+) CONVEX_DEPLOY_KEY='(.*)'", said)
            assert found
            assert asyncio.run(save(found[1], found[2])) == kept
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30)[0] == ""
            assert process.returncode == 0

    def test_a_port_that_is_taken_is_said_in_one_line(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with (
            ConvexServer.start(functions="none") as server,
            pytest.raises(LocalServerError, match="did not start"),
        ):
            ConvexServer.start(functions="none", port=server.port)
        [line] = capfd.readouterr().err.splitlines()
        assert f"address already in use 127.0.0.1:{server.port}" in line

    def test_packages_are_named_without_the_place_they_came_from(self) -> None:
        lock = json.loads((SERVER / "package-lock.json").read_text())
        assert len(lock["packages"]) > 20
        for package in lock["packages"].values():
            assert "resolved" not in package
