"""`mastra-storage-convex verify`: what it says of deployments, right ones and others."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from convex_server import ConvexServer
from mastra_storage_convex import ConvexStorage

from mastra_storage import Thread

pytestmark = pytest.mark.once  # one command; tests/cli of the core are of its kind

SOURCES = Path(__file__).parents[1] / "mastra_storage_convex" / "functions"
NAMES = ["server", "key", "functions", "modules", "tables", "live"]
VARIABLES = (
    "CONVEX_URL",
    "CONVEX_DEPLOY_KEY",
    "CONVEX_SELF_HOSTED_URL",
    "CONVEX_SELF_HOSTED_ADMIN_KEY",
)


def command(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return subprocess.Popen(
        [sys.executable, "-m", "mastra_storage_convex", *arguments],
        env={**environment, "COLUMNS": "100", "PYTHONUTF8": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


async def verify(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command's end; never a traceback."""
    process = command("verify", *arguments, env=env)
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert "Traceback" not in err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def key_of(convex: ConvexServer) -> dict[str, str]:
    return {"CONVEX_DEPLOY_KEY": convex.admin_key}


async def checks(*arguments: str, env: Mapping[str, str], code: int) -> dict[str, dict[str, str]]:
    """What `--json` gives, by the names of the checks."""
    done = await verify(*arguments, "--json", env=env)
    assert (done.returncode, done.stderr) == (code, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [check["name"] for check in found] == NAMES
    return {check["name"]: check for check in found}


def states(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [check["state"] for check in found.values()]


def up_to(name: str) -> list[str]:
    """The states when the check of this name fails."""
    place = NAMES.index(name)
    return ["ok"] * place + ["failed"] + ["not done"] * (len(NAMES) - place - 1)


def changed(directory: Path, **texts: str | None) -> Path:
    """The shipped functions with some files changed or, with None, without them."""
    shutil.copytree(SOURCES, directory)
    for name, text in texts.items():
        path = directory / f"{name.replace('__', '/')}.ts"
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
    return directory


async def test_a_deployment_that_has_everything(convex: ConvexServer) -> None:
    done = await verify(convex.url, env=key_of(convex))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in NAMES]
    assert "of version 0.1.0, protocol 1" in done.stdout
    assert "no row in any yet" in done.stdout
    async with ConvexStorage(convex.url, convex.admin_key) as storage:
        await storage.save_thread(Thread(id="t1", resource_id="ada"))
    done = await verify(convex.url, env=key_of(convex))
    assert "rows in threads" in done.stdout
    assert convex.admin_key not in done.stdout


@pytest.mark.parametrize("pair", [VARIABLES[:2], VARIABLES[2:]])
async def test_where_it_is_may_be_in_the_environment(
    convex: ConvexServer, pair: tuple[str, str]
) -> None:
    env = dict(zip(pair, (convex.url, convex.admin_key), strict=True))
    found = await checks(env=env, code=0)
    assert states(found) == ["ok"] * len(NAMES)
    assert found["server"]["found"] == f"{convex.url} answers"


async def test_a_url_of_the_plugin_and_a_key_as_an_argument(convex: ConvexServer) -> None:
    found = await checks(f"convex+{convex.url}", "--deploy-key", convex.admin_key, env={}, code=0)
    assert states(found) == ["ok"] * len(NAMES)


async def test_it_writes_nothing(convex: ConvexServer) -> None:
    await verify(convex.url, env=key_of(convex))
    log = await convex.log()
    assert {entry["label"] for entry in log} >= {"query evals:get", "mutation system:write"}
    assert [entry for entry in log if entry.get("documentsWritten")] == []


async def test_nothing_is_deployed(convex: ConvexServer) -> None:
    await convex.control(functions="none")
    found = await checks(convex.url, env=key_of(convex), code=1)
    assert states(found) == up_to("functions")
    assert found["functions"]["found"] == "the deployment has no function system:version"
    assert "mastra-storage-convex verify" not in found["functions"]["todo"], "that is what runs"
    for step in ("mastra-storage-convex init", "npx convex dev --once", "npx convex deploy"):
        assert step in found["functions"]["todo"]


@pytest.mark.parametrize(
    ("protocol", "said", "todo"),
    [(0, "older than this version", "npx convex deploy"), (99, "newer", "upgrade mastra-storage")],
)
async def test_functions_of_another_version(
    convex: ConvexServer, tmp_path: Path, protocol: int, said: str, todo: str
) -> None:
    text = f'export const PROTOCOL = {protocol};\nexport const VERSION = "0.0.1";\n'
    await convex.control(functions=str(changed(tmp_path / "convex", mastra__version=text)))
    found = await checks(convex.url, env=key_of(convex), code=1)
    assert states(found) == up_to("functions")
    assert said in found["functions"]["found"]
    assert todo in found["functions"]["todo"]


async def test_a_module_is_missing(convex: ConvexServer, tmp_path: Path) -> None:
    await convex.control(functions=str(changed(tmp_path / "convex", evals=None)))
    done = await verify(convex.url, env=key_of(convex))
    assert done.returncode == 1
    assert "failed    modules    the deployment has no function evals:get\n" in done.stdout
    assert "→ copy the functions of this version" in done.stdout


async def test_a_schema_of_ones_own_without_our_tables(
    convex: ConvexServer, tmp_path: Path
) -> None:
    mine = 'import { defineSchema } from "convex/server";\nexport default defineSchema({});\n'
    await convex.control(functions=str(changed(tmp_path / "convex", schema=mine)))
    found = await checks(convex.url, env=key_of(convex), code=1)
    assert "failed" in states(found)[3:5]
    failed = next(check for check in found.values() if check["state"] == "failed")
    assert "mastra-storage-convex init" in failed["todo"]


async def test_the_wrong_key(convex: ConvexServer) -> None:
    found = await checks(convex.url, env={"CONVEX_DEPLOY_KEY": convex.wrong_key}, code=4)
    assert states(found) == up_to("key")
    assert "refused the key" in found["key"]["found"]
    assert "deploy key of this very deployment" in found["key"]["todo"]
    assert convex.wrong_key not in json.dumps(found)


async def test_no_server() -> None:
    url = "convex+http://127.0.0.1:9?timeout=1"
    found = await checks(url, env={"CONVEX_DEPLOY_KEY": "secret"}, code=5)
    assert states(found) == up_to("server")
    assert "127.0.0.1:9: it was refused" in found["server"]["found"]
    assert "check the URL" in found["server"]["todo"]
    assert "secret" not in json.dumps(found)


async def test_something_else_answers(convex: ConvexServer) -> None:
    await convex.control(faults=[{"kind": "html", "times": 1_000}])
    found = await checks(f"convex+{convex.url}?timeout=1", env=key_of(convex), code=5)
    assert states(found) == up_to("server")
    assert "check the URL and proxies" in found["server"]["todo"]


async def test_a_proxy_that_lets_no_websocket_pass(convex: ConvexServer) -> None:
    await convex.control(refuseSockets=True)
    found = await checks(f"convex+{convex.url}?timeout=1", env=key_of(convex), code=1)
    assert states(found) == up_to("live")
    assert "whether its WebSocket can be reached" in found["live"]["todo"]


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        ([], {}, "give URL and --deploy-key, or set CONVEX_URL and CONVEX_DEPLOY_KEY"),
        (["https://cheerful-lemur-123.convex.cloud"], {}, "the key is missing; give --deploy-key"),
        (["convex://host"], {}, "the key is missing; give --deploy-key"),
        (["convex://https://host"], {}, "takes the place of https://"),
        ([], {"CONVEX_DEPLOY_KEY": "secret"}, "CONVEX_URL is missing or empty"),
        ([], {"CONVEX_URL": "https://host"}, "CONVEX_URL is set, CONVEX_DEPLOY_KEY is missing"),
        (["cheerful-lemur-123"], {"CONVEX_DEPLOY_KEY": "secret"}, "must be an address like"),
        (["convex://host?color=red"], {"CONVEX_DEPLOY_KEY": "secret"}, "no option 'color'"),
        (["https://host"], {"CONVEX_DEPLOY_KEY": "sec ret"}, "see how the key was copied"),
    ],
)
async def test_wrong_usage_is_one_line(
    arguments: list[str], env: Mapping[str, str], said: str
) -> None:
    done = await verify(*arguments, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("mastra-storage-convex: ")
    assert said in line
    assert "sec" not in line.replace("second", "")


async def test_an_interrupt_is_one_line(convex: ConvexServer) -> None:
    await convex.control(faults=[{"kind": "slow", "ms": 30_000, "times": 10}])
    process = command("verify", convex.url, env=key_of(convex))
    for _ in range(600):
        if await convex.counts():
            break
        await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.to_thread(process.communicate, timeout=30)
    assert (process.returncode, out, err) == (130, "", "mastra-storage-convex: interrupted\n")


async def test_version_and_help(tmp_path: Path) -> None:
    process = command("--version")
    assert process.communicate(timeout=60)[0] == "mastra-storage-convex 0.1.0\n"
    for name in ("init", "verify"):
        out, _ = command(name, "--help").communicate(timeout=60)
        assert f"$ mastra-storage-convex {name}" in out
    out, _ = command("--help").communicate(timeout=60)
    assert "Exit codes" in out
