"""The Python of the plugin's README and documentation, the demo, and what the pages name."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from convex_server import ConvexServer
from mastra_storage_convex import deploying
from mastra_storage_convex.layout import CONVEX_NAMES

PLUGIN = Path(__file__).parents[1]
PAGE = PLUGIN.parents[1] / "docs" / "convex.md"
HOST = "convex://cheerful-lemur-123.convex.cloud"


def blocks(page: Path) -> Iterator[str]:
    yield from re.findall(
        r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture
def deployment(convex: ConvexServer, monkeypatch: pytest.MonkeyPatch) -> ConvexServer:
    """The local server, where the environment says the deployment is."""
    monkeypatch.setenv("CONVEX_URL", convex.url)
    monkeypatch.setenv("CONVEX_DEPLOY_KEY", convex.admin_key)
    return convex


def test_the_ten_lines_of_the_readme_run(
    deployment: ConvexServer, capsys: pytest.CaptureFixture[str]
) -> None:
    [block] = blocks(PLUGIN / "README.md")
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out == "user: Oslo, please\n"


def test_every_block_of_the_page_runs(
    deployment: ConvexServer, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(blocks(PAGE))
    for block in found:
        code = block.replace(HOST, f"convex+{deployment.url}")
        exec(compile(code, PAGE.name, "exec"), {})
    assert capsys.readouterr().out == "user: Oslo, please\n['answer']\n"
    assert len(found) == 2


def test_the_demo_remembers(deployment: ConvexServer) -> None:
    command = [str(Path(sys.executable).with_name("mastra-storage")), "demo"]
    command += [f"convex+{deployment.url}"]
    first, second = (
        subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
        for _ in range(2)
    )
    assert "read back from a newly opened store: 6 messages" in first
    assert "going on behind 6 messages" in second
    assert deployment.admin_key not in first + second


def test_the_page_names_every_shipped_file_and_table() -> None:
    text = PAGE.read_text("utf-8")
    for name in deploying.shipped():
        assert f"`{name}`" in text or name.startswith("mastra/")
    tables = (deploying.shipped()["mastra/tables.ts"]).decode()
    for name in re.findall(r"^  (\w+): defineTable", tables, re.MULTILINE):
        assert f"`{name}`" in text
    assert set(CONVEX_NAMES.values()) <= set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))


# -- docker-compose.yml --------------------------------------------------------------------------


def test_the_compose_file_has_the_services_ports_and_variables_that_the_page_names() -> None:
    text = (PLUGIN / "docker-compose.yml").read_text("utf-8")
    found = importlib.import_module("yaml").safe_load(text)
    backend, dashboard = found["services"]["backend"], found["services"]["dashboard"]
    assert [resolved(port) for port in backend["ports"]] == [
        "127.0.0.1:3210:3210",
        "127.0.0.1:3211:3211",
    ]
    assert [resolved(port) for port in dashboard["ports"]] == ["127.0.0.1:6791:6791"]
    assert resolved(backend["ports"][0], PORT="8000") == "127.0.0.1:8000:3210"
    where = {name: resolved(value) for name, value in backend["environment"].items()}
    assert where["CONVEX_CLOUD_ORIGIN"] == "http://127.0.0.1:3210"
    assert where["CONVEX_SITE_ORIGIN"] == "http://127.0.0.1:3211"
    asked = dashboard["environment"]["NEXT_PUBLIC_DEPLOYMENT_URL"]
    assert resolved(asked, PORT="8000") == "http://127.0.0.1:8000"
    assert resolved(backend["image"]) == "ghcr.io/get-convex/convex-backend:latest"
    assert resolved(dashboard["image"]) == "ghcr.io/get-convex/convex-dashboard:latest"
    assert "http://localhost:3210/version" in backend["healthcheck"]["test"]
    assert dashboard["depends_on"] == {"backend": {"condition": "service_healthy"}}
    assert backend["volumes"] == ["data:/convex/data"]
    assert list(found["volumes"]) == ["data"]
    page = PAGE.read_text("utf-8")
    named = set(re.findall(r"\$\{(\w+)", text)) - {"DISABLE_BEACON", "RUST_LOG"}
    assert [name for name in named if f"`{name}`" not in page] == []


def resolved(text: str, **variables: str) -> str:
    """The text with its variables as Compose fills them in, the innermost defaults first."""
    pattern = re.compile(r"\$\{(\w+):-([^${}]*)\}")
    while pattern.search(text):
        text = pattern.sub(lambda found: variables.get(found[1]) or found[2], text)
    return text
