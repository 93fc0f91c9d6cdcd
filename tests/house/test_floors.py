"""The floors of docs/architecture.md, as import-linter sees them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint(where: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", program], cwd=where, capture_output=True, text=True, check=False, timeout=120)


def rooms() -> list[str]:
    """The rooms of the floors contract; those that may be missing in parentheses."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    floors = next(contract for contract in contracts if contract["id"] == "floors")["layers"]
    return [room for floor in floors for room in floor.split(" | ")]


def test_every_import_goes_down() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_module_without_a_floor_is_refused(tmp_path: Path) -> None:
    """The contract must be exhaustive: a package with an extra module fails it."""
    package = tmp_path / "sourcebus"
    package.mkdir()
    for room in ["__init__", "utils", *(room.strip("()") for room in rooms())]:
        (package / f"{room}.py").write_text("")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"), "utf-8")
    done = lint(tmp_path)
    assert done.returncode != 0
    assert "- sourcebus.utils" in done.stdout


def test_every_signal_comes_in_by_one_door() -> None:
    """One path: nobody but intake's `accept` stores signals (the simulation is a world of its own)."""
    package = ROOT / "src" / "sourcebus"
    doors = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "simulation" not in path.parts and re.search(r"bus\.emit\(", path.read_text("utf-8"))
    }
    assert doors == {"intake/accept.py"}


def test_the_page_names_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for room in rooms():
        if room.startswith("("):
            continue  # has a floor already, and is not built yet
        path = ROOT / "src" / "sourcebus" / room
        name = f"{room}/" if path.is_dir() else f"{room}.py"
        assert f"`{name}`" in page, f"docs/architecture.md does not name {name}"
