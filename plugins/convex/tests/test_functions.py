"""The shipped functions as source: typed, linted, internal, with validators for all they take."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import mastra_storage_convex
import pytest
from convex_server import SERVER
from local_server import install
from mastra_storage_convex.layout import SLOTS
from mastra_storage_convex.queries import MAX_KEYS, MAX_LIMIT
from mastra_storage_convex.wire import PROTOCOL

pytestmark = pytest.mark.once

FUNCTIONS = Path(mastra_storage_convex.__file__).parent / "functions"
CHECKS = Path(__file__).parent / "functions"
ROWS = ("documents", "evals", "messages", "resources", "threads", "traces", "workflowRuns")

_EXPORT = re.compile(r"^export (?:default |const |(?:async )?function )(.*)$", re.MULTILINE)
_REGISTERED = re.compile(r"(\w+) = (\w+)\(\{")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of npm with the functions in `convex/`, as `init` leaves them."""
    install(SERVER)
    shutil.copytree(FUNCTIONS, tmp_path / "convex")
    for name in ("tsconfig.json", "eslint.config.mjs"):
        shutil.copy(CHECKS / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(SERVER / "node_modules")
    return tmp_path


def said(project: Path, *command: str) -> str:
    """What a tool of npm finds fault with."""
    program, *arguments = command
    outcome = subprocess.run(
        [f"node_modules/.bin/{program}", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    found = outcome.stdout + outcome.stderr
    assert bool(found.strip()) == bool(outcome.returncode)
    return found


def modules() -> dict[str, str]:
    """The source of each module that may have functions in it."""
    return {path.stem: path.read_text() for path in FUNCTIONS.glob("*.ts")}


def functions() -> dict[str, tuple[str, str]]:
    """How each exported function is registered, and its source: `{"threads:get": ...}`."""
    found: dict[str, tuple[str, str]] = {}
    for module, source in modules().items():
        for start in _EXPORT.finditer(source):
            if module == "schema":
                continue
            registered = _REGISTERED.match(start[1])
            assert registered, f"{module}.ts exports something else: {start[0]}"
            end = source.index("\n});\n", start.start())
            found[f"{module}:{registered[1]}"] = registered[2], source[start.start() : end]
    return found


def test_the_functions_are_those_of_the_protocol() -> None:
    rows = {f"{module}:{name}" for module in ROWS for name in ("get", "list", "count")}
    system = {"write", "forget", "purge", "sweep", "tables", "version"}
    assert functions().keys() == rows | {f"system:{name}" for name in system}


def test_every_function_is_internal_and_says_what_it_takes_and_gives() -> None:
    for name, (builder, source) in functions().items():
        assert builder in ("internalQuery", "internalMutation"), name
        assert re.search(r"^  args: ", source, re.MULTILINE), name
        assert re.search(r"^  returns: ", source, re.MULTILINE), name


def test_the_builders_are_convex_own_internal_ones() -> None:
    generic = {
        path.name: set(re.findall(r"\b\w+Generic\b", path.read_text()))
        for path in FUNCTIONS.rglob("*.ts")
    }
    assert {name: found for name, found in generic.items() if found} == {
        "builders.ts": {"internalQueryGeneric", "internalMutationGeneric"}
    }
    imported = 'from "./mastra/builders"'
    assert {module for module, source in modules().items() if imported not in source} == {"schema"}


def test_no_type_is_left_open() -> None:
    for path in FUNCTIONS.rglob("*.ts"):
        assert not re.search(r"\bv\.any\b|\bany\b[\[;,)>]|eslint-disable|@ts-", path.read_text())


def test_no_table_is_read_whole() -> None:
    for path in FUNCTIONS.rglob("*.ts"):
        assert not re.search(r"\.collect\(|\.filter\(\(q\)|fullTableScan", path.read_text())


def test_every_table_has_the_indexes_that_its_listings_use_and_no_others() -> None:
    shapes = (FUNCTIONS / "mastra" / "shapes.ts").read_text()
    tables = (FUNCTIONS / "mastra" / "tables.ts").read_text()
    for table in ROWS:
        shape = shapes.split(f"export const {table} = shape(")[1].split("});")[0]
        whole, ordered, recent = (
            re.search(rf"  {name}: ([\[{{][^\]}}]*)", shape)
            for name in ("whole", "ordered", "recent")
        )
        assert whole
        assert ordered
        assert recent
        columns = dict(re.findall(r'(\w+): "(\w+)"', ordered[1]))
        used = {"by_key", "by_expiry", *columns.values()}
        used |= {f"{columns[column]}_recent" for column in re.findall(r'"(\w+)"', recent[1])}
        orders = {"created": "by_order", "recent": "by_recent"}
        used |= {orders[order] for order in re.findall(r'"(\w+)"', whole[1])}
        if table == "documents":
            used |= {f"by_group{number}" for number in range(SLOTS)}
        source = tables.split(f"  {table}: defineTable(")[1].split("\n\n")[0]
        assert sorted(re.findall(r'\.index\("(\w+)"', source)) == sorted(used)


def test_functions_and_client_speak_one_protocol() -> None:
    source = (FUNCTIONS / "mastra" / "version.ts").read_text()
    assert f"PROTOCOL = {PROTOCOL};" in source
    keys = (FUNCTIONS / "mastra" / "reading.ts").read_text()
    assert f"const KEYS = {MAX_KEYS:_};" in keys
    limits = (FUNCTIONS / "mastra" / "limits.ts").read_text()
    assert f"LIST_ROWS = {MAX_LIMIT};" in limits
    version = re.search(r'VERSION = "(.+)";', source)
    project = (FUNCTIONS.parent.parent / "pyproject.toml").read_text()
    assert version
    assert f'\nversion = "{version[1]}"\n' in project


def test_they_are_typed(project: Path) -> None:
    assert said(project, "tsc") == ""


def test_a_wrong_type_would_be_found(project: Path) -> None:
    resources = project / "convex" / "resources.ts"
    resources.write_text(resources.read_text().replace("listReturns(", "countReturns && ("))
    assert "convex/resources.ts" in said(project, "tsc")


def test_they_are_typed_beside_tables_and_functions_of_the_user(project: Path) -> None:
    shutil.copytree(CHECKS / "own", project / "convex", dirs_exist_ok=True)
    assert said(project, "tsc") == ""


def test_they_are_linted(project: Path) -> None:
    assert said(project, "eslint", "--max-warnings=0", "convex") == ""


def test_lint_knows_the_rules_of_convex(project: Path) -> None:
    own = (CHECKS / "own" / "chat.ts").read_text()
    (project / "convex" / "chat.ts").write_text(own.replace(".take(20)", ".collect()"))
    shutil.copy(CHECKS / "own" / "schema.ts", project / "convex")
    assert "@convex-dev/no-collect-in-query" in said(project, "eslint", "convex")
