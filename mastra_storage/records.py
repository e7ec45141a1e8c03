"""What users hold: threads, messages, workflow runs, traces, evals, resources and pages of them.

Records are `msgspec` Structs: snake_case in Python, camelCase in JSON, keyword arguments only.
They can be built with anything and are checked when they are saved. Times are timezone-aware
UTC `datetime`s. Fields typed `Any` hold any JSON value. The repr of a record shows ids, kinds
and times, never what people wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeAlias, TypeVar, cast
from uuid import uuid4

from msgspec import UNSET, Struct, UnsetType, field

__all__ = [
    "Eval",
    "Include",
    "Message",
    "MessageUpdate",
    "Page",
    "Resource",
    "Thread",
    "Trace",
    "WorkflowRun",
]

T = TypeVar("T")

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)

# What `validation` checks of a field, told by its annotation.
Id: TypeAlias = Annotated[str, "id"]
OptionalId: TypeAlias = Annotated[str | None, "id"]
Text: TypeAlias = Annotated[str, "text"]
OptionalText: TypeAlias = Annotated[str | None, "text"]
Time: TypeAlias = Annotated[datetime, "time"]
OptionalTime: TypeAlias = Annotated[datetime | None, "time"]
Json: TypeAlias = Annotated[Any, "json"]
JsonObject: TypeAlias = Annotated[dict[str, Any], "object"]
JsonArray: TypeAlias = Annotated[list[Any], "array"]

# Filled in by __post_init__ when not given, so that readers need not handle None.
_DERIVED_TIME = cast(datetime, None)
_DERIVED_ID = cast(str, None)


def now() -> datetime:
    """The current time, as records carry it."""
    return datetime.now(timezone.utc)


def new_id() -> str:
    return str(uuid4())


def to_microseconds(time: datetime) -> int:
    """Microseconds since 1970, exact for every datetime."""
    return (time - EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


# Nothing that JSON holds refers back to its record, so none is part of a cycle. What the garbage
# collector need not look at costs a reader of many records a good part less.
class Record(Struct, kw_only=True, rename="camel", gc=False):
    """The base of all records; gives them a repr without private content."""

    _shown: ClassVar[tuple[str, ...]] = ("id", "created_at")

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={value.isoformat() if isinstance(value, datetime) else repr(value)}"
            for name in self._shown
            if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({shown}, …)"


class Thread(Record, kw_only=True, rename="camel"):
    """A conversation of one resource (a user, a tenant, an agent).

    `updated_at` defaults to `created_at`; it moves forward with every message that is saved,
    updated or deleted in the thread.
    """

    _shown = ("id", "resource_id", "created_at", "updated_at")

    id: Id = field(default_factory=new_id)
    resource_id: Id
    title: Text = ""
    metadata: JsonObject = field(default_factory=dict)
    created_at: Time = field(default_factory=now)
    updated_at: Time = _DERIVED_TIME

    def __post_init__(self) -> None:
        if self.updated_at is None:
            self.updated_at = self.created_at


class Message(Record, kw_only=True, rename="camel"):
    """One message of a thread.

    `content` is any JSON value: text, a list of parts, tool calls. `resource_id` is `None` for
    a message that belongs to whoever its thread belongs to.
    """

    _shown = ("id", "thread_id", "role", "type", "resource_id", "created_at")

    id: Id = field(default_factory=new_id)
    thread_id: Id
    role: Text
    content: Json
    type: Text = "text"
    resource_id: OptionalId = None
    metadata: JsonObject = field(default_factory=dict)
    created_at: Time = field(default_factory=now)


class WorkflowRun(Record, kw_only=True, rename="camel"):
    """A run of a workflow and its latest snapshot.

    `status` defaults to `snapshot["status"]` when that is a string.
    """

    _shown = ("run_id", "workflow_name", "resource_id", "status", "created_at", "updated_at")

    run_id: Id
    workflow_name: Id
    resource_id: OptionalId = None
    status: OptionalText = None
    snapshot: Json = None
    error: Json = None
    created_at: Time = field(default_factory=now)
    updated_at: Time = _DERIVED_TIME
    completed_at: OptionalTime = None

    def __post_init__(self) -> None:
        if self.status is None:
            self.status = status_of(self.snapshot)
        if self.updated_at is None:
            self.updated_at = self.created_at


def status_of(snapshot: Any) -> str | None:
    """The status that a workflow snapshot itself states, if it states one."""
    status = snapshot.get("status") if isinstance(snapshot, dict) else None
    return status if isinstance(status, str) else None


class Trace(Record, kw_only=True, rename="camel"):
    """One span (OpenTelemetry style), or one whole trace with its `spans` inside.

    - Of a span: `trace_id` (default: its `id`) and `parent_span_id` place it, `scope` is the
      name of what recorded it, and `kind`, `status`, `attributes`, `events` and `links` are as
      the recorder has them.
    - Of a whole trace: `root_run_id`, `transport_id`, `spans`, and `span_durations` by the names
      of spans. `properties` holds what has no member of its own, of either.
    - `started_at` (default: `created_at`) and `ended_at` bound it; `created_at` orders listings.
    """

    _shown = (
        "id",
        "trace_id",
        "parent_span_id",
        "name",
        "scope",
        "thread_id",
        "run_id",
        "created_at",
    )

    id: Id = field(default_factory=new_id)
    trace_id: Id = _DERIVED_ID
    parent_span_id: OptionalId = None
    name: Text = ""
    scope: OptionalText = None
    kind: Json = None
    status: Json = None
    thread_id: OptionalId = None
    run_id: OptionalId = None
    root_run_id: OptionalId = None
    transport_id: OptionalId = None
    attributes: JsonObject = field(default_factory=dict)
    events: JsonArray = field(default_factory=list)
    links: JsonArray = field(default_factory=list)
    spans: JsonArray = field(default_factory=list)
    span_durations: JsonObject = field(default_factory=dict)
    properties: JsonObject = field(default_factory=dict)
    started_at: Time = _DERIVED_TIME
    ended_at: OptionalTime = None
    created_at: Time = field(default_factory=now)

    def __post_init__(self) -> None:
        if self.trace_id is None:
            self.trace_id = self.id
        if self.started_at is None:
            self.started_at = self.created_at


class Eval(Record, kw_only=True, rename="camel"):
    """The outcome of one metric on one answer of an agent.

    - `result` is what the metric gave, such as `{"score": 0.8}`; `input`, `output` and
      `instructions` are what the agent was given, said, and was told to be.
    - `type` is "live" for an answer in use, "test" for one in a test, of which `test_info` says
      more. `run_id` is the run of the metric, `global_run_id` what several of them share.
    - `data` and `metadata` are yours.
    """

    _shown = ("id", "agent_name", "type", "metric_name", "thread_id", "run_id", "created_at")

    id: Id = field(default_factory=new_id)
    agent_name: Text
    type: Literal["live", "test"] = "live"
    metric_name: OptionalText = None
    thread_id: OptionalId = None
    run_id: OptionalId = None
    global_run_id: OptionalId = None
    input: Json = None
    output: Json = None
    result: Json = None
    instructions: Json = None
    test_info: Json = None
    data: JsonObject = field(default_factory=dict)
    metadata: JsonObject = field(default_factory=dict)
    created_at: Time = field(default_factory=now)


class Resource(Record, kw_only=True, rename="camel"):
    """What is kept for a resource across its threads: working memory and metadata."""

    _shown = ("id", "created_at", "updated_at")

    id: Id
    working_memory: Json = None
    metadata: JsonObject = field(default_factory=dict)
    created_at: Time = field(default_factory=now)
    updated_at: Time = _DERIVED_TIME

    def __post_init__(self) -> None:
        if self.updated_at is None:
            self.updated_at = self.created_at


class Include(Struct, frozen=True):
    """A message to include in `get_messages`, with some of its neighbours.

    `thread_id` is the thread the message is in (default: the one that is read); `previous` and
    `next` count the neighbours before and after it, in that same thread.
    """

    id: str
    thread_id: str | None = None
    previous: int = 0
    next: int = 0


class MessageUpdate(Struct):
    """A change to one message; what is not given stays as it is.

    `metadata` merges shallowly. A new `thread_id` moves the message to that thread.
    """

    id: str
    role: str | UnsetType = field(default=UNSET)
    content: Any | UnsetType = field(default=UNSET)
    metadata: dict[str, Any] | UnsetType = field(default=UNSET)
    thread_id: str | UnsetType = field(default=UNSET)

    def __repr__(self) -> str:
        given = [
            name for name in ("role", "content", "metadata") if getattr(self, name) is not UNSET
        ]
        moved = "" if self.thread_id is UNSET else f", thread_id={self.thread_id!r}"
        return f"MessageUpdate({self.id!r}{moved}, changes={given})"


class Page(Struct, Generic[T], kw_only=True):
    """A page of a listing. Iterating a page iterates its items; `len(page)` counts them.

    `total` counts what matches on all pages (`None` when it was not asked for), `page` is
    0-based, `next_cursor` continues behind the last item even while rows are being added, and is
    `None` on the last page.
    """

    items: list[T]
    total: int | None = None
    page: int = 0
    per_page: int | None = None
    has_more: bool = False
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)
