"""The REST API of Workers KV on this machine: real KV bindings in workerd, started from Python.

As a script it serves until Ctrl-C (`make kv-server`), or for as long as a command runs:

    python kv_server.py [--port N] [COMMAND [ARGUMENT ...]]
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

sys.path.append(str(Path(__file__).parents[3] / "tests" / "support"))

from local_server import LocalServer, install, serve

SERVER = Path(__file__).parent / "server"


class KVServer(LocalServer):
    """A running server; use `KVServer.start()`, and `stop()` or `with` to end it.

    `url` is what clients call a base URL; at `direct_url` it answers faster, without faults and a
    log. `token` may read and write, `read_token` may read, `no_right_token` may do neither.
    """

    title = "the Workers KV server"
    direct_url: str
    account_id: str
    token: str
    read_token: str
    no_right_token: str

    def __init__(self, process: subprocess.Popen[str], ready: Mapping[str, str]) -> None:
        super().__init__(process, ready)
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
        install(SERVER)
        options = ("--store", store, "--namespaces", str(namespaces), "--port", str(port))
        return cls._start(program, *options)

    async def bill(self) -> dict[str, int]:
        """Keys read, written and deleted, and listings, since the last reset."""
        bill: dict[str, int] = (await asyncio.to_thread(self._call))["bill"]
        return bill


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="kv_server.py",
        description="The REST API of Workers KV on this machine, for development and tests: real "
        "KV in workerd. Needs Node.js 20.11 or newer with npm. What it holds is gone at its end.",
        epilog="Without COMMAND it stays until Ctrl-C, and prints the account, the token and the "
        "address. With one it runs that, with CLOUDFLARE_ACCOUNT_ID, CLOUDFLARE_API_TOKEN and "
        "CLOUDFLARE_BASE_URL set, and ends with its exit code.",
    )
    return serve(
        parser,
        lambda options: KVServer.start(port=options.port),
        port=8788,
        environment=_environment,
        about=_about,
    )


def _environment(server: KVServer) -> dict[str, str]:
    return {
        "CLOUDFLARE_ACCOUNT_ID": server.account_id,
        "CLOUDFLARE_API_TOKEN": server.token,
        "CLOUDFLARE_BASE_URL": server.url,
    }


def _about(server: KVServer) -> str:
    return f"""\
Workers KV on this machine: {server.url}

For agents:
  export CLOUDFLARE_ACCOUNT_ID={server.account_id} CLOUDFLARE_API_TOKEN='{server.token}'
  export CLOUDFLARE_BASE_URL={server.url}
A look at it:
  mastra-storage demo cloudflare://{server.account_id}

Ctrl-C ends it, and what it holds is gone.
"""


if __name__ == "__main__":
    sys.exit(main())
