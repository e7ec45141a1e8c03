"""Convex on this machine: the shipped functions on Convex's own convex-test, started from Python.

As a script it starts the server and keeps it until Ctrl-C; or it runs a command with
`CONVEX_URL`, `CONVEX_DEPLOY_KEY` and the self-hosted pair set, and stops the server again:

    python convex_server.py [--port N] [--data FILE] [--functions DIR] [COMMAND [ARGUMENT ...]]
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
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SERVER = Path(__file__).parent / "server"
_START_SECONDS = 60
_NEEDS = "Convex on this machine, for tests and demos, needs Node.js 20.11 or newer with npm"


class ConvexServerError(RuntimeError):
    """The server cannot be installed, started or controlled."""


class ConvexServer:
    """A running server; use `ConvexServer.start()`, and `stop()` or `with` to end it.

    `url` is the deployment's. `admin_key` may call internal functions and deploy; `wrong_key` has
    its form and is refused.
    """

    url: str
    admin_key: str
    wrong_key: str

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, str]) -> None:
        self._process = process
        self._control = ready["control"]
        self.url = ready["url"]
        self.admin_key = ready["admin_key"]
        self.wrong_key = ready["wrong_key"]

    @classmethod
    def start(
        cls,
        *,
        functions: Path | str = "default",
        port: int = 0,
        data: Path | None = None,
        program: Path = SERVER / "server.mjs",
    ) -> Self:
        """Install what the server needs, once, and start it, on a free port unless one is given.

        `functions` is a directory of Convex functions, "default" for the shipped ones or "none"
        for a deployment that nothing was pushed to. With `data`, a file, the documents are read
        from it when it is there and written to it when the server stops. `program` may be another
        that has the server in it.
        """
        install()
        command = ["node", str(program), "--functions", str(functions), "--port", str(port)]
        if data is not None:
            command += ["--data", str(data)]
        process = subprocess.Popen(
            command,
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
            raise ConvexServerError("the Convex server did not start; see its output above")
        return cls(process, json.loads(line))

    @property
    def port(self) -> int:
        """The port it listens on, for one that is started in its place."""
        return int(self.url.rpartition(":")[2])

    def wait(self) -> int:
        """Wait until the server ends by itself, which is a defect of it; its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """End the server; its documents are gone, unless it was started with `data`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        if code:
            raise ConvexServerError("the Convex server met a defect of its own; see its output")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    async def control(self, **settings: Any) -> dict[str, Any]:
        """Change settings and faults while the server runs; its state afterwards.

        The names are those of `server/README.md`.
        """
        return await asyncio.to_thread(self._call, settings)

    async def reset(self, *, clear: bool = True) -> None:
        """Switch all faults off and count from zero; with `clear`, delete all documents.

        The functions are again those that the server was started with.
        """
        await self.control(reset=True, clear=clear)

    async def counts(self) -> dict[str, int]:
        """Calls by kind and function since the last reset: `{"query messages:list": 3, ...}`."""
        counts: dict[str, int] = (await asyncio.to_thread(self._call))["counts"]
        return counts

    async def log(self) -> list[dict[str, Any]]:
        """The last 10,000 calls: label, status, fault, documents and bytes read and written …"""
        log: list[dict[str, Any]] = (await asyncio.to_thread(self._call, None, "?log"))["log"]
        return log

    def _call(self, settings: dict[str, Any] | None = None, query: str = "") -> dict[str, Any]:
        data = None if settings is None else json.dumps(settings).encode()
        try:
            with urlopen(Request(self._control + query, data), timeout=60) as answer:
                state: dict[str, Any] = json.load(answer)
        except HTTPError as error:
            with error:
                raise ConvexServerError(json.load(error)["error"]) from None
        return state


def install(directory: Path = SERVER) -> None:
    """Install the npm packages of a directory next to their `package.json`, once."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise ConvexServerError(f"{program} was not found; {_NEEDS}")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if [int(number) for number in version.stdout.strip("v\n").split(".")[:2]] < [20, 11]:
        raise ConvexServerError(f"node is {version.stdout.strip()}; {_NEEDS}")
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
            raise ConvexServerError(f"npm could not install {lock}:\n{outcome.stderr}")
        installed.write_text(wanted)


def main() -> int:
    options = _options()
    port = options.port
    if port is None:
        port = 0 if options.command else 3210
    # A kill ends it like Ctrl-C does: documents are written to the file.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ConvexServer.start(
            functions=options.functions, port=port, data=options.data
        ) as server:
            try:
                return _run(options.command, server) if options.command else _stay(server)
            except KeyboardInterrupt:
                return 130 if options.command else 0
    except ConvexServerError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="convex_server.py",
        description="Convex on this machine, for development and tests: the functions of "
        "mastra-storage on Convex's own convex-test. Needs Node.js 20.11 or newer with npm.",
        epilog="Without COMMAND it stays until Ctrl-C, and prints the address and the key. With "
        "one it runs that, with CONVEX_URL, CONVEX_DEPLOY_KEY, CONVEX_SELF_HOSTED_URL and "
        "CONVEX_SELF_HOSTED_ADMIN_KEY set, and ends with its exit code.",
    )
    parser.add_argument(
        "--port", type=int, help="where to listen; else 3210, and with COMMAND any that is free"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="read the documents from this file, if it is there, and write them to it at the end; "
        "else they are gone then",
    )
    parser.add_argument(
        "--functions",
        default="default",
        metavar="DIR",
        help="the functions to begin with: a directory of them, default for those of "
        "mastra-storage, or none",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser.parse_args()


def _run(command: list[str], server: ConvexServer) -> int:
    environment = {
        **os.environ,
        "CONVEX_URL": server.url,
        "CONVEX_DEPLOY_KEY": server.admin_key,
        "CONVEX_SELF_HOSTED_URL": server.url,
        "CONVEX_SELF_HOSTED_ADMIN_KEY": server.admin_key,
    }
    return subprocess.run(command, env=environment, check=False).returncode


def _stay(server: ConvexServer) -> int:
    """Say where the server is, and wait for Ctrl-C."""
    sys.stdout.write(
        f"""\
Convex on this machine: {server.url}

For agents:
  export CONVEX_URL={server.url} CONVEX_DEPLOY_KEY='{server.admin_key}'
For npx convex deploy, in another shell:
  export CONVEX_SELF_HOSTED_URL={server.url} CONVEX_SELF_HOSTED_ADMIN_KEY='{server.admin_key}'
A look at it:
  mastra-storage-convex verify
  mastra-storage demo convex+{server.url}

Ctrl-C ends it.
"""
    )
    sys.stdout.flush()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main())
