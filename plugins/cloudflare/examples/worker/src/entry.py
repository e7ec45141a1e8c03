# mypy: disable-error-code="import-not-found, misc"
"""A Worker whose agent keeps its conversations in Workers KV.

POST /chat            {"thread": "t1", "text": "Hello"}  ->  {"thread": "t1", "reply": "..."}
GET  /threads/{id}                                       ->  the thread and its messages
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from agent import reply
from mastra_storage_cloudflare import CloudflareStore
from workers import Request, Response, WorkerEntrypoint

from mastra_storage import Message, Storage, StorageError, Thread

# How much of a long conversation the agent is given.
REMEMBERED = 20


class Default(WorkerEntrypoint):
    """What the Worker answers."""

    async def fetch(self, request: Request) -> Response:
        path = urlsplit(request.url).path
        # Leaving the block writes what still waits; nothing may be left to do after the answer.
        try:
            async with self._store() as storage:
                if request.method == "POST" and path == "/chat":
                    return await chat(storage, await request.text())
                if request.method == "GET" and path.startswith("/threads/"):
                    return await thread(storage, unquote(path.removeprefix("/threads/")))
        except StorageError as exc:
            return problem(503 if exc.retryable else 500, str(exc))
        return problem(404, "there are POST /chat and GET /threads/{id}")

    def _store(self) -> Storage:
        """A store for one request, in one namespace for all tables."""
        return CloudflareStore(bindings={"default": self.env.STORE}, key_prefix="chat_")


async def chat(storage: Storage, body: str) -> Response:
    """Keep what the user says, and what the agent answers."""
    try:
        asked = json.loads(body)
        thread_id, text = asked["thread"], asked["text"]
    except (ValueError, LookupError, TypeError):
        return problem(400, 'the body must be {"thread": "...", "text": "..."}')
    if not (isinstance(thread_id, str) and thread_id and isinstance(text, str)):
        return problem(400, "thread and text must be text, and thread not empty")
    if await storage.get_thread_by_id(thread_id) is None:
        await storage.save_thread(Thread(id=thread_id, resource_id="visitor"))
    question = Message(thread_id=thread_id, role="user", content=text)
    conversation = [*await storage.get_messages(thread_id, last=REMEMBERED), question]
    answer = Message(thread_id=thread_id, role="assistant", content=reply(conversation))
    await storage.save_messages([question, answer])
    return answered({"thread": thread_id, "reply": answer.content})


async def thread(storage: Storage, thread_id: str) -> Response:
    """A thread, and all that was said in it."""
    found = await storage.get_thread_by_id(thread_id)
    if found is None:
        return problem(404, f"there is no thread {thread_id!r}")
    return answered({"thread": found, "messages": await storage.get_messages(thread_id)})


def answered(value: Any, status: int = 200) -> Response:
    headers = {"content-type": "application/json"}
    return Response(msgspec.json.encode(value).decode(), status=status, headers=headers)


def problem(status: int, text: str) -> Response:
    return answered({"error": text}, status)
