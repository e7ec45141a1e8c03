"""What the wheel holds, and what it says of itself."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The project, built as an installer would build it."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(target), str(ROOT)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    [built] = target.glob("*.whl")
    return zipfile.ZipFile(built)


def dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    [path] = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return Parser().parsestr(dist_info(wheel, "METADATA"))


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: zipfile.ZipFile) -> None:
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mastra_storage").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    packed = {path for path in wheel.namelist() if ".dist-info/" not in path}
    assert packed == source
    assert "mastra_storage/py.typed" in packed
    assert any(path.startswith("mastra_storage/testing/") for path in packed)


def test_the_licence_is_included(wheel: zipfile.ZipFile, metadata: Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert "The mastra-storage developers" in dist_info(wheel, "licenses/LICENSE")


def test_the_library_alone_needs_msgspec_and_nothing_else(metadata: Message) -> None:
    needed = [name for name in metadata.get_all("Requires-Dist", []) if "extra ==" not in name]
    assert needed == ["msgspec>=0.20"]
    assert set(metadata.get_all("Provides-Extra", [])) == {"cli", "testing"}
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_readme_describes_it(metadata: Message) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).startswith("# mastra-storage")


def test_every_supported_python_is_named() -> None:
    named = [c for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert named == [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)]


def test_entry_points_lead_somewhere(wheel: zipfile.ZipFile) -> None:
    text = dist_info(wheel, "entry_points.txt")
    for group in ("console_scripts", "mastra_storage.backends"):
        assert f"[{group}]" in text
    files = set(wheel.namelist())
    targets = list(PROJECT["scripts"].values())
    targets += PROJECT["entry-points"]["mastra_storage.backends"].values()
    for target in targets:
        module = target.split(":")[0].replace(".", "/")
        assert f"{module}.py" in files or f"{module}/__init__.py" in files


def test_the_changelog_has_this_version() -> None:
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
