"""Cutting a span down to what a backend with a limit holds: prompts are attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from mastra_storage import Trace

__all__ = ["LENGTHS", "Lengths", "shortened"]


class Lengths(NamedTuple):
    """What is left: characters of each text, or of the JSON of a value; events and links."""

    characters: int
    events: int | None = None


LENGTHS: Final = (Lengths(20_000), Lengths(500), Lengths(100, 10))
"""Tried in turn."""


def shortened(trace: Trace, lengths: Lengths) -> Trace:
    """The trace with what is long cut: attributes of all kinds, its name and its status.

    `properties["shortened"]` names those that were, `properties["dropped"]` counts the events and
    links that are left out, with those that the SDK's limits did.
    """
    cut = _Cut(lengths.characters)
    properties = dict(trace.properties)
    for name in {"resource"} & properties.keys():
        properties[name] = cut.members(properties[name])
    if "scope" in properties:
        scope = cut.members(properties["scope"], but="attributes")
        properties["scope"] = scope | {"attributes": cut.members(scope["attributes"])}
    kept = {name: getattr(trace, name)[: lengths.events] for name in ("events", "links")}
    missing = {name: len(getattr(trace, name)) - len(some) for name, some in kept.items()}
    if any(missing.values()):
        dropped: Mapping[str, int] = properties.get("dropped", {})
        properties["dropped"] = {
            **dropped,
            **{name: dropped.get(name, 0) + count for name, count in missing.items()},
        }
    changed = msgspec.structs.replace(
        trace,
        name=cut.text("name", trace.name),
        scope=None if trace.scope is None else cut.text("scope", trace.scope),
        status=cut.members(trace.status),
        attributes=cut.members(trace.attributes),
        events=cut.each(kept["events"]),
        links=cut.each(kept["links"]),
    )
    changed.properties = properties | {"shortened": sorted(cut.names)}
    return changed


class _Cut:
    """Cuts values after so many characters, and keeps their names."""

    def __init__(self, characters: int) -> None:
        self.names: set[str] = set()
        self._characters = characters

    def text(self, name: str, text: str) -> str:
        left = len(text) - self._characters
        if left <= 0:
            return text
        self.names.add(name)
        return f"{text[: self._characters]} … {left:,} characters more"

    def members(self, values: Mapping[str, Any], *, but: str | None = None) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in values.items():
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            short = text if name == but else self.text(name, text)
            kept[name] = value if short is text else short
        return kept

    def each(self, parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Events or links: what they have of their own, and their attributes."""
        return [
            self.members(part, but="attributes") | {"attributes": self.members(part["attributes"])}
            for part in parts
        ]
