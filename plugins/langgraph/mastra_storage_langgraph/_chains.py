"""Lists that grow: each version is a link of a chain, with what the one before it has not.

A link says how its version is made of the version it follows (its base) and of new elements.
Versions that branch off share what is before. When more of a chain is dead than alive, as with a
list that forgets its beginning, the next version begins a new chain: so no read grows without
bound, and each element is written once, or a second time for as much that is new.

A dict with text keys is kept the same way, as the list of its items, and so is the list in the
snapshot of a delta channel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from langgraph.checkpoint.serde.types import _DeltaSnapshot
from msgspec import Struct

from mastra_storage_langgraph._codec import Codec, Form, Text, form_of, text_of

__all__ = [
    "FIRST",
    "Link",
    "Version",
    "count_of",
    "elements_of",
    "is_complete",
    "next_link",
    "opened_version",
    "value_of",
]

FIRST: Final = "0"
"""The name of the first link of every chain."""

Kind: TypeAlias = Literal["list", "dict", "snapshot"]
Run: TypeAlias = int | tuple[int, int]

# What an element takes in a row and in an index, besides its own bytes.
_AROUND: Final = 128
# A chain may have so much that is dead before it counts.
_SLACK: Final = 4096
# How many elements are serialised before others may run.
_AT_ONCE: Final = 500


class Link(Struct, frozen=True):
    """What a row holds of a version.

    - `base`: the link it follows. `weight`: what all links up to this one take.
    - `runs`: the version's elements in order: `[start, count]` of its base's, or how many of
      `items`.
    """

    kind: Kind
    runs: list[Run]
    items: list[Text]
    weight: int
    base: str | None = None


class Version(NamedTuple):
    """What is known of a stored version, to read it, and to make the next one from.

    `weight` is what all links up to this one take.
    """

    kind: Kind
    chain: str
    link: str
    forms: list[Form]
    digests: list[bytes]
    weight: int

    def value(self, codec: Codec) -> Any:
        """The list or dict, made anew."""
        return value_of(self.kind, list(map(codec.value, self.forms)))


def opened_version(
    codec: Codec, links: Mapping[str, Link], chain: str, link: str
) -> tuple[Any, Version]:
    """The value at a link, and what is known of it."""
    last = links[link]
    forms = elements_of(links, link)
    opened = list(map(codec.opened, forms))
    digests = [digest for _, digest in opened]
    value = value_of(last.kind, [element for element, _ in opened])
    return value, Version(last.kind, chain, link, forms, digests, last.weight)


def count_of(value: Any) -> int | None:
    """How many elements a value has that is kept as a chain; `None` for one that is not."""
    kind = kind_of(value)
    return None if kind is None else len(value.value if kind == "snapshot" else value)


def kind_of(value: Any) -> Kind | None:
    """As what a value is kept as a chain; `None` for one that is not."""
    kind = type(value)
    if kind is list:
        return "list"
    if kind is dict and all(type(key) is str for key in value):
        return "dict"
    return "snapshot" if kind is _DeltaSnapshot and type(value.value) is list else None


def value_of(kind: Kind, elements: list[Any]) -> Any:
    """The value that is kept as these elements."""
    if kind == "dict":
        return dict(elements)
    return elements if kind == "list" else _DeltaSnapshot(elements)


async def next_link(
    codec: Codec, base: Version | None, value: Any, *, chain: str, link: str
) -> tuple[Link | None, Version]:
    """The link that `value` needs, `None` when it is as its base; and what it is then.

    `chain` names the chain, and `link` the link, that it gets if it needs one.
    """
    kind = kind_of(value) or "list"
    held = value.value if kind == "snapshot" else value
    # Taken at once: the graph goes on while this waits.
    elements = list(held.items()) if kind == "dict" else list(held)
    compared: list[tuple[bytes, Form | None]] = []
    for place, element in enumerate(elements):
        if place and place % _AT_ONCE == 0:
            await asyncio.sleep(0)
        compared.append(codec.compare(element))
    digests = [digest for digest, _ in compared]

    def new(start: int, count: int) -> list[Form]:
        places = range(start, start + count)
        return [compared[place][1] or codec.form(elements[place]) for place in places]

    if base is not None and base.kind == kind:
        if base.digests == digests:
            return None, base
        forms: list[Form] = []
        items: list[Form] = []
        runs = _runs(base.digests, digests)
        for run in runs:
            if isinstance(run, int):
                items += (added := new(len(forms), run))
                forms += added
            else:
                forms += base.forms[run[0] : sum(run)]
        weight = base.weight + (_weight(items) or _AROUND)
        if len(items) < len(digests) and weight <= 2 * _weight(forms) + _SLACK:
            found = Link(kind, runs, list(map(text_of, items)), weight, base.link)
            return found, Version(kind, base.chain, link, forms, digests, weight)
    forms = new(0, len(elements))
    weight = _weight(forms)
    found = Link(kind, [len(forms)], list(map(text_of, forms)), weight)
    return found, Version(kind, chain, FIRST, forms, digests, weight)


def is_complete(links: Mapping[str, Link], name: str | None) -> bool:
    """Whether all links are there that the version at a link is made of."""
    while name is not None:
        if name not in links:
            return False
        name = links[name].base
    return True


def elements_of(links: Mapping[str, Link], name: str) -> list[Form]:
    """The elements of the version at a link."""
    path = [links[name]]
    while path[-1].base is not None:
        path.append(links[path[-1].base])
    elements: list[Text] = []
    for link in reversed(path):
        if link.runs[:1] == [(0, len(elements))] and len(link.runs) <= 2:
            elements += link.items  # the usual case: all that was, and more
            continue
        items = iter(link.items)
        before, elements = elements, []
        for run in link.runs:
            elements += islice(items, run) if isinstance(run, int) else before[run[0] : sum(run)]
    return list(map(form_of, elements))


def _runs(old: Sequence[bytes], new: Sequence[bytes]) -> list[Run]:
    """How `new` is made of `old`: the longest runs of old elements, and new ones between."""
    runs: list[Run] = []
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    if same:
        runs.append((0, same))
    places = {digest: place for place, digest in enumerate(old)} if same < len(old) else {}
    at = same
    while at < len(new):
        start = at
        while at < len(new) and new[at] not in places:
            at += 1
        if at > start:
            runs.append(at - start)
        if at < len(new):
            place = places[new[at]]
            count = 1
            while old[place + count : place + count + 1] == new[at + count : at + count + 1] != []:
                count += 1
            runs.append((place, count))
            at += count
    return runs


def _weight(forms: Sequence[Form]) -> int:
    return sum([len(data) for _, data in forms]) + _AROUND * len(forms)
