"""Every Python block of the README and the documentation runs, and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pytest_examples import CodeExample, EvalExample, find_examples

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INCLUDE = re.compile(r'--8<-- "(?P<path>[^"]+)"')

EXAMPLES = [
    pytest.param(example, id=f"{example.path.relative_to(ROOT)}:{example.start_line}")
    for example in find_examples(*PAGES)
    if example.prefix in ("py", "python") and not INCLUDE.search(example.source)
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_block_runs_and_prints_what_it_says(
    example: CodeExample,
    eval_example: EvalExample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert example.prefix_settings().get("test") != "skip", "say why, and leave it untested here"
    monkeypatch.chdir(tmp_path)
    eval_example.set_config(line_length=100)
    eval_example.run_print_check(example)


def test_blocks_were_found() -> None:
    pages = {example.values[0].path.name for example in EXAMPLES}  # type: ignore[union-attr]
    assert {"README.md", "index.md", "errors.md", "sqlite.md", "testing.md"} <= pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_included_and_linked_files_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for include in INCLUDE.finditer(text):
        assert (ROOT / "docs" / include["path"]).is_file()
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
