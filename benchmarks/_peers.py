"""What users would pick instead, with the durability of the floor.

Each file is put into WAL mode before its peer opens it (the mode stays with the file), and
`synchronous=FULL` is what SQLite does unless told otherwise, which `check_default` makes sure of.
None of the peers tells it otherwise but diskcache, below the DiskStore, which is told so here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from _measure import Absent
from _sides import RESOURCE, Side

from mastra_storage import Message


def check_default() -> None:
    """Make sure that connections are durable unless they are told otherwise."""
    connection = sqlite3.connect(":memory:")
    mode = connection.execute("PRAGMA synchronous").fetchone()
    connection.close()
    if mode != (2,):
        raise SystemExit("this Python's SQLite is not durable by default; peers cannot be compared")


def wal_file(path: Path) -> Path:
    """A new file in WAL mode."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return path


class AgentsSQLite(Side):
    """OpenAI Agents' `SQLiteSession`: sqlite3 in threads, an item a row."""

    name = "openai-agents SQLiteSession"

    async def open(self, directory: Path) -> None:
        from agents import SQLiteSession

        path = wal_file(directory / "agents.db")
        self._session_of: Callable[[str], Any] = lambda thread: SQLiteSession(thread, path)
        self._sessions: dict[str, Any] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            session.close()

    async def start(self, thread: str) -> None:
        self._sessions[thread] = self._session_of(thread)

    async def add(self, thread: str, item: Any) -> None:
        await self._sessions[thread].add_items([item])

    async def add_batch(self, thread: str, items: Sequence[Any]) -> None:
        await self._sessions[thread].add_items(list(items))

    async def last(self, thread: str, count: int) -> int:
        return len(await self._sessions[thread].get_items(limit=count))

    async def every(self, thread: str) -> int:
        return len(await self._sessions[thread].get_items())


class AgentsSQLAlchemy(AgentsSQLite):
    """OpenAI Agents' `SQLAlchemySession` over aiosqlite."""

    name = "openai-agents SQLAlchemySession"

    async def open(self, directory: Path) -> None:
        from agents.extensions.memory import SQLAlchemySession
        from sqlalchemy.ext.asyncio import create_async_engine

        path = wal_file(directory / "alchemy.db")
        self._engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        self._session_of = lambda thread: SQLAlchemySession(
            thread, engine=self._engine, create_tables=True
        )
        self._sessions = {}

    async def start(self, thread: str) -> None:
        await super().start(thread)
        await self._sessions[thread].get_items(limit=1)  # makes the tables

    async def close(self) -> None:
        await self._engine.dispose()


class LangGraph(Side):
    """LangGraph's `AsyncSqliteSaver`: each step saves the state, which holds all messages.

    They are LangChain's, of which its reducer `add_messages` makes whatever it is given.
    """

    name = "langgraph AsyncSqliteSaver"
    file = "langgraph.db"

    async def open(self, directory: Path) -> None:
        from langgraph.checkpoint.base import empty_checkpoint
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        self._empty = empty_checkpoint
        self._path = wal_file(directory / self.file)
        self._context = AsyncSqliteSaver.from_conn_string(str(self._path))
        self._saver = await self._context.__aenter__()
        self._states: dict[str, list[Any]] = {}

    async def close(self) -> None:
        await self._context.__aexit__(None, None, None)

    def prepared(self, message: Message) -> Any:
        from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

        content, of = message.content, {"id": message.id}
        if message.role == "user":
            return HumanMessage(content, **of)
        if message.role == "tool":
            result = json.dumps(content["content"])
            return ToolMessage(result, tool_call_id=content["tool_call_id"], **of)
        calls = []
        if isinstance(content, dict):
            for call in content["tool_calls"]:
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                calls.append({"id": call["id"], "name": name, "args": json.loads(arguments)})
            content = ""
        return AIMessage(content, tool_calls=calls, response_metadata=message.metadata, **of)

    async def start(self, thread: str) -> None:
        self._states[thread] = []

    def forget(self, thread: str) -> None:
        del self._states[thread]

    async def add(self, thread: str, item: Any) -> None:
        await self.add_batch(thread, [item])

    async def add_batch(self, thread: str, items: Sequence[Any]) -> None:
        state = self._states[thread] = [*self._states[thread], *items]
        await self._put(thread, state, {"source": "loop", "step": len(state), "parents": {}})

    async def _put(self, thread: str, state: list[Any], metadata: dict[str, Any]) -> None:
        checkpoint = self._empty() | {"channel_values": {"messages": state}}
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        await self._saver.aput(config, checkpoint, metadata, {})

    async def last(self, thread: str, count: int) -> int:
        return len((await self._read(thread))[-count:])

    async def every(self, thread: str) -> int:
        return len(await self._read(thread))

    async def _read(self, thread: str) -> list[Any]:
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        found = await self._saver.aget_tuple(config)
        messages: list[Any] = found.checkpoint["channel_values"]["messages"]
        return messages

    async def start_many(self, threads: Sequence[str]) -> None:
        for thread in threads:
            await self._put(thread, [], {"source": "input", "step": -1, "user": RESOURCE})

    async def newest_threads(self, count: int) -> int:
        listed = self._saver.alist(None, filter={"user": RESOURCE}, limit=count)
        return len([item async for item in listed])


class LangGraphDicts(LangGraph):
    """The same with plain dicts, as a state that has a reducer of its own can hold them."""

    name = "langgraph, of plain dicts"
    file = "langgraph-dicts.db"
    usual = False

    def prepared(self, message: Message) -> Any:
        return msgspec.to_builtins(message)


class Agno(Side):
    """Agno's `AsyncSqliteDb` on SQLAlchemy and aiosqlite: one message a run."""

    name = "agno AsyncSqliteDb"
    batch_is_rows = False

    async def open(self, directory: Path) -> None:
        from agno.db.base import SessionType
        from agno.db.sqlite import AsyncSqliteDb
        from agno.models.message import Message as AgnoMessage
        from agno.run.agent import RunOutput
        from agno.session import AgentSession

        self._db = AsyncSqliteDb(db_file=str(wal_file(directory / "agno.db")))
        self._types = (AgnoMessage, RunOutput, AgentSession)
        self._agent = SessionType.AGENT
        self._count = 0

    async def close(self) -> None:
        await self._db.close()

    def prepared(self, message: Message) -> Any:
        content = msgspec.json.encode(message.content).decode()
        return self._types[0](id=message.id, role=message.role, content=content)

    async def start(self, thread: str, user: str | None = None) -> None:
        session = self._types[2](session_id=thread, agent_id="agent", user_id=user)
        await self._db.upsert_session(session)

    async def add(self, thread: str, item: Any) -> None:
        await self.add_batch(thread, [item])

    async def add_batch(self, thread: str, items: Sequence[Any]) -> None:
        self._count += 1
        run = self._types[1](
            run_id=f"run-{self._count}",
            agent_id="agent",
            session_id=thread,
            messages=list(items),
        )
        await self._db.upsert_run(run, session_id=thread, run_index=self._count)

    async def last(self, thread: str, count: int) -> int:
        session = await self._db.get_session(thread, self._agent, runs_limit=count)
        return len([message for run in session.runs for message in run.messages])

    async def every(self, thread: str) -> int:
        session = await self._db.get_session(thread, self._agent)
        return len([message for run in session.runs for message in run.messages])

    async def start_many(self, threads: Sequence[str]) -> None:
        for thread in threads:
            await self.start(thread, RESOURCE)

    async def newest_threads(self, count: int) -> int:
        found = await self._db.get_sessions(
            self._agent,
            user_id=RESOURCE,
            limit=count,
            sort_by="created_at",
            sort_order="desc",
            include_runs=False,
        )
        return len(found)


class DiskStore(Side):
    """py-key-value-aio's `DiskStore` on diskcache: keys are known, there is no order."""

    name = "py-key-value DiskStore"

    async def open(self, directory: Path) -> None:
        from diskcache import Cache
        from key_value.aio.stores.disk import DiskStore as Store

        place = str(directory / "diskcache")
        self._cache = Cache(directory=place, eviction_policy="none", sqlite_synchronous=2)
        self._store = Store(disk_cache=self._cache)
        self._keys: dict[str, list[str]] = {}

    async def close(self) -> None:
        self._cache.close()

    async def start(self, thread: str) -> None:
        self._keys[thread] = []

    async def add(self, thread: str, item: Any) -> None:
        self._keys[thread].append(item["id"])
        await self._store.put(item["id"], item, collection=thread)

    async def add_batch(self, thread: str, items: Sequence[Any]) -> None:
        keys = [item["id"] for item in items]
        self._keys[thread] += keys
        await self._store.put_many(keys, items, collection=thread)

    async def last(self, thread: str, count: int) -> int:
        return await self._read(thread, self._keys[thread][-count:])

    async def every(self, thread: str) -> int:
        return await self._read(thread, self._keys[thread])

    async def _read(self, thread: str, keys: Sequence[str]) -> int:
        found = await self._store.get_many(keys, collection=thread)
        return len([item for item in found if item is not None])


class GoogleADK(Side):
    """Google ADK's `SqliteSessionService`: a connection for each call, an event a row."""

    name = "google-adk SqliteSessionService"
    batch_is_rows = False

    async def open(self, directory: Path) -> None:
        from google.adk.events import Event
        from google.adk.sessions.base_session_service import GetSessionConfig
        from google.adk.sessions.sqlite_session_service import SqliteSessionService
        from google.genai import types

        self._service = SqliteSessionService(str(wal_file(directory / "adk.db")))
        self._event, self._genai, self._config = Event, types, GetSessionConfig
        self._sessions: dict[str, Any] = {}

    async def close(self) -> None:
        """Nothing stays open."""

    def prepared(self, message: Message) -> Any:
        part = self._genai.Part(text=json.dumps(msgspec.to_builtins(message.content)))
        author = "user" if message.role == "user" else "agent"
        return self._event(
            id=message.id,
            invocation_id="i",
            author=author,
            content=self._genai.Content(role=author, parts=[part]),
        )

    async def start(self, thread: str, user: str = "somebody else") -> None:
        self._sessions[thread] = await self._service.create_session(
            app_name="app", user_id=user, session_id=thread
        )

    async def add(self, thread: str, item: Any) -> None:
        await self._service.append_event(self._sessions[thread], item)

    async def last(self, thread: str, count: int) -> int:
        return await self._read(thread, self._config(num_recent_events=count))

    async def every(self, thread: str) -> int:
        return await self._read(thread, None)

    async def _read(self, thread: str, config: Any) -> int:
        session = await self._service.get_session(
            app_name="app", user_id="somebody else", session_id=thread, config=config
        )
        if session is None:
            raise Absent
        return len(session.events)

    async def start_many(self, threads: Sequence[str]) -> None:
        for thread in threads:
            await self.start(thread, RESOURCE)

    async def newest_threads(self, count: int) -> int:
        # It lists them all, the oldest first.
        found = await self._service.list_sessions(app_name="app", user_id=RESOURCE)
        return len(found.sessions[-count:])


PEERS: tuple[type[Side], ...] = (
    AgentsSQLite,
    AgentsSQLAlchemy,
    LangGraph,
    LangGraphDicts,
    Agno,
    DiskStore,
    GoogleADK,
)
DISTRIBUTIONS = (
    "openai-agents",
    "SQLAlchemy",
    "aiosqlite",
    "langgraph-checkpoint-sqlite",
    "langchain-core",
    "agno",
    "py-key-value-aio",
    "diskcache",
    "google-adk",
)
