"""Spans to be exported, and storages whose writes fail where a test says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from mastra_storage import Storage
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.testing import FaultyBackend


class Recorder:
    """A tracer, and the spans that it has ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = provider.get_tracer("recorder", "1.2")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


def some_spans(count: int, **attributes: str) -> tuple[ReadableSpan, ...]:
    """Spans called s0, s1, …"""
    recorder = Recorder()
    for number in range(count):
        recorder.tracer.start_span(f"s{number}", attributes=attributes).end()
    return recorder.spans


@asynccontextmanager
async def faulty_storage() -> AsyncIterator[tuple[Storage, FaultyBackend]]:
    """A storage in memory, and its backend to plant faults in."""
    backend = FaultyBackend(MemoryBackend())
    async with Storage(backend) as storage:
        yield storage, backend


async def names(storage: Storage) -> set[str]:
    """The names of the spans that are kept."""
    return {trace.name for trace in await storage.get_traces(per_page=None)}
