"""The exporter under the processors of the SDK, and what it does when the storage fails."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from mastra_storage_opentelemetry import MastraSpanExporter
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.trace import Link, SpanContext, Tracer
from spans import faulty_storage, names, some_spans

from mastra_storage import (
    AuthenticationError,
    InvalidArgumentError,
    RateLimitedError,
    Storage,
    TooLargeError,
    open_storage,
)
from mastra_storage.backends.memory import MemoryBackend


def provider_of(processor: SpanProcessor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def end_spans(provider: TracerProvider, count: int, prefix: str = "s") -> set[str]:
    tracer = provider.get_tracer("test")
    for number in range(count):
        tracer.start_span(f"{prefix}{number}").end()
    return {f"{prefix}{number}" for number in range(count)}


async def test_spans_that_end_on_the_loop_are_written_in_batches() -> None:
    async with faulty_storage() as (storage, backend):
        async with MastraSpanExporter(storage, batch_size=100, delay=60) as exporter:
            ended = end_spans(provider_of(SimpleSpanProcessor(exporter)), 250)
            assert backend.calls["write"] == 0
        assert await names(storage) == ended
        assert (exporter.saved, exporter.dropped, exporter.pending) == (250, 0, 0)
        assert backend.calls["write"] == 3


async def test_spans_of_many_threads_are_all_kept() -> None:
    async with open_storage("memory://") as storage:
        async with MastraSpanExporter(storage, batch_size=64, delay=0.01) as exporter:
            provider = provider_of(SimpleSpanProcessor(exporter))
            ended = await asyncio.gather(
                *[asyncio.to_thread(end_spans, provider, 200, f"{n}-") for n in range(8)]
            )
        assert await names(storage) == set().union(*ended)
        assert exporter.saved == 1600


async def test_the_batch_processor_works_too() -> None:
    async with open_storage("memory://") as storage, MastraSpanExporter(storage) as exporter:
        processor = BatchSpanProcessor(exporter, schedule_delay_millis=10)
        ended = end_spans(provider_of(processor), 50)
        assert await asyncio.to_thread(processor.force_flush)
        assert await asyncio.to_thread(exporter.force_flush)
        assert await names(storage) == ended
        ended |= end_spans(provider_of(processor), 50, "late")
        await asyncio.to_thread(processor.shutdown)  # waits for the loop, from another thread
        assert await names(storage) == ended


async def test_a_batch_processor_that_is_shut_down_on_the_loop_loses_nothing() -> None:
    async with open_storage("memory://") as storage:
        exporter = MastraSpanExporter(storage)
        provider = provider_of(BatchSpanProcessor(exporter))
        ended = end_spans(provider, 50)
        provider.shutdown()
        await exporter.aclose()
        assert await names(storage) == ended


async def test_a_few_spans_are_written_after_the_delay() -> None:
    written = asyncio.Event()

    def look(ops: object) -> bool:
        written.set()
        return False

    async with faulty_storage() as (storage, backend):
        backend.delay("write", seconds=0, matching=look)
        exporter = MastraSpanExporter(storage, delay=0.02)
        end_spans(provider_of(SimpleSpanProcessor(exporter)), 3)
        assert exporter.pending == 3
        async with asyncio.timeout(10):
            await written.wait()
        await exporter.aclose()


async def test_a_full_batch_does_not_wait_and_the_rest_does() -> None:
    written = asyncio.Event()

    def look(ops: object) -> bool:
        written.set()
        return False

    async with faulty_storage() as (storage, backend):
        backend.delay("write", seconds=0, matching=look)
        exporter = MastraSpanExporter(storage, batch_size=10, delay=60)
        exporter.export(some_spans(4))
        await asyncio.sleep(0.01)
        exporter.export(some_spans(6))
        async with asyncio.timeout(10):
            await written.wait()
        await exporter.flush()
        exporter.export(some_spans(4))
        await asyncio.sleep(0.1)
        assert backend.calls["write"] == 1
        await exporter.aclose()
        assert exporter.saved == 14


async def test_ending_a_span_does_not_wait_for_a_slow_storage() -> None:
    async with faulty_storage() as (storage, backend):
        backend.delay("write", seconds=0.3)
        exporter = MastraSpanExporter(storage, delay=0)
        provider = provider_of(SimpleSpanProcessor(exporter))
        end_spans(provider, 1)
        await asyncio.sleep(0.05)
        assert exporter.pending == 1
        end_spans(provider, 10, "meanwhile")
        assert exporter.pending == 11
        await exporter.aclose()
        assert exporter.saved == 11


async def test_what_finds_no_room_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with open_storage("memory://") as storage:
        exporter = MastraSpanExporter(storage, max_queue=10)
        assert exporter.export(some_spans(8)) is SpanExportResult.SUCCESS
        assert exporter.export(some_spans(8, secret="key")) is SpanExportResult.FAILURE
        assert exporter.export(some_spans(1)) is SpanExportResult.FAILURE
        assert (exporter.pending, exporter.dropped) == (10, 7)
        await exporter.aclose()
        assert (exporter.saved, exporter.dropped, exporter.pending) == (10, 7, 0)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("mastra_storage.opentelemetry", logging.WARNING)
    assert "6 were not kept so far" in record.getMessage()


async def test_the_queue_bounds_what_is_being_written_too() -> None:
    async with faulty_storage() as (storage, backend):
        backend.delay("write", seconds=0.1)
        async with MastraSpanExporter(storage, max_queue=10, batch_size=10) as exporter:
            exporter.export(some_spans(10))
            await asyncio.sleep(0.03)
            assert backend.calls["write"] == 1
            assert exporter.export(some_spans(1)) is SpanExportResult.FAILURE
        assert (exporter.saved, exporter.dropped) == (10, 1)


async def test_a_write_that_may_succeed_later_is_tried_again() -> None:
    async with faulty_storage() as (storage, backend):
        backend.fail("write", times=2)
        backend.fail("write", nth=3, after=True)
        async with MastraSpanExporter(storage) as exporter:
            exporter.export(some_spans(3))
        assert await names(storage) == {"s0", "s1", "s2"}
        assert (exporter.saved, exporter.dropped, backend.calls["write"]) == (3, 0, 4)


async def test_a_service_that_asks_to_slow_down_gets_its_time() -> None:
    async with faulty_storage() as (storage, backend):
        backend.fail("write", error=RateLimitedError("slow down", retry_after=0.7))
        async with MastraSpanExporter(storage) as exporter:
            exporter.export(some_spans(3))
            started = time.monotonic()
            await exporter.flush()
            assert time.monotonic() - started >= 0.7
            assert exporter.saved == 3


async def test_attempts_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    async with faulty_storage() as (storage, backend):
        backend.fail("write", times=2)
        async with MastraSpanExporter(storage, attempts=2, batch_size=3) as exporter:
            exporter.export(some_spans(4, secret="key"))
        assert backend.calls["write"] == 3
        assert (exporter.saved, exporter.dropped) == (1, 3)
    [record] = caplog.records
    assert "3 spans were not kept" in record.getMessage()
    assert "key" not in record.getMessage()


async def test_a_refused_key_is_not_tried_again() -> None:
    async with faulty_storage() as (storage, backend):
        backend.fail("write", error=AuthenticationError("no"))
        async with MastraSpanExporter(storage) as exporter:
            exporter.export(some_spans(2))
        assert (exporter.saved, exporter.dropped, backend.calls["write"]) == (0, 2, 1)


def holds(text: str) -> Any:
    return lambda ops: any(text.encode() in op.row.value for op in ops)


async def test_one_span_that_is_refused_costs_no_other() -> None:
    async with faulty_storage() as (storage, backend):
        refused = TooLargeError("the record is too large")
        backend.fail("write", error=refused, times=99, matching=holds('"s5"'))
        async with MastraSpanExporter(storage) as exporter:
            exporter.export(some_spans(16))
        assert await names(storage) == {f"s{n}" for n in range(16)} - {"s5"}
        assert (exporter.saved, exporter.dropped) == (15, 1)


async def test_a_span_that_is_too_large_is_kept_shortened() -> None:
    async with open_storage("memory://") as storage:
        backend = storage.backend
        assert isinstance(backend, MemoryBackend)
        backend.capabilities = type(backend.capabilities)(max_record_bytes=30_000)
        async with MastraSpanExporter(storage) as exporter:
            exporter.export(some_spans(2, prompt="x" * 50_000, model="small"))
        traces = await storage.get_traces()
        assert exporter.saved == len(traces.items) == 2
        for trace in traces:
            assert trace.attributes["model"] == "small"
            assert trace.attributes["prompt"] == "x" * 20_000 + " … 30,000 characters more"
            assert trace.properties["shortened"] == ["prompt"]


LONG = "x" * 1_000_000


def long_attribute(tracer: Tracer) -> None:
    tracer.start_span("a", attributes={"part": LONG}).end()


def long_error(tracer: Tracer) -> None:
    with suppress(ValueError), tracer.start_as_current_span("a"):
        raise ValueError(LONG)


def long_link(tracer: Tracer) -> None:
    link = Link(SpanContext(1, 1, is_remote=False), {"part": LONG})
    tracer.start_span("a", links=[link]).end()


def long_name(tracer: Tracer) -> None:
    tracer.start_span(f"a{LONG}").end()


def many_events(tracer: Tracer) -> None:
    span = tracer.start_span("a")
    for _ in range(128):
        span.add_event("e", {f"k{n}": "z" * 100 for n in range(100)})
    span.end()


@pytest.mark.parametrize(
    ("end", "resource", "shortened"),
    [
        (long_attribute, {}, ["part"]),
        (long_error, {}, ["exception.message", "exception.stacktrace", "message"]),
        (long_link, {}, ["part"]),
        (long_name, {}, ["name"]),
        (many_events, {}, []),
        (long_attribute, {"build": LONG}, ["build", "part"]),
    ],
)
async def test_whatever_is_long_in_a_span_it_is_kept(
    end: Callable[[Tracer], None], resource: dict[str, str], shortened: list[str]
) -> None:
    async with open_storage("memory://") as storage:
        backend = storage.backend
        assert isinstance(backend, MemoryBackend)
        backend.capabilities = type(backend.capabilities)(max_record_bytes=900_000)
        async with MastraSpanExporter(storage) as exporter:
            provider = TracerProvider(resource=Resource(resource), shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            end(provider.get_tracer("t"))
        [trace] = await storage.get_traces()
        assert (exporter.saved, exporter.dropped) == (1, 0)
        assert trace.name[0] == "a"
        assert trace.properties["shortened"] == shortened
        if end is many_events:
            assert len(trace.events) == 10
            assert trace.properties["dropped"]["events"] == 118


async def test_one_span_that_nothing_can_be_made_of_costs_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nested: Any = {}
    for _ in range(100_000):
        nested = {"a": nested}
    [odd] = some_spans(1, deep="1")
    odd._attributes = {"deep": nested}
    async with open_storage("memory://") as storage:
        async with MastraSpanExporter(storage) as exporter:
            assert exporter.export([*some_spans(2), odd]) is SpanExportResult.FAILURE
        assert (exporter.saved, exporter.dropped) == (2, 1)
    assert "a span was not kept: no record can be made of it (RecursionError)" in caplog.text


async def test_a_span_of_a_time_that_cannot_be_is_kept() -> None:
    async with open_storage("memory://") as storage:
        async with MastraSpanExporter(storage) as exporter:
            for start in (10**21, -(10**21)):
                exporter.export([ReadableSpan("odd", start_time=start, end_time=10**30)])
        assert {trace.started_at.year for trace in await storage.get_traces()} == {1, 9999}


def test_a_loop_that_does_not_run_is_not_waited_for() -> None:
    async def opened() -> tuple[Storage, MastraSpanExporter]:
        storage = open_storage("memory://")
        await storage.open()
        exporter = MastraSpanExporter(storage)
        exporter.export(some_spans(1))
        return storage, exporter

    loop = asyncio.new_event_loop()
    storage, exporter = loop.run_until_complete(opened())
    began = time.monotonic()
    assert not exporter.force_flush()
    exporter.shutdown()
    assert time.monotonic() - began < 10
    loop.run_until_complete(exporter.aclose())
    assert exporter.saved == 1
    loop.run_until_complete(storage.close())
    loop.close()


async def test_force_flush_waits_on_other_threads_and_never_on_the_loops_own() -> None:
    async with faulty_storage() as (storage, backend):
        exporter = MastraSpanExporter(storage, delay=60)
        assert exporter.force_flush()  # there is nothing to write
        exporter.export(some_spans(2))
        assert not exporter.force_flush()
        await exporter.flush()
        exporter.export(some_spans(2))
        assert await asyncio.to_thread(exporter.force_flush, 10_000)
        assert exporter.saved == 4
        backend.delay("write", seconds=0.3)
        exporter.export(some_spans(2))
        assert not await asyncio.to_thread(exporter.force_flush, 20)
        await asyncio.sleep(0.01)
        waiting = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert "MastraSpanExporter._write_all" in waiting
        assert "MastraSpanExporter.flush" not in waiting
        await exporter.flush()  # giving up the waiting did not give up the writing
        assert exporter.saved == 6


async def test_flush_waits_only_for_what_was_exported_before() -> None:
    async with faulty_storage() as (storage, backend):
        backend.delay("write", seconds=0.02, times=1000)
        exporter = MastraSpanExporter(storage, batch_size=1, delay=0)
        exporter.export(some_spans(3))
        flushing = asyncio.create_task(exporter.flush())
        other = asyncio.create_task(exporter.flush())
        await asyncio.sleep(0)
        exporter.export(some_spans(50))
        await asyncio.gather(flushing, other)
        assert 3 <= exporter.saved < 50
        await exporter.aclose()


async def test_nothing_is_taken_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async with open_storage("memory://") as storage:
        exporter = MastraSpanExporter(storage)
        exporter.export(some_spans(2))
        exporter.shutdown()
        exporter.shutdown()
        assert exporter.export(some_spans(1)) is SpanExportResult.FAILURE
        await exporter.aclose()
        await exporter.aclose()
        assert (exporter.saved, exporter.dropped) == (2, 1)
    assert "closed" in caplog.text


async def test_a_storage_that_is_closed_too_early_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with open_storage("memory://") as storage:
        exporter = MastraSpanExporter(storage)
        exporter.export(some_spans(2))
    await exporter.aclose()
    assert exporter.dropped == 2
    assert "the storage is not open" in caplog.text


async def test_what_was_being_written_when_all_tasks_were_cancelled_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with faulty_storage() as (storage, backend):
        exporter = MastraSpanExporter(storage, delay=0, batch_size=2)
        backend.cancel("write")
        exporter.export(some_spans(5))
        await exporter.flush()
        assert (exporter.saved, exporter.dropped, exporter.pending) == (0, 5, 0)
        exporter.export(some_spans(1))
        await exporter.aclose()
        assert exporter.saved == 1
    assert "2 spans were not kept: the writer was stopped" in caplog.text
    assert "3 spans were not kept" in caplog.text


async def test_a_bug_in_a_backend_is_seen_and_costs_one_batch() -> None:
    seen: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))
    async with faulty_storage() as (storage, backend):
        backend.fail("write", error=ZeroDivisionError())
        async with MastraSpanExporter(storage, batch_size=2) as exporter:
            exporter.export(some_spans(5))
        assert (exporter.saved, exporter.dropped) == (3, 2)
    await asyncio.sleep(0)
    assert [type(error) for error in seen] == [ZeroDivisionError]


def test_a_loop_that_has_ended_takes_no_spans(caplog: pytest.LogCaptureFixture) -> None:
    async def make() -> tuple[Storage, MastraSpanExporter]:
        storage = open_storage("memory://")
        await storage.open()
        return storage, MastraSpanExporter(storage)

    _, exporter = asyncio.run(make())
    assert exporter.export(some_spans(2)) is SpanExportResult.FAILURE
    assert exporter.dropped == 2
    assert "the event loop has ended" in caplog.text
    exporter.shutdown()
    assert exporter.force_flush()


def test_spans_left_when_the_loop_ends_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def forget_to_close() -> MastraSpanExporter:
        async with open_storage("memory://") as storage:
            exporter = MastraSpanExporter(storage)
            exporter.export(some_spans(2))
            return exporter

    exporter = asyncio.run(forget_to_close())
    assert (exporter.dropped, exporter.pending) == (2, 0)
    assert "2 spans were not kept" in caplog.text


def test_spans_of_a_loop_that_never_ran_again_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    exporter = MastraSpanExporter(open_storage("memory://"), loop=loop)
    assert exporter.export(some_spans(2)) is SpanExportResult.SUCCESS
    loop.close()
    exporter.shutdown()
    assert (exporter.dropped, exporter.pending) == (2, 0)
    assert "the event loop has ended" in caplog.text


async def test_it_can_be_made_elsewhere_with_the_loop() -> None:
    loop = asyncio.get_running_loop()
    async with open_storage("memory://") as storage:
        exporter = await asyncio.to_thread(MastraSpanExporter, storage, loop=loop)
        ended = await asyncio.to_thread(end_spans, provider_of(SimpleSpanProcessor(exporter)), 3)
        await exporter.aclose()
        assert await names(storage) == ended


def test_without_a_loop_it_says_what_to_do() -> None:
    storage = open_storage("memory://")
    with pytest.raises(InvalidArgumentError, match="give its `loop`"):
        MastraSpanExporter(storage)


@pytest.mark.parametrize(
    "options", [{"max_queue": 0}, {"batch_size": 0}, {"attempts": 0}, {"delay": -1}]
)
async def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    async with open_storage("memory://") as storage:
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            MastraSpanExporter(storage, **options)


async def test_writing_spans_makes_no_spans() -> None:
    suppressed: list[object] = []

    def look(ops: object) -> bool:
        suppressed.append(get_value(_SUPPRESS_INSTRUMENTATION_KEY))
        return True

    async with faulty_storage() as (storage, backend):
        backend.delay("write", seconds=0, matching=look)
        async with MastraSpanExporter(storage) as exporter:
            exporter.export(some_spans(1))
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None
    assert suppressed == [True]


async def test_export_is_quick_while_the_loop_is_busy() -> None:
    async with open_storage("memory://") as storage:
        exporter = MastraSpanExporter(storage)
        spans = some_spans(10)
        results: list[float] = []

        def measure() -> None:
            start = time.monotonic()
            exporter.export(spans)
            results.append(time.monotonic() - start)

        thread = threading.Thread(target=measure)
        thread.start()
        thread.join(10)  # the loop is blocked meanwhile
        assert len(results) == 1
        await exporter.aclose()
        assert exporter.saved == 10


async def test_a_forked_process_takes_no_spans_and_leaves_the_parents() -> None:
    script = """
import asyncio, os, signal
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from mastra_storage import open_storage
from mastra_storage_opentelemetry import MastraSpanExporter

async def main():
    async with open_storage("memory://") as storage, MastraSpanExporter(storage) as exporter:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.get_tracer("x").start_span("before").end()
        exporter._queue._lock.acquire()  # as another thread may hold it
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # not for ever, if it waits for the lock
            provider.get_tracer("x").start_span("in the child").end()
            provider.shutdown()
            os._exit(0 if (exporter.dropped, exporter.pending) == (1, 0) else 1)
        exporter._queue._lock.release()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        await exporter.flush()
        print(exporter.saved, exporter.dropped)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 60)
    assert out == b"0\n1 0\n", errors.decode()
    assert b"full or closed; 1 were not kept" in errors


def test_a_loop_that_ends_while_a_thread_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    class Watched(MastraSpanExporter):
        async def flush(self) -> None:
            flushing.set()
            await super().flush()

    flushing = asyncio.Event()

    async def end_meanwhile() -> tuple[MastraSpanExporter, Future[bool]]:
        async with faulty_storage() as (storage, backend):
            backend.delay("write", seconds=60)
            exporter = Watched(storage, delay=0)
            exporter.export(some_spans(2))
            flushed = pool.submit(exporter.force_flush)
            async with asyncio.timeout(10):
                await flushing.wait()
            return exporter, flushed

    with ThreadPoolExecutor(1) as pool:
        exporter, flushed = asyncio.run(end_meanwhile())
        assert flushed.result(10) is False
    assert (exporter.saved, exporter.dropped, exporter.pending) == (0, 2, 0)
    assert "2 spans were not kept" in caplog.text


def test_it_works_without_the_private_name_of_opentelemetry() -> None:
    script = """
import asyncio, opentelemetry.context, opentelemetry.sdk.trace.export
del opentelemetry.context._SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.trace import TracerProvider
from mastra_storage import open_storage
from mastra_storage_opentelemetry import MastraSpanExporter

async def main():
    async with open_storage("memory://") as storage:
        async with MastraSpanExporter(storage) as exporter:
            span = TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("s")
            span.end()
            exporter.export([span])
        print(exporter.saved)

asyncio.run(main())
"""
    command = [sys.executable, "-W", "error", "-c", script]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"1\n"
