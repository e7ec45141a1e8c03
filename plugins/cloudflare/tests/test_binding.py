"""Binding mode in real Python in WebAssembly (Pyodide), on real KV bindings (workerd)."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import mastra_storage_cloudflare
import pytest
from conversations import differing, save
from kv_server import KVServer
from local_server import install
from mastra_storage_cloudflare import CloudflareStore
from test_docs import PAGE, blocks

import mastra_storage
from mastra_storage import InvalidArgumentError

PYODIDE = Path(__file__).parent / "pyodide"
WORKER = Path(__file__).parents[1] / "examples" / "worker" / "src"
WHEELS = PYODIDE / "node_modules" / ".wheels"


class PyodideServer(KVServer):
    """The local server, with a Python in the same process that has its KV bindings."""

    @classmethod
    def start(
        cls,
        *,
        store: Literal["kv", "memory"] = "kv",
        namespaces: int = 12,
        port: int = 0,
        program: Path = PYODIDE / "runner.mjs",
    ) -> Self:
        install(PYODIDE)
        _download_wheels()
        return super().start(store=store, namespaces=namespaces, port=port, program=program)

    def mount(self, directories: dict[str, Path]) -> None:
        """Make packages importable inside, by their names."""
        self.ask("mount", {name: str(directory) for name, directory in directories.items()})

    def ask(self, kind: str, value: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({kind: value}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            pytest.fail(answer["error"], pytrace=False)
        return answer["result"]

    def run(self, source: str) -> Any:
        """The value of the last expression of `source`, run inside Pyodide."""
        return json.loads(self.ask("run", source))

    def check(self, call: str) -> Any:
        """What a function of `pyodide/checks.py` finds."""
        return self.run(f"from plugin_tests.pyodide import checks; await checks.{call}")


def _download_wheels() -> None:
    """The Python packages that are not ours, once."""
    requirements = PYODIDE / "requirements.txt"
    downloaded = WHEELS / ".downloaded"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--platform=pyemscripten_2026_0_wasm32"]
    command += ["--python-version=3.14", "--implementation=cp", "--abi=cp314"]
    command += [f"--requirement={requirements}", f"--dest={WHEELS}"]
    with requirements.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed; sessions may run in parallel
        wanted = file.read()
        if downloaded.exists() and downloaded.read_text() == wanted:
            return
        shutil.rmtree(WHEELS, ignore_errors=True)
        subprocess.run(command, check=True)
        downloaded.write_text(wanted)


@pytest.fixture(scope="module")
def python() -> Iterator[PyodideServer]:
    with PyodideServer.start() as server:
        server.mount(
            {
                "mastra_storage": Path(mastra_storage.__file__).parent,
                "mastra_storage_cloudflare": Path(mastra_storage_cloudflare.__file__).parent,
                "plugin_tests": PYODIDE.parent,
                "worker": WORKER,
            }
        )
        yield server


def test_the_kit_passes(python: PyodideServer) -> None:
    outcome = python.run("from plugin_tests.pyodide import kit; await kit.run()")
    assert outcome["failed"] == {}
    assert len(outcome["passed"]) > 100


@pytest.mark.parametrize("wrapped", [False, True], ids=["raw", "wrapped by the SDK"])
def test_conversations_come_out_as_they_went_in(python: PyodideServer, wrapped: bool) -> None:
    found = python.check(f"conversations(wrapped={wrapped})")
    assert found["differing"] == [found["deleted"]]
    assert found["totals"] == [5, 4]
    assert found["tables"] == ["messages", "threads"]
    assert found["missing"] is None


def test_the_layout_of_typescript_works_over_bindings(python: PyodideServer) -> None:
    found = python.check("interop()")
    assert found["same"]
    assert found["keys"] == [
        "ts:mastra_messages:t:assistant",
        "ts:mastra_messages:t:messages",
        "ts:mastra_messages:t:tool",
        "ts:mastra_messages:t:user",
        "ts:mastra_threads:t",
    ]


async def test_rest_and_bindings_share_data(python: PyodideServer) -> None:
    def over_rest() -> CloudflareStore:
        return CloudflareStore(
            account_id=python.account_id,
            api_token=python.token,
            namespace_prefix="shared_",
            base_url=python.url,
        )

    async with over_rest() as rest:
        await save(rest, range(12))
    assert python.check("shared(prefix='shared_', read=(0, 12), write=(12, 24))") == []
    async with over_rest() as rest:
        assert await differing(rest, range(24)) == []
        assert len(await rest.get_threads_by_resource_id("user:1")) == 5


def test_all_is_settled_when_the_block_is_left(python: PyodideServer) -> None:
    found = python.check("settled()")
    assert found["tasks"] == 0
    assert "done_mastra_threads.touched:t" in found["keys"]
    assert found["same"]


def test_keys_that_the_runtime_leaves_out_are_found(python: PyodideServer) -> None:
    found = python.check("odd_keys()")
    assert set(found) == {"42", "__proto__", "constructor", "plain", "a:b"}
    assert all(found[key] == [key, '{"w":"9007199254740993"}'] for key in found)


def test_values_may_be_more_than_one_bulk_get_takes(python: PyodideServer) -> None:
    found = python.check("large_values()")
    assert found.pop("wanted") == found


def test_failures_are_errors_of_ours(python: PyodideServer) -> None:
    found = python.check("failures()")
    assert found["outcomes"] == {
        "too large": ["TooLargeError", False],
        "key too long": ["TooLargeError", False],
        "429 twice": None,
        "429 on and on": ["RateLimitedError", True],
        "used up": ["RateLimitedError", False],
        "400": ["StorageError", False],
        "500": ["UnavailableError", True],
    }
    assert found["tries"] == 3


def test_an_old_place_is_not_deleted_before_the_new_one_is_there(python: PyodideServer) -> None:
    found = python.check("partial_failure()")
    assert found == {"failed": ["bad", "old"], "deleted": []}


def test_the_example_worker_keeps_its_conversation(python: PyodideServer) -> None:
    found = python.check("worker()")
    assert found["unknown"][0] == 404
    assert found["first"] == [200, {"thread": "trip/é", "reply": "Nice to meet you, Ada."}]
    assert found["sum"] == [200, {"thread": "trip/é", "reply": "That makes 42."}]
    assert found["name"] == [200, {"thread": "trip/é", "reply": "You are Ada."}]
    status, kept = found["thread"]
    assert status == 200
    assert kept["thread"]["id"] == "trip/é"
    assert [message["content"] for message in kept["messages"]] == [
        "Hello, my name is Ada",
        "Nice to meet you, Ada.",
        "What is 19 + 23?",
        "That makes 42.",
        "Do you know my name?",
        "You are Ada.",
    ]
    assert [found[name][0] for name in ("no json", "no text", "empty")] == [400, 400, 400]
    assert found["elsewhere"][0] == 404


def test_the_block_for_workers_of_the_page_runs(python: PyodideServer) -> None:
    [block] = [block for block in blocks(PAGE) if "env.THREADS" in block]
    call = (
        "import bindings, json, types\n"
        "env = types.SimpleNamespace(THREADS=bindings.KV4, MESSAGES=bindings.KV5, OTHER=None)\n"
        "said = [await answer(env, 'trip', text) for text in ('Hello', 'Again')]\n"
        "json.dumps([message.content for message in said[-1]])"
    )
    assert python.run(block + call) == ["Hello", "Again"]


def test_the_libraries_of_rest_are_not_imported(python: PyodideServer) -> None:
    assert python.run("from plugin_tests.pyodide import checks; checks.rest_modules()") == []


def test_nor_are_they_where_they_are_installed() -> None:
    code = (
        "import sys; from mastra_storage_cloudflare import CloudflareStore;"
        "CloudflareStore(bindings={'default': object()});"
        "print({'aiohttp', 'aiolimiter', 'stamina', 'tenacity', 'yarl'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_bindings_must_be_some() -> None:
    with pytest.raises(InvalidArgumentError, match="names no KV namespace"):
        CloudflareStore(bindings={})


async def test_a_table_without_a_binding_is_named() -> None:
    async with CloudflareStore(bindings={"mastra_threads": object()}) as storage:
        with pytest.raises(InvalidArgumentError, match=r"'messages'.*'default'"):
            await storage.load("messages", thread_id="t", id="m")
