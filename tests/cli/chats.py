"""Conversations for the tests of the command, and small ways to move and compare them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

from mastra_storage import TABLES, Query, Row, Storage
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.cli.transfer import Imported, export_lines, import_lines
from mastra_storage.cli.transfer.rows import canonical

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}

CHATS: list[dict[str, Any]] = [
    {
        "thread_id": "first",
        "reward": 0.5,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"content": "Where is my bag? ✈", "role": "user"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "name": "find", "content": '{"at": "LIS"}'},
            {"role": "assistant", "content": [{"type": "text", "text": "In Lisbon."}]},
        ],
    },
    {"thread_id": "a:b/c", "title": "Empty", "resource_id": "user-7", "messages": []},
    {"thread_id": "🦀", "messages": [{"role": "user", "content": {}}, {"role": "user"}]},
]


def lines(values: Iterable[Any]) -> io.BytesIO:
    return io.BytesIO(
        b"".join(json.dumps(value, separators=(",", ":")).encode() + b"\n" for value in values)
    )


async def import_all(storage: Storage, values: Iterable[Any], **options: Any) -> Imported:
    return await import_lines(storage, lines(values), name="chats.jsonl", **options)


async def exported(storage: Storage) -> list[dict[str, Any]]:
    file = io.BytesIO()
    await export_lines(storage, file)
    return [json.loads(line) for line in file.getvalue().splitlines()]


async def all_rows(storage: Storage) -> list[Row]:
    rows: list[Row] = []
    for table in TABLES.values():
        rows += (await storage.backend.query(Query(table=table))).rows
    return rows


def content_of(row: Row) -> tuple[Any, ...]:
    """All that a row holds but which write made it, and its exact place."""
    value = json.loads(canonical(row.value))
    value.pop("updatedAt", None)
    return row.table.name, row.key, value, row.order, dict(row.fields), row.recent, row.expires_at


def memory_storage() -> Storage:
    return Storage(MemoryBackend())
