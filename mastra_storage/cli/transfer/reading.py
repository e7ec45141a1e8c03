"""From a file of JSON lines to batches of checked records, in flat memory.

Lines are read one at a time; a line is checked whole before anything of it is given on. A line
longer than `LONG_LINE` whose thread comes before its messages (as in every export) is never
held as a whole: its messages are cut out of it one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import msgspec
from msgspec import Raw, Struct

from mastra_storage.cli.transfer.decoding import (
    Conversation,
    Draft,
    conversation_of,
    draft_of,
    row_of,
)
from mastra_storage.cli.transfer.long_line import elements, split_head
from mastra_storage.errors import InvalidRecordError, StorageError, TooLargeError
from mastra_storage.schema import Row, Table
from mastra_storage.validation import encode

__all__ = ["Batch", "Chunk", "Reader"]

BATCH_ROWS = 1_000
BATCH_BYTES = 8 * 2**20
LONG_LINE = 8 * 2**20

_READ = 2**20
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_NOT_JSON = (msgspec.MsgspecError, UnicodeError, RecursionError)


class Chunk(Struct):
    """Some messages of one line. `first` brings the thread itself along."""

    conversation: Conversation
    drafts: list[Draft]
    first: bool


class Batch(Struct):
    """What is written at once. `rows` are those of row lines; `end` is how far the file is read."""

    chunks: list[Chunk]
    rows: list[Row]
    size: int = 0
    bytes: int = 0
    end: int = 0


class Reader:
    """Reads a file for an import.

    `tables` are those that row lines may be of, `resource` whose the threads of lines without a
    resource are, `version` what the rows of row lines get, `name` the file's name in errors.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        name: str,
        tables: Mapping[str, Table],
        resource: str,
        version: str,
        max_bytes: int | None = None,
    ) -> None:
        self._file = file
        self._name = name
        self._tables = tables
        self._resource = resource
        self._version = version
        self._max_bytes = max_bytes
        self._number = 0
        self._read = 0
        self._untold: set[int] = set()  # hashes of threads whose messages have no ids

    def batches(self) -> Iterator[Batch]:
        """The file, in batches. A line that cannot be read raises behind the lines before it."""
        batch = Batch([], [])
        failed: InvalidRecordError | None = None
        parts = self._parts()
        while failed is None:
            try:
                part = next(parts)
            except StopIteration:
                break
            except InvalidRecordError as exc:
                failed = exc
                continue
            if isinstance(part, Chunk):
                batch.chunks.append(part)
                batch.size += len(part.drafts) + part.first
            else:
                batch.rows.append(part)
                batch.size += 1
            batch.bytes += self._read - batch.end
            batch.end = self._read
            if batch.size >= BATCH_ROWS or batch.bytes >= BATCH_BYTES:
                yield batch
                batch = Batch([], [], end=self._read)
        if batch.size:
            yield batch
        if failed is not None:
            raise failed

    def _parts(self) -> Iterator[Chunk | Row]:
        while line := self._next(LONG_LINE):
            self._number += 1
            try:
                yield from self._parts_of(line)
            except (StorageError, *_NOT_JSON) as exc:
                reason = exc.message if isinstance(exc, StorageError) else _why_not(line, exc)
                raise InvalidRecordError(f"{self._name}, line {self._number}: {reason}") from exc

    def _next(self, limit: int) -> bytes:
        read = self._file.readline(limit)
        self._read += len(read)
        return read

    def _parts_of(self, line: bytes) -> Iterator[Chunk | Row]:
        if len(line) == LONG_LINE and not line.endswith(b"\n"):
            found = split_head(line)
            if found is not None and "thread_id" in found[0]:
                yield from self._long_line(*found)
                return
            line += self._next(-1)
        if not line.strip():
            return
        members = _object(line)
        if members.keys() == {"table", "row"}:
            yield self._row(members)
        elif "messages" in members:
            yield from self._conversation(members)
        else:
            raise InvalidRecordError(
                "is neither a thread with its messages nor a row of a table; "
                "`mastra-storage import --help` shows what a line looks like"
            )

    def _conversation(self, members: dict[str, Raw]) -> Iterator[Chunk]:
        messages = msgspec.json.decode(members.pop("messages"))
        if not isinstance(messages, list):
            raise InvalidRecordError("messages must be an array", field="messages")
        conversation = self._head(members)
        named = all(isinstance(message, dict) and message.get("id") for message in messages)
        if not named:
            self._refuse_second(conversation.thread_id)
        drafts = [
            self._draft(conversation, position, message)
            for position, message in enumerate(messages)
        ]
        at: dict[str, int] = {}
        for draft in drafts:
            if (first := at.setdefault(draft.message.id, draft.position)) != draft.position:
                raise InvalidRecordError(
                    f"messages[{first}] and messages[{draft.position}] have the same id"
                )
        for start in range(0, max(len(drafts), 1), BATCH_ROWS):
            yield Chunk(conversation, drafts[start : start + BATCH_ROWS], start == 0)

    def _long_line(self, members: dict[str, Raw], read: bytes) -> Iterator[Chunk]:
        """The chunks of a line that is not held; checked whole first, if that can be."""
        conversation = self._head(members)
        if self._file.seekable():
            place, progress = self._file.tell(), self._read
            for _ in self._long_chunks(conversation, read):
                pass
            self._file.seek(place)
            self._read = progress
        yield from self._long_chunks(conversation, read)

    def _long_chunks(self, conversation: Conversation, read: bytes) -> Iterator[Chunk]:
        drafts: list[Draft] = []
        first, size = True, 0
        for position, element in enumerate(elements(read, self._rest_of_line())):
            drafts.append(self._draft(conversation, position, msgspec.json.decode(element)))
            size += len(element)
            if len(drafts) == BATCH_ROWS or size >= BATCH_BYTES:
                yield Chunk(conversation, drafts, first)
                drafts, first, size = [], False, 0
        if drafts or first:
            yield Chunk(conversation, drafts, first)

    def _rest_of_line(self) -> Callable[[], bytes]:
        """A function that gives the line at hand piece by piece, and nothing behind its end."""
        ended = False

        def more() -> bytes:
            nonlocal ended
            piece = b"" if ended else self._next(_READ)
            ended = ended or piece.endswith(b"\n")
            return piece

        return more

    def _head(self, members: Mapping[str, Raw]) -> Conversation:
        self._check_size("the thread", sum(len(memoryview(value)) for value in members.values()))
        decoded = {name: msgspec.json.decode(value) for name, value in members.items()}
        return conversation_of(decoded, number=self._number, resource=self._resource)

    def _draft(self, conversation: Conversation, position: int, message: Any) -> Draft:
        draft = draft_of(conversation.thread_id, position, message)
        if self._max_bytes is not None:
            size = len(encode(draft.message)) + len(encode(draft.unknown))
            self._check_size(f"messages[{position}]", size)
        return draft

    def _check_size(self, what: str, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise TooLargeError(
                f"{what} is {size:,} bytes of JSON, more than the {self._max_bytes:,} that this "
                "backend holds"
            )

    def _refuse_second(self, thread_id: str) -> None:
        """Refuse messages without ids of a thread that had such messages before.

        They would get the same ids, and replace those without a word.
        """
        mark = hash(thread_id)
        if mark in self._untold:
            raise InvalidRecordError(
                f"thread {thread_id!r} is on an earlier line too, and its messages have no ids; "
                "put all messages of a thread on one line, or give them ids"
            )
        self._untold.add(mark)

    def _row(self, members: Mapping[str, Raw]) -> Row:
        name = msgspec.json.decode(members["table"], type=str)
        if name not in self._tables:
            raise InvalidRecordError(
                f"is of a table {name!r} that is not known here; install the adapter that "
                "registered it (`mastra-storage plugins` shows those that are broken), and repeat "
                "the command"
            )
        row = row_of(self._tables[name], members["row"], version=self._version)
        self._check_size("the row", len(row.value))
        return row


def _object(line: bytes) -> dict[str, Raw]:
    """The members of a line."""
    try:
        return _members(line)
    except msgspec.ValidationError:
        raise InvalidRecordError(
            "is not an object, as every line must be; `jq -c '.[]'` makes lines of an array"
        ) from None


def _why_not(line: bytes, error: Exception) -> str:
    """What is wrong with a line that cannot be decoded."""
    if isinstance(error, msgspec.ValidationError):
        return f"has a member that cannot be: {error}"
    if line.lstrip().startswith(b"{") and not line.rstrip().endswith(b"}"):
        return f"is not JSON: {error}; an object must be on one line: `jq -c .` puts it there"
    return f"is not JSON: {error}"
