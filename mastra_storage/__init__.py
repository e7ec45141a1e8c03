"""Async storage for agent runtimes: threads, messages, workflow runs, traces, evals, memory.

from mastra_storage import Message, Thread, open_storage

async with open_storage("sqlite:///agent.db") as storage:
    await storage.save_thread(Thread(id="t1", resource_id="user-1"))
    await storage.save_message(Message(thread_id="t1", role="user", content="Hello"))
    messages = await storage.get_messages("t1", last=20)
"""

from mastra_storage.backend import (
    ABSENT,
    Backend,
    Capabilities,
    Delete,
    DeletePrefix,
    Op,
    Position,
    Put,
    Query,
    Result,
    Touch,
    select,
)
from mastra_storage.errors import (
    AuthenticationError,
    ConflictError,
    InvalidArgumentError,
    InvalidRecordError,
    NotFoundError,
    PartialWriteError,
    PluginError,
    PluginLoadError,
    PluginNotFoundError,
    RateLimitedError,
    StorageError,
    TooLargeError,
    UnavailableError,
    UnsupportedError,
)
from mastra_storage.plugins import open_storage, register, url_options
from mastra_storage.records import (
    Eval,
    Include,
    Message,
    MessageUpdate,
    Page,
    Resource,
    Thread,
    Trace,
    WorkflowRun,
)
from mastra_storage.schema import (
    EVALS,
    MESSAGES,
    RESOURCES,
    TABLES,
    THREADS,
    TRACES,
    WORKFLOW_SNAPSHOT,
    Key,
    Row,
    Table,
)
from mastra_storage.storage import Storage

__all__ = [
    "ABSENT",
    "EVALS",
    "MESSAGES",
    "RESOURCES",
    "TABLES",
    "THREADS",
    "TRACES",
    "WORKFLOW_SNAPSHOT",
    "AuthenticationError",
    "Backend",
    "Capabilities",
    "ConflictError",
    "Delete",
    "DeletePrefix",
    "Eval",
    "Include",
    "InvalidArgumentError",
    "InvalidRecordError",
    "Key",
    "Message",
    "MessageUpdate",
    "NotFoundError",
    "Op",
    "Page",
    "PartialWriteError",
    "PluginError",
    "PluginLoadError",
    "PluginNotFoundError",
    "Position",
    "Put",
    "Query",
    "RateLimitedError",
    "Resource",
    "Result",
    "Row",
    "Storage",
    "StorageError",
    "Table",
    "Thread",
    "TooLargeError",
    "Touch",
    "Trace",
    "UnavailableError",
    "UnsupportedError",
    "WorkflowRun",
    "open_storage",
    "register",
    "select",
    "url_options",
]
