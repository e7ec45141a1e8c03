"""The REST API of Workers KV on this machine: real KV bindings in workerd, started from Python.

As a script it serves until Ctrl-C (`make kv-server`), or for as long as a command runs:

    python kv_server.py [--port N] [COMMAND [ARGUMENT ...]]
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
from typing import Any, Literal, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SERVER = Path(__file__).parent / "server"
_START_SECONDS = 60
_NEEDS = "Workers KV on this machine, for tests and demos, needs Node.js 20.11 or newer with npm"


class KVServerError(RuntimeError):
    """The server cannot be installed, started or controlled."""


class KVServer:
    """A running server; use `KVServer.start()`, and `stop()` or `with` to end it.

    `url` is what clients call a base URL; at `direct_url` it answers faster, without faults and a
    log. `token` may read and write, `read_token` may read, `no_right_token` may do neither.
    """

    url: str
    direct_url: str
    account_id: str
    token: str
    read_token: str
    no_right_token: str

    def __init__(self, process: subprocess.Popen[str], ready: dict[str, str]) -> None:
        self._process = process
        self._control = ready["control"]
        self.url = ready["url"]
        self.direct_url = ready["direct_url"]
        self.account_id = ready["account_id"]
        self.token = ready["token"]
        self.read_token = ready["read_token"]
        self.no_right_token = ready["no_right_token"]

    @classmethod
    def start(
        cls,
        *,
        store: Literal["kv", "memory"] = "kv",
        namespaces: int = 40,
        port: int = 0,
        program: Path = SERVER / "server.mjs",
    ) -> Self:
        """Install what the server needs, once, and start it, on a free port unless one is given.

        `store="memory"` keeps the pairs in the Worker's memory instead of KV bindings, for
        volumes that would take too long there. `program` may be another that has the server
        in it.
        """
        install()
        command = ["node", str(program), "--store", store, "--namespaces", str(namespaces)]
        process = subprocess.Popen(
            [*command, "--port", str(port)],
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
            raise KVServerError("the Workers KV server did not start; see its output above")
        return cls(process, json.loads(line))

    def wait(self) -> int:
        """Wait until the server ends by itself, which is a defect of it; its exit code."""
        return self._process.wait()

    def stop(self) -> None:
        """End the server; its data is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        code = self._process.wait(timeout=30)
        self._process.stdout.close()
        if code:
            raise KVServerError("the Workers KV server met a defect of its own; see its output")

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
        """Switch all faults off and count from zero; with `clear`, delete all namespaces."""
        await self.control(reset=True, clear=clear)

    async def counts(self) -> dict[str, int]:
        """Requests by method and route since the last reset: `{"PUT bulk": 1, ...}`."""
        counts: dict[str, int] = (await asyncio.to_thread(self._call))["counts"]
        return counts

    async def bill(self) -> dict[str, int]:
        """Keys read, written and deleted, and listings, since the last reset."""
        bill: dict[str, int] = (await asyncio.to_thread(self._call))["bill"]
        return bill

    async def log(self) -> list[dict[str, Any]]:
        """The last 10,000 requests: route, namespace, target, status, fault, bill, at, body."""
        log: list[dict[str, Any]] = (await asyncio.to_thread(self._call, None, "?log"))["log"]
        return log

    def _call(self, settings: dict[str, Any] | None = None, query: str = "") -> dict[str, Any]:
        data = None if settings is None else json.dumps(settings).encode()
        try:
            with urlopen(Request(self._control + query, data), timeout=60) as answer:
                state: dict[str, Any] = json.load(answer)
        except HTTPError as error:
            with error:
                raise KVServerError(json.load(error)["error"]) from None
        return state


def install(directory: Path = SERVER) -> None:
    """Install the npm packages of a directory next to their `package.json`, once."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise KVServerError(f"{program} was not found; {_NEEDS}")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if [int(number) for number in version.stdout.strip("v\n").split(".")[:2]] < [20, 11]:
        raise KVServerError(f"node is {version.stdout.strip()}; {_NEEDS}")
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
            raise KVServerError(f"npm could not install {lock}:\n{outcome.stderr}")
        installed.write_text(wanted)


def main() -> int:
    options = _options()
    port = options.port
    if port is None:
        port = 0 if options.command else 8788
    # A kill ends it like Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with KVServer.start(port=port) as server:
            try:
                return _run(options.command, server) if options.command else _stay(server)
            except KeyboardInterrupt:
                return 130 if options.command else 0
    except KVServerError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        return 130


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kv_server.py",
        description="The REST API of Workers KV on this machine, for development and tests: real "
        "KV in workerd. Needs Node.js 20.11 or newer with npm. What it holds is gone at its end.",
        epilog="Without COMMAND it stays until Ctrl-C, and prints the account, the token and the "
        "address. With one it runs that, with CLOUDFLARE_ACCOUNT_ID, CLOUDFLARE_API_TOKEN and "
        "CLOUDFLARE_BASE_URL set, and ends with its exit code.",
    )
    parser.add_argument(
        "--port", type=int, help="where to listen; else 8788, and with COMMAND any that is free"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser.parse_args()


def _run(command: list[str], server: KVServer) -> int:
    environment = {
        **os.environ,
        "CLOUDFLARE_ACCOUNT_ID": server.account_id,
        "CLOUDFLARE_API_TOKEN": server.token,
        "CLOUDFLARE_BASE_URL": server.url,
    }
    return subprocess.run(command, env=environment, check=False).returncode


def _stay(server: KVServer) -> int:
    """Say where the server is, and wait for Ctrl-C."""
    sys.stdout.write(
        f"""\
Workers KV on this machine: {server.url}

For agents:
  export CLOUDFLARE_ACCOUNT_ID={server.account_id} CLOUDFLARE_API_TOKEN='{server.token}'
  export CLOUDFLARE_BASE_URL={server.url}
A look at it:
  mastra-storage demo cloudflare://{server.account_id}

Ctrl-C ends it, and what it holds is gone.
"""
    )
    sys.stdout.flush()
    return server.wait()


if __name__ == "__main__":
    sys.exit(main())
