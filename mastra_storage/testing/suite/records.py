"""Traces, evals and resources."""

from __future__ import annotations

import pytest

from mastra_storage.errors import InvalidArgumentError, InvalidRecordError
from mastra_storage.records import Eval, Resource, Trace
from mastra_storage.schema import RESOURCES
from mastra_storage.storage import Storage
from mastra_storage.testing.suite._base import Base
from mastra_storage.testing.suite._build import at, ids, members, plant


class TraceTests(Base):
    async def test_a_saved_trace_reads_back_as_it_was(self, storage: Storage) -> None:
        trace = Trace(
            id="s",
            trace_id="x",
            parent_span_id="p",
            name="llm",
            scope="agent",
            kind=1,
            status={"code": 2},
            thread_id="t",
            run_id="1",
            root_run_id="0",
            transport_id="y",
            attributes={"$a": None},
            events=[{"name": "e"}],
            links=[1],
            spans=[{"id": "inner"}],
            span_durations={"inner": 0.25},
            properties={"p": []},
            started_at=at(-1),
            ended_at=at(1),
            created_at=at(),
        )
        assert await storage.save_trace(trace) == trace
        assert await storage.get_trace("s") == trace
        assert await storage.get_trace("x") is None
        small = await storage.save_trace(Trace(id="small", created_at=at()))
        assert (small.trace_id, small.started_at) == ("small", at())
        assert await storage.get_trace("small") == small

    async def test_traces_are_saved_in_batches(self, storage: Storage) -> None:
        assert await storage.save_traces([]) == []
        batch = [Trace(id=id, created_at=at()) for id in "bca"]
        assert await storage.save_traces(batch) == batch
        assert ids(await storage.get_traces()) == ["a", "c", "b"]
        with pytest.raises(InvalidRecordError):
            await storage.save_traces([Trace(id="d"), Trace(id="e", attributes={"x": {1}})])
        assert (await storage.get_traces()).total == 3
        await storage.save_trace(Trace(id="b", name="replaced", created_at=at()))
        assert ids(await storage.get_traces()) == ["a", "c", "b"]

    async def test_traces_are_filtered(self, storage: Storage) -> None:
        await storage.save_traces(
            [
                Trace(id="a", trace_id="x", name="n", scope="s", created_at=at(0)),
                Trace(id="b", trace_id="x", thread_id="t", run_id="1", created_at=at(1)),
                Trace(id="c", name="n", attributes={"k": "v", "n": 1}, created_at=at(2)),
                Trace(id="d", name="n", attributes={"k": "v", "n": True}, created_at=at(3)),
            ]
        )
        for filters, expected in (
            ({"trace_id": "x"}, ["b", "a"]),
            ({"name": "n"}, ["d", "c", "a"]),
            ({"scope": "s", "name": "n"}, ["a"]),
            ({"thread_id": "t"}, ["b"]),
            ({"run_id": "1", "trace_id": "x"}, ["b"]),
            ({"attributes": {"k": "v"}}, ["d", "c"]),
            ({"attributes": {"k": "v", "n": 1}}, ["c"]),
            ({"attributes": {"n": True}, "name": "n"}, ["d"]),
            ({"name": "other"}, []),
        ):
            page = await storage.get_traces(**filters)
            assert (ids(page), page.total) == (expected, len(expected))
        uncounted = await storage.get_traces(attributes={"k": "v"}, per_page=1, count=False)
        assert (ids(uncounted), uncounted.total, uncounted.has_more) == (["d"], None, True)


class EvalTests(Base):
    async def test_a_saved_eval_reads_back_as_it_was(self, storage: Storage) -> None:
        eval = Eval(
            id="e",
            agent_name="a",
            type="test",
            metric_name="m",
            thread_id="t",
            run_id="1",
            global_run_id="g",
            input="i",
            output=["o"],
            result={"score": 0.5},
            instructions="be kind",
            test_info={"file": "x"},
            data={"d": 1},
            metadata={"m": None},
            created_at=at(),
        )
        assert await storage.save_eval(eval) == eval
        assert await storage.get_eval("e") == eval
        assert await storage.get_eval("nobody") is None
        plain = await storage.save_eval(Eval(agent_name="b"))
        assert plain.type == "live"
        assert await storage.get_eval(plain.id) == plain

    async def test_evals_are_filtered(self, storage: Storage) -> None:
        await storage.save_eval(Eval(id="a", agent_name="x", thread_id="t", created_at=at(0)))
        await storage.save_eval(Eval(id="b", agent_name="x", type="test", created_at=at(1)))
        await storage.save_eval(Eval(id="c", agent_name="y", run_id="1", created_at=at(2)))
        for filters, expected in (
            ({}, ["c", "b", "a"]),
            ({"agent_name": "x"}, ["b", "a"]),
            ({"type": "live"}, ["c", "a"]),
            ({"type": "test", "agent_name": "x"}, ["b"]),
            ({"thread_id": "t"}, ["a"]),
            ({"run_id": "1"}, ["c"]),
            ({"agent_name": "z"}, []),
        ):
            page = await storage.get_evals(**filters)  # type: ignore[arg-type]
            assert (ids(page), page.total) == (expected, len(expected))

    async def test_an_eval_is_live_or_test(self, storage: Storage) -> None:
        with pytest.raises(InvalidRecordError):
            await storage.save_eval(Eval(agent_name="x", type="dream"))  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            await storage.get_evals(type="dream")  # type: ignore[arg-type]


class ResourceTests(Base):
    async def test_a_saved_resource_reads_back_as_it_was(self, storage: Storage) -> None:
        resource = Resource(
            id="r",
            working_memory="# User\n- likes tea",
            metadata={"a": 1},
            created_at=at(),
            updated_at=at(1),
        )
        assert await storage.save_resource(resource) == resource
        assert await storage.get_resource("r") == resource
        assert await storage.get_resource("nobody") is None
        await storage.save_resource(Resource(id="r", created_at=at(2)))
        found = await storage.get_resource("r")
        assert found is not None
        assert (found.working_memory, found.metadata, found.updated_at) == (None, {}, at(2))

    async def test_update_resource_changes_what_is_given(self, storage: Storage) -> None:
        await storage.save_resource(
            Resource(id="r", working_memory="old", metadata={"keep": 1, "x": {"a": 1}})
        )
        await plant(storage.backend, RESOURCES, ("r",), colour="blue")
        before = await storage.get_resource("r")
        assert before is not None
        after = await storage.update_resource("r", metadata={"x": {"b": 2}})
        assert (after.working_memory, after.metadata) == ("old", {"keep": 1, "x": {"b": 2}})
        assert after.created_at == before.created_at
        assert after.updated_at > before.updated_at
        after = await storage.update_resource("r", working_memory={"likes": ["tea"]})
        assert after.metadata == {"keep": 1, "x": {"b": 2}}
        assert await storage.get_resource("r") == after
        assert (await members(storage.backend, RESOURCES, "r"))["colour"] == "blue"

    async def test_a_clock_that_is_behind_moves_no_resource_back(self, storage: Storage) -> None:
        ahead = at(100 * 365 * 86_400)
        await storage.save_resource(Resource(id="r", updated_at=ahead))
        assert (await storage.update_resource("r", metadata={"a": 1})).updated_at == ahead

    async def test_updating_an_unknown_resource_makes_it(self, storage: Storage) -> None:
        made = await storage.update_resource("new", working_memory="x")
        assert (made.id, made.working_memory, made.metadata) == ("new", "x", {})
        assert await storage.get_resource("new") == made

    async def test_resource_arguments_are_checked(self, storage: Storage) -> None:
        for bad in ("", None, 7):
            with pytest.raises(InvalidArgumentError):
                await storage.get_resource(bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentError):
            await storage.update_resource("r", metadata={"x": float("nan")})
        with pytest.raises(InvalidArgumentError):
            await storage.update_resource("r", working_memory=object())
        assert await storage.get_resource("r") is None
