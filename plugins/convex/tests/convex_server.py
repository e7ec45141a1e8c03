"""Convex on this machine: the shipped functions on Convex's own convex-test, started from Python.

As a script it starts the server and keeps it until Ctrl-C; or it runs a command with
`CONVEX_URL`, `CONVEX_DEPLOY_KEY` and the self-hosted pair set, and stops the server again:

    python convex_server.py [--port N] [--data FILE] [--functions DIR] [COMMAND [ARGUMENT ...]]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

sys.path.append(str(Path(__file__).parents[3] / "tests" / "support"))

from local_server import LocalServer, install, serve

SERVER = Path(__file__).parent / "server"


class ConvexServer(LocalServer):
    """A running server; use `ConvexServer.start()`, and `stop()` or `with` to end it.

    `url` is the deployment's. `admin_key` may call internal functions and deploy; `wrong_key` has
    its form and is refused. A reset brings back the functions that it was started with.
    """

    title = "the Convex server"
    admin_key: str
    wrong_key: str

    def __init__(self, process: subprocess.Popen[str], ready: Mapping[str, str]) -> None:
        super().__init__(process, ready)
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
        install(SERVER)
        kept = () if data is None else ("--data", str(data))
        return cls._start(program, "--functions", str(functions), "--port", str(port), *kept)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="convex_server.py",
        description="Convex on this machine, for development and tests: the functions of "
        "mastra-storage on Convex's own convex-test. Needs Node.js 20.11 or newer with npm.",
        epilog="Without COMMAND it stays until Ctrl-C, and prints the address and the key. With "
        "one it runs that, with CONVEX_URL, CONVEX_DEPLOY_KEY, CONVEX_SELF_HOSTED_URL and "
        "CONVEX_SELF_HOSTED_ADMIN_KEY set, and ends with its exit code.",
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
    return serve(
        parser,
        lambda options: ConvexServer.start(
            functions=options.functions, port=options.port, data=options.data
        ),
        port=3210,
        environment=_environment,
        about=_about,
    )


def _environment(server: ConvexServer) -> dict[str, str]:
    return {
        "CONVEX_URL": server.url,
        "CONVEX_DEPLOY_KEY": server.admin_key,
        "CONVEX_SELF_HOSTED_URL": server.url,
        "CONVEX_SELF_HOSTED_ADMIN_KEY": server.admin_key,
    }


def _about(server: ConvexServer) -> str:
    return f"""\
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


if __name__ == "__main__":
    sys.exit(main())
