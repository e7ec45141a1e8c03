"""The command `mastra-storage`; needs the extra `cli` (typer and rich)."""

from __future__ import annotations

import signal
import sys
from io import TextIOWrapper

__all__ = ["main"]

_NEEDED = frozenset({"typer", "rich"})


def main() -> None:
    """Run the command. Without the extra `cli`, say in one line how to get it, and exit with 1."""
    try:
        from mastra_storage.cli.app import app
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.exit(
            "mastra-storage: the command needs: pip install 'mastra-storage[cli]', in a checkout: "
            "pip install '.[cli]'"
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # What cleans up at Ctrl-C does so when it is asked to end by others.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    app()
