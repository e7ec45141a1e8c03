"""A server of the sync protocol that does what no Convex does: for `test_sync.py`."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import WSMsgType, web

Socket = web.WebSocketResponse
Frame = str | bytes
PATH = "/api/1.48.0/sync"


def ts(number: int) -> str:
    """A time as the protocol writes it."""
    return base64.b64encode(number.to_bytes(8, "little")).decode()


def version(query_set: int, number: int, identity: int) -> dict[str, Any]:
    return {"querySet": query_set, "ts": ts(number), "identity": identity}


def transition(
    start: dict[str, Any], end: dict[str, Any], *modifications: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "Transition",
        "startVersion": start,
        "endVersion": end,
        "modifications": list(modifications),
    }


class Conversation:
    """One socket: what the client said, and what it knows."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.heard: list[dict[str, Any]] = []
        self.queries: dict[int, tuple[str, str]] = {}
        self.told: dict[int, Any] = {}
        self.query_set = 0
        self.at = version(0, 0, 0)

    async def say(self, message: dict[str, Any]) -> None:
        await self.socket.send_str(json.dumps(message))


class FakeSync:
    """Answers queries from `values`, by path; `commit()` tells of changes.

    `answer`, when set, has the socket for itself instead; `refuse`, when set, is the HTTP status
    that is given in its place.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.answer: Callable[[Conversation], Awaitable[None]] | None = None
        self.refuse: int | None = None
        self.headers: dict[str, str] = {}
        self.now = 100
        self.port = 0
        self.requests = 0
        self.conversations: list[Conversation] = []
        self._open: set[Conversation] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Conversation:
        return self.conversations[-1]

    @property
    def sockets(self) -> int:
        """How many sockets are open."""
        return len(self._open)

    async def start(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application()
        app.router.add_get(PATH, self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self.drop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def drop(self) -> None:
        """Break all sockets off, without a word."""
        for conversation in list(self._open):
            transport = conversation.socket._req.transport  # type: ignore[union-attr]
            if transport is not None:
                transport.abort()
        while self._open:  # noqa: ASYNC110 - until their handlers have ended
            await asyncio.sleep(0.001)

    async def commit(self, **values: Any) -> None:
        """Change `values`, and tell each client."""
        self.values |= values
        self.now += 1
        for conversation in list(self._open):
            await self._tell(conversation)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.refuse is not None:
            return web.Response(status=self.refuse, headers=self.headers)
        socket = Socket()
        await socket.prepare(request)
        conversation = Conversation(socket)
        self.conversations.append(conversation)
        self._open.add(conversation)
        try:
            if self.answer is not None:
                await self.answer(conversation)
            else:
                await self.converse(conversation)
        finally:
            self._open.discard(conversation)
        return socket

    async def converse(self, conversation: Conversation) -> None:
        """Do as Convex does, until the client is gone."""
        async for frame in conversation.socket:
            if frame.type is not WSMsgType.TEXT:
                return
            message = json.loads(frame.data)
            conversation.heard.append(message)
            if message["type"] == "Authenticate":
                await self._tell(conversation, identity=1)
            if message["type"] == "ModifyQuerySet":
                assert message["baseVersion"] == conversation.query_set
                conversation.query_set = message["newVersion"]
                for change in message["modifications"]:
                    if change["type"] == "Add":
                        [args] = change["args"]
                        conversation.queries[change["queryId"]] = (
                            change["udfPath"],
                            json.dumps(args),
                        )
                    else:
                        del conversation.queries[change["queryId"]]
                        conversation.told.pop(change["queryId"], None)
                await self._tell(conversation)

    async def _tell(self, conversation: Conversation, identity: int | None = None) -> None:
        changes: list[dict[str, Any]] = []
        for number, (path, _) in conversation.queries.items():
            value = self.values.get(path)
            if number in conversation.told and conversation.told[number] == value:
                continue
            conversation.told[number] = value
            if isinstance(value, Exception):
                change = {"type": "QueryFailed", "errorMessage": str(value), "errorData": None}
            else:
                change = {"type": "QueryUpdated", "value": value}
            changes.append({"queryId": number, "logLines": [], "journal": None, **change})
        end = version(
            conversation.query_set,
            self.now,
            conversation.at["identity"] if identity is None else identity,
        )
        start, conversation.at = conversation.at, end
        await conversation.say(transition(start, end, *changes))
