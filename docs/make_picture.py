"""Makes docs/assets/demo.svg, the picture of the demo, from what `mastra-storage demo` prints."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

COLUMNS = 92
TARGET = Path(__file__).parent / "assets" / "demo.svg"
COMMAND = Path(sys.executable).parent / "mastra-storage"

# Without the web fonts: a picture must not load anything.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    environment = os.environ | {
        "COLUMNS": str(COLUMNS),
        "FORCE_COLOR": "1",
        "TERM": "xterm-256color",
    }
    with tempfile.TemporaryDirectory() as empty:
        run = subprocess.run(
            [COMMAND, "demo"], cwd=empty, env=environment, capture_output=True, check=True
        )
    shown = run.stdout.decode().partition("\n\x1b[1mNext")[0].rstrip()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(f"\x1b[1;32m$\x1b[0m mastra-storage demo\n{shown}\x1b[0m"))
    TARGET.write_text(
        console.export_svg(title="mastra-storage", code_format=FORMAT, unique_id="demo"), "utf-8"
    )


if __name__ == "__main__":
    main()
