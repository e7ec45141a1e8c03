"""Binding mode in real Python in WebAssembly (Pyodide), on real KV bindings (workerd)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import mastra_storage_cloudflare
import pytest
from kv_server import KVServer, install

import mastra_storage

PYODIDE = Path(__file__).parent / "pyodide"
WHEELS = PYODIDE / "node_modules" / ".wheels"


class PyodideServer(KVServer):
    """The local server, with a Python in the same process that has its KV bindings."""

    @classmethod
    def start(
        cls,
        *,
        store: Literal["kv", "memory"] = "kv",
        namespaces: int = 12,
        program: Path = PYODIDE / "runner.mjs",
    ) -> Self:
        install(PYODIDE)
        _download_wheels()
        return super().start(store=store, namespaces=namespaces, program=program)

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


def _download_wheels() -> None:
    """The Python packages that are not ours, once; `npm ci` removes them with the rest."""
    if WHEELS.is_dir():
        return
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--platform=pyemscripten_2026_0_wasm32"]
    command += ["--python-version=3.14", "--implementation=cp", "--abi=cp314"]
    partial = WHEELS.with_name(".wheels-partial")
    command += [f"--requirement={PYODIDE / 'requirements.txt'}", f"--dest={partial}"]
    subprocess.run(command, check=True)
    partial.rename(WHEELS)


@pytest.fixture(scope="module")
def python() -> Iterator[PyodideServer]:
    with PyodideServer.start() as server:
        server.mount(
            {
                "mastra_storage": Path(mastra_storage.__file__).parent,
                "mastra_storage_cloudflare": Path(mastra_storage_cloudflare.__file__).parent,
                "inside": PYODIDE,
            }
        )
        yield server


def test_the_kit_passes(python: PyodideServer) -> None:
    outcome = python.run("from inside import kit; await kit.run()")
    assert outcome["failed"] == {}
    assert len(outcome["passed"]) > 100
