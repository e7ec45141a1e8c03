"""Writes that wait become one mutation.

While a mutation is under way, those that come in wait and go out together in the next, each
with an outcome of its own: saves to one thread would otherwise conflict on its row. So load
makes mutations larger, and an idle store pays one request.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from copy import copy

from mastra_storage import (
    Op,
    PartialWriteError,
    Put,
    StorageError,
    TooLargeError,
    Touch,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage_convex._answers import DEPLOY, FunctionFailedError, TransactionTooLargeError
from mastra_storage_convex.client import Client
from mastra_storage_convex.ops import BusyError, EncodedOp, encoded, failure_of, subject
from mastra_storage_convex.wire import Outcome, Outcomes

MAX_OPS = 2_000
"""How many ops one mutation takes."""

# How many bytes of merged calls one mutation takes, of a call that goes alone, and of each part
# of a call that is too large for that.
_MERGED_BYTES = 4 * 2**20
_ALONE_BYTES = 15 * 2**20
_PART_BYTES = 4 * 2**20
# So few ops, if they are not large, are never too much for a transaction.
_FEW_OPS = 100
# How many touches each part of a call repeats, at most.
_REPEATED_TOUCHES = 1_000
# How long a write waits that found too many deletions under way, in seconds.
_BUSY_PAUSE = 0.25
# How many ops are encoded before others may run.
_OPS_AT_ONCE = 500


class Writer:
    """The writes of a store: one mutation at a time, the next one gathering meanwhile."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[_Call] = deque()
        self._taken: list[_Call] = []
        self._running: asyncio.Task[None] | None = None
        self._name = (0, b"")
        self._number = 0

    async def write(self, ops: Sequence[Op]) -> None:
        """Carry out ops: all or none while they fit one transaction, else in parts, in order.

        A caller that is cancelled leaves the others unharmed, and its ops done wholly or not.
        """
        found = []
        for number, op in enumerate(ops, 1):
            found.append(encoded(op))
            if number % _OPS_AT_ONCE == 0:
                await asyncio.sleep(0)
        timeout = self._client.settings.timeout
        until = asyncio.get_running_loop().time() + timeout
        while True:
            try:
                await self._done(_Call(found, timeout))
            except BusyError:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(_BUSY_PAUSE)
            else:
                return

    async def close(self) -> None:
        """Wait for the writes that were begun."""
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])

    def _done(self, call: _Call) -> asyncio.Future[None]:
        self._waiting.append(call)
        if self._running is None or self._running.done():
            self._start()
        return call.done

    def _start(self) -> None:
        # Not by the loop, which may be told to run tasks at once: others are to join them.
        self._running = asyncio.Task(self._run())
        self._running.add_done_callback(self._end)

    async def _run(self) -> None:
        while calls := self._take():
            self._taken = calls
            await self._send(calls)

    def _end(self, task: asyncio.Task[None]) -> None:
        """See to it that nobody waits for ever, when the task that was to write is over."""
        error: BaseException | None
        if task.cancelled():
            error = UnavailableError("the task that was at it was cancelled; try again")
        else:
            error = task.exception()
        if error is not None:
            for call in self._taken:
                call.settle(error)
            if self._waiting and self._running is task:  # some came when it was cancelled already
                self._start()
        self._taken = []

    def _take(self) -> list[_Call]:
        """The calls of the next mutation: those that wait, as far as they fit."""
        taken: list[_Call] = []
        ops = size = 0
        while self._waiting:
            call = self._waiting[0]
            if call.until < asyncio.get_running_loop().time():
                call.settle(_too_late(self._client.settings.timeout))
            if not call.done.done():  # nor cancelled, while it waited
                ops, size = ops + len(call.ops), size + call.size
                if taken and (ops > MAX_OPS or size > _MERGED_BYTES):
                    break
                taken.append(call)
            self._waiting.popleft()
        return taken

    async def _send(self, calls: list[_Call]) -> None:
        """Carry out calls, and tell those who wait what became of them."""
        if len(calls) == 1 and (len(calls[0].ops) > MAX_OPS or calls[0].size > _ALONE_BYTES):
            await self._send_parts(calls[0])
            return
        [found] = await asyncio.gather(
            self._mutate([call.ops for call in calls]), return_exceptions=True
        )
        if not isinstance(found, BaseException):
            for call, outcome in zip(calls, found, strict=False):
                failure = failure_of(outcome, call.ops)
                if isinstance(failure, TransactionTooLargeError):
                    await self._send_parts(call)
                else:
                    call.settle(failure)
            self._waiting.extendleft(reversed(calls[len(found) :]))
        elif len(calls) > 1 and _may_be_of_one(found):
            half = len(calls) // 2
            await self._send(calls[:half])
            await self._send(calls[half:])
        elif len(calls) == 1 and _may_be_too_much(found, calls[0].ops):
            await self._send_parts(calls[0], found)
        else:
            for call in calls:
                call.settle(found)

    async def _send_parts(self, call: _Call, reason: BaseException | None = None) -> None:
        """Carry out a call that is more than a transaction may be, one part after the other.

        `reason`: why it failed as a whole, which is told if its first part does no better.
        """
        touches, parts = _parts(call.ops)
        begun = False
        while parts:
            part = parts.popleft()
            ops = [*touches, *part]
            [found] = await asyncio.gather(self._mutate([ops]), return_exceptions=True)
            failure = found if isinstance(found, BaseException) else failure_of(found[0], ops)
            if _may_be_too_much(failure, part):
                reason = reason or failure
                half = len(part) // 2
                parts.extendleft((part[half:], part[:half]))
                continue
            if isinstance(failure, BusyError) and asyncio.get_running_loop().time() < call.until:
                await asyncio.sleep(_BUSY_PAUSE)
                parts.appendleft(part)
                continue
            if failure is not None:
                failed = [op for ops in (part, *parts) for op in ops]
                if begun:
                    failure = _partial(call, failed, failure)
                elif isinstance(failure, FunctionFailedError):
                    failure = reason or failure
                call.settle(failure)
                return
            begun = True
        call.settle(None)

    async def _mutate(self, calls: Sequence[Sequence[EncodedOp]]) -> list[Outcome]:
        """One mutation; outcomes of the first calls, as many as fitted, at least of one."""
        json = b",".join([b'{"ops":[%b]}' % b",".join([op.json for op in ops]) for ops in calls])
        if self._name[0] != os.getpid():  # a process that was forked is another store
            self._name = (os.getpid(), os.urandom(16).hex().encode())
        self._number += 1
        arguments = b'{"calls":[%b],"store":"%b","number":%d}' % (
            json,
            self._name[1],
            self._number,
        )
        found: Outcomes = await self._client.mutate("system:write", arguments, Outcomes)
        if not 0 < len(found.outcomes) <= len(calls):
            raise UnsupportedError(f"system:write gives outcomes of other calls; {DEPLOY}")
        return found.outcomes


class _Call:
    """A call of `write`, until it is done."""

    def __init__(self, ops: list[EncodedOp], timeout: float) -> None:
        self.ops = ops
        self.until = asyncio.get_running_loop().time() + timeout
        self.size = sum(len(op.json) for op in ops)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, failure: BaseException | None) -> None:
        """Let the caller go on, if it still waits, or have an error of its own."""
        if self.done.done():
            return
        if failure is None:
            self.done.set_result(None)
        elif isinstance(failure, asyncio.CancelledError):
            self.done.cancel()
        else:
            own = copy(failure) if isinstance(failure, StorageError) else failure
            if own is not failure:
                own.__cause__ = failure
            self.done.set_exception(own)


def _too_late(seconds: float) -> UnavailableError:
    return UnavailableError(
        f"the writes before this one took {seconds:g} seconds, and it was not carried out; "
        "try again later"
    )


def _may_be_of_one(failure: BaseException) -> bool:
    """Whether a mutation may have failed by one of its calls, which shall not fail the others."""
    return type(failure) is StorageError or isinstance(failure, FunctionFailedError | TooLargeError)


def _may_be_too_much(failure: BaseException | None, ops: Sequence[EncodedOp]) -> bool:
    """Whether a mutation with these ops may have failed because they were too many.

    Production deployments do not say that they were, so that large writes which failed for no
    known reason are tried in parts too; small ones stay whole.
    """
    if isinstance(failure, FunctionFailedError):
        return len(ops) > _FEW_OPS or (len(ops) > 1 and sum(len(op.json) for op in ops) > 2**20)
    return isinstance(failure, TransactionTooLargeError) and len(ops) > 1


def _parts(ops: Sequence[EncodedOp]) -> tuple[list[EncodedOp], deque[list[EncodedOp]]]:
    """Touches that each part begins with, and the parts that a mutation takes, in their order.

    Touches come first, so that one that cannot be fails before anything happened, and again with
    each part, since a thread may be deleted between two; so many that they fill a part come
    once. Those of rows that are put by the same call keep their place.
    """
    put = {subject(op.op) for op in ops if isinstance(op.op, Put)}
    touches: list[EncodedOp] = []
    others: list[EncodedOp] = []
    for op in ops:
        early = isinstance(op.op, Touch) and subject(op.op) not in put
        (touches if early else others).append(op)
    if len(touches) > _REPEATED_TOUCHES or not others:
        touches, others = [], touches + others
    parts = deque([[others[0]]])
    room = _PART_BYTES - sum(len(op.json) for op in touches)
    size = len(others[0].json)
    for op in others[1:]:
        size += len(op.json)
        if len(parts[-1]) + len(touches) == MAX_OPS or size > room:
            parts.append([])
            size = len(op.json)
        parts[-1].append(op)
    return touches, parts


def _partial(call: _Call, failed: Sequence[EncodedOp], failure: BaseException) -> BaseException:
    """The error of a call of which a part was stored."""
    if not isinstance(failure, StorageError):
        return failure
    error = PartialWriteError(
        f"this write is too large for one transaction of Convex, and {len(failed)} of its "
        f"{len(call.ops)} changes were not stored ({failure.message}); try again",
        failed=[subject(op.op) for op in failed],
    )
    error.__cause__ = failure
    return error
