"""The local Convex server speaks the sync protocol; the official client and CLI work with it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from convex import ConvexClient, ConvexError, ConvexInt64
from convex_server import SERVER, ConvexServer
from deployments import APP, Deployment, FunctionError, int64, note

pytestmark = pytest.mark.once

LIST: dict[str, Any] = {"owner": "a", "descending": False, "limit": 100}


@pytest.fixture(scope="module")
def app_server() -> Iterator[ConvexServer]:
    with ConvexServer.start(functions=APP) as server:
        yield server


@pytest.fixture
async def app(app_server: ConvexServer) -> AsyncIterator[Deployment]:
    await app_server.reset()
    async with aiohttp.ClientSession() as session:
        yield Deployment(app_server, session)


def timestamp(version: dict[str, Any]) -> int:
    return int.from_bytes(base64.b64decode(version["ts"]), "little")


class Socket:
    """A session that checks the versions of its transitions and keeps the values of its queries."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.values: dict[int, Any] = {}
        self.version: dict[str, Any] = {"querySet": 0, "identity": 0}
        self.sets = 0

    async def send(self, type: str, **members: Any) -> None:
        await self.socket.send_str(json.dumps({"type": type, **members}))

    async def receive(self) -> dict[str, Any]:
        """The next message; pings are left out."""
        async with asyncio.timeout(10):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.receive_str())
                if message["type"] != "Ping":
                    return message

    async def authenticate(self, key: str) -> None:
        base = self.version["identity"]
        await self.send("Authenticate", tokenType="Admin", value=key, baseVersion=base)

    async def modify(self, *modifications: dict[str, Any]) -> None:
        sets = {"baseVersion": self.sets, "newVersion": self.sets + 1}
        self.sets += 1
        await self.send("ModifyQuerySet", **sets, modifications=list(modifications))

    async def watch(self, id: int, function: str, **args: Any) -> None:
        await self.modify({"type": "Add", "queryId": id, "udfPath": function, "args": [args]})

    async def transition(self) -> list[int]:
        """Takes a transition; the queries that it has a new value of."""
        message = await self.receive()
        assert message["type"] == "Transition"
        start, end = message["startVersion"], message["endVersion"]
        assert {name: start[name] for name in ("querySet", "identity")} == {
            name: self.version[name] for name in ("querySet", "identity")
        }
        assert timestamp(end) >= timestamp(start) >= timestamp({"ts": "", **self.version})
        self.version = end
        for update in message["modifications"]:
            failed = update["type"] == "QueryFailed"
            self.values[update["queryId"]] = update["errorMessage" if failed else "value"]
        return [update["queryId"] for update in message["modifications"]]

    async def closed(self) -> int | None:
        async with asyncio.timeout(10):
            message = await self.socket.receive()
        assert message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        return self.socket.close_code


@asynccontextmanager
async def connected(app: Deployment, *, admin: bool = True) -> AsyncIterator[Socket]:
    url = f"{app.server.url}/api/1.48.0/sync".replace("http", "ws", 1)
    async with app.session.ws_connect(url) as socket:
        session = Socket(socket)
        await session.send("Connect", sessionId="s", connectionCount=0, lastCloseReason=None)
        if admin:
            await session.authenticate(app.server.admin_key)
            assert await session.transition() == []
        yield session


async def in_chunks(socket: Socket) -> str:
    """A transition that comes in at least two chunks."""
    parts: list[str] = []
    while True:
        message = await socket.receive()
        assert message["type"] == "TransitionChunk"
        assert message["partNumber"] == len(parts)
        assert message["totalParts"] > 1
        parts.append(message["chunk"])
        if len(parts) == message["totalParts"]:
            return "".join(parts)


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["text"] for row in rows]


class TestQueries:
    async def test_are_told_at_once_and_after_each_change(self, app: Deployment) -> None:
        async with connected(app) as socket:
            await socket.watch(1, "notes:list", **LIST)
            assert await socket.transition() == [1]
            assert socket.values == {1: []}
            for order in range(3):
                await app.add("a", order)
                assert await socket.transition() == [1]
                assert texts(socket.values[1])[-1] == f"a {order}"

    async def test_only_changed_values_are_told(self, app: Deployment) -> None:
        async with connected(app) as socket:
            await socket.modify(
                {"type": "Add", "queryId": 1, "udfPath": "notes:list", "args": [LIST]},
                {"type": "Add", "queryId": 2, "udfPath": "notes:get", "args": [{"owner": "a"}]},
                {"type": "Add", "queryId": 3, "udfPath": "notes:get", "args": [{"owner": "b"}]},
            )
            assert await socket.transition() == [1, 2, 3]
            await app.add("a", 1)
            assert await socket.transition() == [1, 2]
            await app.add("a", 2)
            assert await socket.transition() == [1]
            await app.add("c", 1)
            await app.add("b", 1)
            assert await socket.transition() == [3]

    async def test_run_again_only_when_what_they_read_has_changed(self, app: Deployment) -> None:
        await app.add("a", 1, 2, 3)
        async with connected(app) as socket:
            await socket.watch(1, "notes:list", **{**LIST, "limit": 2})
            await socket.transition()
            await app.add("b", 1)  # another owner
            await app.add("a", 5)  # behind the two that were read
            await app.add("a", 0)
            assert await socket.transition() == [1]
            assert texts(socket.values[1]) == ["a 0", "a 1"]
        assert (await app.server.counts())["watch notes:list"] == 2

    async def test_run_once_for_all_that_watch(self, app: Deployment) -> None:
        async with connected(app) as first, connected(app) as second:
            for socket in (first, second):
                await socket.watch(7, "notes:list", **LIST)
                assert await socket.transition() == [7]
            await app.add("a", 1)
            for socket in (first, second):
                assert await socket.transition() == [7]
                assert texts(socket.values[7]) == ["a 1"]
        assert (await app.server.counts())["watch notes:list"] == 2

    async def test_commits_of_one_moment_may_be_one_transition(self, app: Deployment) -> None:
        async with connected(app) as socket:
            await socket.watch(1, "notes:list", **LIST)
            await socket.transition()
            await asyncio.gather(*(app.add("a", order) for order in range(30)))
            transitions = 0
            while len(socket.values[1]) < 30:
                assert await socket.transition() == [1]
                transitions += 1
            assert transitions <= 30

    async def test_can_fail_and_recover(self, app: Deployment) -> None:
        async with connected(app, admin=False) as socket:
            await socket.watch(1, "notes:list", **LIST)
            await socket.transition()
            assert "Could not find public function for 'notes:list'." in socket.values[1]
            await socket.authenticate(app.server.admin_key)
            assert await socket.transition() == [1]
            assert socket.values[1] == []

    async def test_that_are_removed_are_told_no_more(self, app: Deployment) -> None:
        async with connected(app) as socket:
            await socket.watch(1, "notes:list", **LIST)
            await socket.transition()
            await socket.modify({"type": "Remove", "queryId": 1})
            assert await socket.transition() == []
            await app.add("a", 1)
            await socket.watch(2, "notes:count", owner="a")
            assert await socket.transition() == [2]
            assert socket.values[2] == 1
        assert (await app.server.counts())["watch notes:list"] == 1

    async def test_see_other_functions_and_cleared_documents(self, app: Deployment) -> None:
        await app.add("a", 1)
        async with connected(app) as socket:
            await socket.watch(1, "notes:count", owner="a")
            await socket.transition()
            await app.server.control(functions="none")
            await socket.transition()
            assert "Could not find public function" in socket.values[1]
            await app.server.reset()
            while socket.values[1] != 0:
                await socket.transition()

    async def test_see_scheduled_functions(self, app: Deployment) -> None:
        async with connected(app) as socket:
            await socket.watch(1, "notes:count", owner="scheduled")
            await socket.transition()
            await app.mutation("system:remind", delayMs=50, text="x")
            assert await socket.transition() == [1]


class TestCalls:
    async def test_mutations_answer_before_a_transition_as_late(self, app: Deployment) -> None:
        async with connected(app) as socket:
            await socket.watch(1, "notes:count", owner="a")
            await socket.transition()
            for number in (1, 2):
                args = [{"notes": [note("a", number)]}]
                await socket.send("Mutation", requestId=number, udfPath="notes:add", args=args)
                response = await socket.receive()
                assert response["type"] == "MutationResponse"
                assert (response["requestId"], response["success"]) == (number, True)
                assert response["result"] == 1
                assert await socket.transition() == [1]
                assert timestamp(socket.version) >= timestamp(response)
            await socket.send("Mutation", requestId=3, udfPath="notes:clear", args=[{"owner": "b"}])
            response = await socket.receive()
            assert await socket.transition() == []  # nothing changed, and yet it is as late
            assert timestamp(socket.version) >= timestamp(response)

    async def test_mutations_of_a_socket_keep_their_order(self, app: Deployment) -> None:
        async with connected(app) as socket:
            for number in range(10):
                args = [{"notes": [note("a", number)]}]
                await socket.send("Mutation", requestId=number, udfPath="notes:add", args=args)
            answered: list[int] = []
            while len(answered) < 10:
                message = await socket.receive()
                if message["type"] == "MutationResponse":
                    answered.append(message["requestId"])
            assert answered == list(range(10))

    async def test_actions(self, app: Deployment) -> None:
        async with connected(app, admin=False) as socket:
            args = [{"text": "relayed"}]
            await socket.send("Action", requestId=1, udfPath="system:relay", args=args)
            response = await socket.receive()
            assert response["type"] == "ActionResponse"
            assert (response["success"], response["result"]) == (True, 1)

    async def test_failures(self, app: Deployment) -> None:
        async with connected(app) as socket:
            args = [{"owner": "a", "remove": [], "text": "new", "fail": True}]
            await socket.send("Mutation", requestId=1, udfPath="notes:edit", args=args)
            response = await socket.receive()
            assert (response["success"], response["errorData"]) == (False, {"texts": ["new"]})
            assert "Uncaught ConvexError" in response["result"]
            assert await app.texts() == []


class TestSessions:
    async def test_a_wrong_key_ends_them(self, app: Deployment) -> None:
        async with connected(app, admin=False) as socket:
            await socket.authenticate(app.server.wrong_key)
            message = await socket.receive()
            assert message["type"] == "AuthError"
            assert message["authUpdateAttempted"] is True
            assert message["baseVersion"] == 0
            assert app.server.wrong_key not in json.dumps(message)
            assert await socket.closed() == 1008

    @pytest.mark.parametrize(
        "message",
        [
            "{",
            '{"type": "Nonsense"}',
            '{"type": "ModifyQuerySet", "baseVersion": 5, "newVersion": 6, "modifications": []}',
        ],
    )
    async def test_a_message_out_of_place_ends_them(self, app: Deployment, message: str) -> None:
        async with connected(app) as socket:
            await socket.socket.send_str(message)
            assert (await socket.receive())["type"] == "FatalError"
            await socket.closed()

    async def test_a_client_from_the_future_is_not_served(self, app: Deployment) -> None:
        async with connected(app) as socket:
            future = base64.b64encode((2**62).to_bytes(8, "little")).decode()
            await socket.send("Connect", sessionId="s", maxObservedTimestamp=future)
            assert await socket.closed() == 1011

    async def test_are_counted_and_can_be_broken(self, app: Deployment) -> None:
        async with connected(app) as socket:
            assert (await app.server.control())["sockets"] == 1
            await app.server.control(dropSockets=True)
            assert await socket.closed() == 1006
        assert (await app.server.control())["sockets"] == 0
        assert (await app.server.counts())["socket connect"] == 1

    async def test_can_be_refused(self, app: Deployment) -> None:
        await app.server.control(refuseSockets=True)
        with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
            async with connected(app):
                pass
        await app.server.control(refuseSockets=False)
        async with connected(app):
            pass

    async def test_can_be_silent(self, app: Deployment) -> None:
        await app.server.control(silenceSockets=True, pingMs=20)
        async with connected(app, admin=False) as socket:
            await socket.watch(1, "notes:count", owner="a")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await socket.socket.receive()

    async def test_the_server_says_that_it_is_there(self, app: Deployment) -> None:
        await app.server.control(pingMs=20)
        async with connected(app) as socket, asyncio.timeout(5):
            assert json.loads(await socket.socket.receive_str()) == {"type": "Ping"}

    async def test_faults(self, app: Deployment) -> None:
        add = {"udfPath": "notes:add", "args": [{"notes": [note("a", 1)]}]}
        for fault, code in [
            ({"kind": "drop", "match": "mutation", "when": "after"}, 1006),
            ({"kind": "html", "match": "mutation"}, 1006),
            ({"kind": "status", "match": "mutation"}, 1011),
        ]:
            await app.server.control(faults=[fault])
            async with connected(app) as socket:
                await socket.send("Mutation", requestId=1, **add)
                assert await socket.closed() == code
            assert await app.texts() == ["a 1"]  # of the first only
        faults: list[dict[str, Any]] = [
            {"kind": "status", "match": "^socket", "status": 429},
            {"kind": "value", "match": "^watch", "value": 5, "when": "after"},
            {"kind": "drop", "match": "^watch"},
        ]
        await app.server.control(faults=faults)
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            async with connected(app):
                pass
        async with connected(app) as socket:
            await socket.watch(1, "notes:count", owner="a")
            await socket.transition()
            assert socket.values == {1: 5}
            await app.add("a", 2)
            assert await socket.closed() == 1006

    async def test_long_transitions_in_chunks(self, app: Deployment) -> None:
        await app.mutation("system:store", value="😀" * 300)
        await app.server.control(chunkChars=101)
        async with connected(app, admin=False) as socket:
            await socket.authenticate(app.server.admin_key)
            await socket.watch(1, "system:things")
            transition: dict[str, Any] = {"modifications": []}
            while not transition["modifications"]:
                transition = json.loads(await in_chunks(socket))
        assert transition["modifications"][0]["value"] == ["😀" * 300]

    async def test_commits_reach_them_soon(self, app: Deployment) -> None:
        async with connected(app) as socket:
            await socket.watch(1, "notes:count", owner="a")
            await socket.transition()
            times = []
            for order in range(20):
                await app.add("a", order)
                started = time.perf_counter()
                await socket.transition()
                times.append(time.perf_counter() - started)
            assert sorted(times)[10] < 0.5


CLIENT = """
import asyncio, sys
from convex import ConvexClient

async def main(url, key):
    client = ConvexClient(url)
    client.set_admin_auth(key)
    async for count in client.subscribe("notes:count", {"owner": "a"}):
        print(count, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class TestTheOfficialClient:
    """Only while the server is up: the client holds the interpreter's lock when it is away."""

    async def test_calls_functions(self, app: Deployment) -> None:
        client = ConvexClient(app.server.url)
        client.set_admin_auth(app.server.admin_key)
        row: Any = {"order": ConvexInt64(5), "seq": ConvexInt64(2**62)}
        added = client.mutation("notes:add", {"notes": [{"owner": "a", "text": "é", "row": row}]})
        assert added == 1
        assert client.query("notes:list", LIST) == [{"text": "é", **row}]
        assert client.action("system:relay", {"text": "x"}) == 1
        args: Any = {"owner": "a", "remove": [], "text": "new", "fail": True}
        with pytest.raises(ConvexError) as error:
            client.mutation("notes:edit", args)
        assert error.value.data == {"texts": ["new", "é"]}

    async def test_subscribes(self, app: Deployment) -> None:
        client = ConvexClient(app.server.url)
        client.set_admin_auth(app.server.admin_key)
        values = client.subscribe("notes:count", {"owner": "a"})
        async with asyncio.timeout(20):
            assert await anext(values) == 0
            await app.add("a", 1, 2)
            assert await anext(values) == 2
            await app.server.control(dropSockets=True)
            await app.add("a", 3)
            while await anext(values) != 3:
                pass

    async def test_goes_on_after_the_server_was_started_again(self, tmp_path: Path) -> None:
        data = tmp_path / "documents.json"
        first = ConvexServer.start(functions=APP, data=data)
        command = [sys.executable, "-c", CLIENT, first.url, first.admin_key]
        client = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        try:
            assert client.stdout is not None
            async with asyncio.timeout(60), aiohttp.ClientSession() as session:
                assert await client.stdout.readline() == b"0.0\n"
                await Deployment(first, session).add("a", 1)
                assert await client.stdout.readline() == b"1.0\n"
                await asyncio.to_thread(first.stop)
                with ConvexServer.start(functions=APP, data=data, port=first.port) as second:
                    assert second.url == first.url
                    await Deployment(second, session).add("a", 2)
                    while await client.stdout.readline() != b"2.0\n":
                        pass
        finally:
            client.kill()
            await client.wait()


class TestData:
    async def test_outlives_the_server(self, tmp_path: Path) -> None:
        data = tmp_path / "documents.json"
        value = [int64(-1), {"$bytes": "AAH/"}, "é", None, 1.0]
        async with aiohttp.ClientSession() as session:
            with ConvexServer.start(functions=APP, data=data) as server:
                app = Deployment(server, session)
                await app.add("a", 2, 1)
                await app.mutation("system:store", value=value)
                await app.mutation("system:remind", delayMs=2_000, text="later")
            with ConvexServer.start(functions=APP, data=data) as server:
                app = Deployment(server, session)
                await app.add("a", 3)
                assert await app.texts(owner="a") == ["a 1", "a 2", "a 3"]
                assert await app.query("system:things") == [value]
                await server.control(clockAheadMs=2_001, settle=True)
                assert await app.texts(owner="scheduled") == ["later"]


class Project:
    """A directory with functions, from which the real `npx convex` deploys."""

    def __init__(self, directory: Path, server: ConvexServer) -> None:
        self.directory = directory
        self.server = server
        self.key = server.admin_key
        (directory / "node_modules").symlink_to(SERVER / "node_modules")
        (directory / "package.json").write_text('{"dependencies": {"convex": "1.48.0"}}')

    def deploy(self, functions: Path, *options: str) -> subprocess.CompletedProcess[str]:
        shutil.rmtree(self.directory / "convex", ignore_errors=True)
        shutil.copytree(functions, self.directory / "convex")
        return subprocess.run(
            ["node_modules/.bin/convex", "deploy", "--typecheck", "disable", *options],
            cwd=self.directory,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "CI": "true",  # reports no crashes to anyone
                "CONVEX_SELF_HOSTED_URL": self.server.url,
                "CONVEX_SELF_HOSTED_ADMIN_KEY": self.key,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


class TestDeploying:
    @pytest.fixture
    async def empty(self) -> AsyncIterator[Deployment]:
        with ConvexServer.start(functions="none") as server:
            async with aiohttp.ClientSession() as session:
                yield Deployment(server, session)

    async def test_pushed_functions_run(self, empty: Deployment, tmp_path: Path) -> None:
        project = Project(tmp_path, empty.server)
        with pytest.raises(FunctionError, match="Could not find public function"):
            await empty.query("notes:get", owner="a")
        for _ in range(2):  # at the second time, all modules are there already
            outcome = await asyncio.to_thread(project.deploy, APP)
            assert outcome.returncode == 0, outcome.stderr
            await empty.add("a", 1)
        assert await empty.texts() == ["a 1", "a 1"]
        assert (await empty.server.control())["functions"] == "pushed"
        empty.key = None
        with pytest.raises(FunctionError, match="Could not find public function"):
            await empty.query("notes:get", owner="a")
        generated = tmp_path / "convex" / "_generated"
        assert "notes" in (generated / "api.d.ts").read_text()

    async def test_the_shipped_functions(self, empty: Deployment, tmp_path: Path) -> None:
        shipped = SERVER.parents[1] / "mastra_storage_convex" / "functions"
        project = Project(tmp_path, empty.server)
        outcome = await asyncio.to_thread(project.deploy, shipped, "--codegen", "disable")
        assert outcome.returncode == 0, outcome.stderr
        assert "messages.by_thread" in outcome.stderr  # the indexes that were made
        assert (await empty.query("system:version"))["protocol"] == 1
        assert await empty.query("threads:get", keys=[["none"]]) == {"rows": [None]}

    async def test_documents_must_match_the_schema(self, empty: Deployment, tmp_path: Path) -> None:
        project = Project(tmp_path, empty.server)
        await empty.server.control(functions=str(APP))
        await empty.add("a", 1)
        strict = tmp_path / "strict"
        shutil.copytree(APP, strict)
        schema = strict / "schema.ts"
        schema.write_text(schema.read_text().replace("text: v.string()", "text: v.number()"))
        outcome = await asyncio.to_thread(project.deploy, strict)
        assert outcome.returncode == 1
        assert 'in table "notes" does not match the schema' in outcome.stderr
        assert await empty.texts() == ["a 1"]

    async def test_a_wrong_key_is_refused(self, empty: Deployment, tmp_path: Path) -> None:
        project = Project(tmp_path, empty.server)
        project.key = empty.server.wrong_key
        outcome = await asyncio.to_thread(project.deploy, APP)
        assert outcome.returncode == 1
        assert "BadAdminKey" in outcome.stderr
        assert (await empty.server.control())["functions"] == "none"
