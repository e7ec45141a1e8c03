"""Every Python block of the README and the documentation runs, and prints what it says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from pytest_examples import CodeExample, EvalExample, find_examples

import mastra_storage
from mastra_storage import Storage

ROOT = Path(__file__).parent.parent
# Whose Python needs a deployment: the tests of the plugin run it.
OF_PLUGINS = {"convex.md"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN_FILE = re.compile(
    r'^```\w+ title="(?P<path>[^"]+)"\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)

EXAMPLES = [
    pytest.param(example, id=f"{example.path.relative_to(ROOT)}:{example.start_line}")
    for example in find_examples(*PAGES)
    if example.prefix in ("py", "python") and example.path.name not in OF_PLUGINS
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
def test_shown_files_are_as_they_are_and_linked_ones_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for shown in SHOWN_FILE.finditer(text):
        assert shown["text"] == (ROOT / "docs" / shown["path"]).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_file_of_the_example_is_shown() -> None:
    text = (ROOT / "docs" / "writing-a-backend.md").read_text("utf-8")
    shown = {Path(found["path"]).name for found in SHOWN_FILE.finditer(text)}
    assert shown == {"pyproject.toml", "mastra_storage_journal.py", "test_journal.py"}


def test_the_reference_has_every_method_as_it_is() -> None:
    text = " ".join((ROOT / "docs" / "reference.md").read_text("utf-8").split())
    for name, method in inspect.getmembers(Storage, inspect.isfunction):
        if name.startswith("_"):
            continue
        _, *parameters = inspect.signature(method).parameters.values()
        plain = [parameter.replace(annotation=parameter.empty) for parameter in parameters]
        signature = str(inspect.Signature(plain)).replace("'", '"')
        signature = signature.replace("cursor=None, count=True", "…")
        assert f"{name}{signature} " in text


def test_the_reference_has_every_member_of_every_record() -> None:
    lines = (ROOT / "docs" / "reference.md").read_text("utf-8").splitlines()
    for name in ("Thread", "Message", "WorkflowRun", "Trace", "Eval", "Resource", "Page"):
        [line] = [line for line in lines if line.startswith(f"| `{name}` |")]
        named = re.findall(r"`(\w+)`", line)
        assert named == [name, *getattr(mastra_storage, name).__struct_fields__]
