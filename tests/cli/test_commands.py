"""The command itself, run as people run it: output, exit codes, interrupts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mastra_storage import (
    Eval,
    Message,
    Put,
    Resource,
    Row,
    Storage,
    Table,
    Thread,
    Trace,
    WorkflowRun,
    open_storage,
)
from mastra_storage.cli import exits

from .chats import CHATS, all_rows, content_of, lines

COMMAND = [sys.executable, "-c", "from mastra_storage.cli import main; main()"]
LOOKING = ["threads", "messages", "runs", "traces", "evals", "resources"]
COMMANDS = ["demo", "plugins", "check", *LOOKING, "import", "export", "copy"]

Record = Thread | Message | Trace | WorkflowRun | Eval | Resource


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chats.jsonl").write_bytes(lines(CHATS).getvalue())
    return tmp_path


def command(
    *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "100", "PYTHONUTF8": "1", **(env or {})},
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def ok(*arguments: str, stdin: bytes = b"") -> str:
    done = command(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(code: int, *arguments: str, stdin: bytes = b"") -> str:
    """The one line on stderr of a command that ends with this code."""
    done = command(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (code, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("mastra-storage: ")
    return line


def write(url: str, *records: Record) -> None:
    async def save() -> None:
        async with open_storage(url) as storage:
            for record in records:
                await _save(storage, record)

    asyncio.run(save())


async def _save(storage: Storage, record: Record) -> None:
    match record:
        case Thread():
            await storage.save_thread(record)
        case Message():
            await storage.save_message(record)
        case Trace():
            await storage.save_trace(record)
        case WorkflowRun():
            await storage.save_workflow_run(record)
        case Eval():
            await storage.save_eval(record)
        case Resource():
            await storage.save_resource(record)


def rows_of(url: str) -> list[Row]:
    async def read() -> list[Row]:
        async with open_storage(url) as storage:
            return await all_rows(storage)

    return asyncio.run(read())


# -- start -----------------------------------------------------------------------------------


def test_demo_keeps_a_conversation_and_goes_on_with_it(directory: Path) -> None:
    first = ok("demo")
    assert (directory / "mastra-demo.db").exists()
    assert 'get_forecast(city="Lisbon", day="tomorrow")' in first
    assert "Lisbon will be sunny" in first
    assert "read back from a newly opened store: 6 messages" in first
    assert "earlier" not in first
    second = ok("demo")
    assert "behind 6 messages that earlier runs left" in second
    assert "Lisbon and Oslo." in second
    assert "Lisbon will be" not in second, "it shows what is new"
    ok("demo")
    ok("demo")
    assert "Lisbon, Oslo, Kyoto and Nairobi." in ok("demo")


def test_the_python_that_demo_shows_runs(directory: Path) -> None:
    code = ok("demo", "sqlite:///agent.db").split("In Python\n")[1]
    done = subprocess.run(
        [sys.executable, "-c", re.sub(r"^  ", "", code, flags=re.MULTILINE)],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
    )
    assert (done.stdout, done.stderr) == ("user Hello\n", "")
    assert all(len(line.rstrip()) <= 80 for line in code.splitlines())


def test_demo_says_so_when_nothing_is_kept() -> None:
    for url in ("memory://", "memory://named"):
        shown = ok("demo", url)
        assert "forgets everything when it is closed" in shown
        assert "read back" not in shown
        assert f"{url} demo" not in shown, "there is nothing left to look at"


def test_a_brief_demo_leaves_out_what_comes_next() -> None:
    shown = ok("demo", "--brief")
    assert shown.rstrip().endswith("read back from a newly opened store: 6 messages")
    assert "In Python" not in shown
    assert "Next" not in shown


def test_demo_names_the_command_as_it_can_be_called(directory: Path) -> None:
    script = directory / "bin" / "mastra-storage"
    script.parent.mkdir()
    script.write_text("from mastra_storage.cli import main\nmain()\n")
    script.chmod(0o755)
    for path, name in (("", "bin/mastra-storage"), (str(script.parent), "mastra-storage")):
        done = subprocess.run(
            [sys.executable, "bin/mastra-storage", "demo"],
            env={**os.environ, "PATH": path, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"\n  {name} --help" in done.stdout


def test_demo_works_where_the_terminal_has_no_unicode() -> None:
    done = command("demo", env={"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "get_forecast" in done.stdout


def test_plugins_lists_schemes_and_what_is_broken(directory: Path) -> None:
    broken = directory / "broken-1.2.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.2\n")
    (broken / "entry_points.txt").write_text("[mastra_storage.backends]\nbad = nowhere:Backend\n")
    env = {"PYTHONPATH": str(directory)}
    listed = command("plugins", "--json", env=env)
    plugins = {plugin["scheme"]: plugin for plugin in map(json.loads, listed.stdout.splitlines())}
    assert plugins["sqlite"]["distribution"] == "mastra-storage"
    assert plugins["sqlite"]["error"] is None
    assert (plugins["bad"]["distribution"], plugins["bad"]["version"]) == ("broken", "1.2")
    assert "No module named 'nowhere'" in plugins["bad"]["error"]
    shown = command("plugins", env=env)
    assert shown.returncode == 0
    assert "broken: " in shown.stdout
    assert "ready" in shown.stdout


def test_check_shows_each_rule_and_leaves_no_rows() -> None:
    done = command("check", "sqlite:///checked.db?busy_timeout=7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"Checking sqlite:///checked\.db: about [\d,]+ row writes\.\n", done.stderr)
    assert re.search(r"\n\d+ passed", done.stdout)
    assert rows_of("sqlite:///checked.db") == []


def test_check_fails_with_the_store() -> None:
    plugin = (
        "from mastra_storage import register\n"
        "from mastra_storage.backends.memory import MemoryBackend\n"
        "class Forgetful(MemoryBackend):\n"
        "    name = 'forgetful'\n"
        "    async def tables(self):\n"
        "        return []\n"
        "register('forgetful', Forgetful)\n"
    )
    arguments = ["mastra-storage", "check", "forgetful://x", "--json"]
    run = f"import sys; sys.argv = {arguments!r}\nfrom mastra_storage.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", plugin + run], capture_output=True, check=False)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    failed = [each for each in outcomes if each["outcome"] == "failed"]
    assert failed
    assert all(each["detail"] for each in failed)
    assert {"passed", "failed"} <= {each["outcome"] for each in outcomes}


# -- look ------------------------------------------------------------------------------------

TIME = datetime(2025, 6, 1, 12, 0, tzinfo=timezone.utc)


def test_threads_and_messages() -> None:
    ok("import", "chats.jsonl", "sqlite:///a.db", "--resource", "me")
    shown = ok("threads", "sqlite:///a.db")
    assert "first" in shown
    assert "3 of 3 threads" in shown
    assert "1 of 2 threads" in ok("threads", "sqlite:///a.db", "--resource", "me", "--limit", "1")
    listed = [json.loads(line) for line in ok("threads", "sqlite:///a.db", "--json").splitlines()]
    assert {thread["resourceId"] for thread in listed} == {"me", "user-7"}

    shown = ok("messages", "sqlite:///a.db", "first", "--last", "4")
    assert "→ find(a=1)" in shown
    assert "tool · find" in shown
    assert "In Lisbon." in shown
    assert "Where is my bag" not in shown
    found = ok("messages", "sqlite:///a.db", "first", "--last", "1", "--json")
    assert json.loads(found)["content"] == [{"type": "text", "text": "In Lisbon."}]


def test_content_cannot_steer_the_terminal_or_add_markup() -> None:
    write(
        "sqlite:///a.db",
        Thread(id="t", resource_id="[red]me", title="\x1b[2J"),
        Message(thread_id="t", role="user\x1b]0;x\x07", content="\x1b[31mred\r[bold]not[/bold]"),
    )
    shown = ok("messages", "sqlite:///a.db", "t") + ok("threads", "sqlite:///a.db")
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert "[bold]not[/bold]" in shown
    assert "[red]me" in shown


def test_a_row_of_a_table_is_one_line_and_nothing_is_no_table() -> None:
    thread = Thread(id="t" * 200, resource_id="me", title="a title\nof two lines " * 20)
    run = WorkflowRun(run_id="r" * 200, workflow_name="build")
    write("sqlite:///a.db", thread, run)
    for name in ("threads", "runs"):
        shown = ok(name, "sqlite:///a.db").splitlines()
        assert len(shown) == 7, "title, three of the head, a row, an edge and the count"
        assert "…" in shown[4]
    write("sqlite:///b.db", Thread(id="empty", resource_id="me"))
    assert ok("threads", "sqlite:///b.db", "--resource", "nobody") == "no threads\n"
    assert ok("runs", "sqlite:///b.db") == "no runs\n"
    assert ok("traces", "sqlite:///b.db") == "no spans\n"
    assert ok("messages", "sqlite:///b.db", "empty") == "no messages in empty\n"


def test_long_messages_are_cut_unless_whole() -> None:
    write(
        "sqlite:///a.db",
        Thread(id="t", resource_id="me"),
        Message(thread_id="t", role="user", content="word " * 1_000),
    )
    assert "3,000 characters more" in ok("messages", "sqlite:///a.db", "t")
    assert ok("messages", "sqlite:///a.db", "t", "--whole").count("word") == 1_000


def test_runs() -> None:
    runs = [
        WorkflowRun(run_id=status, workflow_name="build", status=status, created_at=TIME)
        for status in ("failed", "success")
    ]
    write("sqlite:///a.db", *runs)
    shown = ok("runs", "sqlite:///a.db")
    assert "build" in shown
    assert "2 of 2 runs" in shown
    [line] = ok("runs", "sqlite:///a.db", "--status", "failed", "--json").splitlines()
    assert (json.loads(line)["runId"], json.loads(line)["createdAt"]) == (
        "failed",
        "2025-06-01T12:00:00Z",
    )


def test_evals() -> None:
    evals = [
        Eval(agent_name=name, metric_name="tone", result={"score": 0.9}, output="Sunny.")
        for name in ("weather", "other")
    ]
    write("sqlite:///a.db", *evals)
    shown = ok("evals", "sqlite:///a.db")
    assert '{"score":0.9}' in shown
    assert "Sunny." in shown
    assert "2 of 2 evals" in shown
    [line] = ok("evals", "sqlite:///a.db", "--agent", "other", "--json").splitlines()
    assert json.loads(line)["agentName"] == "other"
    assert ok("evals", "sqlite:///a.db", "--agent", "nobody") == "no evals\n"


def test_resources() -> None:
    memories = {"ada": "# Ada", "bob": {"likes": ["tea"]}}
    made = [Resource(id=name, working_memory=memory) for name, memory in memories.items()]
    write("sqlite:///a.db", *made)
    shown = ok("resources", "sqlite:///a.db")
    assert "# Ada" in shown
    assert '{"likes":["tea"]}' in shown
    assert "2 resources" in shown
    assert "the newest 1 resource" in ok("resources", "sqlite:///a.db", "--limit", "1")
    [line] = ok("resources", "sqlite:///a.db", "ada", "--json").splitlines()
    assert json.loads(line)["workingMemory"] == "# Ada"
    assert "no resource 'eve'" in fails(3, "resources", "sqlite:///a.db", "eve")
    write("sqlite:///b.db")
    assert ok("resources", "sqlite:///b.db") == "no resources\n"


USED = {"gen_ai.usage.input_tokens": 1204, "gen_ai.usage.output_tokens": 56}


def test_traces_are_trees() -> None:
    def span(id: str, parent: str | None = None, trace: str = "x", **members: Any) -> Trace:
        start = TIME + timedelta(seconds=len(id))
        return Trace(
            id=id, trace_id=trace, parent_span_id=parent, name=id, created_at=start, **members
        )

    write(
        "sqlite:///a.db",
        span("root", ended_at=TIME + timedelta(seconds=4, milliseconds=250), scope="agent"),
        span("child", "root", status={"code": 2, "message": "no\nanswer"}),
        span("grandchild", "child", status="success", thread_id="trip"),
        span("orphan", "not there", status={"code": 0}, attributes=USED),
        span("circle-a", "circle-b"),
        span("circle-b", "circle-a"),
        span("other", trace="y"),
    )
    shown = ok("traces", "sqlite:///a.db", "--trace-id", "x")
    assert [line.rstrip() for line in shown.splitlines()] == [
        "x  2025-06-01 12:00:04 UTC  thread trip",
        "├── root  agent  250.0 ms",
        "│   └── child  error: no answer",
        "│       └── grandchild  success",
        "├── orphan  1,204 → 56 tokens",
        "├── circle-a  (its parents form a circle)",
        "└── circle-b  (its parents form a circle)",
        "6 spans",
    ]
    assert "7 spans" in ok("traces", "sqlite:///a.db")
    of_thread = ok("traces", "sqlite:///a.db", "--thread", "trip")
    assert [line.split()[1] for line in of_thread.splitlines()[1:]] == ["grandchild", "span"]
    assert ok("traces", "sqlite:///a.db", "--thread", "nobody's") == "no spans\n"
    assert len(ok("traces", "sqlite:///a.db", "--json", "--limit", "2").splitlines()) == 2


# -- move ------------------------------------------------------------------------------------


def test_import_twice_export_and_copy() -> None:
    assert ok("import", "chats.jsonl", "sqlite:///a.db") == (
        "3 threads, 8 messages: 11 rows written, 0 there already\n"
    )
    before = rows_of("sqlite:///a.db")
    assert ok("import", "chats.jsonl", "sqlite:///a.db") == (
        "3 threads, 8 messages: 0 rows written, 11 there already\n"
    )
    assert rows_of("sqlite:///a.db") == before

    done = command("export", "sqlite:///a.db", "saved.jsonl")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "3 threads, 8 messages\n")
    assert not [*Path().glob("*.part")]
    assert ok("export", "sqlite:///a.db", "-") == Path("saved.jsonl").read_text()
    ok("import", "-", "sqlite:///b.db", stdin=Path("saved.jsonl").read_bytes())
    assert [content_of(row) for row in rows_of("sqlite:///b.db")] == [
        content_of(row) for row in before
    ]

    copied = ok("copy", "sqlite:///a.db", "sqlite:///c.db")
    assert "more tables, empty in both" in copied
    assert "evals" not in copied
    assert "different" not in copied
    assert rows_of("sqlite:///c.db") == before
    write("sqlite:///c.db", Thread(id="own", resource_id="me"))
    done = command("copy", "sqlite:///a.db", "sqlite:///c.db")
    assert done.returncode == exits.DIFFERENT
    assert "the stores differ in threads: the target holds rows of its own" in done.stderr
    assert "≠" in done.stdout


def test_a_failed_export_leaves_the_file_that_is_there() -> None:
    table = Table(name="unknown_table", key=("id",))
    row = Row(table=table, key=("1",), value=b"{}", order=1, seq=1, fields={}, updated=1)

    async def put() -> None:
        async with open_storage("sqlite:///a.db") as storage:
            await storage.backend.write([Put(row)])

    asyncio.run(put())
    before = '{"thread_id":"before","thread":{},"messages":[]}\n'
    Path("saved.jsonl").write_text(before)
    line = fails(5, "export", "sqlite:///a.db", "saved.jsonl")
    assert "unknown_table; install the adapter that registered" in line
    assert Path("saved.jsonl").read_text() == before
    assert "unknown_table" in fails(5, "copy", "sqlite:///a.db", "sqlite:///b.db")


def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else() -> None:
    write("sqlite:///a.db", Thread(id="t", resource_id="me"))
    Path("new.jsonl").touch()
    for _ in range(2):
        ok("export", "sqlite:///a.db", "new.jsonl")
    chat = '{"thread_id": "mine", "messages": [{"role": "user", "content": "Hello"}]}\n'
    for name, text in (("notes.txt", "important"), ("chats.jsonl", chat)):
        Path(name).write_text(text)
        assert "is there and is not an export" in fails(2, "export", "sqlite:///a.db", name)
        assert Path(name).read_text() == text
    Path("new.jsonl.part").write_text("mine")
    Path("-").write_text("mine")
    ok("export", "sqlite:///a.db", "new.jsonl")
    assert Path("new.jsonl").read_text() == ok("export", "sqlite:///a.db", "-")
    assert Path("new.jsonl.part").read_text() == Path("-").read_text() == "mine"


def test_a_store_may_be_called_as_the_part_of_an_export() -> None:
    write("sqlite:///data.part", Thread(id="t", resource_id="me"))
    before = rows_of("sqlite:///data.part")
    ok("export", "sqlite:///data.part", "data")
    assert rows_of("sqlite:///data.part") == before


@pytest.mark.parametrize("name", ["a.db", "./a.db", "link.db", "hard.db", "a.db-wal", "a.db-shm"])
def test_an_export_does_not_overwrite_its_own_store(directory: Path, name: str) -> None:
    write("sqlite:///a.db", Thread(id="t", resource_id="me"))
    Path("link.db").symlink_to("a.db")
    Path("hard.db").hardlink_to("a.db")
    before = rows_of("sqlite:///a.db")
    assert "a file of the store itself" in fails(2, "export", "sqlite:///a.db", name)
    assert rows_of("sqlite:///a.db") == before


def test_a_copy_onto_itself_is_none(directory: Path) -> None:
    write("sqlite:///a.db", Thread(id="t", resource_id="me"))
    Path("link.db").symlink_to("a.db")
    for url in ("./a.db", f"/{directory}/a.db", "a.db?busy_timeout=5", "link.db"):
        line = fails(2, "copy", "sqlite:///a.db", f"sqlite:///{url}")
        assert "SOURCE_URL and TARGET_URL are the same store" in line


def test_ctrl_c_leaves_a_sound_store_and_repeating_finishes(directory: Path) -> None:
    messages = [{"role": "user", "content": "x" * 500}] * 50
    with (directory / "many.jsonl").open("w") as file:
        for number in range(500):
            file.write(json.dumps({"thread_id": f"t{number}", "messages": messages}) + "\n")
    process = subprocess.Popen(
        [*COMMAND, "import", "many.jsonl", "sqlite:///a.db"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(lambda: _wal_size("a.db") > 2_000_000)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert errors == (
        "mastra-storage: interrupted between two batches; repeat the command to go on\n"
    )
    written = [row for row in rows_of("sqlite:///a.db") if row.table.name == "messages"]
    assert 0 < len(written) < 25_000
    done = ok("import", "many.jsonl", "sqlite:///a.db")
    found = re.search(r"([\d,]+) rows written, ([\d,]+) there already", done)
    assert found is not None
    new, old = (int(number.replace(",", "")) for number in found.groups())
    assert new > 0
    assert old >= len(written)
    assert new + old == 25_500
    assert "0 rows written" in ok("import", "many.jsonl", "sqlite:///a.db")


def test_ctrl_c_ends_an_import_that_waits_for_its_input() -> None:
    process = subprocess.Popen(
        [*COMMAND, "import", "-", "sqlite:///a.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _wait_for(Path("a.db").exists)
    time.sleep(0.5)  # it reads now, or soon: in any case it must end
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=20) == exits.INTERRUPTED
    finally:
        process.kill()
        process.communicate()


def _interrupted(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> float:
    """Interrupt a command once; gives how many seconds it took to end."""
    started = time.monotonic()
    process.send_signal(with_signal)
    try:
        assert process.wait(timeout=20) == exits.INTERRUPTED
    finally:
        process.kill()
        process.communicate()
    return time.monotonic() - started


@pytest.mark.parametrize("name", ["-", "pipe"])
def test_ctrl_c_ends_an_export_that_nobody_reads(name: str) -> None:
    write("sqlite:///a.db", *[Thread(id=f"t{n}", resource_id="r" * 200) for n in range(5_000)])
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)  # lets the other end open
    process = subprocess.Popen(
        [*COMMAND, "export", "sqlite:///a.db", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    watched = reader if name == "pipe" else process.stdout.fileno()
    _wait_for(lambda: bool(select.select([watched], [], [], 0)[0]))
    time.sleep(0.5)  # the pipe is full by now, or soon: in any case it must end
    try:
        _interrupted(process, signal.SIGINT)
    finally:
        os.close(reader)


def test_ctrl_c_ends_an_import_into_a_locked_file() -> None:
    write("sqlite:///a.db", Thread(id="t", resource_id="me"))
    with closing(sqlite3.connect("a.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        process = subprocess.Popen(
            [*COMMAND, "import", "chats.jsonl", "sqlite:///a.db"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        time.sleep(2)
        assert process.poll() is None
        assert _interrupted(process, signal.SIGINT) < 10, "busy_timeout is 60 seconds"


def test_a_check_that_is_ended_by_others_empties_its_tables() -> None:
    write("sqlite:///a.db", Thread(id="t", resource_id="me"))
    process = subprocess.Popen(
        [*COMMAND, "check", "sqlite:///a.db"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def kit_rows() -> bool:
        with closing(sqlite3.connect("file:a.db?mode=ro", uri=True)) as found:
            names = found.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'mastra_kit%'")
            return any(names.fetchall())

    _wait_for(kit_rows)
    time.sleep(1)
    _interrupted(process, signal.SIGTERM)
    assert not kit_rows()


def test_an_export_keeps_permissions_and_links(directory: Path) -> None:
    write("sqlite:///a.db", Thread(id="t", resource_id="me"))
    (directory / "backups").mkdir()
    real, link = directory / "backups" / "real.jsonl", directory / "link.jsonl"
    link.symlink_to(real)
    ok("export", "sqlite:///a.db", "link.jsonl")
    real.chmod(0o600)
    before = real.stat().st_ino
    ok("export", "sqlite:///a.db", "link.jsonl")
    assert link.is_symlink()
    assert real.stat().st_ino != before
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert [path.name for path in real.parent.iterdir()] == ["real.jsonl"]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _wal_size(file: str) -> int:
    wal = Path(f"{file}-wal")
    return wal.stat().st_size if wal.exists() else 0


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (2, ["threads", "agent.db"], "a storage URL looks like"),
        (2, ["threads", "sqlite:///a.db?token=hunter2"], "has no option 'token'"),
        (2, ["threads", "sqlite:///a.db", "--resource", ""], "must be a non-empty str"),
        (2, ["import", ".", "sqlite:///a.db"], "cannot read ."),
        (2, ["copy", "sqlite:///a.db", "sqlite:///a.db"], "are the same"),
        (3, ["import", "missing.jsonl", "sqlite:///a.db"], "there is no file missing.jsonl"),
        (3, ["messages", "sqlite:///a.db", "nobody"], "no thread 'nobody'"),
        (3, ["traces", "sqlite:///a.db", "--trace-id", "x"], "no trace 'x'"),
        (
            3,
            ["traces", "sqlite:///a.db", "--trace-id", "x", "--thread", "t"],
            "no trace 'x' with spans of thread 't'",
        ),
        (4, ["import", "bad.jsonl", "sqlite:///a.db"], "bad.jsonl, line 2: is not JSON"),
        (5, ["threads", "redis://host?token=hunter2"], "no backend for 'redis'"),
        (5, ["threads", "https://host"], "a storage URL names a backend: sqlite:///FILE"),
        (
            3,
            ["export", "sqlite:///a.db", "no/such/a.jsonl"],
            "the directory no/such does not exist",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    code: int, arguments: Sequence[str], said: str
) -> None:
    Path("bad.jsonl").write_text('{"thread_id": "t", "messages": []}\n{\n')
    ok("import", "chats.jsonl", "sqlite:///a.db")
    line = fails(code, *arguments)
    assert said in line
    assert "hunter2" not in line


def test_wrong_usage_is_2_and_repeats_no_secret() -> None:
    for arguments in (["threads"], ["nonsense"], ["threads", "memory://", "b://x?token=hunter2"]):
        done = command(*arguments)
        assert done.returncode == exits.USAGE
        assert "hunter2" not in done.stderr


def test_a_reader_that_has_enough_is_no_traceback() -> None:
    ok("import", "chats.jsonl", "sqlite:///a.db")
    with subprocess.Popen(
        [*COMMAND, "export", "sqlite:///a.db", "-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == exits.FAILED


@pytest.mark.parametrize("arguments", [["threads"], ["threads", "--json"], ["export", "-"]])
def test_a_full_disk_at_stdout_is_one_line(arguments: Sequence[str]) -> None:
    ok("import", "chats.jsonl", "sqlite:///a.db")
    name, *rest = arguments
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, name, "sqlite:///a.db", *rest],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == exits.UNAVAILABLE
    [line] = done.stderr.splitlines()
    assert "No space left on device" in line


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["threads", "sqlite:///a.db"], 0, ""),
        (["threads", "sqlite:///a.db", "--json"], 0, ""),
        (["export", "sqlite:///a.db", "-"], 2, "mastra-storage: stdout is closed\n"),
    ],
)
def test_a_closed_stdout_is_no_traceback(arguments: Sequence[str], code: int, said: str) -> None:
    ok("import", "chats.jsonl", "sqlite:///a.db")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *arguments],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, said)


def test_help_has_examples_and_the_exit_codes() -> None:
    for name in COMMANDS:
        shown = ok(name, "--help")
        assert f"$ mastra-storage {name}" in shown
        assert "Exit codes" not in shown, "once is enough, in the help of the whole"
    assert "Exit codes" in ok("--help")
    assert re.fullmatch(r"mastra-storage \d+\.\d+\.\d+\S*\n", ok("--version"))


@pytest.mark.parametrize(
    ("arguments", "missing", "said"),
    [
        (["demo"], "typer", "pip install 'mastra-storage[cli]'"),
        (["demo"], "rich", "pip install 'mastra-storage[cli]'"),
        (["check", "memory://"], "pytest", "pip install 'mastra-storage[cli,testing]'"),
    ],
)
def test_a_missing_extra_is_one_line(arguments: Sequence[str], missing: str, said: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = {['x', *arguments]!r}\n"
        "from mastra_storage.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert said in line


@pytest.mark.parametrize("name", [*LOOKING, "export", "copy"])
def test_looking_at_a_file_that_is_not_there_does_not_make_it(name: str, directory: Path) -> None:
    more = {"messages": ["t"], "export": ["-"], "copy": ["memory://"]}.get(name, [])
    done = command(name, "sqlite:///typo.db", *more)
    assert done.returncode == exits.NOT_FOUND
    assert "there is no file typo.db" in done.stderr
    assert not (directory / "typo.db").exists()


def test_secrets_are_left_out_of_any_text() -> None:
    text = "tried convex://host/path?key=abc and x://me:secret@host, 'y://z?t=1'; then a?b"
    assert exits.without_secrets(text) == (
        "tried convex://host/path and x://host, 'y://z'; then a?b"
    )
    text = "(x://h?t=it's-mine), \"x://h?t='b'\". x://it's:mine@h"
    assert exits.without_secrets(text) == '(x://h), "x://h". x://h'


@pytest.mark.parametrize(
    "arguments",
    [
        ["cloudflare://acct?api_token=s3cr3t"],
        ["export", "memory://", "cloudflare://acct?api_token=aa/s3cr3t/b"],
        ["check", "convex://user:a/s3cr3t@host"],
    ],
)
def test_a_url_in_the_wrong_place_is_not_shown_with_its_secret(arguments: list[str]) -> None:
    done = command(*arguments)
    assert done.returncode
    assert "s3cr3t" not in done.stdout + done.stderr
