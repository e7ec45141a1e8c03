"""A server in Node, for tests and demos: installed, started and controlled from Python.

Nothing but the standard library: `make kv-server` runs it before anything is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

__all__ = ["LocalServer", "LocalServerError", "install", "serve"]

S = TypeVar("S", bound="LocalServer")

_START_SECONDS = _STOP_SECONDS = 60


class LocalServerError(RuntimeError):
    """A server cannot be installed, started or controlled."""


class LocalServer:
    """A running server; use `start()` of its kind, and `stop()` or `with` to end it.

    `ready` is what it said of itself when it was ready.
    """

    title: ClassVar[str]
    url: str

    def __init__(self, process: subprocess.Popen[str], ready: Mapping[str, str]) -> None:
        self._process = process
        self._control = ready["control"]
        self.url = ready["url"]

    @classmethod
    def _start(cls, program: Path, *options: str) -> Self:
        process = subprocess.Popen(
            ["node", str(program), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which then stops it
        )
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
        line = process.stdout.readline() if readable else ""
        if not line:
            process.kill()
            process.communicate()
            raise LocalServerError(f"{cls.title} did not start; see its output above")
        return cls(process, json.loads(line))

    @property
    def port(self) -> int:
        """The port it listens on, for one that is started in its place."""
        return int(self.url.split("/")[2].rpartition(":")[2])

    def wait(self) -> int:
        """Wait until the server ends by itself, which is a defect of it; its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """End the server, and what it holds unless it was told to keep that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        if code:
            raise LocalServerError(f"{self.title} met a defect of its own; see its output")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def control(self, **settings: Any) -> dict[str, Any]:
        """Change settings and faults while the server runs; its state afterwards.

        The names are those of its `server/README.md`.
        """
        return await asyncio.to_thread(self._call, settings)

    async def reset(self, *, clear: bool = True) -> None:
        """Switch all faults off and count from zero; with `clear`, delete all that it holds."""
        await self.control(reset=True, clear=clear)

    async def counts(self) -> dict[str, int]:
        """Requests since the last reset: `{"PUT bulk": 1}`, `{"query messages:list": 3}`."""
        counts: dict[str, int] = (await asyncio.to_thread(self._call))["counts"]
        return counts

    async def log(self) -> list[dict[str, Any]]:
        """The last 10,000 requests, as its `server/README.md` describes them."""
        log: list[dict[str, Any]] = (await asyncio.to_thread(self._call, None, "?log"))["log"]
        return log

    def _call(self, settings: dict[str, Any] | None = None, query: str = "") -> dict[str, Any]:
        data = None if settings is None else json.dumps(settings).encode()
        try:
            with urlopen(Request(self._control + query, data), timeout=60) as answer:
                state: dict[str, Any] = json.load(answer)
        except HTTPError as error:
            with error:
                raise LocalServerError(json.load(error)["error"]) from None
        return state


def install(directory: Path) -> None:
    """Install the npm packages of a directory next to their `package.json`, once."""
    needs = "the servers for tests and demos need Node.js 20.11 or newer with npm"
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise LocalServerError(f"{program} was not found; {needs}")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if [int(number) for number in version.stdout.strip("v\n").split(".")[:2]] < [20, 11]:
        raise LocalServerError(f"node is {version.stdout.strip()}; {needs}")
    lock = directory / "package-lock.json"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    installed = directory / "node_modules" / ".installed"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed; sessions may run in parallel
        if installed.exists() and installed.read_text() == wanted:
            return
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        outcome = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, check=False
        )
        if outcome.returncode:
            raise LocalServerError(f"npm could not install {lock}:\n{outcome.stderr}")
        installed.write_text(wanted)


def serve(
    parser: argparse.ArgumentParser,
    start: Callable[[argparse.Namespace], S],
    *,
    port: int,
    environment: Callable[[S], Mapping[str, str]],
    about: Callable[[S], str],
) -> int:
    """The script of a server: until Ctrl-C, or for as long as a command runs; its exit code.

    It listens on `port` unless told otherwise, with a command on any that is free. The command
    gets `environment` beside its own; without one, `about` is printed.
    """
    parser.add_argument(
        "--port", type=int, help=f"where to listen; else {port}, and with COMMAND any that is free"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = parser.parse_args()
    if options.port is None:
        options.port = 0 if options.command else port
    # A kill ends it like Ctrl-C does, for the server to be stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with start(options) as server:
            try:
                if options.command:
                    beside = {**os.environ, **environment(server)}
                    return subprocess.run(options.command, env=beside, check=False).returncode
                sys.stdout.write(about(server))
                sys.stdout.flush()
                return server.wait()
            except KeyboardInterrupt:
                return 130 if options.command else 0
    except LocalServerError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        return 130
