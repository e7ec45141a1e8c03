"""The local Workers KV server answers as the API does, and fails as it and networks do."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from cloudflare import AsyncCloudflare, NotFoundError
from kv_server import SERVER, KVServer
from local_server import LocalServerError, install
from mastra_storage_cloudflare import CloudflareStore
from yarl import URL

from mastra_storage import Thread

pytestmark = pytest.mark.once

MIB = 1024 * 1024


class Answer:
    """An answer, read to its end."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def envelope(self) -> Any:
        return json.loads(self.body)

    @property
    def result(self) -> Any:
        assert self.status == 200, self.body
        assert self.envelope["success"] is True
        assert self.envelope["errors"] == []
        return self.envelope["result"]

    @property
    def error(self) -> tuple[int, int]:
        """HTTP status and error code."""
        envelope = self.envelope
        assert envelope["success"] is False
        assert envelope["result"] is None
        assert envelope["errors"][0]["message"]
        return self.status, envelope["errors"][0]["code"]


class Api:
    """Requests to one namespace, whose id is put in front of every path but the first."""

    def __init__(self, server: KVServer, session: aiohttp.ClientSession, url: str = "") -> None:
        self.server = server
        self.session = session
        base = url or server.url
        self.namespaces = f"{base}/accounts/{server.account_id}/storage/kv/namespaces"
        self.token = server.token
        self.id = ""

    async def call(self, method: str, path: str = "", **kwargs: Any) -> Answer:
        url = path if path.startswith("http") else self.namespaces + path
        headers = {"Authorization": f"Bearer {self.token}", **kwargs.pop("headers", {})}
        async with self.session.request(
            method, URL(url, encoded=True), headers=headers, **kwargs
        ) as response:
            return Answer(response, await response.read())

    async def create(self, title: str) -> str:
        result = (await self.call("POST", json={"title": title})).result
        return str(result["id"])

    async def put(self, key: str, value: str | bytes = "value", query: str = "") -> Answer:
        data = io.BytesIO(value.encode() if isinstance(value, str) else value)
        return await self.call("PUT", f"/{self.id}/values/{quote(key, safe='')}{query}", data=data)

    async def get(self, key: str) -> Answer:
        return await self.call("GET", f"/{self.id}/values/{quote(key, safe='')}")

    async def delete(self, key: str) -> Answer:
        return await self.call("DELETE", f"/{self.id}/values/{quote(key, safe='')}")

    async def keys(self, query: str = "") -> Answer:
        return await self.call("GET", f"/{self.id}/keys{query}")

    async def names(self) -> list[str]:
        return [key["name"] for key in (await self.keys()).result]

    async def bulk_put(self, pairs: Any) -> Answer:
        return await self.call("PUT", f"/{self.id}/bulk", json=pairs)

    async def bulk_get(self, keys: Any, **options: Any) -> Answer:
        return await self.call("POST", f"/{self.id}/bulk/get", json={"keys": keys, **options})

    async def bulk_delete(self, keys: Any) -> Answer:
        return await self.call("POST", f"/{self.id}/bulk/delete", json=keys)


def pairs(count: int, value: str = "value") -> list[dict[str, Any]]:
    return [{"key": f"key:{i:05}", "value": value, "metadata": {"i": i}} for i in range(count)]


def multipart(**fields: str) -> aiohttp.FormData:
    return aiohttp.FormData(fields, default_to_multipart=True)


@pytest.fixture(scope="module", params=["kv", "memory"])
def server(request: pytest.FixtureRequest) -> Iterator[KVServer]:
    """The server on either store: both must be the same to a client."""
    if request.param == "kv":
        yield request.getfixturevalue("kv_server")
    else:
        with KVServer.start(store="memory") as server:
            yield server


@pytest.fixture
async def api(server: KVServer) -> AsyncIterator[Api]:
    await server.reset()
    async with aiohttp.ClientSession() as session:
        api = Api(server, session)
        api.id = await api.create("test")
        yield api


class TestNamespaces:
    async def test_are_listed_by_page(self, api: Api) -> None:
        for i in range(6):
            await api.create(f"more-{i}")
        answer = await api.call("GET", "?page=2&per_page=3")
        assert [namespace["title"] for namespace in answer.result] == ["more-2", "more-3", "more-4"]
        assert answer.envelope["result_info"] == {
            "page": 2,
            "per_page": 3,
            "count": 3,
            "total_count": 7,
            "total_pages": 3,
        }
        assert (await api.call("GET", "?page=4&per_page=3")).result == []

    @pytest.mark.parametrize("query", ["?page=0", "?per_page=0", "?per_page=101", "?page=x"])
    async def test_refuse_wrong_pages(self, api: Api, query: str) -> None:
        assert (await api.call("GET", query)).error == (400, 10029)

    async def test_are_renamed_read_and_deleted(self, api: Api) -> None:
        renamed = {"id": api.id, "title": "other", "supports_url_encoding": True}
        answer = await api.call("PUT", f"/{api.id}", json={"title": "other"})
        assert answer.result == renamed
        assert (await api.call("GET", f"/{api.id}")).result == renamed
        await api.call("DELETE", f"/{api.id}")
        assert (await api.call("GET", f"/{api.id}")).error == (404, 10013)

    async def test_have_unique_titles(self, api: Api) -> None:
        assert (await api.call("POST", json={"title": "test"})).error == (400, 10014)
        other = await api.create("other")
        answer = await api.call("PUT", f"/{other}", json={"title": "test"})
        assert answer.error == (400, 10014)
        answers = await asyncio.gather(
            *[api.call("POST", json={"title": "raced"}) for _ in range(5)]
        )
        assert sorted(answer.status for answer in answers) == [200, 400, 400, 400, 400]

    @pytest.mark.parametrize("body", [{}, {"title": ""}, {"title": 1}, []])
    async def test_need_a_title(self, api: Api, body: Any) -> None:
        assert (await api.call("POST", json=body)).error == (400, 10019)

    async def test_are_limited_and_empty_when_their_place_is_used_again(self, api: Api) -> None:
        ids = [api.id, *[await api.create(f"more-{i}") for i in range(39)]]
        assert (await api.call("POST", json={"title": "one more"})).error == (403, 10018)
        for api.id in ids:
            await api.bulk_put(pairs(3))
            await api.call("DELETE", f"/{api.id}")
        for i in range(40):
            api.id = await api.create(f"again-{i}")
            assert await api.names() == []

    async def test_must_exist(self, api: Api) -> None:
        for api.id, error in [("0" * 32, (404, 10013)), ("title", (400, 10011))]:
            assert (await api.keys()).error == error
            assert (await api.get("key")).error == error
            assert (await api.put("key")).error == error
            assert (await api.delete("key")).error == error
            assert (await api.bulk_put(pairs(1))).error == error
            assert (await api.bulk_get(["key"])).error == error
            assert (await api.bulk_delete(["key"])).error == error


class TestAccess:
    async def test_needs_a_good_token(self, api: Api) -> None:
        answer = await api.call("GET", headers={"Authorization": ""})
        assert answer.error == (400, 9106)
        api.token = "wrong"
        assert (await api.call("GET")).error == (401, 10000)

    async def test_needs_the_right(self, api: Api) -> None:
        await api.put("key")
        api.token = api.server.no_right_token
        assert (await api.call("GET")).error == (403, 10000)
        assert (await api.get("key")).error == (403, 10000)
        api.token = api.server.read_token
        assert (await api.get("key")).body == b"value"
        assert (await api.bulk_get(["key"])).result == {"values": {"key": "value"}}
        assert (await api.put("key")).error == (403, 10000)
        assert (await api.bulk_delete(["key"])).error == (403, 10000)

    async def test_is_to_one_account(self, api: Api) -> None:
        other = f"{api.server.url}/accounts/{'f' * 32}/storage/kv/namespaces"
        assert (await api.call("GET", other)).error == (403, 10000)
        wrong = f"{api.server.url}/accounts/me/storage/kv/namespaces"
        assert (await api.call("GET", wrong)).error == (404, 7003)

    @pytest.mark.parametrize("path", ["/x/y", "/x/values", "/x/bulk/put"])
    async def test_needs_a_route(self, api: Api, path: str) -> None:
        assert (await api.call("GET", path)).error == (404, 7000)
        assert (await api.call("PATCH", f"/{api.id}/keys")).error == (404, 7000)


class TestValues:
    @pytest.mark.parametrize(
        "key",
        [
            "plain",
            "a/b",
            "a%2Fb",
            "%",
            "%2E",
            "a b+c?d#e&f",
            "é",
            "漢字",
            "🎈",
            "\n",
            "…",
            "1",
            "." * 3,
        ],
    )
    async def test_have_any_key(self, api: Api, key: str) -> None:
        await api.put(key, f"value of {key}")
        assert (await api.get(key)).body.decode() == f"value of {key}"
        assert await api.names() == [key]
        await api.delete(key)
        assert (await api.get(key)).error == (404, 10009)

    async def test_are_bytes(self, api: Api) -> None:
        for value in [b"", bytes(range(256)), b"\xff" * 100_000]:
            await api.put("key", value)
            assert (await api.get("key")).body == value

    async def test_come_with_metadata_in_a_form(self, api: Api) -> None:
        form = multipart(value="the value", metadata='{"a": [1, null]}')
        assert (await api.call("PUT", f"/{api.id}/values/key", data=form)).result == {}
        assert (await api.get("key")).body == b"the value"
        assert (await api.call("GET", f"/{api.id}/metadata/key")).result == {"a": [1, None]}
        await api.put("key", "without")
        assert (await api.call("GET", f"/{api.id}/metadata/key")).result is None
        assert (await api.call("GET", f"/{api.id}/metadata/none")).error == (404, 10009)

    async def test_refuse_a_wrong_form(self, api: Api) -> None:
        path = f"/{api.id}/values/key"
        form = multipart(value="x", metadata="{")
        assert (await api.call("PUT", path, data=form)).error == (400, 10047)
        form = multipart(value="x", metadata=json.dumps("m" * 1023))
        assert (await api.call("PUT", path, data=form)).error == (413, 10047)
        form = multipart(metadata="{}")
        assert (await api.call("PUT", path, data=form)).error == (400, 10029)

    async def test_expire(self, api: Api) -> None:
        soon = int(time.time()) + 100
        await api.put("ttl", query="?expiration_ttl=60")
        await api.put("time", query=f"?expiration={soon}")
        await api.put("both", query=f"?expiration={soon}&expiration_ttl=5000")
        await api.put("never")
        keys = {key["name"]: key.get("expiration") for key in (await api.keys()).result}
        assert keys["time"] == soon
        assert keys["never"] is None
        assert soon - 42 <= keys["ttl"] <= soon - 35
        assert keys["both"] > soon
        assert (await api.get("time")).headers["expiration"] == str(soon)
        await api.server.control(consistency={"clockAheadMs": 110_000})
        assert await api.names() == ["both", "never"]
        assert (await api.get("ttl")).error == (404, 10009)
        assert (await api.bulk_get(["ttl", "both"])).result["values"] == {
            "ttl": None,
            "both": "value",
        }

    async def test_a_put_without_expiry_clears_the_earlier_one(self, api: Api) -> None:
        await api.put("key", query="?expiration_ttl=60")
        await api.put("key")
        assert (await api.keys()).result == [{"name": "key"}]
        await api.server.control(consistency={"clockAheadMs": 110_000})
        assert (await api.get("key")).body == b"value"

    @pytest.mark.parametrize(
        ("query", "code"),
        [("expiration_ttl=59", 10034), ("expiration_ttl=x", 10034), ("expiration=1000", 10033)],
    )
    async def test_refuse_a_wrong_expiry(self, api: Api, query: str, code: int) -> None:
        assert (await api.put("key", query=f"?{query}")).error == (400, code)
        assert await api.names() == []

    async def test_refuse_a_wrong_key(self, api: Api) -> None:
        for key in ["", "%2E", "%2e%2e"]:
            path = f"/{api.id}/values/{key}"
            assert (await api.call("PUT", path, data="x")).error == (400, 10042)
        assert (await api.put("é" * 256)).status == 200
        assert (await api.put("é" * 256 + "x")).error == (414, 10030)
        assert (await api.call("GET", f"/{api.id}/values/%ff")).error == (400, 10029)

    async def test_are_at_most_25_mebibytes(self, api: Api) -> None:
        assert (await api.put("key", b"x" * 25 * MIB)).status == 200
        assert len((await api.get("key")).body) == 25 * MIB
        assert (await api.put("key", b"x" * (25 * MIB + 1))).error == (413, 10024)

    async def test_are_deleted_without_having_been_there(self, api: Api) -> None:
        assert (await api.delete("none")).result == {}


class TestListing:
    async def test_is_ordered_by_bytes(self, api: Api) -> None:
        names = ["\uffff", "🎈", "z", "Z", "é", "a/b", "a", "10", "9", "_", "%"]
        await api.bulk_put([{"key": name, "value": ""} for name in names])
        assert await api.names() == sorted(names, key=str.encode)

    async def test_has_metadata_and_prefix(self, api: Api) -> None:
        await api.bulk_put([*pairs(3), {"key": "keyX", "value": ""}, {"key": "KEY:1", "value": ""}])
        answer = await api.keys("?prefix=key%3A")
        assert answer.result == [{"name": f"key:{i:05}", "metadata": {"i": i}} for i in range(3)]
        assert answer.envelope["result_info"] == {"count": 3, "cursor": ""}

    async def test_takes_a_question_mark_in_a_prefix(self, api: Api) -> None:
        await api.bulk_put([{"key": name, "value": ""} for name in ("a", "a?", "a?b", "b")])
        for prefix in ("a?", "a%3F"):
            answer = await api.keys(f"?prefix={prefix}&limit=10")
            assert [key["name"] for key in answer.result] == ["a?", "a?b"]

    async def test_is_paged_by_cursor(self, api: Api) -> None:
        await api.bulk_put([*pairs(25), {"key": "other", "value": ""}])
        names: list[str] = []
        cursor = ""
        for count in (10, 10, 5):
            answer = await api.keys(f"?prefix=key&limit=10&cursor={quote(cursor)}")
            names += [key["name"] for key in answer.result]
            assert answer.envelope["result_info"]["count"] == count
            cursor = answer.envelope["result_info"]["cursor"]
        assert cursor == ""
        assert names == [f"key:{i:05}" for i in range(25)]

    async def test_ends_without_a_cursor_at_exactly_a_page(self, api: Api) -> None:
        await api.bulk_put(pairs(10))
        assert (await api.keys("?limit=10")).envelope["result_info"]["cursor"] == ""

    async def test_may_have_empty_pages(self, api: Api) -> None:
        await api.bulk_put(pairs(15))
        await api.server.control(consistency={"emptyPages": True})
        sizes = []
        cursor: str | None = None
        while cursor != "":
            answer = await api.keys(f"?limit=10&cursor={quote(cursor or '')}")
            sizes.append(len(answer.result))
            cursor = answer.envelope["result_info"]["cursor"]
        assert sizes == [0, 10, 0, 5]

    async def test_refuses_wrong_limits_and_cursors(self, api: Api) -> None:
        for limit in ("9", "1001", "x"):
            assert (await api.keys(f"?limit={limit}")).error == (400, 10028)
        for cursor in ("x", "%%%", "bm90aGluZw=="):
            assert (await api.keys(f"?cursor={quote(cursor)}")).error == (400, 10041)


class TestBulk:
    async def test_put_get_and_delete(self, api: Api) -> None:
        entries = [
            {"key": "text", "value": "é", "metadata": {"m": 1}},
            {"key": "bytes", "value": base64.b64encode(b"\x00\xff").decode(), "base64": True},
            {"key": "ttl", "value": "[1]", "expiration_ttl": 100},
        ]
        done = {"successful_key_count": 3, "unsuccessful_keys": []}
        assert (await api.bulk_put(entries)).result == done
        assert (await api.get("bytes")).body == b"\x00\xff"
        values = (await api.bulk_get(["text", "none"])).result["values"]
        assert values == {"text": "é", "none": None}
        values = (await api.bulk_get(["ttl"], type="json")).result["values"]
        assert values == {"ttl": [1]}
        values = (await api.bulk_get(["text", "ttl", "none"], withMetadata=True)).result["values"]
        assert values["text"] == {"value": "é", "metadata": {"m": 1}}
        assert values["ttl"]["metadata"] is None
        assert values["ttl"]["expiration"] > time.time() + 90
        assert values["none"] is None
        assert (await api.bulk_delete(["text", "bytes", "none"])).result == done
        assert await api.names() == ["ttl"]

    async def test_the_later_of_two_pairs_with_one_key_counts(self, api: Api) -> None:
        await api.bulk_put([{"key": "key", "value": str(i)} for i in range(20)])
        assert (await api.get("key")).body == b"19"

    async def test_get_answers_for_every_key(self, api: Api) -> None:
        names = ["1", "42", "0", "007", "__proto__", "constructor", "plain"]
        await api.bulk_put([{"key": name, "value": name} for name in names])
        values = (await api.bulk_get([*names, "2"])).result["values"]
        assert values == {**{name: name for name in names}, "2": None}

    async def test_takes_10000_pairs_and_100_keys(self, api: Api) -> None:
        await api.server.control(consistency={"bulkFailures": {"fraction": 1}})  # not to wait
        many = pairs(10_001)
        result = (await api.bulk_put(many[:-1])).result
        assert result["successful_key_count"] == 0
        assert len(result["unsuccessful_keys"]) == 10_000
        assert (await api.bulk_put(many)).error == (400, 10046)
        assert (await api.bulk_delete([pair["key"] for pair in many])).error == (400, 10046)
        keys = [pair["key"] for pair in many[:101]]
        assert len((await api.bulk_get(keys[:-1])).result["values"]) == 100
        assert (await api.bulk_get(keys)).error == (400, 10046)

    async def test_takes_100_megabytes(self, api: Api) -> None:
        body = json.dumps([{"key": f"{i}", "value": "x" * 24 * MIB} for i in range(4)])
        answer = await api.call("PUT", f"/{api.id}/bulk", data=io.BytesIO(body.encode()))
        assert answer.error == (413, 10024)

    async def test_get_takes_25_mebibytes_together(self, api: Api) -> None:
        for key in ("a", "b"):
            await api.put(key, b"x" * 13 * MIB)
        assert (await api.bulk_get(["a"])).status == 200
        assert (await api.bulk_get(["a", "b"])).error == (413, 10024)

    @pytest.mark.parametrize(
        ("entry", "error"),
        [
            ({"key": "", "value": ""}, (400, 10042)),
            ({"key": ".", "value": ""}, (400, 10042)),
            ({"key": "x" * 513, "value": ""}, (414, 10030)),
            ({"key": 1, "value": ""}, (400, 10029)),
            ({"value": ""}, (400, 10029)),
            ({"key": "k"}, (400, 10029)),
            ({"key": "k", "value": {"a": 1}}, (400, 10029)),
            ({"key": "k", "value": "?", "base64": True}, (400, 10029)),
            ({"key": "k", "value": "", "expiration_ttl": 59}, (400, 10034)),
            ({"key": "k", "value": "", "expiration": 1}, (400, 10033)),
            ({"key": "k", "value": "", "metadata": {"m": "x" * 1017}}, (413, 10047)),
            ("k", (400, 10029)),
            (None, (400, 10029)),
        ],
    )
    async def test_writes_nothing_of_a_wrong_request(
        self, api: Api, entry: Any, error: tuple[int, int]
    ) -> None:
        assert (await api.bulk_put([*pairs(2), entry])).error == error
        assert await api.names() == []

    async def test_takes_the_largest_metadata(self, api: Api) -> None:
        metadata = {"m": "x" * 1016}
        assert len(json.dumps(metadata, separators=(",", ":"))) == 1024
        await api.bulk_put([{"key": "k", "value": "", "metadata": metadata}])
        assert (await api.keys()).result == [{"name": "k", "metadata": metadata}]

    @pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"null", b'"text"'])
    async def test_refuses_what_is_not_an_array(self, api: Api, body: bytes) -> None:
        for method, path in [("PUT", "bulk"), ("POST", "bulk/delete"), ("POST", "bulk/get")]:
            answer = await api.call(method, f"/{api.id}/{path}", data=body)
            assert answer.error == (400, 10029)

    async def test_get_refuses_a_wrong_type(self, api: Api) -> None:
        await api.put("key", "no JSON")
        assert (await api.bulk_get(["key"], type="json")).error == (400, 10029)
        assert (await api.bulk_get(["key"], type="blob")).error == (400, 10029)


class TestCounting:
    async def test_requests_and_what_is_billed(self, api: Api) -> None:
        await api.bulk_put(pairs(5))
        await api.bulk_get(["a", "b"])
        await api.get("a")
        await api.keys()
        await api.bulk_delete(["a", "b"])
        assert await api.server.counts() == {
            "POST namespaces": 1,
            "PUT bulk": 1,
            "POST bulk/get": 1,
            "GET values": 1,
            "GET keys": 1,
            "POST bulk/delete": 1,
        }
        assert await api.server.bill() == {"write": 5, "read": 3, "list": 1, "delete": 2}
        await api.server.reset(clear=False)
        assert await api.server.counts() == {}
        assert await api.server.bill() == {}
        assert len(await api.names()) == 5

    async def test_the_log_tells_every_request(self, api: Api) -> None:
        await api.server.control(recordBodies=True)
        await api.put("a/b", "body")
        entry = (await api.server.log())[-1]
        assert entry["route"] == "PUT values"
        assert entry["namespace"] == api.id
        assert entry["target"].endswith(f"/{api.id}/values/a%2Fb")
        assert entry["status"] == 200
        assert entry["bill"] == {"write": 1}
        assert entry["body"] == "body"
        assert abs(entry["at"] / 1000 - time.time()) < 5


class TestRateLimit:
    async def test_is_told_on_every_answer(self, api: Api) -> None:
        await api.server.control(rateLimit={"requests": 1200, "periodMs": 300_000})
        for left, answer in [(1199, await api.get("none")), (1198, await api.put("key"))]:
            assert answer.headers["Ratelimit"] == f'"default";r={left};t=300'

    async def test_blocks_for_a_whole_period(self, api: Api) -> None:
        await api.server.control(rateLimit={"requests": 3, "periodMs": 400})
        assert [(await api.put("key")).status for _ in range(3)] == [200] * 3
        answer = await api.put("key")
        assert answer.error == (429, 971)
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["Ratelimit"] == '"default";r=0;t=1'
        await asyncio.sleep(0.25)
        assert (await api.put("key")).status == 429
        await asyncio.sleep(0.25)
        assert (await api.put("key")).status == 200


class TestFaults:
    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_a_status_before_or_after_the_effect(self, api: Api, status: int) -> None:
        for when, names in [("before", []), ("after", ["key"])]:
            fault = {"kind": "status", "status": status, "when": when, "retryAfter": 7}
            await api.server.control(faults=[fault])
            answer = await api.put("key")
            assert answer.error == (status, 971 if status == 429 else 10001)
            assert answer.headers["retry-after"] == "7"
            assert await api.names() == names

    async def test_match_by_route_skip_and_number(self, api: Api) -> None:
        fault = {"kind": "status", "status": 500, "match": "PUT (bulk|values)"}
        await api.server.control(faults=[{**fault, "skip": 1, "times": 2}])
        assert (await api.get("key")).status == 404
        assert [(await api.put("key")).status for _ in range(4)] == [200, 500, 500, 200]

    async def test_match_by_target(self, api: Api) -> None:
        await api.server.control(faults=[{"kind": "status", "path": "values/b$"}])
        assert [(await api.put(key)).status for key in "abb"] == [200, 500, 200]

    async def test_with_a_probability_repeat_with_the_seed(self, api: Api) -> None:
        async def run(seed: int) -> list[int]:
            fault = {"kind": "status", "status": 503, "probability": 0.3}
            await api.server.control(faults=[fault], seed=seed)
            return [(await api.get("key")).status for _ in range(60)]

        first = await run(1)
        assert 5 < first.count(503) < 35
        assert await run(1) == first
        assert await run(2) != first

    async def test_a_page_of_a_proxy(self, api: Api) -> None:
        await api.server.control(faults=[{"kind": "status", "status": 502}, {"kind": "html"}])
        for status in (502, 200):
            answer = await api.keys()
            assert answer.status == status
            assert answer.headers["content-type"].startswith("text/html")
            assert b"<html>" in answer.body

    @pytest.mark.parametrize(("when", "names"), [("before", ["key"]), ("after", [])])
    async def test_a_lost_connection(self, api: Api, when: str, names: list[str]) -> None:
        await api.put("key")
        await api.server.control(faults=[{"kind": "drop", "when": when}])
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await api.bulk_delete(["key"])  # aiohttp sends a PUT again by itself
        assert await api.names() == names

    async def test_a_truncated_body(self, api: Api) -> None:
        await api.bulk_put(pairs(50))
        await api.server.control(faults=[{"kind": "truncate"}])
        with pytest.raises(aiohttp.ClientPayloadError):
            await api.keys()

    async def test_a_malformed_body(self, api: Api) -> None:
        await api.server.control(faults=[{"kind": "malformed"}])
        answer = await api.keys()
        assert answer.status == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer.body)

    async def test_slowness(self, api: Api) -> None:
        every: list[dict[str, Any]] = [
            {"faults": [{"kind": "slow", "ms": 200}]},
            {"faults": [{"kind": "delay", "ms": 200}]},
            {"faults": [], "delayMs": 200},
        ]
        for settings in every:
            await api.server.control(**settings)
            started = time.monotonic()
            assert (await api.keys()).result == []
            assert 0.15 < time.monotonic() - started < 2

    @pytest.mark.parametrize("kind", ["slow", "delay"])
    async def test_a_client_that_does_not_wait_is_no_defect(self, api: Api, kind: str) -> None:
        await api.bulk_put(pairs(10))
        await api.server.control(faults=[{"kind": kind, "ms": 300}])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await api.keys()
        await asyncio.sleep(0.4)  # past the end of the answer that nobody waits for
        assert len(await api.names()) == 10

    async def test_idle_connections_are_closed(self, api: Api) -> None:
        async def connections() -> int:
            opened = 0

            async def count(*_: object) -> None:
                nonlocal opened
                opened += 1

            trace = aiohttp.TraceConfig()
            trace.on_connection_create_end.append(count)
            async with aiohttp.ClientSession(trace_configs=[trace]) as api.session:
                for _ in range(3):
                    await api.keys()
                    await asyncio.sleep(0.2)
            return opened

        assert await connections() == 1
        await api.server.control(idleMs=50)
        assert await connections() == 3

    @pytest.mark.parametrize(
        "settings",
        [
            {"fault": []},
            {"faults": [{"kind": "none"}]},
            {"faults": [{"kind": "drop", "when": "during"}]},
            {"faults": [{"kind": "drop", "number": 1}]},
            {"consistency": {"stale": 1}},
        ],
    )
    async def test_misspelt_settings_are_refused(self, api: Api, settings: dict[str, Any]) -> None:
        with pytest.raises(LocalServerError):
            await api.server.control(**settings)


class TestPastTheFront:
    @pytest.fixture
    def direct(self, api: Api) -> Api:
        direct = Api(api.server, api.session, api.server.direct_url)
        direct.id = api.id
        return direct

    async def test_the_answers_are_the_same(self, api: Api, direct: Api) -> None:
        assert (await direct.bulk_put(pairs(20))).result["successful_key_count"] == 20
        await direct.put("ä/b c", "value")
        for method, path in (
            ("GET", f"/{api.id}/keys?prefix=key%3A&limit=10"),
            ("GET", f"/{api.id}/values/%C3%A4%2Fb%20c"),
            ("GET", f"/{api.id}/values/none"),
            ("GET", f"/{'0' * 32}/keys"),
            ("PATCH", ""),
        ):
            one, other = await api.call(method, path), await direct.call(method, path)
            assert (one.status, one.body) == (other.status, other.body)
        got = await direct.bulk_get(["key:00001", "none"])
        assert got.body == (await api.bulk_get(["key:00001", "none"])).body

    async def test_the_delay_holds_and_nothing_is_counted(self, api: Api, direct: Api) -> None:
        await api.server.control(reset=True, delayMs=1000)
        for each in (direct, api):
            started = time.monotonic()
            assert (await each.keys()).result == []
            assert 0.9 < time.monotonic() - started < 1.9  # once, not twice
        assert await api.server.counts() == {"GET keys": 1}


class TestConsistency:
    async def test_stale_reads(self, api: Api) -> None:
        await api.put("changed", "old")
        await api.put("deleted", "old")
        await api.server.control(consistency={"staleReadsMs": 600})
        await api.put("changed", "new")
        await api.put("created", "new")
        await api.delete("deleted")
        names = ["changed", "created", "deleted"]
        past = {"changed": "old", "created": None, "deleted": "old"}
        assert (await api.bulk_get(names)).result["values"] == past
        assert (await api.get("changed")).body == b"old"
        assert (await api.get("created")).status == 404
        assert await api.names() == ["changed", "created"]
        await asyncio.sleep(0.7)
        present = {"changed": "new", "created": "new", "deleted": None}
        assert (await api.bulk_get(names)).result["values"] == present

    async def test_stale_listings(self, api: Api) -> None:
        await api.bulk_put(pairs(25))
        await api.server.control(consistency={"staleListsMs": 600})
        await api.bulk_put([{"key": "key:00001", "value": "", "metadata": "new"}])
        await api.bulk_put([{"key": "key:00001x", "value": ""}])
        await api.delete("key:00020")
        keys: list[Any] = []
        cursor: str | None = None
        while cursor != "":
            answer = await api.keys(f"?prefix=key&limit=10&cursor={quote(cursor or '')}")
            keys += answer.result
            cursor = answer.envelope["result_info"]["cursor"]
        assert keys == [{"name": f"key:{i:05}", "metadata": {"i": i}} for i in range(25)]
        assert (await api.get("key:00020")).status == 404
        await asyncio.sleep(0.7)
        now = (await api.keys()).result
        assert now[1:3] == [{"name": "key:00001", "metadata": "new"}, {"name": "key:00001x"}]
        assert "key:00020" not in [key["name"] for key in now]

    async def test_a_share_of_the_reads_is_stale(self, api: Api) -> None:
        await api.put("key", "old")
        await api.server.control(consistency={"staleReadsMs": 60_000, "staleShare": 0.5})
        await api.put("key", "new")
        values = {(await api.get("key")).body for _ in range(30)}
        assert values == {b"old", b"new"}

    async def test_cached_misses(self, api: Api) -> None:
        await api.server.control(consistency={"cachedMissesMs": 400})
        assert (await api.bulk_get(["key"])).result["values"] == {"key": None}
        await api.put("key")
        assert (await api.get("key")).status == 404
        assert (await api.bulk_get(["key"])).result["values"] == {"key": None}
        assert await api.names() == ["key"]
        await asyncio.sleep(0.5)
        assert (await api.get("key")).body == b"value"

    async def test_one_write_to_a_key_in_a_time(self, api: Api) -> None:
        await api.server.control(consistency={"keyIntervalMs": 400})
        assert (await api.put("key", "1")).status == 200
        assert (await api.put("key", "2")).error == (429, 10022)
        result = (await api.bulk_put([*pairs(2), {"key": "key", "value": "3"}])).result
        assert result == {"successful_key_count": 2, "unsuccessful_keys": ["key"]}
        assert (await api.get("key")).body == b"1"
        await asyncio.sleep(0.5)
        assert (await api.put("key", "4")).status == 200

    async def test_bulk_writes_fail_in_part(self, api: Api) -> None:
        await api.server.control(consistency={"bulkFailures": {"keys": ["key:00001"]}})
        result = (await api.bulk_put(pairs(3))).result
        assert result == {"successful_key_count": 2, "unsuccessful_keys": ["key:00001"]}
        assert await api.names() == ["key:00000", "key:00002"]
        await api.server.control(consistency={"bulkFailures": {"fraction": 0.5}, "seed": 3})
        result = (await api.bulk_delete([pair["key"] for pair in pairs(60)])).result
        assert 10 < len(result["unsuccessful_keys"]) < 50
        assert result["successful_key_count"] == 60 - len(result["unsuccessful_keys"])
        await api.server.control(consistency={"bulkFailures": {"fraction": 1, "times": 1}})
        assert len((await api.bulk_put(pairs(3))).result["unsuccessful_keys"]) == 3
        assert (await api.bulk_put(pairs(3))).result["unsuccessful_keys"] == []


async def test_the_official_sdk_works(kv: KVServer) -> None:
    async with AsyncCloudflare(api_token=kv.token, base_url=kv.url, max_retries=0) as cloudflare:
        namespaces = cloudflare.kv.namespaces
        created = await namespaces.create(account_id=kv.account_id, title="sdk")
        assert created is not None
        where: Any = {"account_id": kv.account_id, "namespace_id": created.id}
        assert [space.id async for space in namespaces.list(account_id=kv.account_id)] == [
            created.id
        ]
        await namespaces.values.update("a/b", value=b"1", metadata={"m": 1}, **where)
        assert await (await namespaces.values.get("a/b", **where)).read() == b"1"
        assert await namespaces.metadata.get("a/b", **where) == {"m": 1}
        body: Any = pairs(25)
        outcome = await namespaces.bulk_update(body=body, **where)
        assert outcome is not None
        assert outcome.successful_key_count == 25
        listed = [key.name async for key in namespaces.keys.list(limit=10, **where)]
        assert listed == ["a/b", *[pair["key"] for pair in pairs(25)]]
        found: Any = await namespaces.bulk_get(keys=["a/b", "none"], with_metadata=True, **where)
        assert found.values["a/b"].value == "1"
        assert found.values["none"] is None
        await namespaces.bulk_delete(body=listed, **where)
        with pytest.raises(NotFoundError):
            await namespaces.values.get("a/b", **where)
        await namespaces.delete(created.id, account_id=kv.account_id)


class TestStarting:
    def test_says_what_is_missing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(LocalServerError, match=r"node was not found.*need Node\.js 20\.11"):
            KVServer.start()
        for name, text in [("npm", ""), ("node", "echo v18.20.1")]:
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        with pytest.raises(LocalServerError, match=r"node is v18\.20\.1"):
            KVServer.start()

    def test_ends_with_the_process_that_started_it(self) -> None:
        install(SERVER)
        command = ["node", "server.mjs", "--store", "memory"]
        with subprocess.Popen(
            command, cwd=SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert b"url" in process.stdout.readline()
            process.communicate()  # closes its input, as the end of a parent does
        assert process.returncode == 0

    def test_runs_a_command_with_the_server_in_its_environment(self) -> None:
        code = "import os; print(os.environ['CLOUDFLARE_BASE_URL'])"
        script = SERVER.parent / "kv_server.py"
        output = subprocess.run(
            [sys.executable, script, sys.executable, "-c", code], capture_output=True, check=True
        ).stdout.decode()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/client/v4\n", output)

    def test_stays_until_it_is_interrupted(self) -> None:
        async def save(account: str, token: str, url: str) -> None:
            async with CloudflareStore(
                account_id=account, api_token=token, base_url=url
            ) as storage:
                await storage.save_thread(Thread(id="t", resource_id="r"))

        # Background jobs of a shell may ignore it, and so would the processes they start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command = [sys.executable, str(SERVER.parent / "kv_server.py"), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        assert process.stdout is not None
        said = "".join(
            iter(process.stdout.readline, "Ctrl-C ends it, and what it holds is gone.\n")
        )
        found = dict(re.findall(r"(CLOUDFLARE_\w+)='?([^'\s]+)", said))
        asyncio.run(
            save(
                found["CLOUDFLARE_ACCOUNT_ID"],
                found["CLOUDFLARE_API_TOKEN"],
                found["CLOUDFLARE_BASE_URL"],
            )
        )
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0] == ""
        assert process.returncode == 0

    def test_a_port_that_is_taken_is_said_in_one_line(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with KVServer.start(store="memory") as server:
            port = URL(server.url).port or 0
            with pytest.raises(LocalServerError, match="did not start"):
                KVServer.start(store="memory", port=port)
        [line] = capfd.readouterr().err.splitlines()
        assert f"address already in use 127.0.0.1:{port}" in line

    def test_packages_are_named_without_the_place_they_came_from(self) -> None:
        lock = json.loads((SERVER / "package-lock.json").read_text())
        assert len(lock["packages"]) > 20
        for package in lock["packages"].values():
            assert "resolved" not in package
