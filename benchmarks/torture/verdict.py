"""What the checker found."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct, field


class Finding(Struct, frozen=True):
    """Something that may not be: its kind, and the history that shows it."""

    kind: str
    what: str


class Verdict(Struct):
    """What the checker found, and how much it has looked at.

    `sights` are the values that it compared with what may be there; `shown` are the answers of
    watches.
    """

    violations: list[Finding] = field(default_factory=list)
    anomalies: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    sights: int = 0
    shown: int = 0

    @property
    def by_kind(self) -> Counter[str]:
        return Counter(finding.kind for finding in self.violations)

    def violation(self, kind: str, what: str) -> None:
        self.violations.append(Finding(kind, what))
