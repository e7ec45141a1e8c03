"""The tests of the conformance kit, one module a domain."""

from __future__ import annotations

from mastra_storage.testing.suite.cancellation import CancellationTests
from mastra_storage.testing.suite.capabilities import CapabilityTests
from mastra_storage.testing.suite.concurrency import ConcurrencyTests
from mastra_storage.testing.suite.faults import FaultTests
from mastra_storage.testing.suite.includes import IncludeTests
from mastra_storage.testing.suite.live import LiveTests
from mastra_storage.testing.suite.machine import MachineTests
from mastra_storage.testing.suite.message_changes import MessageChangeTests
from mastra_storage.testing.suite.messages import MessageTests
from mastra_storage.testing.suite.paging import PagingTests
from mastra_storage.testing.suite.queries import QueryTests
from mastra_storage.testing.suite.records import EvalTests, ResourceTests, TraceTests
from mastra_storage.testing.suite.rows import RowTests
from mastra_storage.testing.suite.scale import ScaleTests
from mastra_storage.testing.suite.store import StoreTests
from mastra_storage.testing.suite.tables import TableTests
from mastra_storage.testing.suite.threads import ThreadTests
from mastra_storage.testing.suite.values import ValueTests
from mastra_storage.testing.suite.verbs import VerbTests
from mastra_storage.testing.suite.workflows import WorkflowTests

__all__ = ["StorageConformance"]


class StorageConformance(
    # pytest begins with the last: what all else stands on.
    MachineTests,
    ScaleTests,
    FaultTests,
    CancellationTests,
    RowTests,
    ConcurrencyTests,
    LiveTests,
    ValueTests,
    TableTests,
    ResourceTests,
    EvalTests,
    TraceTests,
    WorkflowTests,
    PagingTests,
    IncludeTests,
    MessageChangeTests,
    MessageTests,
    ThreadTests,
    CapabilityTests,
    QueryTests,
    VerbTests,
    StoreTests,
):
    """Every rule of the contract, as a test for one backend.

    A plugin's author subclasses it and gives one fixture:

        class TestMyBackend(StorageConformance):
            @pytest.fixture
            def make_backend(self, tmp_path):
                return lambda: MyBackend(tmp_path / "store")

    The fixture gives a function that makes an unopened backend. Each test must find an empty
    store; within a test, all backends made share its data. What a backend does not declare in
    its `capabilities` is skipped. Sizes and times (`time_limit`, `many`, `very_many`, `writers`,
    `eventually` …) are class attributes that a subclass may change.
    """
