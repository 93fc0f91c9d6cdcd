"""Which files are objects, and which settings are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sourcebus.connectors.filesystem import DEFAULT_EXCLUDES, FilesystemConnector
from sourcebus.connectors.filesystem.connector import SETTINGS, WATCHERS
from sourcebus.connectors.patterns import Selection
from sourcebus.errors import InvalidInput
from sourcebus.model import Change


@pytest.mark.parametrize(
    ("pattern", "matched", "not_matched"),
    [
        ("*.md", ["a.md", "deep/er/a.md", ".md", "new\nline.md"], ["a.mdx", "a.MD"]),
        ("docs", ["docs", "docs/a", "x/docs/y/z"], ["docs2/a", "mydocs"]),
        ("docs/", ["docs/a", "x/docs/a"], ["docs", "x/docs"]),
        ("/docs", ["docs/a"], ["x/docs/a"]),
        ("docs/*.md", ["docs/a.md"], ["docs/x/a.md", "x/docs/a.md"]),
        ("docs/**", ["docs/a", "docs/x/y"], ["other/a"]),
        ("docs/**/a.md", ["docs/a.md", "docs/x/y/a.md"], ["docs/xa.md"]),
        ("**/out/*.bin", ["out/a.bin", "x/y/out/a.bin"], ["out/x/a.bin"]),
        ("a?c", ["abc", "a\nc"], ["ac", "abbc"]),
        ("[a-c].txt", ["b.txt"], ["d.txt"]),
        ("[!a-c].txt", ["d.txt"], ["b.txt", "/.txt"]),
        ("a.b(c)+", ["a.b(c)+"], ["axb(c)+"]),
        ("[", ["["], ["x"]),
        ("\udcff*", ["\udcffname"], ["name"]),
    ],
)
def test_patterns(pattern: str, matched: list[str], not_matched: list[str]) -> None:
    included, excluded = Selection([pattern], []), Selection([], [pattern])
    assert [included.selects(path) for path in matched] == [True] * len(matched)
    assert [excluded.selects(path) for path in matched] == [False] * len(matched)
    assert not any(included.selects(path) for path in not_matched)
    assert all(excluded.selects(path) for path in not_matched)


@pytest.mark.parametrize(
    "path", [".git/config", "x/node_modules/y/z.js", "a/__pycache__/b.pyc", "notes.txt~", ".notes.txt.swp"]
)
def test_the_default_leaves_out_what_tools_leave_behind(path: str) -> None:
    assert not Selection([], DEFAULT_EXCLUDES).selects(path)


def refs(connector: FilesystemConnector) -> set[str]:
    return {item.object_ref for item in connector.changes(None) if isinstance(item, Change)}


def test_the_users_excludes_join_the_defaults_unless_told_otherwise(root: Path, connect: Callable[..., Any]) -> None:
    for name in ("a.txt", "b.log", "c.tmp"):
        (root / name).touch()
    assert refs(connect()) == {"a.txt", "b.log"}
    assert refs(connect(exclude=["*.log"])) == {"a.txt"}
    assert refs(connect(exclude=["*.log"], exclude_defaults=False)) == {"a.txt", "c.tmp"}
    assert refs(connect(include=["*.log"])) == {"b.log"}


def test_what_is_excluded_later_is_gone(root: Path, connect: Callable[..., Any]) -> None:
    (root / "private").mkdir()
    (root / "private" / "a.txt").write_text("a")
    assert connect().version("private/a.txt")
    assert connect(exclude=["private"]).version("private/a.txt") is None


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({}, "config.root"),
        ({"root": ""}, "config.root"),
        ({"root": 7}, "config.root"),
        ({"root": "relative/path"}, "config.root"),
        ({"root": "/a\0b"}, "config.root"),
        ({"root": "/", "includes": []}, "config.includes"),
        ({"root": "/", "include": "*.md"}, "config.include"),
        ({"root": "/", "include": [7]}, "config.include"),
        ({"root": "/", "exclude": ["[z-a]"]}, "config.exclude"),
        ({"root": "/", "max_bytes": 0}, "config.max_bytes"),
        ({"root": "/", "max_bytes": "1 MB"}, "config.max_bytes"),
        ({"root": "/", "max_bytes": True}, "config.max_bytes"),
        ({"root": "/", "max_bytes": float("nan")}, "config.max_bytes"),
        ({"root": "/", "mounted": "yes"}, "config.mounted"),
        ({"root": "/", "watcher": "magic"}, "config.watcher"),
        ({"root": "/", "watcher": []}, "config.watcher"),
        ({"root": "/", "rescan_s": 0}, "config.rescan_s"),
    ],
    ids=repr,
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        FilesystemConnector.create(settings)
    assert refused.value.field == field
    assert refused.value.fix


def test_an_unknown_setting_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"config\.includes.*include, exclude"):
        FilesystemConnector.create({"root": "/", "includes": []})


def test_the_page_names_every_setting_and_every_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "connectors" / "filesystem.md").read_text()
    for word in (*SETTINGS, *WATCHERS, *DEFAULT_EXCLUDES):
        assert f"`{word}`" in page or f'`"{word}"`' in page, word
