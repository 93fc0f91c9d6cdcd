"""The pages say what the code does: settings, commands, calls, links, and the commands that the README has people type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sourcebus.cli.app import app
from sourcebus.gateway import create_app
from sourcebus.runtime import build
from sourcebus.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


# -- settings


def test_every_setting_has_its_row() -> None:
    rows: dict[str, list[str]] = {}
    for line in read("docs/settings.md").splitlines():
        if line.startswith("| `SOURCEBUS_"):
            name, default, meaning = (cell.strip() for cell in line.strip("|").split("|", 2))
            rows[name.strip("`")] = [default.strip("`"), meaning]
    fields = Settings.model_fields.items()
    assert rows == {f"SOURCEBUS_{name.upper()}": [as_text(field.default), field.description] for name, field in fields}


def as_text(value: object) -> str:
    if value is None or value == frozenset():
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- commands


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by its words."""
    command = command or get_command(app)
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, one in below.items():
        yield from commands(one, (*path, name))


COMMANDS = dict(commands())


def options(path: tuple[str, ...]) -> set[str]:
    return {flag for parameter in COMMANDS[path].params for flag in parameter.opts if flag.startswith("-")} | {"--help"}


def test_every_command_and_option_is_described() -> None:
    sections = re.split(r"^## ", read("docs/cli.md"), flags=re.M)
    described = {section.split("\n", 1)[0].strip("`"): section for section in sections[1:]}
    assert set(described) == {" ".join(["sourcebus", *path]) for path in COMMANDS}
    for path in COMMANDS:
        section = described[" ".join(["sourcebus", *path])]
        missing = [flag for flag in options(path) - {"--help"} if f"`{flag}" not in section and f", {flag}" not in section]
        assert not missing, f"docs/cli.md does not describe {missing} of {' '.join(path)}"


def typed(text: str) -> Iterator[list[str]]:
    """The words of each command line in shell blocks and in `code` that begins with sourcebus."""
    for block in re.findall(r"```(?:sh|shell|console|bash)\n(.*?)```", text, flags=re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|\||[;|&]|\bdo\b|\buntil\b", line.split(" #")[0]):
                yield words(part)
    for code in re.findall(r"`([^`\n]+)`", text):
        yield words(code)


def words(line: str) -> list[str]:
    line = line.strip().removeprefix("$ ")
    try:
        return shlex.split(line)
    except ValueError:  # a quotation that goes on in the next line
        return line.split()


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_commands_on_a_page_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), flags=re.M))
    for line in typed(page.read_text("utf-8")):
        if not line:
            continue
        if line[0] == "make":
            named = [word for word in line[1:] if "=" not in word and re.fullmatch(r"[a-z-]+", word)]
            assert set(named) <= targets, f"{line}: no such target"
        elif Path(line[0]).name == "sourcebus" and len(line) > 1 and re.fullmatch(r"[a-z]+", line[1]):
            path = next((tuple(line[1 : 1 + length]) for length in (2, 1) if tuple(line[1 : 1 + length]) in COMMANDS), None)
            groups = {command[0] for command in COMMANDS if len(command) == 2}
            if path is None and line[1] in groups and not re.fullmatch(r"[a-z]+", (line[2:] or ["…"])[0]):
                continue  # the group itself, as in `sourcebus source …`
            assert path is not None, f"{line}: no such command"
            flags = {word.split("=")[0] for word in line if re.match(r"--?[a-z]", word)}
            assert flags <= options(path), f"{line}: no such option"


# -- calls


def test_every_call_is_described_and_no_other(tmp_path: Path) -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1", database_url=f"sqlite:///{tmp_path / 'catalog.db'}")
    with build(settings) as runtime:
        paths = create_app(runtime).openapi()["paths"]
    calls = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", read("docs/http.md"), flags=re.M)) == calls


# -- links


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target or target.startswith("#"):
            continue
        assert (page.parent / target.split("#")[0]).exists(), f"{shown(page)} links to {target}"
