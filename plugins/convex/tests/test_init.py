"""`mastra-storage-convex init`: which files it copies, and which it leaves alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mastra_storage_convex import deploying
from mastra_storage_convex.cli import app
from typer.testing import CliRunner, Result

PLUGIN = Path(__file__).parents[1]
SOURCES = PLUGIN / "mastra_storage_convex" / "functions"
MODULES = {"threads", "messages", "traces", "evals", "workflowRuns", "resources", "documents"}


def init(*arguments: str | Path) -> Result:
    """The command's end; no traceback ever, and one line when it fails."""
    result = CliRunner().invoke(app, ["init", *map(str, arguments)], catch_exceptions=False)
    if result.exit_code:
        [line] = result.stderr.splitlines()
        assert line.startswith("mastra-storage-convex: ")
    else:
        assert result.stderr == ""
    return result


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_function_file_is_shipped() -> None:
    assert deploying.shipped() == contents(SOURCES)
    there = {name.removesuffix(".ts") for name in deploying.shipped()}
    assert MODULES | {"schema", "system", "mastra/tables"} <= there


def test_it_makes_the_directory_and_says_what_comes_next(project: Path) -> None:
    out = init().stdout
    assert contents(project / "convex") == contents(SOURCES)
    assert out.count("  created  ") == len(deploying.shipped())
    for step in ("npm install convex", "npx convex dev", "npx convex deploy", "CONVEX_DEPLOY_KEY"):
        assert step in out
    assert out.rstrip().endswith("mastra-storage-convex verify")


def test_another_directory_needs_a_line_in_convex_json(project: Path) -> None:
    assert '"functions": "backend/"' in init(project / "web" / "backend").stdout
    assert contents(project / "web" / "backend") == contents(SOURCES)
    assert "convex.json" not in init(project / "web" / "convex").stdout


def test_convex_json_says_where_the_functions_are(project: Path) -> None:
    (project / "convex.json").write_text('{"functions": "src/convex/", "node": {}}')
    out = init().stdout
    assert contents(project / "src" / "convex") == contents(SOURCES)
    assert out.startswith("src/convex/\n")
    assert "In convex.json there" not in out
    assert not (project / "convex").exists()
    assert 'In convex.json there: { "functions": "backend/" }' in init("backend").stdout


def test_a_convex_json_without_it_changes_nothing(project: Path) -> None:
    (project / "convex.json").write_text('{"node": {}}')
    assert init().stdout.startswith("convex/\n")


def test_in_a_larger_project_the_path_is_from_its_package_json(project: Path) -> None:
    (project / "package.json").write_text("{}")
    assert '"functions": "server/backend/"' in init("server/backend").stdout


@pytest.mark.parametrize("text", ["{", '{"functions": 5}', "[]"])
def test_a_convex_json_that_cannot_be_read_is_one_line(project: Path, text: str) -> None:
    (project / "convex.json").write_text(text)
    result = init()
    assert result.exit_code == 2
    assert "convex.json is not the JSON that Convex expects" in result.stderr
    assert [path.name for path in project.iterdir()] == ["convex.json"]


@pytest.mark.parametrize("sign", ["_generated/api.d.ts", "schema.ts", "../convex.json"])
def test_inside_of_a_directory_of_functions_no_other_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    inside = project / "functions"
    inside.mkdir()
    (inside / sign).resolve().parent.mkdir(exist_ok=True)
    (inside / sign).write_text('{"functions": "functions"}  ')
    if sign == "schema.ts":
        (inside / sign).write_text('import { defineSchema } from "convex/server";\n')
    monkeypatch.chdir(inside)
    before = contents(project)
    result = init()
    assert result.exit_code == 2
    assert "mastra-storage-convex init .\n" in result.stderr
    assert contents(project) == before
    init(".")
    assert (inside / "threads.ts").exists()


@pytest.mark.parametrize("spread", ["", "  ...mastraTables,\n"])
def test_a_table_of_yours_with_a_name_of_ours_is_told(project: Path, spread: str) -> None:
    (project / "convex").mkdir()
    mine = (
        f"defineSchema({{\n{spread}  users: defineTable({{}}),\n  traces: defineTable({{}}),\n}});"
    )
    (project / "convex" / "schema.ts").write_text(mine)
    assert "Rename in it, as ours have these names: traces\n" in init().stdout


def test_the_package_of_convex_is_asked_for_only_when_it_is_not_there(project: Path) -> None:
    (project / "node_modules" / "convex").mkdir(parents=True)
    assert "npm install" not in init().stdout


def test_repeating_it_changes_nothing(project: Path) -> None:
    init()
    before = {path: path.stat().st_mtime_ns for path in (project / "convex").rglob("*.ts")}
    out = init().stdout
    assert out.count("  unchanged  ") == len(before)
    assert "created" not in out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_missing_is_copied_and_nothing_of_yours_is_touched(project: Path) -> None:
    init()
    (project / "convex" / "threads.ts").unlink()
    (project / "convex" / "mine.ts").write_text("export {};\n")
    assert "  created    threads.ts" in init().stdout
    assert contents(project / "convex") == contents(SOURCES) | {"mine.ts": b"export {};\n"}


def test_line_ends_of_another_system_are_no_difference(project: Path) -> None:
    init()
    path = project / "convex" / "threads.ts"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert "  unchanged  threads.ts" in init().stdout
    assert b"\r\n" in path.read_bytes()


@pytest.mark.parametrize("name", ["messages.ts", "messages.js", "mastra/tables.ts"])
def test_over_a_changed_file_nothing_at_all_is_copied(project: Path, name: str) -> None:
    path = project / "convex" / name
    path.parent.mkdir(parents=True)
    path.write_text("// mine\n")
    result = init()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing was copied" in result.stderr
    assert name in result.stderr
    assert "--diff" in result.stderr
    assert contents(project / "convex") == {name: b"// mine\n"}


def test_the_difference_is_shown(project: Path) -> None:
    init()
    assert init("--diff").stdout == "Nothing in convex differs.\n"
    for name in ("messages.ts", "schema.ts"):
        path = project / "convex" / name
        path.write_text("// mine\n" + path.read_text())
    before = contents(project / "convex")
    lines = init("--diff").stdout.splitlines()
    assert [line for line in lines if line.startswith("-")] == [
        "--- convex/messages.ts",
        "-// mine",
        "--- convex/schema.ts",
        "-// mine",
    ]
    assert "+++ shipped/schema.ts" in lines
    assert contents(project / "convex") == before


@pytest.mark.parametrize("name", ["schema.ts", "schema.js"])
def test_a_schema_of_ones_own_stays_and_how_to_merge_is_shown(project: Path, name: str) -> None:
    (project / "convex").mkdir()
    mine = 'import { defineSchema } from "convex/server";\nexport default defineSchema({});\n'
    (project / "convex" / name).write_text(mine)
    out = init().stdout
    assert f"  yours      {name}" in out
    assert 'import { mastraTables } from "./mastra/tables";' in out
    assert "...mastraTables," in out
    others = {path: text for path, text in contents(SOURCES).items() if path != "schema.ts"}
    assert contents(project / "convex") == others | {name: mine.encode()}
    assert b"export const mastraTables" in others["mastra/tables.ts"]


def test_a_schema_that_has_our_tables_is_left_in_peace(project: Path) -> None:
    (project / "convex").mkdir()
    mine = (SOURCES / "schema.ts").read_text() + "// and more\n"
    (project / "convex" / "schema.ts").write_text(mine)
    out = init().stdout
    assert "has our tables already" in out
    assert "import {" not in out
    assert (project / "convex" / "schema.ts").read_text() == mine


def test_what_cannot_be_a_directory_is_one_line(project: Path) -> None:
    (project / "convex").write_text("a file")
    result = init()
    assert result.exit_code == 2
    assert "convex is a file; name a directory" in result.stderr
    (project / "below" / "threads.ts").mkdir(parents=True)
    result = init("below")
    assert result.exit_code == 5
    assert "is a directory" in result.stderr
    assert contents(project / "below") == {}


def test_a_disk_that_fails_leaves_nothing_half_copied(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "convex").mkdir()
    (project / "convex" / "mine.ts").write_text("export {};\n")
    opened: list[str] = []
    original = Path.open

    def failing(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if mode == "xb":
            opened.append(path.name)
            if len(opened) == len(deploying.shipped()):
                raise OSError(28, "No space left on device", str(path))
        return original(path, mode, *arguments, **named)

    monkeypatch.setattr(Path, "open", failing)
    result = init()
    assert result.exit_code == 5
    assert "No space left on device" in result.stderr
    assert len(opened) > 1
    assert contents(project / "convex") == {"mine.ts": b"export {};\n"}
    assert [path.name for path in (project / "convex").iterdir()] == ["mine.ts"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(project: Path) -> None:
    plan = deploying.plan_of(project / "convex")
    (project / "convex").mkdir()
    (project / "convex" / plan.new[-1]).write_text("// somebody was faster\n")
    with pytest.raises(FileExistsError):
        deploying.copy(project / "convex", plan.new)
    assert contents(project / "convex") == {plan.new[-1]: b"// somebody was faster\n"}


# -- the wheel -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, built as an installer would build it."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(target), str(PLUGIN)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    [built] = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that has the wheel's files, as an installer would put them there."""
    target = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    package = PLUGIN / "mastra_storage_convex"
    source = {
        path.relative_to(PLUGIN).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == source
    assert {name for name in packed if not re.search(r"\.(py|ts|typed)$", name)} == set()
    assert {f"mastra_storage_convex/functions/{name}.ts" for name in MODULES} <= packed


@pytest.mark.parametrize("start", [["-m", "mastra_storage_convex"], ["script"]])
def test_an_installed_wheel_copies_them(installed: Path, project: Path, start: list[str]) -> None:
    script = "import sys; from mastra_storage_convex.cli import main; sys.argv[0] = 'x'; main()"
    command = [sys.executable, *(start if start != ["script"] else ["-c", script]), "init", "there"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = "import mastra_storage_convex as package; print(package.__file__)"
    for program in ([sys.executable, "-c", where], command):
        done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if program[-1] == where:
            assert str(installed) in done.stdout
    assert contents(project / "there") == contents(SOURCES)
