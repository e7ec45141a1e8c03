"""What callers give that is nearly right, or not at all: refused by name, or taken exactly."""

from __future__ import annotations

import asyncio
import enum
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mastra_storage import (
    Backend,
    Include,
    InvalidArgumentError,
    InvalidRecordError,
    Message,
    MessageUpdate,
    Query,
    Result,
    Storage,
    StorageError,
    Table,
    Thread,
    Trace,
    UnavailableError,
    validation,
)
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.backends.sqlite import SqliteBackend
from mastra_storage.storage._engine import together

SECRET = "my-private-text"


def kind_of(value: Any) -> str:
    return type(value).__name__


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    async with Storage(MemoryBackend()) as opened:
        yield opened


# -- times -----------------------------------------------------------------------------------


class OtherDatetime(datetime):
    """A datetime of another library, such as pendulum or freezegun."""


@pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=-7))], ids=str)
async def test_a_time_of_another_library_is_kept_as_a_plain_one(
    storage: Storage, zone: timezone
) -> None:
    given = OtherDatetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=zone)
    saved = await storage.save_thread(Thread(id="t", resource_id="r", created_at=given))
    assert type(saved.created_at) is datetime
    assert saved.created_at == given
    assert saved.created_at.tzinfo is timezone.utc
    assert await storage.get_thread_by_id("t") == saved
    assert (await storage.get_workflow_runs(from_date=given)).items == []


class FrozenType(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class Frozen(OtherDatetime, metaclass=FrozenType):
    """What freezegun puts in the place of `datetime`, in every module."""


async def test_times_are_kept_while_the_clock_is_frozen(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in list(vars(validation).items()):
        if value is datetime:
            monkeypatch.setattr(validation, name, Frozen)
    given = Frozen(2026, 3, 4, tzinfo=timezone.utc)
    saved = await storage.save_thread(Thread(id="t", resource_id="r", created_at=given))
    assert type(saved.created_at) is datetime
    time = "2026-03-04T05:06:07Z"
    await storage.insert("threads", {"id": "u", "resource_id": "r", "created_at": time})
    assert [thread.id for thread in await storage.list_threads()] == ["u", "t"]


@pytest.mark.parametrize("time", ["\ud800", "2026-01-01T00:00:00\udfff", "", "2026"])
async def test_a_text_that_is_no_time_is_refused(storage: Storage, time: str) -> None:
    with pytest.raises(InvalidRecordError, match="created_at is not an ISO-8601 time"):
        await storage.insert("threads", {"id": "t", "resource_id": "r", "created_at": time})


# -- free-form values ------------------------------------------------------------------------


class Huge(int, enum.Enum):
    VALUE = 10**5000


class NotANumber(enum.StrEnum):
    VALUE = "x"

    def __init__(self, text: str) -> None:
        self._value_ = float("nan")  # type: ignore[assignment]


class Text(str):
    pass


@pytest.mark.parametrize(
    "content",
    [Huge.VALUE, NotANumber.VALUE, [Text(SECRET)], {10**5000: 1}, {"\ud800": {"a": {1}}}],
    ids=kind_of,
)
async def test_what_the_encoder_would_fail_on_is_refused(storage: Storage, content: Any) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r"))
    with pytest.raises(InvalidRecordError) as caught:
        await storage.save_message(Message(thread_id="t", role="user", content=content))
    assert str(caught.value.field).startswith("content")
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()


async def test_a_mapping_of_any_kind_is_an_object(storage: Storage) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r", metadata={"a": 1}))
    thread = await storage.update_thread("t", metadata=MappingProxyType({"b": 2}))
    assert thread.metadata == {"a": 1, "b": 2}
    for member in ("x", "y"):
        resource = await storage.update_resource("r", metadata=MappingProxyType({member: 1}))
    assert resource.metadata == {"x": 1, "y": 1}


# -- filters by members ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [{"a": "\ud800"}, {"\ud800": 1}, {"a": {1}}, {1: 2}, [], 0, "", False, ["a"]], ids=ascii
)
async def test_a_filter_that_is_no_object_is_refused(storage: Storage, bad: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"memory: list_threads: metadata") as caught:
        await storage.list_threads(metadata=bad)
    assert type(caught.value) is InvalidArgumentError
    with pytest.raises(InvalidArgumentError, match=r"memory: get_traces: attributes"):
        await storage.get_traces(attributes=bad)


METADATA: dict[str, Any] = {"list": [1, {"x": True}], "one": 1, "yes": True, "none": None}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, True),
        (None, True),
        (MappingProxyType({"one": 1}), True),
        ({"one": 1.0}, True),
        ({"one": True}, False),
        ({"yes": 1}, False),
        ({"none": None}, True),
        ({"absent": None}, False),
        ({"list": [1, {"x": True}]}, True),
        ({"list": (1, {"x": True})}, True),
        ({"list": [True, {"x": True}]}, False),
        ({"list": [1, {"x": 1}]}, False),
        ({"list": [1, {"x": True, "y": None}]}, False),
        ({"list": [1]}, False),
        ({"list": [1, {}]}, False),
        ({"list": {"0": 1}}, False),
    ],
    ids=str,
)
async def test_members_are_equal_as_json_has_it(
    storage: Storage, wanted: Mapping[str, Any] | None, found: bool
) -> None:
    await storage.save_thread(Thread(id="t", resource_id="r", metadata=METADATA))
    await storage.save_trace(Trace(id="s", attributes=METADATA))
    assert (await storage.list_threads(metadata=wanted)).total == found
    assert (await storage.get_traces(attributes=wanted)).total == found


async def test_a_cursor_belongs_to_the_filter_as_json_has_it(storage: Storage) -> None:
    for name in ("a", "b"):
        await storage.save_thread(Thread(id=name, resource_id="r", metadata={"x": [1, 2]}))
    first = await storage.list_threads(metadata={"x": (1, 2)}, per_page=1)
    second = await storage.list_threads(
        metadata={"x": [1, 2]}, per_page=1, cursor=first.next_cursor
    )
    assert [thread.id for thread in [*first, *second]] == ["b", "a"]


# -- counts ----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return MemoryBackend() if request.param == "memory" else SqliteBackend(tmp_path / "a.db")


HUGE = [2**62, 2**63 - 1, 10**30, 10**5000]


@pytest.mark.parametrize("count", HUGE, ids=lambda value: f"{value.bit_length()} bits")
async def test_a_count_beyond_all_rows_means_all(backend: Backend, count: int) -> None:
    async with Storage(backend) as storage:
        await storage.save_thread(Thread(id="t", resource_id="r"))
        await storage.save_messages(
            [Message(id=n, thread_id="t", role="r", content="") for n in "ab"]
        )
        page = await storage.get_messages_paginated("t", per_page=count)
        assert [message.id for message in page] == ["a", "b"]
        assert (page.per_page == count, page.has_more) == (True, False)
        far = await storage.get_messages_paginated("t", page=count, per_page=count)
        assert (far.items, far.total) == ([], 2)
        include = [Include("b", previous=count, next=count)]
        for messages in (
            await storage.get_messages("t", last=count),
            await storage.get_messages("t", last=0, include=include),
            [message async for message in storage.iter_messages("t", batch_size=count)],
            await anext(storage.watch_messages("t", last=count)),
        ):
            assert [message.id for message in messages] == ["a", "b"]


@pytest.mark.parametrize(
    "bad", [-1, -(10**5000), 1.0, float("nan"), "1", True, None, [SECRET]], ids=kind_of
)
async def test_what_is_no_count_is_refused(storage: Storage, bad: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="page must be a whole number") as caught:
        await storage.list_threads(page=bad)
    assert SECRET not in str(caught.value)
    assert not str(caught.value).endswith("not int")


# -- names of what failed --------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "", 3])
async def test_a_snapshot_is_read_by_both_parts_of_its_key(storage: Storage, name: Any) -> None:
    await storage.persist_workflow_snapshot("w", "r1", {"step": 1})
    with pytest.raises(InvalidArgumentError, match="workflow_name"):
        await storage.load_workflow_snapshot(name, "r1")
    assert await storage.load_workflow_snapshot("w", "r1") == {"step": 1}


async def test_load_takes_the_table_by_name_too(storage: Storage) -> None:
    thread = await storage.save_thread(Thread(id="t", resource_id="r"))
    assert await storage.load(table="threads", id="t") == thread
    storage.register(Table(name="notes", key=("self",)))
    await storage.insert("notes", {"self": "s"})
    assert await storage.load("notes", self="s") == {"self": "s"}
    with pytest.raises(InvalidArgumentError, match="memory: load: the key of table 'threads' is"):
        await storage.load(table="threads", key="t")


@pytest.mark.parametrize("table", [None, ["threads"], "nothing"])
async def test_a_table_that_is_not_there_is_refused(storage: Storage, table: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="memory: clear_table: there is no table"):
        await storage.clear_table(table)


def test_only_a_table_can_be_registered() -> None:
    with pytest.raises(InvalidArgumentError, match="register takes a Table, not str"):
        Storage(MemoryBackend()).register("notes")  # type: ignore[arg-type]


WATCHES: list[tuple[str, Callable[[Storage, Any], AsyncIterator[Any]]]] = [
    ("watch_messages", lambda storage, value: storage.watch_messages(value)),
    ("watch_thread", lambda storage, value: storage.watch_thread(value)),
    ("watch_threads", lambda storage, value: storage.watch_threads(value)),
    ("watch_workflow_run", lambda storage, value: storage.watch_workflow_run(value)),
]


@pytest.mark.parametrize(("name", "watch"), WATCHES, ids=[name for name, _ in WATCHES])
async def test_errors_of_a_watch_name_it(
    storage: Storage, name: str, watch: Callable[[Storage, Any], AsyncIterator[Any]]
) -> None:
    with pytest.raises(InvalidArgumentError) as at_the_call:
        watch(storage, "")
    closed = Storage(MemoryBackend())
    with pytest.raises(UnavailableError) as at_the_first_value:
        await anext(watch(closed, "x"))
    for caught in (at_the_call, at_the_first_value):
        assert (caught.value.backend, caught.value.operation) == ("memory", name)


async def test_a_watch_that_is_left_ends_that_of_the_backend() -> None:
    left = []

    class Watched(MemoryBackend):
        async def watch(self, query: Query) -> AsyncIterator[Result]:
            try:
                async for result in super().watch(query):
                    yield result
            finally:
                left.append(query.table.name)

    async with Storage(Watched()) as storage:
        watch = storage.watch_thread("t")
        assert await anext(watch) is None
        await watch.aclose()
        assert left == ["threads"]


async def test_the_cause_of_one_failure_among_several_is_kept() -> None:
    async def fail() -> None:
        try:
            raise OSError("the cable is out")
        except OSError as exc:
            raise UnavailableError("not reached") from exc

    with pytest.raises(UnavailableError) as caught:
        await together(fail(), asyncio.sleep(10))
    assert isinstance(caught.value.__cause__, OSError)


class Failing(MemoryBackend):
    """A backend that raises `error` at every read."""

    error: BaseException

    async def get(self, *args: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ZeroDivisionError(), "failed"),
        (asyncio.CancelledError(), "cancelled"),
        (UnavailableError("away"), "UnavailableError"),
    ],
    ids=["failed", "cancelled", "StorageError"],
)
async def test_the_log_tells_how_a_call_ended(
    error: BaseException, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mastra_storage")
    backend = Failing()
    backend.error = error
    async with Storage(backend) as storage:
        with pytest.raises(type(error)):
            await storage.get_thread_by_id("t")
    assert f"get_thread_by_id: {outcome}, " in caplog.text


async def test_a_storage_is_opened_once() -> None:
    class Slow(MemoryBackend):
        opened = 0

        async def open(self) -> None:
            self.opened += 1
            await asyncio.sleep(0)
            await super().open()

    storage = Storage(Slow())
    results = await asyncio.gather(storage.open(), storage.open(), return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], InvalidArgumentError)
    assert results[1].operation == "open"
    assert storage.backend.opened == 1  # type: ignore[attr-defined]
    with pytest.raises(InvalidArgumentError, match="already open"):
        await storage.open()
    await storage.close()


async def test_a_storage_that_could_not_be_opened_can_be_tried_again() -> None:
    class Late(MemoryBackend):
        tries = 0

        async def open(self) -> None:
            self.tries += 1
            if self.tries == 1:
                raise UnavailableError("not yet")

    storage = Storage(Late())
    with pytest.raises(UnavailableError, match="memory: open: not yet"):
        await storage.open()
    async with storage:
        assert await storage.get_thread_by_id("t") is None


# -- anything at all -------------------------------------------------------------------------


class Opaque:
    def __repr__(self) -> str:
        return SECRET


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.builds(pow, st.sampled_from([2, -2]), st.sampled_from([63, 99, 20_001])),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.sampled_from(["", "t", "threads", "\ud800", "x" * 300, "asc", "desc", "updated_at"]),
    st.builds(Opaque),
    st.just(SECRET.encode()),
    st.datetimes(timezones=st.none() | st.just(timezone.utc)),
)
# Texts inside of values are never shown; ids and the like are.
inner = st.recursive(
    scalars | st.just(SECRET),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=2), items),
    max_leaves=5,
).filter(lambda value: value != SECRET)


def records(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Records of a kind, with anything for some members."""
    required = {
        name for name, p in inspect.signature(kind).parameters.items() if p.default is p.empty
    }
    members = dict.fromkeys(kind.__struct_fields__, inner)
    return st.fixed_dictionaries(
        dict.fromkeys(required, scalars),
        optional={name: value for name, value in members.items() if name not in required},
    ).map(lambda given: kind(**given))


anything = st.one_of(
    scalars,
    inner,
    st.dictionaries(st.integers() | st.text(max_size=2), inner, max_size=2),
    *(records(kind) for kind in (Thread, Message, Trace, Include, MessageUpdate)),
    st.lists(records(Message) | records(MessageUpdate) | records(Include), max_size=2),
)
METHODS = sorted(
    name
    for name, method in inspect.getmembers(Storage, inspect.iscoroutinefunction)
    if not name.startswith("_") and name not in ("open", "close")
)


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_given_only_storage_errors_are_raised(name: str, data: st.DataObject) -> None:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in list(inspect.signature(getattr(Storage, name)).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            kwargs |= data.draw(st.dictionaries(st.sampled_from(["id", "thread_id"]), anything))
        elif parameter.default is parameter.empty:
            args.append(data.draw(anything, label=parameter.name))
        elif data.draw(st.booleans()):
            kwargs[parameter.name] = data.draw(anything, label=parameter.name)

    async def call() -> None:
        async with Storage(MemoryBackend()) as storage:
            await storage.save_thread(Thread(id="t", resource_id="t"))
            await storage.save_message(Message(id="t", thread_id="t", role="t", content=""))
            await getattr(storage, name)(*args, **kwargs)

    error: BaseException | None = None
    try:
        asyncio.run(call())
    except StorageError as exc:
        error = exc
        assert (exc.backend, exc.operation) == ("memory", name)  # noqa: PT017
    while error is not None:
        assert SECRET not in str(error)
        assert SECRET not in repr(error)
        error = error.__cause__
