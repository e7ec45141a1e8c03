"""The exporter: spans in on any thread, traces out on the event loop of the storage."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import opentelemetry.context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from mastra_storage import InvalidArgumentError, Storage, Trace
from mastra_storage_opentelemetry._queue import Queue
from mastra_storage_opentelemetry._writer import Writer
from mastra_storage_opentelemetry.mapping import RUN_ID, THREAD_ID, trace_of

# At most one line about a full queue in so many seconds.
_BETWEEN_WARNINGS: Final = 10.0
_SHUTDOWN_MILLIS: Final = 30_000
# OpenTelemetry has no public name for it; without it, writing spans may make spans.
_SUPPRESS_KEY: Final = getattr(opentelemetry.context, "_SUPPRESS_INSTRUMENTATION_KEY", None)


class MastraSpanExporter(SpanExporter):
    """Keeps finished spans as `Trace` records, without the agent ever waiting for it.

        async with open_storage("sqlite:///agent.db") as storage:
            async with MastraSpanExporter(storage) as exporter:
                provider = TracerProvider()
                provider.add_span_processor(SimpleSpanProcessor(exporter))
                ...

    It belongs to the event loop that it is made in, the one that the storage was opened in;
    `loop` names it when it is made elsewhere. Spans may end on any thread. `export` puts them
    into a queue and returns; a task of the loop writes them, up to `batch_size` at once and
    `delay` seconds after the first. So `SimpleSpanProcessor` is all it needs, and a
    `BatchSpanProcessor` works too. `thread_id` and `run_id` are the names of the
    attributes that tell thread and run, the first that a span has counts.

    Nothing is lost without a word: a span that finds `max_queue` others waiting, that the storage
    refuses, or that could not be written in `attempts` attempts counts in `dropped`, and the
    logger `mastra_storage.opentelemetry` has a line about it. One that is too large for the store
    is kept with what is long cut, and `properties["shortened"]` names that.

    A process that is forked off has no loop: there, spans are dropped. Make an exporter anew in it.

    Leaving `async with`, or `aclose()`, writes what waits; do so before the storage is closed.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        max_queue: int = 4096,
        batch_size: int = 256,
        delay: float = 0.5,
        attempts: int = 5,
        thread_id: Sequence[str] = THREAD_ID,
        run_id: Sequence[str] = RUN_ID,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        for name, value in (
            ("max_queue", max_queue),
            ("batch_size", batch_size),
            ("attempts", attempts),
        ):
            if value < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, not {value}")
        if delay < 0:
            raise InvalidArgumentError(f"delay is in seconds and cannot be {delay}")
        loop = loop or _running_loop()
        if loop is None:
            raise InvalidArgumentError(
                "no event loop is running here: make the exporter in the coroutine that opened "
                "the storage, or give its `loop`"
            )
        self._loop = loop
        self._queue = Queue(max_queue)
        self._process = os.getpid()
        self._writer = Writer(storage, self._queue, attempts=attempts)
        self._batch_size = batch_size
        self._delay = delay
        self._thread_id = tuple(thread_id)
        self._run_id = tuple(run_id)
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._settled = asyncio.Event()
        self._warned = float("-inf")
        self._log = logging.getLogger("mastra_storage.opentelemetry")

    @property
    def saved(self) -> int:
        """How many spans are in the storage."""
        return self._queue.saved

    @property
    def dropped(self) -> int:
        """How many spans were not kept, for whatever reason."""
        return self._queue.dropped

    @property
    def pending(self) -> int:
        """How many spans wait, or are being written."""
        return self._queue.pending

    # -- what the SDK calls, on any thread -------------------------------------------------

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Take finished spans; neither blocks nor waits. `FAILURE` when some were dropped."""
        self._leave_to_parent()
        traces = self._mapped(spans)
        taken = self._queue.offer(traces)
        if taken and not self._wake():
            self._give_up()
            return SpanExportResult.FAILURE
        if taken < len(traces):
            self._warn()
        return SpanExportResult.SUCCESS if taken == len(spans) else SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until all that was exported is kept (or dropped), at most so long.

        On the loop's own thread it cannot wait: it has the writing begin at once, and gives
        whether there was nothing to write. There, `await exporter.flush()`.
        """
        self._leave_to_parent()
        if not self.pending:
            return True
        if _running_loop() is self._loop:
            self._start()
            self._hurry.set()
            return False
        if self._loop.is_closed():
            self._give_up()
            return False
        if not self._loop.is_running():  # nobody knows whether it ever will be
            return False
        flushing = asyncio.run_coroutine_threadsafe(self.flush(), self._loop)
        try:
            flushing.result(timeout_millis / 1e3)
        except FutureTimeoutError:
            flushing.cancel()
            return False
        except FutureCancelledError:  # the loop is being closed
            return False
        return True

    def shutdown(self) -> None:
        """Take no more spans, and write those that wait, for at most 30 seconds.

        On the loop's own thread it returns at once: `await exporter.aclose()` waits.
        """
        self._leave_to_parent()
        self._queue.close()
        if not self.force_flush(_SHUTDOWN_MILLIS) and _running_loop() is not self._loop:
            self._log.warning("%d spans still wait to be kept", self.pending)

    # -- what agents call, on the loop -----------------------------------------------------

    async def flush(self) -> None:
        """Return when every span exported before is kept, or counted in `dropped`."""
        target = self._queue.accepted
        while self._queue.settled < target:
            self._start()
            self._hurry.set()
            self._settled.clear()
            await self._settled.wait()

    async def aclose(self) -> None:
        """Take no more spans, and return when those that wait are kept or dropped."""
        self._queue.close()
        await self.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- on the loop -----------------------------------------------------------------------

    def _start(self) -> None:
        """Have the writing task run, if there is something to write."""
        if self._queue.waiting >= self._batch_size:
            self._hurry.set()
        if self._task is None and self._queue.waiting:
            self._task = self._loop.create_task(self._write_all(), context=_untraced())
            self._task.add_done_callback(self._ended)

    async def _write_all(self) -> None:
        """Write batch by batch until the queue is empty."""
        while self._queue.waiting:
            if self._queue.waiting < self._batch_size:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._delay):
                        await self._hurry.wait()
            if self._queue.waiting <= self._batch_size:
                self._hurry.clear()
            try:
                await self._writer.write(self._queue.take(self._batch_size))
            finally:
                self._settled.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():  # the loop is being closed
            self._give_up()
            self._settled.set()
        else:
            self._start()  # what came in the last moment, or is left behind a failure

    # -- anywhere --------------------------------------------------------------------------

    def _mapped(self, spans: Sequence[ReadableSpan]) -> list[Trace]:
        """The records of spans; one that holds what no span does costs no other."""
        traces: list[Trace] = []
        for span in spans:
            try:
                traces.append(trace_of(span, thread_id=self._thread_id, run_id=self._run_id))
            except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as exc:
                self._queue.refuse(1)
                # Not its text, which may have content in it.
                self._log.warning(
                    "a span was not kept: no record can be made of it (%s)", type(exc).__name__
                )
        return traces

    def _leave_to_parent(self) -> None:
        """In a forked process, begin with a queue that is closed: the parent writes what waits.

        The loop's thread was not forked, and the old queue's lock may be held for ever.
        """
        if os.getpid() != self._process:
            self._process = os.getpid()
            self._queue = Queue(1)
            self._queue.close()
            self._warned = float("-inf")

    def _wake(self) -> bool:
        """Have the loop see that something waits; `False` when the loop is closed."""
        if _running_loop() is self._loop:
            self._start()
            return True
        try:
            self._loop.call_soon_threadsafe(self._start)
        except RuntimeError:  # so asyncio says that a loop is closed
            return False
        return True

    def _give_up(self) -> None:
        """Drop what waits: there is no loop any more to write it."""
        lost = self._queue.take(self._queue.waiting)
        self._queue.settle(dropped=len(lost))
        if lost:
            self._log.warning("%d spans were not kept: the event loop has ended", len(lost))

    def _warn(self) -> None:
        """A line about spans that found no room, unless there was one just now."""
        if time.monotonic() - self._warned >= _BETWEEN_WARNINGS:
            self._warned = time.monotonic()
            self._log.warning(
                "the queue of spans is full or closed; %d were not kept so far", self.dropped
            )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _untraced() -> contextvars.Context:
    """A context in which instrumented libraries make no spans: writing spans makes none."""
    context = contextvars.Context()
    if _SUPPRESS_KEY is not None:
        suppressed = opentelemetry.context.set_value(_SUPPRESS_KEY, True)
        context.run(opentelemetry.context.attach, suppressed)
    return context
