"""Running the kit against a store that may hold other data, from a program rather than pytest."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from mastra_storage.backend import Backend, DeletePrefix, Put, Query
from mastra_storage.errors import InvalidArgumentError, UnavailableError
from mastra_storage.plugins import load_backend
from mastra_storage.schema import Row, Table
from mastra_storage.testing._limits import TookTooLongError, within
from mastra_storage.testing._waiting import settling, until
from mastra_storage.testing.isolation import IsolatedBackend, isolated, prefix_for_check

__all__ = ["OnResult", "run_kit", "writes_of_kit"]

OnResult = Callable[[str, str, str, float], None]

# Rows put or touched by a run on memory, which declares most and so skips least; rounded up.
# tests/test_kit.py counts them.
_QUICK_WRITES = 1_000
_FULL_WRITES = 23_000

TIME_LIMIT = 1_200.0
"""How many seconds one test may take, and clearing up behind it: a live store may be far away."""

_PROBE = Table(name="kit_probe", key=("id",))
_MODULE = Path(__file__).with_name("_store.py")


def writes_of_kit(*, full: bool) -> int:
    """About how many row writes `run_kit` makes; it deletes as many rows again."""
    return _FULL_WRITES if full else _QUICK_WRITES


def run_kit(url: str, *, full: bool = False, on_result: OnResult) -> int:
    """Check the store at `url` with the conformance kit; gives pytest's exit code.

    The kit works in tables of its own, whose names start with a random prefix, and empties them
    in the end, whatever happens. By default it leaves out the tests that write much or take
    long; `full` runs them all. `on_result` is called after each test with the rule that it
    tests, its outcome ("passed", "failed" or "skipped"), a detail (why it failed or was
    skipped) and the seconds it took.

    Raises a `StorageError` when the store cannot be used at all. Not to be called where an
    event loop is running.
    """
    store = _Store(url)
    _run(store.probe())
    with (
        TemporaryDirectory(prefix="mastra-storage-kit-") as directory,
        Path(os.devnull).open("w") as nowhere,
    ):
        set_hypothesis_home_dir(directory)
        configuration = Path(directory, "pytest.ini")
        configuration.write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        try:
            return int(
                pytest.main(
                    [
                        f"-c{configuration}",
                        f"--rootdir={directory}",
                        "--noconftest",
                        "--disable-plugin-autoload",
                        "-ppytest_asyncio.plugin",
                        "-pno:cacheprovider",
                        "-pno:faulthandler",
                        "--capture=no",
                        os.fspath(_MODULE),
                    ],
                    plugins=[_Run(store, full=full, on_result=on_result, report=nowhere)],
                )
            )
        finally:
            set_hypothesis_home_dir(None)
            _run(store.clear())


def _run(step: Awaitable[None]) -> None:
    """Run what is no test, and so fails as the store does."""
    try:
        asyncio.run(within(TIME_LIMIT, step))
    except TookTooLongError as exc:
        raise UnavailableError(f"the store does not answer: {exc}", operation="check") from exc


class _Store:
    """The store that is checked, as seen from tables of the kit's own."""

    def __init__(self, url: str) -> None:
        if not isinstance(url, str) or "://" not in url:
            raise InvalidArgumentError("a storage URL looks like sqlite:///agent.db")
        self._url = url
        self._backend = load_backend(url.split("://", 1)[0].lower())
        self._prefix = prefix_for_check()
        self._made: list[IsolatedBackend] = []
        self._kept = self.make()  # so that memory:// with a name lasts for the whole run

    def make(self) -> IsolatedBackend:
        """Another unopened backend of the store."""
        backend = isolated(self._backend.from_url(self._url), self._prefix)
        self._made.append(backend)
        return backend

    async def probe(self) -> None:
        """Raise when the store cannot be used, or is not one that two backends can share."""
        row = Row(table=_PROBE, key=("probe",), value=b"{}", order=0, seq=0, fields={}, updated=0)
        one, other = self.make(), self.make()
        try:
            await one.open()
            await other.open()
            await one.write([Put(row)])
            patience = max(settling(other), 1.0)  # strong reads may be untrue
            found = await until(lambda: other.get(_PROBE, [row.key]), any, patience)
        finally:
            await one.close()
            await other.close()
        await self.clear()
        if not any(found):
            raise InvalidArgumentError(
                "a second store of this URL does not see what the first one wrote, and much of "
                "the kit is about that; for memory, give it a name: memory://NAME",
                backend=self._kept.name,
                operation="check",
            )

    async def clear(self) -> None:
        """Delete all rows that the backends made so far have written."""
        made = len(self._made)
        tables = {table.name: table for backend in self._made for table in backend.written}
        if not tables:
            self._made.clear()
            return
        backend = self.make()
        try:
            await backend.open()
            await backend.write([DeletePrefix(table, ()) for table in tables.values()])
            for table in tables.values():
                query = Query(table=table, order_by="any", limit=1)
                await until(
                    lambda: backend.query(query),  # noqa: B023 - awaited before the next turn
                    lambda found: not found.rows,
                    settling(backend),
                )
        finally:
            await backend.close()
        # Only now: when this is interrupted, the last clearing has to do it.
        del self._made[: made + 1]


class _Run:
    """The pytest plugin of one run: the store, which tests to run, and their results."""

    def __init__(self, store: _Store, *, full: bool, on_result: OnResult, report: TextIO) -> None:
        self._store = store
        self._report = report
        self._full = full
        self._on_result = on_result
        self._rules: dict[str, str] = {}
        self._failed: pytest.TestReport | None = None
        self._skipped: pytest.TestReport | None = None
        self._seconds = 0.0

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Send what pytest itself reports elsewhere; it cannot explain an assert without it."""
        config.pluginmanager.unregister(name="terminalreporter")
        reporter = pytest.TerminalReporter(config, self._report)
        config.pluginmanager.register(reporter, "terminalreporter")

    @pytest.fixture
    def store_under_check(self) -> Iterator[Callable[[], Backend]]:
        yield self._store.make
        _run(self._store.clear())

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._full or not _is_full(item)]
        self._rules = {item.nodeid: _rule(item) for item in items}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._on_result("the kit can be loaded", "failed", report.longreprtext, 0.0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather the three phases of a test into one result."""
        if report.when == "setup":
            self._failed, self._skipped, self._seconds = None, None, 0.0
        self._seconds += report.duration
        if report.failed:
            self._failed = self._failed or report
        elif report.skipped:
            self._skipped = report
        if report.when != "teardown":
            return
        if self._failed is not None:
            outcome, detail = "failed", _why_failed(self._failed)
        elif self._skipped is not None:
            outcome, detail = "skipped", _why_skipped(self._skipped)
        else:
            outcome, detail = "passed", ""
        self._on_result(self._rules[report.nodeid], outcome, detail, self._seconds)


def _is_full(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and hasattr(item.function, "kit_full")


def _rule(item: pytest.Item) -> str:
    """A test's name as a sentence, behind the part of the kit it is in."""
    assert isinstance(item, pytest.Function)  # noqa: S101 - the kit has no other items
    part = item.function.__module__.rpartition(".")[2].replace("_", " ")
    name, _, parameters = item.name.removeprefix("test_").partition("[")
    sentence = name.replace("_", " ")
    return f"{part}: {sentence}" + (f" ({parameters.rstrip(']')})" if parameters else "")


def _why_failed(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return report.longreprtext if crash is None else str(crash.message)


def _why_skipped(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return reason.removeprefix("Skipped: ")
