"""The Python of the README runs, and prints what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_examples import CodeExample, EvalExample, find_examples

README = Path(__file__).parent.parent / "README.md"
BLOCKS = [block for block in find_examples(README) if block.prefix == "python"]


@pytest.mark.parametrize("example", BLOCKS, ids=str)
def test_a_block_runs_and_prints_what_it_says(
    example: CodeExample, eval_example: EvalExample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    eval_example.set_config(line_length=100)
    eval_example.run_print_check(example)
