"""The sync protocol: what is followed over one WebSocket, whatever happens to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from aiohttp import web
from fake_sync import PATH, Conversation, FakeSync, transition, ts, version
from hypothesis import given
from hypothesis import strategies as st
from mastra_storage_convex import _frames as frames
from mastra_storage_convex import sync
from mastra_storage_convex._frames import FrameError
from mastra_storage_convex.feeds import Call, Failed, Feed
from mastra_storage_convex.sync import SyncClient

from mastra_storage import AuthenticationError, UnavailableError, UnsupportedError

KEY = "prod:cheerful-lemur-123|not-to-be-seen"
ONE, TWO = Call("m:one", '{"a":1}'), Call("m:two", "{}")


class Answer:
    """An answer, told from another that is equal."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    @classmethod
    def made(cls, text: bytes, before: Answer | None) -> Answer:
        return before if before is not None and before.text == text else cls(text)

    def __repr__(self) -> str:
        return f"Answer({self.text!r})"


Client = SyncClient[Answer]


async def nothing_wrong() -> None:
    """A check that finds the key and the functions right."""


def client_of(url: str, check: Callable[[], Awaitable[object]] = nothing_wrong) -> Client:
    return SyncClient(url, KEY, check=check, build=Answer.made)


@pytest.fixture
async def fake() -> AsyncIterator[FakeSync]:
    async with FakeSync() as server:
        server.values = {"m:one": 1, "m:two": "zwei"}
        yield server


@pytest.fixture
async def client(fake: FakeSync) -> AsyncIterator[Client]:
    client = client_of(fake.url)
    yield client
    await client.close()
    await until(lambda: not fake.sockets)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost is tried again at once."""
    monkeypatch.setattr(sync, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(sync, "_LONGEST_PAUSE", 0.05)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - whatever it is about, in this process
            await asyncio.sleep(0.01)


async def told(feed: Feed[Answer], *calls: Call) -> list[Any]:
    """What the calls give, once all of that is known."""
    async with asyncio.timeout(10):
        while True:
            answers = [feed.answer(call) for call in calls]
            if None not in answers:
                return [
                    answer.message if isinstance(answer, Failed) else json.loads(answer.text)
                    for answer in answers
                    if answer is not None
                ]
            assert await feed.wait()


async def changed(feed: Feed[Answer], call: Call, value: Any) -> None:
    """Wait until `call` gives `value`."""
    async with asyncio.timeout(10):
        while await told(feed, call) != [value]:
            assert await feed.wait()


# -- what is said ----------------------------------------------------------------------------------


async def test_what_is_followed_is_kept_up_to_date(fake: FakeSync, client: Client) -> None:
    async with client.feed() as feed:
        assert await told(feed, ONE, TWO) == [1, "zwei"]
        await fake.commit(**{"m:one": {"$integer": "AQAAAAAAAAA="}})
        await changed(feed, ONE, {"$integer": "AQAAAAAAAAA="})
        assert await told(feed, TWO) == ["zwei"]
        await fake.commit(**{"m:two": RuntimeError("Uncaught Error: boom")})
        await changed(feed, TWO, "Uncaught Error: boom")
        assert isinstance(feed.answer(TWO), Failed)


async def test_it_says_who_it_is_and_what_it_follows(fake: FakeSync, client: Client) -> None:
    async with client.feed() as feed:
        await told(feed, ONE)
        await told(feed, TWO)
        feed.keep([TWO])
        await told(feed, ONE)
        connect, authenticate, *sets = fake.last.heard
    assert connect.pop("sessionId")
    assert abs(connect.pop("clientTs") / 1000 - time.time()) < 60
    assert isinstance(connect.pop("lastCloseReason"), str)
    assert connect == {"type": "Connect", "connectionCount": 0}
    assert authenticate == {
        "type": "Authenticate",
        "tokenType": "Admin",
        "value": KEY,
        "baseVersion": 0,
    }

    def add(id: int, call: Call) -> dict[str, Any]:
        args = [json.loads(call.args)]
        return {"type": "Add", "queryId": id, "udfPath": call.path, "args": args}

    assert [change["modifications"] for change in sets] == [
        [add(1, ONE)],
        [add(2, TWO)],
        [add(3, ONE), {"type": "Remove", "queryId": 1}],
    ]
    assert [(change["baseVersion"], change["newVersion"]) for change in sets] == [
        (0, 1),
        (1, 2),
        (2, 3),
    ]


async def test_there_is_one_socket_and_only_while_something_is_followed(
    fake: FakeSync, client: Client
) -> None:
    assert fake.requests == 0
    for _ in range(2):
        async with client.feed() as one, client.feed() as other:
            assert await told(one, ONE) == await told(other, ONE) == [1]
            assert await told(other, TWO) == ["zwei"]
            assert fake.sockets == 1
        await until(lambda: not fake.sockets)
    assert fake.requests == 2


async def test_many_that_follow_one_query_ask_once(fake: FakeSync, client: Client) -> None:
    async with AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(client.feed()) for _ in range(20)]
        assert [await told(feed, ONE) for feed in feeds] == [[1]] * 20
        assert len({id(feed.answer(ONE)) for feed in feeds}) == 1
        for feed in feeds[1:]:
            feed.keep([])
        await fake.commit(**{"m:one": 2})
        await changed(feeds[0], ONE, 2)
        assert len(fake.last.queries) == 1
    assert sum(message["type"] == "ModifyQuerySet" for message in fake.last.heard) == 1


async def test_what_starts_together_is_asked_for_together(fake: FakeSync, client: Client) -> None:
    calls = [Call("m:one", f'{{"n":{number}}}') for number in range(50)]
    async with client.feed() as feed:
        assert await told(feed, *calls) == [1] * 50
    [asked] = [m for m in fake.last.heard if m["type"] == "ModifyQuerySet"]
    assert len(asked["modifications"]) == 50


async def test_only_those_whose_answer_changed_are_woken(fake: FakeSync, client: Client) -> None:
    async with client.feed() as one, client.feed() as other:
        await told(one, ONE)
        await told(other, TWO)
        waiting = asyncio.ensure_future(other.wait())
        await fake.commit(**{"m:one": 2})
        await changed(one, ONE, 2)
        assert not waiting.done()
        await fake.commit(**{"m:two": 2})
        assert await waiting


async def test_parts_of_a_transition_are_put_together(fake: FakeSync, client: Client) -> None:
    async def in_parts(conversation: Conversation) -> None:
        async def say(message: dict[str, Any]) -> None:
            text = json.dumps(message)
            parts = [text[start : start + 40] for start in range(0, len(text), 40)]
            for number, part in enumerate(parts):
                chunk = {
                    "type": "TransitionChunk",
                    "chunk": part,
                    "partNumber": number,
                    "totalParts": len(parts),
                    "transitionId": "t",
                }
                await conversation.socket.send_str(json.dumps(chunk))

        conversation.say = say  # type: ignore[method-assign]
        await fake.converse(conversation)

    fake.answer = in_parts
    fake.values["m:one"] = "ä" * 1000
    async with client.feed() as feed:
        assert await told(feed, ONE) == ["ä" * 1000]
        await fake.commit(**{"m:one": "new"})
        await changed(feed, ONE, "new")
    assert fake.requests == 1


async def test_messages_that_are_not_for_it_do_not_matter(fake: FakeSync, client: Client) -> None:
    async with client.feed() as feed:
        await told(feed, ONE)
        for name in ("Ping", "MutationResponse", "ActionResponse", "SomethingNew"):
            await fake.last.say({"type": name, "requestId": 7, "success": True})
        await fake.commit(**{"m:one": 2})
        await changed(feed, ONE, 2)
    assert fake.requests == 1


# -- sockets that are lost -------------------------------------------------------------------------


async def test_it_goes_on_after_its_socket_was_dropped(fake: FakeSync, client: Client) -> None:
    async with client.feed() as feed:
        await told(feed, ONE, TWO)
        before = feed.answer(ONE)
        for value in range(5):
            fake.values["m:two"] = value
            await fake.drop()
            await changed(feed, TWO, value)
            assert feed.answer(ONE) is before  # unchanged, and so the same object
    assert fake.requests == 6
    last = fake.last.heard[0]
    assert last["connectionCount"] == 5
    assert last["maxObservedTimestamp"] == ts(fake.now)
    assert len({c.heard[0]["sessionId"] for c in fake.conversations}) == 1


async def test_it_goes_on_after_the_server_was_away(fake: FakeSync, client: Client) -> None:
    async with client.feed() as feed:
        await told(feed, ONE)
        await fake.stop()
        waiting = asyncio.ensure_future(changed(feed, ONE, 2))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert feed.answer(ONE) is None
        fake.values["m:one"] = 2
        await fake.start()
        await waiting


async def test_a_server_that_was_set_back_is_taken_as_it_is(fake: FakeSync, client: Client) -> None:
    refused = []

    async def behind(conversation: Conversation) -> None:
        connect = json.loads((await conversation.socket.receive()).data)
        if "maxObservedTimestamp" in connect:
            refused.append(connect)
            await conversation.socket.close(code=1011, message=b"InternalServerError")
            return
        await fake.converse(conversation)

    async with client.feed() as feed:
        await told(feed, ONE)
        fake.answer = behind
        fake.now = 1
        fake.values["m:one"] = 2
        await fake.drop()
        await changed(feed, ONE, 2)
    assert len(refused) == 1


async def test_a_silent_socket_counts_as_lost(
    fake: FakeSync, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_SILENCE_SECONDS", 0.3)

    async def silent(conversation: Conversation) -> None:
        async for _ in conversation.socket:
            pass

    fake.answer = silent
    async with client.feed() as feed:
        feed.answer(ONE)
        await until(lambda: fake.requests >= 2)
        fake.answer = None
        assert await told(feed, ONE) == [1]


async def test_pings_keep_a_quiet_socket(
    fake: FakeSync, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_SILENCE_SECONDS", 0.5)
    async with client.feed() as feed:
        await told(feed, ONE)
        for _ in range(10):
            await asyncio.sleep(0.1)
            await fake.last.say({"type": "Ping"})
    assert fake.requests == 1


async def test_a_server_that_never_answers_the_handshake_does_not_hold_it(
    client: Client, fake: FakeSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_CONNECT_SECONDS", 0.2)
    release = asyncio.Event()
    tries = 0

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await release.wait()
        writer.close()

    port = fake.port
    await fake.stop()
    server = await asyncio.start_server(mute, "127.0.0.1", port)
    async with client.feed() as feed:
        feed.answer(ONE)
        await until(lambda: tries >= 2)
        assert client.trouble == "TimeoutError"
        release.set()
        server.close()
        await server.wait_closed()
        await fake.start()
        assert await told(feed, ONE) == [1]


@pytest.mark.parametrize("status", [500, 503, 429, 404, 400])
async def test_refused_sockets_are_tried_again(fake: FakeSync, client: Client, status: int) -> None:
    fake.refuse = status
    async with client.feed() as feed:
        feed.answer(ONE)
        await until(lambda: fake.requests >= 3)
        assert client.trouble == f"its WebSocket was refused with HTTP {status}"
        fake.refuse = None
        assert await told(feed, ONE) == [1]


async def test_it_waits_longer_and_longer_between_attempts(
    fake: FakeSync, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(sync, "_LONGEST_PAUSE", 0.4)
    fake.refuse = 503
    async with client.feed() as feed:
        feed.answer(ONE)
        await asyncio.sleep(2.0)
        assert 4 <= fake.requests <= 15  # without a limit of its own, hundreds


async def test_the_key_follows_no_redirect(fake: FakeSync, client: Client) -> None:
    heard = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        heard.extend([frame.data async for frame in socket])
        return socket

    app = web.Application()
    app.router.add_get(PATH, elsewhere)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.refuse = 302
    fake.headers = {"Location": f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"}
    async with client.feed() as feed:
        feed.answer(ONE)
        await until(lambda: fake.requests >= 3)
        assert client.trouble == "its WebSocket was redirected"
    await runner.cleanup()
    assert heard == []


# -- answers that are none -------------------------------------------------------------------------

GOOD = transition(version(0, 0, 0), version(0, 5, 1))
DEEP = '[{"type": "QueryUpdated", "queryId": 1, "value": ' + "[" * 9999
GARBAGE: dict[str, str | bytes] = {
    "no JSON": "<html>",
    "half": '{"type": "Transition", "startVersion": {',
    "binary": b"\x00\x01",
    "empty": "",
    "a list": "[]",
    "a number": "1e999",
    "no type": "{}",
    "deep": "[" * 100_000,
    "deep value": json.dumps(GOOD)[:-2]
    + '[{"type":"QueryUpdated","queryId":1,"value":'
    + "[" * 9999,
    "a transition of nothing": '{"type": "Transition"}',
    "of another start": json.dumps(transition(version(7, 7, 7), version(8, 8, 8))),
    "of no time": json.dumps(GOOD | {"endVersion": version(0, 0, 1) | {"ts": "%%%"}}),
    "of a short time": json.dumps(GOOD | {"endVersion": version(0, 0, 1) | {"ts": "AQ=="}}),
    "of a strange change": json.dumps(GOOD | {"modifications": [{"type": "QueryUpdated"}]}),
    "a lone surrogate": '{"type": "\\ud800"}',
    "a part out of order": json.dumps(
        {
            "type": "TransitionChunk",
            "chunk": "{}",
            "partNumber": 1,
            "totalParts": 2,
            "transitionId": "t",
        }
    ),
    "parts that make something else": json.dumps(
        {
            "type": "TransitionChunk",
            "chunk": '{"type": "AuthError"}',
            "partNumber": 0,
            "totalParts": 1,
            "transitionId": "t",
        }
    ),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_costs_a_socket_and_nothing_else(
    fake: FakeSync, client: Client, garbage: str | bytes
) -> None:
    async def mad(conversation: Conversation) -> None:
        fake.answer = None
        if isinstance(garbage, str):
            await conversation.socket.send_str(garbage)
        else:
            await conversation.socket.send_bytes(garbage)
        async for _ in conversation.socket:
            pass

    fake.answer = mad
    async with client.feed() as feed:
        assert await told(feed, ONE) == [1]
        assert fake.requests == 2
        await fake.commit(**{"m:one": 2})
        await changed(feed, ONE, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)
    ),
    max_leaves=5,
)
CHUNK = {"type": "TransitionChunk", "chunk": "{}", "partNumber": 0, "totalParts": 2}
CHANGE = {"type": "QueryUpdated", "queryId": 1, "value": None, "logLines": [], "journal": None}
PROPER = [GOOD | {"modifications": [CHANGE]}, CHUNK | {"transitionId": "t"}, {"type": "Ping"}]


@given(st.sampled_from(PROPER), st.data())
def test_frames_are_messages_or_frame_errors(message: dict[str, Any], data: st.DataObject) -> None:
    """Whatever becomes of a proper message on its way."""
    if data.draw(st.booleans()):
        text = json.dumps(message | {data.draw(st.sampled_from(sorted(message))): data.draw(JSON)})
    else:
        text = json.dumps(message)
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        text = text[:start] + data.draw(st.text(max_size=5)) + text[end:]
    try:
        got = frames.decoded(text, frames.Chunks())
        if isinstance(got, frames.Transition):
            frames.moment(got.end_version)
    except FrameError:
        pass


async def test_frames_that_are_no_websocket_cost_no_more(fake: FakeSync, client: Client) -> None:
    async def mad(conversation: Conversation) -> None:
        fake.answer = None
        transport = conversation.socket._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(range(256)) * 20)
        async for _ in conversation.socket:
            pass

    fake.answer = mad
    async with client.feed() as feed:
        assert await told(feed, ONE) == [1]


# -- answers that end it ---------------------------------------------------------------------------


async def says_no(conversation: Conversation) -> None:
    await conversation.say({"type": "AuthError", "error": f"BadAdminKey: {KEY}", "baseVersion": 0})
    await conversation.socket.close()


async def test_a_wrong_key_ends_all(fake: FakeSync, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    async def refused() -> None:
        raise AuthenticationError("the key is wrong")

    fake.answer = says_no
    client = client_of(fake.url, refused)
    async with client.feed() as one, client.feed() as other:
        for feed in (one, other):
            feed.answer(ONE)
        errors = []
        for feed in (one, other):
            with pytest.raises(AuthenticationError) as raised:
                await told(feed, ONE)
            errors.append(raised.value)
        assert errors[0] is not errors[1]
        # Another feed begins anew.
        fake.answer = None
        async with client.feed() as later:
            assert await told(later, ONE) == [1]
    assert KEY not in caplog.text + repr(client)
    await client.close()


async def test_a_key_that_could_not_be_looked_at_is_tried_again(
    fake: FakeSync, client: Client
) -> None:
    fake.answer = says_no
    async with client.feed() as feed:
        feed.answer(ONE)
        await until(lambda: fake.requests >= 3)
        fake.answer = None
        assert await told(feed, ONE) == [1]


async def is_fatal(conversation: Conversation) -> None:
    async for frame in conversation.socket:
        if json.loads(frame.data)["type"] == "ModifyQuerySet":
            await conversation.say({"type": "FatalError", "error": "BaseVersionMismatch: secret"})
            return


async def test_a_fatal_error_is_believed_the_second_time(fake: FakeSync, client: Client) -> None:
    fake.answer = is_fatal
    async with client.feed() as feed:
        with pytest.raises(UnsupportedError, match="BaseVersionMismatch") as raised:
            await told(feed, ONE)
        assert "secret" not in str(raised.value)
    assert fake.requests == 2


async def test_one_fatal_error_is_none(fake: FakeSync, client: Client) -> None:
    async def once(conversation: Conversation) -> None:
        fake.answer = None
        await is_fatal(conversation)

    fake.answer = once
    async with client.feed() as feed:
        assert await told(feed, ONE) == [1]


async def test_a_defect_is_not_hidden(fake: FakeSync) -> None:
    def broken(text: bytes, before: object) -> object:
        raise ZeroDivisionError

    client = SyncClient(fake.url, KEY, check=nothing_wrong, build=broken)
    async with client.feed() as feed:
        feed.answer(ONE)
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(5):
                await feed.wait()


# -- endings ---------------------------------------------------------------------------------------


async def test_closing_ends_all_feeds(fake: FakeSync, client: Client) -> None:
    async with client.feed() as one, client.feed() as other:
        await told(one, ONE)
        waiting = [asyncio.ensure_future(feed.wait()) for feed in (one, other)]
        await asyncio.sleep(0)
        await client.close()
        assert await asyncio.gather(*waiting) == [False, False]
        assert not await one.wait()
        await until(lambda: not fake.sockets)
    await client.close()
    async with client.feed() as feed:
        assert await told(feed, ONE) == [1]


@pytest.mark.parametrize("state", ["refused", "silent", "connecting", "checking", "between"])
async def test_it_is_cancelled_in_any_state(
    fake: FakeSync, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    reached = asyncio.Event()

    async def check() -> None:
        reached.set()
        await asyncio.Event().wait()

    async def silent(conversation: Conversation) -> None:
        reached.set()
        async for _ in conversation.socket:
            pass

    async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    client = client_of(fake.url, check)
    mute = await asyncio.start_server(gone, "127.0.0.1", 0)
    if state == "refused":
        fake.refuse = 503
        asyncio.get_running_loop().call_later(0.1, reached.set)
    elif state == "silent":
        fake.answer = silent
    elif state == "checking":
        fake.answer = says_no
    elif state == "connecting":
        client = client_of(f"http://127.0.0.1:{mute.sockets[0].getsockname()[1]}")
    else:
        monkeypatch.setattr(sync, "_FIRST_PAUSE", 60.0)
        monkeypatch.setattr(sync, "_LONGEST_PAUSE", 60.0)
        fake.refuse = 503
        asyncio.get_running_loop().call_later(0.1, reached.set)

    async def follow() -> None:
        async with client.feed() as feed:
            await told(feed, ONE)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(5):
        await reached.wait()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
    mute.close()
    await mute.wait_closed()
    await until(lambda: not fake.sockets)


async def test_what_a_check_raises_ends_it(fake: FakeSync) -> None:
    async def away() -> None:
        raise UnavailableError("there is nothing any more")

    fake.answer = says_no
    client = client_of(fake.url, away)
    async with client.feed() as feed:
        feed.answer(ONE)
        with pytest.raises(UnavailableError):
            async with asyncio.timeout(5):
                await feed.wait()


async def test_a_conversation_that_ends_without_a_reason_is_lost(
    fake: FakeSync, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def end(*_: object) -> None:
        raise asyncio.CancelledError

    for name in ("_read", "_ask"):
        monkeypatch.setattr(client, name, end)
    with pytest.raises(sync._LostError, match="was closed"):
        await client._converse()
