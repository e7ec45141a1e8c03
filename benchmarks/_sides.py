"""What every side of the SQLite benchmark can be asked, the floor, and this library."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from _measure import Absent

from mastra_storage import Message, Storage, Thread, open_storage

RESOURCE = "ada"


class Side(ABC):
    """A store of conversations in a SQLite file in WAL mode with `synchronous=FULL`.

    What a method of a side does not do raises `Absent`.
    """

    name = ""
    batch_is_rows = True  # not one blob, nor missing
    usual = True  # the way it is used, against which promises are measured

    @abstractmethod
    async def open(self, directory: Path) -> None: ...

    @abstractmethod
    async def close(self) -> None: ...

    def prepared(self, message: Message) -> Any:
        """A message as this side takes it; not part of what is measured."""
        return msgspec.to_builtins(message)

    async def start(self, thread: str) -> None:  # noqa: B027 - most need nothing
        """Get ready for the messages of a thread; not measured either."""

    def forget(self, thread: str) -> None:  # noqa: B027 - most keep nothing
        """Let go of what is in memory of a thread that is not needed again."""

    @abstractmethod
    async def add(self, thread: str, item: Any) -> None: ...

    async def add_batch(self, thread: str, items: Sequence[Any]) -> None:
        raise Absent

    async def add_at_once(self, thread: str, items: Sequence[Any]) -> None:
        """All of them at the same time, as many agents that share a store would."""
        await asyncio.gather(*[self.add(thread, item) for item in items])

    @abstractmethod
    async def last(self, thread: str, count: int) -> int:
        """Read the newest messages; how many there were."""

    @abstractmethod
    async def every(self, thread: str) -> int: ...

    async def start_many(self, threads: Sequence[str]) -> None:
        """Make threads of one resource, for `newest_threads`; not measured."""
        for thread in threads:
            await self.start(thread)

    async def newest_threads(self, count: int) -> int:
        """Read the newest threads of the resource."""
        raise Absent


class Plain(Side):
    """The floor: `sqlite3` and msgspec, one table, one statement, the event loop waits."""

    name = "plain sqlite3"

    async def open(self, directory: Path) -> None:
        self._connection = sqlite3.connect(directory / "plain.db", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "CREATE TABLE messages (thread, id, at, value BLOB, PRIMARY KEY (thread, id))",
            "CREATE INDEX messages_at ON messages (thread, at)",
            "CREATE TABLE threads (id PRIMARY KEY, resource, at, value BLOB)",
            "CREATE INDEX threads_at ON threads (resource, at)",
        ):
            self._connection.execute(statement)
        self._encoder = msgspec.json.Encoder()
        self._message = msgspec.json.Decoder(Message)
        self._thread = msgspec.json.Decoder(Thread)

    async def close(self) -> None:
        self._connection.close()

    def prepared(self, message: Message) -> Message:
        return message

    def _row(self, message: Message) -> tuple[str, str, str, bytes]:
        at = message.created_at.isoformat()
        return message.thread_id, message.id, at, self._encoder.encode(message)

    async def add(self, thread: str, item: Message) -> None:
        self._connection.execute("INSERT INTO messages VALUES (?, ?, ?, ?)", self._row(item))

    async def add_batch(self, thread: str, items: Sequence[Message]) -> None:
        insert = "INSERT INTO messages VALUES (?, ?, ?, ?)"
        self._connection.execute("BEGIN")
        self._connection.executemany(insert, map(self._row, items))
        self._connection.execute("COMMIT")

    async def last(self, thread: str, count: int) -> int:
        sql = "SELECT value FROM messages WHERE thread = ? ORDER BY at DESC LIMIT ?"
        rows = self._connection.execute(sql, (thread, count)).fetchall()
        found = [self._message.decode(value) for (value,) in rows]
        found.reverse()
        return len(found)

    async def every(self, thread: str) -> int:
        sql = "SELECT value FROM messages WHERE thread = ? ORDER BY at"
        rows = self._connection.execute(sql, (thread,)).fetchall()
        return len([self._message.decode(value) for (value,) in rows])

    async def start_many(self, threads: Sequence[str]) -> None:
        made = [Thread(id=thread, resource_id=RESOURCE, title=thread) for thread in threads]
        rows = [
            (thread.id, RESOURCE, thread.created_at.isoformat(), self._encoder.encode(thread))
            for thread in made
        ]
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT INTO threads VALUES (?, ?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    async def newest_threads(self, count: int) -> int:
        sql = "SELECT value FROM threads WHERE resource = ? ORDER BY at DESC LIMIT ?"
        rows = self._connection.execute(sql, (RESOURCE, count)).fetchall()
        return len([self._thread.decode(value) for (value,) in rows])


class Ours(Side):
    """The library by its public methods."""

    name = "mastra-storage"
    storage: Storage

    async def open(self, directory: Path) -> None:
        self.storage = open_storage(f"sqlite:///{directory / 'ours.db'}")
        await self.storage.__aenter__()

    async def close(self) -> None:
        await self.storage.__aexit__(None, None, None)

    def prepared(self, message: Message) -> Message:
        return message

    async def start(self, thread: str) -> None:
        await self.storage.save_thread(Thread(id=thread, resource_id="somebody else"))

    async def add(self, thread: str, item: Message) -> None:
        await self.storage.save_message(item)

    async def add_batch(self, thread: str, items: Sequence[Message]) -> None:
        await self.storage.save_messages(items)

    async def last(self, thread: str, count: int) -> int:
        return len(await self.storage.get_messages(thread, last=count))

    async def every(self, thread: str) -> int:
        return len(await self.storage.get_messages(thread))

    async def start_many(self, threads: Sequence[str]) -> None:
        made = [Thread(id=thread, resource_id=RESOURCE, title=thread) for thread in threads]
        await self.storage.batch_insert("threads", made)

    async def newest_threads(self, count: int) -> int:
        found = await self.storage.list_threads(resource_id=RESOURCE, per_page=count, count=False)
        return len(found)
