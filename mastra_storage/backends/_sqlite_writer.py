"""The one thread that writes to a SQLite file, with group commit.

Writes that wait together are committed together, each in a savepoint of its own, so that one
that fails does not take the others along.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple, ParamSpec, TypeVar

from mastra_storage.backend import Op, Touch
from mastra_storage.backends._sqlite_errors import mapped
from mastra_storage.backends._sqlite_forks import identity
from mastra_storage.backends._sqlite_handover import Handover
from mastra_storage.backends._sqlite_locks import Patience, begin, patiently
from mastra_storage.backends._sqlite_migrations import check, migrate
from mastra_storage.backends._sqlite_transaction import TOUCH_AGAIN, Fit, LateTouch, Transaction
from mastra_storage.errors import UnavailableError
from mastra_storage.records import now, to_microseconds
from mastra_storage.schema import Key

P = ParamSpec("P")
T = TypeVar("T")

# How many ops are committed together at most, so that no caller waits for too many others.
_MAX_OPS = 20_000

# SQLite brings the log into the file within a commit, whose caller waits for it. Here that is done
# after the commit that makes about so many bytes of log. SQLite does it after so many pages, which
# several processes together may come to.
_LOG_BYTES = 4_000_000
_MOST_LOG_PAGES = 2_000
# What a commit logs beside its values, of one row.
_COMMIT_BYTES = 12_000


class Job(NamedTuple):
    """A write that waits, and whom to tell."""

    ops: Sequence[Op | Fit]
    done: asyncio.Future[None]


class Look(NamedTuple):
    """Somebody who asks for what others have committed."""

    done: asyncio.Future[int]


Wake = Callable[[Iterable[Op | Fit]], None]

Outcome = Exception | None

_log = logging.getLogger("mastra_storage.sqlite")


class Writer:
    """Commits writes in a thread of its own, on a connection that nobody else uses."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        patience: float,
        handover: Handover,
        wake: Wake,
    ) -> None:
        """`patience`: seconds to wait for a lock; `wake`: called on the loop after a commit."""
        self._connection = connection
        self._path = path
        self._patience = patience
        self._handover = handover
        self._wake = wake
        self._file = identity(path)
        self.at_work = False
        self._prepared = False
        self._logged = 0
        self._jobs: SimpleQueue[Job | Look | None] = SimpleQueue()
        self._late: dict[tuple[str, Key], LateTouch] = {}
        self._late_at = 0.0
        self._thread = threading.Thread(target=self._run, name="mastra-storage-writer", daemon=True)
        self._thread.start()

    def submit(self, ops: Sequence[Op | Fit]) -> asyncio.Future[None]:
        """Commit `ops` soon; the future is done when they are safe on disk."""
        done = asyncio.get_running_loop().create_future()
        self._jobs.put(Job(ops, done))
        return done

    def look(self) -> asyncio.Future[int]:
        """A number that changes with the commits of others, and of other connections here.

        It comes when the writer has done what it is at.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._jobs.put(Look(done))
        return done

    def stop(self) -> None:
        """Finish what was submitted, and end the thread. Blocks."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            jobs, looks, stopping = self._waiting()
            if looks:
                self._handover.call(_answer, looks, self._within(self._data_version))
            if jobs:
                self._handover.call(self._settle, jobs, self._within(self._commit, jobs))
                del jobs  # not to be kept alive until the next ones come
                if self._logged > _LOG_BYTES:
                    self._within(self._checkpoint)
            if self._late and (stopping or time.monotonic() >= self._late_at):
                self._within(self._commit_late, stopping)

    def _within(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what is within SQLite: `at_work` is true no longer than that.

        Whoever is told that a write is stored may fork at once.
        """
        self.at_work = True
        try:
            return work(*args, **kwargs)
        finally:
            self.at_work = False

    def _waiting(self) -> tuple[list[Job], list[Look], bool]:
        """What waits, or nothing when touches are due; and whether it is the end."""
        patience = max(0.0, self._late_at - time.monotonic()) if self._late else None
        jobs: list[Job] = []
        looks: list[Look] = []
        size = 0
        with suppress(Empty):
            job = self._jobs.get(timeout=patience)
            while job is not None:
                if isinstance(job, Look):
                    looks.append(job)
                elif not job.done.cancelled():  # else nobody wants it any more
                    jobs.append(job)
                    size += len(job.ops)
                if size >= _MAX_OPS:
                    return jobs, looks, False
                job = self._jobs.get_nowait()
            return jobs, looks, True
        return jobs, looks, False

    def _settle(self, jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> None:
        """Tell everybody who waits; on the loop."""
        for job, outcome in zip(jobs, outcomes, strict=True):
            if job.done.done():
                continue  # its caller was cancelled
            if outcome is None:
                job.done.set_result(None)
            else:
                job.done.set_exception(outcome)
        self._wake(
            op
            for job, outcome in zip(jobs, outcomes, strict=True)
            if outcome is None
            for op in job.ops
        )

    def _commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        # Behind a lock that is held, nothing waits for callers who were cancelled.
        patience = Patience(self._patience, lambda: not all(job.done.cancelled() for job in jobs))
        try:
            self._prepare(patience)
            begin(self._connection, patience)
        except Exception as exc:  # noqa: BLE001  (all of them go to the callers who wait)
            error = mapped(exc, self._path)
            # Each caller gets one of its own: errors are changed on their way up.
            return [_copied(error) for _ in jobs]
        try:
            outcomes: list[Outcome] = [None]
            transaction = Transaction(self._connection, to_microseconds(now()))
            if len(jobs) == 1:
                transaction.apply(jobs[0].ops)
            else:
                outcomes = [transaction.apply_apart(job.ops) for job in jobs]
            transaction.flush()
            self._check_file()
            self._connection.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001
            self._roll_back()
            if len(jobs) == 1:
                return [mapped(exc, self._path)]
            # One of them broke the whole transaction: find out which, each on its own.
            return [outcome for job in jobs for outcome in self._commit([job])]
        self._logged += _COMMIT_BYTES + transaction.size
        self._postpone(transaction.late)
        return outcomes

    def _postpone(self, touches: Sequence[LateTouch]) -> None:
        if touches and not self._late:
            self._late_at = time.monotonic() + TOUCH_AGAIN / 1e6
        for touch in touches:
            row = touch.layout.name, touch.key
            earlier = self._late.get(row)
            if earlier is None or earlier.at < touch.at:
                self._late[row] = touch

    def _commit_late(self, stopping: bool) -> None:
        """Write the touches that were postponed: `updated_at` may be late, but not lost."""
        try:
            begin(self._connection, Patience(self._patience))
            Transaction(self._connection, 0).write_late(self._late.values())
            self._connection.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001  (nobody waits; what is stored stays stored)
            self._roll_back()
            self._late_at = time.monotonic() + TOUCH_AGAIN / 1e6
            level = logging.WARNING if stopping else logging.DEBUG
            _log.log(
                level, "updated_at of %d threads: %s", len(self._late), mapped(exc, self._path)
            )
            return
        touched = [Touch(touch.layout.table, touch.key, touch.at) for touch in self._late.values()]
        self._late.clear()
        self._handover.call(self._wake, touched)

    def _data_version(self) -> int | Exception:
        try:
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as exc:
            return mapped(exc, self._path)
        return version

    def _checkpoint(self) -> None:
        """Bring what was committed from the log into the file, when its callers know already."""
        self._logged = 0
        try:
            row = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except Exception as exc:  # noqa: BLE001  (nobody waits; all of it is safe in the log)
            _log.debug("checkpoint: %r", mapped(exc, self._path))
            return
        busy, pages, done = row
        if busy or done < pages:  # somebody reads what was there before: soon again
            self._logged = _LOG_BYTES // 2

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _prepare(self, patience: Patience) -> None:
        """Before the first write: the way the file is written, and its tables."""
        if self._prepared:
            return
        if self._connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            patiently(self._connection, "PRAGMA journal_mode=WAL", patience)
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint={_MOST_LOG_PAGES}")
        if not check(self._connection):
            migrate(self._connection, patience)
        # From here on locks are waited for as `patiently` does.
        self._connection.execute("PRAGMA busy_timeout=0")
        self._prepared = True

    def _check_file(self) -> None:
        """Refuse to call a write stored that went into a file nobody will find again."""
        if identity(self._path) != self._file:
            raise UnavailableError(
                f"{self._path} was removed or replaced while it was open, or its directory cannot "
                "be read any more; close the store and open it again",
                retryable=False,
            )


def _answer(looks: Sequence[Look], version: int | Exception) -> None:
    """Tell those who asked; on the loop."""
    for look in looks:
        if look.done.done():
            continue  # nobody waits any more
        if isinstance(version, Exception):
            look.done.set_exception(_copied(version))
        else:
            look.done.set_result(version)


def _copied(error: Exception) -> Exception:
    copied = copy(error)
    copied.__cause__ = error.__cause__
    return copied
