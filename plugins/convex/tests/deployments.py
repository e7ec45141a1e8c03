"""How the tests of the server call it: over HTTP, and in Convex's JSON."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import aiohttp
from convex_server import SERVER, ConvexServer

APP = SERVER / "fixtures" / "app"


def int64(number: int) -> dict[str, str]:
    """A Python int as Convex sends an int64."""
    return {"$integer": base64.b64encode(number.to_bytes(8, "little", signed=True)).decode()}


def to_int(value: dict[str, str]) -> int:
    return int.from_bytes(base64.b64decode(value["$integer"]), "little", signed=True)


def note(owner: str, order: int, **more: Any) -> dict[str, Any]:
    row = {"order": int64(order), "seq": int64(0)}
    return {"owner": owner, "text": f"{owner} {order}", "row": row, **more}


class FunctionError(Exception):
    """A function ended with an error; `data` is that of a ConvexError."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["errorMessage"])
        self.data = answer.get("errorData")


class Answer:
    """An answer, read to its end."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def value(self) -> Any:
        """What the function returned; a `FunctionError` when it did not."""
        assert self.status == 200, self.body
        if self.json["status"] == "error":
            raise FunctionError(self.json)
        assert self.json["status"] == "success"
        return self.json["value"]

    @property
    def refusal(self) -> tuple[int, str]:
        """HTTP status and error code."""
        assert set(self.json) == {"code", "message"}
        return self.status, self.json["code"]


class Deployment:
    """Calls to one server, with its admin key unless `key` is set to another or None."""

    def __init__(self, server: ConvexServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session
        self.key: str | None = server.admin_key

    async def post(self, path: str, body: str, **headers: str) -> Answer:
        if self.key is not None:
            headers.setdefault("Authorization", f"Convex {self.key}")
        url, data = self.server.url + path, io.BytesIO(body.encode())
        async with self.session.post(url, data=data, headers=headers) as response:
            return Answer(response, await response.read())

    async def call(
        self, kind: str, function: str, format: str = "convex_encoded_json", **args: Any
    ) -> Answer:
        body = {"path": function, "args": args, "format": format}
        return await self.post(f"/api/{kind}", json.dumps(body))

    async def query(self, function: str, **args: Any) -> Any:
        return (await self.call("query", function, **args)).value

    async def mutation(self, function: str, **args: Any) -> Any:
        return (await self.call("mutation", function, **args)).value

    async def add(self, owner: str, *orders: int) -> None:
        await self.mutation("notes:add", notes=[note(owner, order) for order in orders])

    async def texts(self, **args: Any) -> list[str]:
        args = {"descending": False, "limit": 1000, **args}
        return [row["text"] for row in await self.query("notes:list", **args)]
