"""What is refused, and how it is named."""

from __future__ import annotations

import decimal
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mastra_storage import (
    MESSAGES,
    Eval,
    Include,
    InvalidArgumentError,
    InvalidRecordError,
    Message,
    Storage,
    Table,
    Thread,
    Trace,
    WorkflowRun,
)
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.freeform import surely_json
from mastra_storage.schema import TABLES

SECRET = "my-private-text"


class Role(enum.StrEnum):
    USER = "user"


class Level(enum.IntEnum):
    HIGH = 3


def message(**members: Any) -> Message:
    return Message(**{"thread_id": "t", "role": "user", "content": "x", **members})


def nested(levels: int, wrap: Callable[[Any], Any] = lambda value: [value]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


GOOD = {
    type(record): record
    for record in (
        message(),
        Thread(resource_id="r"),
        WorkflowRun(run_id="1", workflow_name="w"),
        Trace(),
        Eval(agent_name="a"),
    )
}
REFUSED: list[tuple[Any, str]] = [
    (message(id=""), "id"),
    (message(id=5), "id"),
    (message(id=None), "id"),
    (message(id="x" * 257), "id"),
    (message(id="é" * 129), "id"),
    (message(id="\ud800"), "id"),
    (message(thread_id=""), "thread_id"),
    (message(role=None), "role"),
    (message(role="\udfff"), "role"),
    (message(type=1), "type"),
    (message(resource_id=""), "resource_id"),
    (message(metadata=None), "metadata"),
    (message(metadata=[]), "metadata"),
    (message(metadata={1: 2}), "metadata[1]"),
    (message(metadata={None: 2}), "metadata[*]"),
    (message(created_at=datetime(2026, 1, 1)), "created_at"),
    (message(created_at="2026-01-01T00:00:00Z"), "created_at"),
    (message(created_at=None), "created_at"),
    (
        message(created_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))),
        "created_at",
    ),
    (message(content=float("nan")), "content"),
    (message(content=[1, float("inf")]), "content[1]"),
    (message(content=[1, float("nan"), 2**63]), "content[1]"),
    (message(content=[1.5, {"a": 2.5}, {"a": float("nan")}]), "content[2].a"),
    (message(content=[2**63, -float("inf"), float("inf")]), "content[1]"),
    (message(content=[{"a": 1}, {"a": 1, 2: 3}]), "content[1][2]"),
    (message(content={"a": {"b": [{SECRET}]}}), "content.a.b[0]"),
    (message(content={"a b": b"x"}), "content[a b]"),
    (message(content={"a": "\ud800"}), "content.a"),
    (message(content={"a": ["ok", {"\ud800": 1}]}), "content.a[1][*]"),
    (message(content=datetime.now(timezone.utc)), "content"),
    (message(content=uuid.uuid4()), "content"),
    (message(content=decimal.Decimal(1)), "content"),
    (message(content=msgspec.Raw(b"1")), "content"),
    (message(content=Thread(resource_id="r")), "content"),
    (message(content=object()), "content"),
    (message(content=10**5000), "content"),
    (message(content=nested(101)), f"content{'[0]' * 5}…{'[0]' * 5}"),
    (message(content=nested(101, lambda value: {"k": value})), "content.k.k.k.k.k….k.k.k.k.k"),
    (message(content=nested(5000)), f"content{'[0]' * 5}…{'[0]' * 5}"),
    (Thread(resource_id="r", title=None), "title"),  # type: ignore[arg-type]
    (Thread(resource_id=""), "resource_id"),
    (Thread(resource_id="r", updated_at=datetime(2026, 1, 1)), "updated_at"),
    (WorkflowRun(run_id="", workflow_name="w"), "run_id"),
    (WorkflowRun(run_id="1", workflow_name=""), "workflow_name"),
    (WorkflowRun(run_id="1", workflow_name="w", status=3), "status"),  # type: ignore[arg-type]
    (WorkflowRun(run_id="1", workflow_name="w", completed_at=5), "completed_at"),  # type: ignore[arg-type]
    (Trace(spans={}), "spans"),  # type: ignore[arg-type]
    (Trace(thread_id=""), "thread_id"),
    (Eval(agent_name="a", type="other"), "type"),  # type: ignore[arg-type]
    (Eval(agent_name=None), "agent_name"),  # type: ignore[arg-type]
]


@dataclass
class Seat:
    row: int = 12


class Fare:
    """As a model of Pydantic."""

    def model_dump(self, mode: str) -> str:
        return f"{mode} of a fare"


@pytest.mark.parametrize(
    "value",
    [
        datetime.now(timezone.utc),
        uuid.uuid4(),
        decimal.Decimal(1),
        b"x",
        {"a"},
        Seat(),
        Include("m"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_refusal_says_what_would_be_taken(value: Any) -> None:
    async with Storage(MemoryBackend()) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        with pytest.raises(InvalidRecordError, match=r"; msgspec.to_builtins\(\) gives what JSON"):
            await storage.save_message(message(content=value))
        await storage.save_message(message(content=msgspec.to_builtins(value)))
        with pytest.raises(
            InvalidRecordError, match=r"Fare, .*; give its model_dump\(mode='json'\)"
        ):
            await storage.save_message(message(content=Fare()))
        with pytest.raises(InvalidRecordError, match=r"object, which JSON does not have$"):
            await storage.save_message(message(content=object()))


@pytest.mark.parametrize(("record", "field"), REFUSED, ids=[field for _, field in REFUSED])
async def test_bad_records_are_refused_naming_the_field(record: Any, field: str) -> None:
    async with Storage(MemoryBackend()) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        saves: dict[type, Callable[[Any], Any]] = {
            Message: storage.save_message,
            Thread: storage.save_thread,
            WorkflowRun: storage.save_workflow_run,
            Trace: storage.save_trace,
            Eval: storage.save_eval,
        }
        with pytest.raises(InvalidRecordError) as caught:
            await saves[type(record)](record)
        assert caught.value.field == field
        assert field in str(caught.value)
        assert SECRET not in str(caught.value)
        assert caught.value.operation is not None
        assert await storage.get_messages("t") == []


@pytest.mark.parametrize(("record", "field"), REFUSED, ids=[field for _, field in REFUSED])
def test_a_batch_refuses_what_is_refused_alone(record: Any, field: str) -> None:
    table = next(table for table in TABLES.values() if table.record is type(record))
    good = GOOD[type(record)]
    with pytest.raises(InvalidRecordError) as alone:
        table.row(table.check(record), seq=1, version="v")
    with pytest.raises(InvalidRecordError) as caught:
        table.rows(table.check_all([good, record, good]), [1, 2, 3], version="v")
    assert (str(caught.value), caught.value.field) == (str(alone.value), alone.value.field)


@pytest.mark.parametrize("width", [1, 3, 20_000])
def test_what_holds_itself_is_refused(width: int) -> None:
    many: list[Any] = []
    many += [many] * width
    named: dict[str, Any] = {}
    named |= {str(number): named for number in range(width)}
    for loop in (many, named):
        with pytest.raises(InvalidRecordError, match="nested deeper than 100 levels"):
            MESSAGES.check_all([message(content=loop), message()])


async def test_a_batch_says_which_record_it_was() -> None:
    async with Storage(MemoryBackend()) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        with pytest.raises(InvalidRecordError, match="record 2 of 3: content is nan"):
            await storage.save_messages([message(), message(), message(content=float("nan"))])
        assert await storage.get_messages("t") == []


@pytest.mark.parametrize(
    "content",
    [
        nested(100),
        nested(100, lambda value: {"k": value}),
        (1, (2, 3)),
        {"role": Role.USER, "level": Level.HIGH},
        10**4000,
        -(2**64),
        {"": {"$set": None}},
        5e-324,
        -0.0,
    ],
    ids=str,
)
async def test_what_json_holds_comes_back(content: Any) -> None:
    async with Storage(MemoryBackend()) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_message(message(id="m", content=content))
        [found] = await storage.get_messages("t")
        assert found.content == msgspec.json.decode(msgspec.json.encode(content))


async def test_times_are_kept_in_utc_and_the_callers_record_is_not_changed() -> None:
    local = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    thread = Thread(id="t", resource_id="r", created_at=local)
    async with Storage(MemoryBackend()) as storage:
        saved = await storage.save_thread(thread)
        assert saved.created_at.tzinfo is timezone.utc
        assert saved == await storage.get_thread_by_id("t") == thread
        assert thread.created_at is local


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_any_json_becomes_a_row_and_comes_back(content: Any) -> None:
    record = MESSAGES.check(message(content=content))
    row = MESSAGES.row(record, seq=1, version="v")
    assert MESSAGES.record_of(row) == record
    assert repr(MESSAGES.record_of(row).content) == repr(content)  # 1 is not 1.0, -0.0 not 0.0


@given(st.lists(json_values, min_size=2))
def test_a_batch_is_checked_as_its_records_are(contents: list[Any]) -> None:
    records = [message(content=content) for content in contents]
    assert MESSAGES.check_all(records) == [MESSAGES.check(record) for record in records]


class Word(str):
    __slots__ = ()


class Holder:
    """Its instances' dicts share their keys."""

    def __init__(self, first: Any, second: Any) -> None:
        self.first = first
        self.second = second


any_key = st.sampled_from(["a", "b", "", "é", Word("a"), 1, 2.5, None, True, ("a",)])


@given(st.lists(st.tuples(any_key, st.booleans()), max_size=12), st.booleans(), st.booleans())
def test_a_key_that_is_not_text_is_never_taken_at_a_glance(
    steps: list[tuple[Any, bool]], copied: bool, shared: bool
) -> None:
    # As it comes to be in practice: keys are put in and taken out, dicts are copied and shared.
    built: dict[Any, Any] = vars(Holder(1, "x")) if shared else {}
    for key, stays in steps:
        built[key] = {"k": 1.5}
        if not stays:
            del built[key]
    if copied:
        built = dict(built)
    for values in ([built], [[{"a": built}], built], [built, 1, built]):
        if surely_json(values):
            assert {*map(type, built)} <= {str}


@given(st.from_type(type).flatmap(st.from_type) | st.binary() | st.sets(st.integers()))
def test_whatever_is_given_is_stored_as_it_is_or_refused(content: Any) -> None:
    try:
        record = MESSAGES.check(message(content=content))
        row = MESSAGES.row(record, seq=1, version="v")
    except InvalidRecordError:
        return
    kept = msgspec.json.decode(row.value)["content"]
    assert kept == content or list(content) == kept


@pytest.mark.parametrize(
    "record",
    [{"id": "t"}, {"id": "t", "resource_id": "r", "colour": "red"}, {"id": 5, "resource_id": "r"},
     {"id": "t", "resource_id": "r", "resourceId": "r"},
     {"id": "t", "resource_id": "r", "created_at": "yesterday"}, "t", None, 5],
    ids=str,
)  # fmt: skip
async def test_bad_mappings_are_refused(record: Any) -> None:
    async with Storage(MemoryBackend()) as storage:
        with pytest.raises(InvalidRecordError):
            await storage.insert("threads", record)
        assert (await storage.list_threads()).total == 0


@pytest.mark.parametrize("bad", [{}, {"id": None}, {"id": "x", "tag": 5}, {"id": "x", "v": {1}}])
async def test_bad_mappings_for_tables_of_adapters_are_refused(bad: Any) -> None:
    async with Storage(MemoryBackend()) as storage:
        storage.register(Table(name="notes", key=("id",), fields=("tag",)))
        with pytest.raises(InvalidRecordError):
            await storage.insert("notes", bad)


@pytest.mark.parametrize(
    "definition",
    [
        {"name": "Notes", "key": ("id",)},
        {"name": "notes; drop", "key": ("id",)},
        {"name": "notes", "key": ()},
        {"name": "notes", "key": ("_value",)},
        {"name": "notes", "key": ("id", "id")},
        {"name": "notes", "key": ("table",)},
        {"name": "notes", "key": ("id",), "fields": ("a b",)},
        {"name": "notes", "key": ("id",), "ordered": (1,)},
    ],
    ids=str,
)
def test_bad_tables_are_refused(definition: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        Table(**definition)


async def test_two_tables_cannot_share_a_name() -> None:
    storage = Storage(MemoryBackend())
    storage.register(Table(name="notes", key=("id",)))
    storage.register(Table(name="notes", key=("id",)))
    with pytest.raises(InvalidArgumentError, match="already another table"):
        storage.register(Table(name="notes", key=("a", "b")))
    with pytest.raises(InvalidArgumentError, match="already another table"):
        storage.register(Table(name="threads", key=("id",)))
