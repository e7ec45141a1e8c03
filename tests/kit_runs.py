"""Running the conformance kit on a backend that has a fault, and faults to plant."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import pytest

from mastra_storage.backend import Op, Touch
from mastra_storage.backends.memory import MemoryBackend
from mastra_storage.plugins import register
from mastra_storage.schema import Row
from mastra_storage.testing import StorageConformance
from mastra_storage.testing.live import run_kit

# What does not come at once on memory does not come at all.
_IMPATIENT = {"watch_delay": 0.5, "touch_delay": 0.1, "machine_examples": 10}


def failures(
    backend: type[MemoryBackend], *, full: bool, first_alone: bool = False
) -> dict[str, str]:
    """The rules that fail when the kit is run on `backend`, in their order, and what they say."""
    failed: dict[str, str] = {}

    def note(rule: str, outcome: str, detail: str, seconds: float) -> None:
        if outcome == "failed":
            failed[rule] = detail
            if first_alone:
                pytest.exit("that is enough", returncode=1)

    register("mutant", backend)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _IMPATIENT.items():
            patch.setattr(StorageConformance, name, value)
        code = run_kit("mutant://memory", full=full, on_result=note)
    assert code == (1 if failed else 0)
    # By the timeout of the test around the kit.
    assert [rule for rule, detail in failed.items() if "Timeout (>" in detail] == []
    return failed


def first_failure(backend: type[MemoryBackend]) -> tuple[str, str]:
    """The first rule that fails when all of the kit is run on `backend`, and what it says."""
    [found] = failures(backend, full=True, first_alone=True).items()
    return found


class ChangesTouchedRows(MemoryBackend):
    """A touch leaves a row otherwise than it should."""

    @abstractmethod
    def touched(self, row: Row, touch: Touch) -> Row:
        """What is left."""

    async def write(self, ops: Sequence[Op]) -> None:
        await super().write(ops)
        for op in ops:
            if isinstance(op, Touch):
                [row] = await self.get(op.table, [op.key])
                if row is not None:
                    self._set(op.table, op.key, self.touched(row, op))
