"""The saver's own rules, beyond those of the conformance tests."""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import pytest
from backends import on_sqlite, on_sqlite_and_convex
from graphs import chat, config_of, logging, question
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME
from mastra_storage_langgraph import MastraSaver
from mastra_storage_langgraph.tables import CHECKPOINTS, SAVER_TABLES, VALUES, order_of

from mastra_storage import InvalidArgumentError, Op, Query, Storage, UnavailableError, open_storage

NewStorage = Callable[[], Storage]


class Thread:
    """Puts checkpoints, each after the one before it."""

    def __init__(self, saver: MastraSaver, thread_id: str, ns: str = "") -> None:
        self.saver = saver
        self.config = config_of(thread_id, checkpoint_ns=ns)
        self.versions: dict[str, Any] = {}

    async def put(self, metadata: Any = None, **values: Any) -> Any:
        new: dict[str, Any] = {
            name: self.saver.get_next_version(self.versions.get(name), None) for name in values
        }
        self.versions |= new
        checkpoint = empty_checkpoint()
        checkpoint["id"] = str(uuid6())
        checkpoint["channel_values"] = values
        checkpoint["channel_versions"] = {name: self.versions[name] for name in values}
        metadata = {"source": "loop", "step": 1, "parents": {}, **(metadata or {})}
        self.config = await self.saver.aput(self.config, checkpoint, metadata, new)
        return self.config

    async def tuple(self, config: Any = None) -> CheckpointTuple:
        """What a saver reads that remembers nothing."""
        saver = MastraSaver(self.saver._storage, serde=self.saver.serde)
        found = await saver.aget_tuple(config or self.config)
        remembered = await self.saver.aget_tuple(config or self.config)
        assert remembered == found
        assert found is not None
        return found

    async def values(self, config: Any = None) -> dict[str, Any]:
        return (await self.tuple(config)).checkpoint["channel_values"]

    async def chain(self, channel: str) -> str:
        key = tuple(self.config["configurable"].values())
        [row] = await self.saver._storage.get_rows(CHECKPOINTS, [key])
        chain: str = CHECKPOINTS.record_of(row)["values"][channel][1]  # type: ignore[arg-type]
        return chain


async def rows_of(storage: Storage, thread_id: str) -> dict[str, int]:
    found = {}
    for table in SAVER_TABLES:
        rows = await storage.find_rows(Query(table=table, prefix=(thread_id,)))
        found[table.name.removeprefix("langgraph_")] = len(rows)
    return found


VALUES_TO_KEEP: list[Any] = [
    None,
    True,
    0,
    1.5,
    float("inf"),
    "",
    "text \U0001f600 \x00",
    b"bytes",
    bytearray(b"more"),
    [],
    {},
    (),
    [None, b"x", "y" * 100, [1, 2], {"a": (1, 2)}],
    {"a": None, "b": [1], "": {"c": {1, 2}}, "d": "e" * 100},
    {1: "a number as a key", "b": "c" * 100},
    [HumanMessage("hi", id="1"), AIMessage("ho", id="2")],
    {"messages": [HumanMessage("x" * 100)]},
    uuid4(),
    "long " * 1000,
]


async def test_values_come_back_as_they_were(new_storage: NewStorage) -> None:
    given = {f"channel {number}": value for number, value in enumerate(VALUES_TO_KEEP)}
    async with new_storage() as storage:
        thread = Thread(MastraSaver(storage), "t")
        await thread.put(**given)
        serde = thread.saver.serde
        expected = {name: serde.loads_typed(serde.dumps_typed(v)) for name, v in given.items()}
        found = await thread.values()
        assert found == expected
        assert list(found) == list(given)
        await thread.put(**given)
        assert await thread.values() == expected


@on_sqlite_and_convex
async def test_lists_that_change_in_any_way(new_storage: NewStorage) -> None:
    a, b, c, d, e = (f"{letter}" * 200 for letter in "abcde")
    steps: list[list[str]] = [
        [a, b, c],
        [a, b, c, d],
        [a, c, d],
        [c, a, d, d],
        [e, c, a, d, d, b],
        [],
        [a, b, c],
        [a, b],
    ]
    async with new_storage() as storage:
        thread = Thread(MastraSaver(storage), "t")
        configs = [await thread.put(letters=step, other=step[::-1]) for step in steps]
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        for config, step in zip(configs, steps, strict=True):
            found = await Thread(saver, "t").values(config)
            assert found == {"letters": step, "other": step[::-1]}
        listed = [one async for one in saver.alist(config_of("t"))]
        values = [one.checkpoint["channel_values"]["letters"] for one in reversed(listed)]
        assert values == steps


@on_sqlite_and_convex
async def test_ids_of_any_kind_and_length(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        for thread_id in ("a", "a:b", "日本" * 100, "x" * 300, " "):
            for ns in ("", "child:1", "sub:" + "y" * 400):
                thread = Thread(saver, thread_id, ns)
                config = await thread.put(text=thread_id + ns)
                await saver.aput_writes(config, [("ch", ns)], "task")
                found = await thread.tuple()
                assert found.config == config
                assert found.checkpoint["channel_values"] == {"text": thread_id + ns}
                assert found.pending_writes == [("task", "ch", ns)]
            listed = [one async for one in saver.alist(config_of(thread_id))]
            assert len(listed) == 3
            assert {one.config["configurable"]["thread_id"] for one in listed} == {thread_id}
        await saver.adelete_thread("a")
        assert len([one async for one in saver.alist(None)]) == 4 * 3


@on_sqlite
async def test_a_thread_id_that_is_a_number(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        graph = chat(10).compile(checkpointer=MastraSaver(storage))
        config: Any = {"configurable": {"thread_id": 42}}
        await graph.ainvoke(question(1, 10), config)
        assert len((await graph.ainvoke(question(2, 10), config))["messages"]) == 4


@on_sqlite
async def test_a_config_without_a_thread_is_refused(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        with pytest.raises(InvalidArgumentError, match="thread_id"):
            await MastraSaver(storage).aget_tuple({"configurable": {}})


# -- pending writes --------------------------------------------------------------------------


async def test_writes_of_one_index_count_once_and_special_ones_are_replaced(
    new_storage: NewStorage,
) -> None:
    async with new_storage() as storage:
        thread = Thread(MastraSaver(storage), "t")
        config = await thread.put(text="x")
        saver = thread.saver
        await saver.aput_writes(config, [("a", 1), ("b", 2)], "task 2", "~2")
        await saver.aput_writes(config, [("a", "late"), ("b", "late"), ("c", 3)], "task 2", "~2")
        await saver.aput_writes(config, [("a", 0)], "task 9", "~1")
        await saver.aput_writes(config, [(INTERRUPT, "first"), (RESUME, ["x"])], "task 2", "~2")
        await saver.aput_writes(config, [(INTERRUPT, "second")], "task 2", "~2")
        await saver.aput_writes(config, [(ERROR, "no")], "task 1", "")
        assert (await thread.tuple()).pending_writes == [
            ("task 1", ERROR, "no"),
            ("task 9", "a", 0),
            ("task 2", RESUME, ["x"]),
            ("task 2", INTERRUPT, "second"),
            ("task 2", "a", 1),
            ("task 2", "b", 2),
            ("task 2", "c", 3),
        ]


@on_sqlite_and_convex
async def test_writes_may_come_before_their_checkpoint(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        checkpoint = empty_checkpoint()
        config = config_of("t", checkpoint_ns="", checkpoint_id=checkpoint["id"])
        await saver.aput_writes(config, [("a", 1)], "task")
        assert await saver.aget_tuple(config) is None
        await saver.aput(config_of("t", checkpoint_ns=""), checkpoint, {}, {})
        found = await saver.aget_tuple(config)
        assert found is not None
        assert found.pending_writes == [("task", "a", 1)]


@on_sqlite_and_convex
async def test_what_is_put_at_once_is_all_there(new_storage: NewStorage) -> None:
    async with new_storage() as storage, new_storage() as other:
        savers = [MastraSaver(storage), MastraSaver(other)]
        first = Thread(savers[0], "t")
        base = await first.put(items=["x" * 100] * 5)
        threads = [Thread(savers[number % 2], "t") for number in range(8)]
        for number, thread in enumerate(threads):
            thread.config, thread.versions = base, dict(first.versions)
            thread.own = [*["x" * 100] * 5, f"{number}" * 100]  # type: ignore[attr-defined]
        await asyncio.gather(
            *[thread.put(items=thread.own) for thread in threads],  # type: ignore[attr-defined]
            *[
                saver.aput_writes(base, [("ch", number)], f"task {number}")
                for number, saver in enumerate(savers * 4)
            ],
        )
        for thread in threads:
            assert await thread.values() == {"items": thread.own}  # type: ignore[attr-defined]
        written = (await first.tuple(base)).pending_writes or []
        assert sorted(value for _, _, value in written) == list(range(8))


# -- threads that are deleted, copied, pruned ------------------------------------------------


@on_sqlite
async def test_a_thread_deleted_elsewhere_is_written_anew(new_storage: NewStorage) -> None:
    async with new_storage() as storage, new_storage() as other:
        thread = Thread(MastraSaver(storage), "t")
        items = [f"{number}" * 100 for number in range(5)]
        await thread.put(items=items, same="y" * 100)
        await MastraSaver(other).adelete_thread("t")
        await thread.put(items=[*items, "more" * 100], same="y" * 100)
        assert (await thread.values())["items"] == [*items, "more" * 100]
        assert len([one async for one in thread.saver.alist(config_of("t"))]) == 1


@on_sqlite_and_convex
async def test_deleting_a_thread_leaves_no_row(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        graph = chat(100).compile(checkpointer=saver)
        for name in ("a", "b"):
            await graph.ainvoke(question(1), config_of(name))
        await saver.adelete_thread("a")
        assert await rows_of(storage, "a") == {"checkpoints": 0, "values": 0, "writes": 0}
        assert await storage.get_thread_by_id("a") is None
        assert len((await graph.ainvoke(question(2), config_of("b")))["messages"]) == 4


@on_sqlite
async def test_pruning_keeps_what_the_newest_needs_and_frees_the_rest(
    new_storage: NewStorage,
) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        graph = chat(100).compile(checkpointer=saver)
        for turn in range(4):
            before = await graph.ainvoke(question(turn), config_of("t"))
        await saver.aprune(["t"])
        rows = await rows_of(storage, "t")
        assert rows["checkpoints"] == 1
        assert rows["values"] == 8  # a link for each message, no input
        assert rows["writes"] == 0
        assert (await graph.aget_state(config_of("t"))).values == before
        after = await graph.ainvoke(question(9), config_of("t"))
        assert after["messages"][:8] == before["messages"]


@on_sqlite
async def test_pruning_keeps_delta_channels_whole(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        graph = logging().compile(checkpointer=saver)
        for turn in range(8):
            before = await graph.ainvoke({"log": [f"turn {turn}"]}, config_of("t"))
            await saver.aprune(["t"])
            rows = await rows_of(storage, "t")
            assert rows["checkpoints"] < 12  # back to the nearest snapshot
            assert (await graph.aget_state(config_of("t"))).values == before


@on_sqlite
async def test_pruning_by_an_unknown_strategy_is_refused(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        with pytest.raises(InvalidArgumentError, match="keep_latest"):
            await MastraSaver(storage).aprune(["t"], strategy="keep_some")


@on_sqlite_and_convex
async def test_deleting_a_run_keeps_what_other_runs_refer_to(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        thread = Thread(MastraSaver(storage), "t")
        first = await thread.put({"run_id": "run 1"}, items=["a" * 100, "b" * 100], text="c" * 100)
        second = await thread.put({"run_id": "run 2"}, items=["a" * 100, "b" * 100, "d" * 100])
        await thread.saver.aput_writes(first, [("ch", 1)], "task")
        await thread.saver.adelete_for_runs(["run 1"])
        assert await thread.saver.aget_tuple(first) is None
        assert (await thread.values(second))["items"] == ["a" * 100, "b" * 100, "d" * 100]
        if storage.capabilities.atomic:
            assert await rows_of(storage, "t") == {"checkpoints": 1, "values": 2, "writes": 0}


async def test_a_copy_is_independent(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        graph = chat(100).compile(checkpointer=saver)
        for turn in range(2):
            before = await graph.ainvoke(question(turn), config_of("a", user_id="ada"))
        await saver.acopy_thread("a", "b")
        await saver.adelete_thread("a")
        assert (await graph.aget_state(config_of("b"))).values == before
        assert len((await graph.ainvoke(question(9), config_of("b")))["messages"]) == 6
        copied = await storage.get_thread_by_id("b")
        assert copied is not None
        assert copied.resource_id == "ada"
        assert len(await storage.get_messages("b")) == 6
        with pytest.raises(InvalidArgumentError, match="itself"):
            await saver.acopy_thread("b", "b")


@on_sqlite
async def test_a_thread_goes_on_while_it_is_pruned_and_read(new_storage: NewStorage) -> None:
    async with new_storage() as storage, new_storage() as other, new_storage() as third:
        graph = chat(100).compile(checkpointer=MastraSaver(storage))
        await graph.ainvoke(question(0), config_of("t"))
        done = asyncio.Event()

        async def talk() -> int:
            for turn in range(1, 15):
                state = await graph.ainvoke(question(turn), config_of("t"))
            done.set()
            return len(state["messages"])

        async def prune() -> None:
            while not done.is_set():
                await MastraSaver(other).aprune(["t"])

        async def read() -> None:
            while not done.is_set():
                saver = MastraSaver(third)
                await saver.aget_tuple(config_of("t"))
                found = [one async for one in saver.alist(config_of("t"))]
                assert len({one.checkpoint["id"] for one in found}) == len(found)

        length, *_ = await asyncio.gather(talk(), prune(), read(), read())
        assert length == 30
        newest = await MastraSaver(third).aget_tuple(config_of("t"))
        assert newest is not None
        assert len(newest.checkpoint["channel_values"]["messages"]) == 30


@on_sqlite
async def test_what_is_deleted_while_it_is_read_is_read_anew(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_storage() as storage, new_storage() as other:
        thread = Thread(MastraSaver(other), "t")
        first = await thread.put(text="1" * 100)
        await thread.put(text="2" * 100)

        async def found_before(query: Query) -> Any:
            found = await Storage.find_rows(storage, query)
            if query.table == CHECKPOINTS and len(found) == 2:
                monkeypatch.undo()
                await thread.put(text="3" * 100)
                await thread.saver.aprune(["t"])
            return found

        monkeypatch.setattr(storage, "find_rows", found_before)
        newest = await MastraSaver(storage).aget_tuple(config_of("t"))
        assert newest is not None
        assert newest.checkpoint["channel_values"] == {"text": "3" * 100}
        await thread.put(text="4" * 100)
        monkeypatch.setattr(storage, "find_rows", found_before)
        listed = [one async for one in MastraSaver(storage).alist(config_of("t"))]
        assert listed == []
        assert await MastraSaver(storage).aget_tuple(first) is None


@on_sqlite
async def test_values_that_are_gone_are_an_error_not_an_empty_state(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mastra_storage_langgraph._links._WAIT", 0.001)
    async with new_storage() as storage:
        thread = Thread(MastraSaver(storage), "t")
        await thread.put(items=["a" * 100, "b" * 100])
        await storage.clear_table(VALUES.name)
        with pytest.raises(UnavailableError, match="'t'"):
            await thread.tuple()


# -- listing ---------------------------------------------------------------------------------


@on_sqlite
async def test_listing_pages_through_any_number(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        thread = Thread(MastraSaver(storage), "t")
        configs = [await thread.put({"even": n % 2 == 0}, number=n) for n in range(150)]
        listed = [one async for one in thread.saver.alist(config_of("t"))]
        assert [one.config for one in listed] == configs[::-1]
        assert [one.checkpoint["channel_values"]["number"] for one in listed[::-1]] == list(
            range(150)
        )
        some = [
            one
            async for one in thread.saver.alist(
                config_of("t"), filter={"even": True}, before=configs[140], limit=70
            )
        ]
        assert [one.config for one in some] == [configs[n] for n in range(138, -1, -2)][:70]
        assert [one async for one in thread.saver.alist(config_of("t"), limit=0)] == []
        for before, found in ((configs[7], 0), (configs[8], 1)):
            listed = [one async for one in thread.saver.alist(configs[7], before=before)]
            assert len(listed) == found


async def test_a_checkpoint_of_a_subgraph_is_listed_by_its_id(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        threads = [Thread(saver, "t"), Thread(saver, "t", "sub:1"), Thread(saver, "other", "sub:1")]
        configs = [await thread.put(number=n) for n in range(2) for thread in threads]
        named = config_of("t", checkpoint_id=configs[1]["configurable"]["checkpoint_id"])
        assert [one.config async for one in saver.alist(named)] == [configs[1]]
        assert [one async for one in saver.alist(named, before=configs[0])] == []
        named["configurable"]["checkpoint_ns"] = ""
        assert [one async for one in saver.alist(named)] == []


def test_order_follows_the_time_in_ids() -> None:
    ids = [str(uuid6()) for _ in range(100)]
    orders = list(map(order_of, ids))
    assert orders == sorted(orders)
    assert abs(orders[-1] - time.time_ns() // 1000) < 60_000_000
    assert order_of("0190a3c0-0000-7000-8000-000000000000") == 0x0190A3C00000 * 1000
    named = ["", "1", "2", "a", "abcdefg", "b", "ü"]
    assert sorted(named, key=order_of) == named


# -- serialisers -----------------------------------------------------------------------------


class Mask:
    """A cipher by its form: the same text never looks the same twice."""

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        mask = secrets.randbelow(128)
        return "mask", bytes([mask, *[byte ^ mask ^ 0xA5 for byte in plaintext]])

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return bytes(byte ^ ciphertext[0] ^ 0xA5 for byte in ciphertext[1:])


@on_sqlite
async def test_an_encrypting_serialiser_hides_all_and_still_writes_what_is_new_alone(
    new_storage: NewStorage,
) -> None:
    serde = EncryptedSerializer(Mask())
    async with new_storage() as storage:
        saver = MastraSaver(storage, serde=serde)
        graph = chat(200).compile(checkpointer=saver)
        for turn in range(5):
            result = await graph.ainvoke(question(turn), config_of("t"))
        rows = await storage.find_rows(Query(table=VALUES, prefix=("t",)))
        assert sum(len(row.value) for row in rows) < 40_000
        for table in SAVER_TABLES:
            for row in await storage.find_rows(Query(table=table, prefix=("t",))):
                assert b64encode(b"question 1")[:8] not in row.value
        assert (await storage.list_threads()).items == []
    async with new_storage() as storage:
        saver = MastraSaver(storage, serde=serde)
        state = await chat(200).compile(checkpointer=saver).aget_state(config_of("t"))
        assert state.values == result


# -- other threads of the process ------------------------------------------------------------


@on_sqlite_and_convex
async def test_sync_calls_work_in_other_threads(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)

        def work() -> int:
            config = config_of("t", checkpoint_ns="")
            stored = saver.put(config, empty_checkpoint(), {"run_id": "r"}, {})
            saver.put_writes(stored, [("a", 1)], "task")
            assert saver.get_tuple(stored) is not None
            saver.copy_thread("t", "u")
            saver.delete_thread("t")
            saver.delete_for_runs(["nothing"])
            saver.prune(["u"])
            assert saver.get_delta_channel_history(config=stored, channels=[]) == {}
            return len(list(saver.list(config_of("u"))))

        assert await asyncio.to_thread(work) == 1


@on_sqlite
async def test_a_sync_call_in_the_loop_is_an_error_not_a_deadlock(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        saver = MastraSaver(storage)
        with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
            saver.get_tuple(config_of("t"))
        with pytest.raises(asyncio.InvalidStateError, match="alist"):
            next(saver.list(config_of("t")))


def test_a_saver_is_made_in_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        MastraSaver(object())  # type: ignore[arg-type]


def test_no_loop_that_has_ended_is_waited_for() -> None:
    async def make() -> MastraSaver:
        async with open_storage("memory://") as storage:
            return MastraSaver(storage)

    saver = asyncio.run(make())
    with pytest.raises(RuntimeError, match="does not run"):
        saver.get_tuple(config_of("t"))


@on_sqlite
async def test_what_a_graph_changes_meanwhile_is_not_written(new_storage: NewStorage) -> None:
    async with new_storage() as storage:
        thread = Thread(MastraSaver(storage), "t")
        await thread.put(messages=[HumanMessage("0", id="0")], book={"page": "0" * 100})
        thread.saver = MastraSaver(storage)  # which has to read what it stands on
        messages = [HumanMessage(str(number), id=str(number)) for number in range(600)]
        book = {f"page {number}": "x" * 100 for number in range(600)}
        work = asyncio.create_task(thread.put(messages=messages, book=book))
        await asyncio.sleep(0)
        messages.append(HumanMessage("late", id="late"))
        book["late"] = "y"
        await work
        found = await thread.values()
        assert [len(found["messages"]), len(found["book"])] == [600, 600]
        assert len(await storage.get_messages("t")) == 600


@on_sqlite
async def test_a_copy_of_a_thread_that_goes_on_can_be_read(
    new_storage: NewStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with new_storage() as storage, new_storage() as other:
        graph = chat(100).compile(checkpointer=MastraSaver(other))
        await graph.ainvoke(question(0), config_of("a"))
        values = (await graph.aget_state(config_of("a"))).values
        write = storage.backend.write
        turns = iter(range(1, 3))

        async def going_on(ops: Sequence[Op]) -> None:
            await write(ops)
            if turn := next(turns, None):
                await graph.ainvoke(question(turn), config_of("a"))

        monkeypatch.setattr(storage.backend, "write", going_on)
        saver = MastraSaver(storage, conversations=False)
        await saver.acopy_thread("a", "b")
        copied = [one async for one in saver.alist(config_of("b"))]
        assert copied[0].checkpoint["channel_values"]["messages"] == values["messages"]
        assert len(copied) == 3


@on_sqlite
@pytest.mark.parametrize("encrypted", [False, True])
async def test_what_is_remembered_is_counted(new_storage: NewStorage, encrypted: bool) -> None:
    serde = EncryptedSerializer(Mask()) if encrypted else None
    async with new_storage() as storage:
        saver = MastraSaver(storage, serde=serde)
        await Thread(saver, "t").put({"note": "m" * 100_000}, text="x" * 100_000)
        assert 250_000 < saver._heads._held < 300_000
