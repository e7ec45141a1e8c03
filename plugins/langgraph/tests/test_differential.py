"""Any calls in any order: what LangGraph's own saver in memory answers, this one answers too."""

from __future__ import annotations

import asyncio
from typing import Any

from graphs import config_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, _DeltaSnapshot
from mastra_storage_langgraph import MastraSaver

from mastra_storage import open_storage

texts = st.integers(0, 4).map(lambda number: "vwxyz"[number] * 60)
values = {
    "items": st.lists(texts, max_size=6),
    "members": st.dictionaries(texts, st.integers(0, 9), max_size=4),
    "text": texts,
    "none": st.none(),
}
snapshots = st.lists(texts, max_size=9).map(_DeltaSnapshot)
changes = st.fixed_dictionaries({}, optional={**values, "delta": st.one_of(texts, snapshots)})
which = st.one_of(st.just(-1), st.just(-1), st.integers(0, 20))  # the latest, mostly
puts = st.tuples(
    st.just("put"), which, changes, st.sampled_from(["", "child:1"]), st.integers(0, 2)
)
channels = st.sampled_from(["delta", "delta", "items", ERROR, INTERRUPT, RESUME])
writes = st.tuples(
    st.just("write"),
    which,
    st.lists(st.tuples(channels, texts), min_size=1, max_size=3, unique_by=lambda one: one[0]),
    st.sampled_from(["task 1", "task 2", "task 3"]),
    st.sampled_from(["", "~1", "~2"]),
)


class Pair:
    """Both savers, and the checkpoints that both have."""

    def __init__(self, ours: MastraSaver) -> None:
        self.ours = ours
        self.theirs = InMemorySaver(serde=ours.serde)
        self.configs: list[Any] = []
        self.states: list[tuple[dict[str, Any], dict[str, Any]]] = []

    async def put(self, parent: int, changed: dict[str, Any], ns: str, run: int) -> None:
        """A checkpoint on another of its namespace, or on none."""
        config = config_of("t", checkpoint_ns=ns)
        state: dict[str, Any] = {}
        versions: dict[str, Any] = {}
        there = [
            n for n, one in enumerate(self.configs) if one["configurable"]["checkpoint_ns"] == ns
        ]
        if there:
            chosen = there[parent % len(there)]
            config = self.configs[chosen]
            before, versions = (dict(one) for one in self.states[chosen])
            state = {name: value for name, value in before.items() if name != "delta"}
        # A delta channel has a version at every change, and a value at some.
        names = {*changed, *({"delta"} if run else set())}
        new: dict[str, Any] = {
            name: self.ours.get_next_version(versions.get(name), None) for name in names
        }
        checkpoint = empty_checkpoint()
        checkpoint["id"] = str(uuid6())
        checkpoint["channel_values"] = state | changed
        if "delta" not in changed and "delta" in versions and "delta" not in new:
            new["delta"] = self.ours.get_next_version(versions["delta"], None)
        checkpoint["channel_versions"] = versions | new
        metadata: Any = {"source": "loop", "step": run, "run_id": f"run {run}"}
        for saver in (self.ours, self.theirs):
            stored = await saver.aput(config, checkpoint, metadata, new)
        self.configs.append(stored)
        self.states.append((state | changed, versions | new))

    async def write(self, which: int, given: Any, task: str, path: str) -> None:
        if not self.configs:
            return
        config = self.configs[which % len(self.configs)]
        for saver in (self.ours, self.theirs):
            await saver.aput_writes(config, given, task, path)

    async def check(self, reader: MastraSaver) -> None:
        for config in [*self.configs, config_of("t"), config_of("t", checkpoint_ns="child:1")]:
            assert await reader.aget_tuple(config) == await self.theirs.aget_tuple(config)
            history = {
                saver: await saver.aget_delta_channel_history(
                    config=config, channels=["delta", "items", "never"]
                )
                for saver in (reader, self.theirs)
            }
            assert history[reader] == history[self.theirs]
        for config, more in (
            (config_of("t", checkpoint_ns=""), {}),
            (config_of("t", checkpoint_ns="child:1"), {"filter": {"step": 1}}),
            (config_of("t", checkpoint_ns=""), {"limit": 2}),
            (config_of("t", checkpoint_ns=""), {"before": self.configs[0]} if self.configs else {}),
        ):
            listed = [await _all(saver, config, more) for saver in (reader, self.theirs)]
            assert listed[0] == listed[1]


async def _all(saver: Any, config: Any, more: Any) -> list[CheckpointTuple]:
    return [one async for one in saver.alist(config, **more)]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(puts, writes), min_size=8, max_size=24))
def test_both_answer_the_same(calls: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        async with open_storage("memory://") as storage:
            pair = Pair(MastraSaver(storage))
            for name, *arguments in calls:
                await getattr(pair, name)(*arguments)
            await pair.check(pair.ours)
            await pair.check(MastraSaver(storage))

    asyncio.run(run())
