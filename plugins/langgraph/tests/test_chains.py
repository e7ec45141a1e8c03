"""Chains, by their own rules: any lists in any order come back, and little is written twice."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from mastra_storage_langgraph._chains import Link, Version, is_complete, next_link, opened_version
from mastra_storage_langgraph._codec import Codec

CODEC = Codec(JsonPlusSerializer())


class Writer:
    """Chains in memory, and the values that they should hold."""

    def __init__(self) -> None:
        self.chains: dict[str, dict[str, Link]] = {}
        self.versions: list[tuple[Version, Any]] = []
        self.items = 0

    async def add(self, value: Any, base: Version | None) -> Version:
        name = f"{len(self.versions)}"
        link, version = await next_link(CODEC, base, value, chain=name, link=f"link {name}")
        if link is not None:
            self.chains.setdefault(version.chain, {})[version.link] = link
            self.items += len(link.items)
        self.versions.append((version, value))
        return version

    def check(self) -> None:
        for version, value in self.versions:
            links = self.chains[version.chain]
            assert is_complete(links, version.link)
            assert version.value(CODEC) == value
            assert opened_version(CODEC, links, version.chain, version.link) == (value, version)


letters = st.integers(0, 5).map(lambda number: "abcdef"[number] * 40)
values = st.one_of(
    st.lists(letters, min_size=1, max_size=12),
    st.dictionaries(letters, st.integers(0, 3), min_size=1, max_size=6),
)


@settings(deadline=None)
@given(st.lists(st.tuples(values, st.integers(0, 100)), min_size=1, max_size=12))
def test_any_lists_that_follow_any_others_come_back(steps: list[tuple[Any, int]]) -> None:
    async def write() -> None:
        writer = Writer()
        for value, follows in steps:
            known = writer.versions
            await writer.add(value, known[follows % len(known)][0] if known else None)
        writer.check()

    asyncio.run(write())


def test_a_list_that_grows_is_one_chain_of_what_is_new() -> None:
    async def write() -> None:
        writer, version = Writer(), None
        value: list[str] = []
        for number in range(500):
            value = [*value, f"{number}"]
            version = await writer.add(value, version)
        assert len(writer.chains) == 1
        assert writer.items == 500
        assert version is not None
        assert version.weight == sum(len(data) + 128 for _, data in version.forms)
        writer.check()

    asyncio.run(write())


def test_an_unchanged_list_needs_no_link() -> None:
    async def write() -> None:
        first = await Writer().add(["a", "b"], None)
        assert await next_link(CODEC, first, ["a", "b"], chain="c", link="l") == (None, first)

    asyncio.run(write())


def test_a_chain_ends_when_most_of_it_is_dead() -> None:
    async def write() -> None:
        writer, version = Writer(), None
        for number in range(1000):
            version = await writer.add(
                [f"{n}".ljust(100) for n in range(number, number + 9)], version
            )
        assert max(map(len, writer.chains.values())) < 50
        assert writer.items < 2 * 1009 + 1000

    asyncio.run(write())
