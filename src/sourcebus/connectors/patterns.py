"""Include and exclude patterns: which paths below the root are objects.

A pattern without a slash matches a name anywhere (``*.log``, ``node_modules``); one with a slash matches from the root
(``docs/*.md``, ``**/build/out``). ``*`` and ``?`` stay within one name, ``**`` spans any number of directories, ``[a-z]`` is
one of these characters. What matches a directory matches all below it. A slash at the end matches directories only.
Upper and lower case differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

DEFAULT_EXCLUDES: tuple[str, ...] = (
    # version control
    ".git", ".hg", ".svn", ".bzr", "CVS", ".jj",
    # what tools build and fetch
    "__pycache__", "*.pyc", "*.pyo", "node_modules", ".venv", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache",
    # editors' swap, backup and lock files, and half-written downloads
    "*~", "*.swp", "*.swo", "*.swx", ".#*", "#*#", ".~lock.*#", "~$*", "*.tmp", "*.part", "*.crdownload", ".nfs*",
    # file managers and file systems
    ".DS_Store", "Thumbs.db", "desktop.ini", ".Trash-*", "lost+found",
)  # fmt: skip


class Selection:
    """Which files are objects: those that an include pattern matches (all, without any) and no exclude pattern does."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = _Matcher(include) if include else None
        self._exclude = _Matcher(exclude)

    def enters(self, directory: str) -> bool:
        """Whether anything below this directory (a path from the root) can be an object, given that its parents are entered."""
        return not self._exclude.directory(directory)

    def takes(self, file: str) -> bool:
        """Whether this file is an object, given that the directories above it are entered."""
        return not self._exclude.file(file) and (self._include is None or self._include.below(file))

    def selects(self, file: str) -> bool:
        """Whether this file is an object; knows nothing of its parents yet."""
        return all(self.enters(parent) for parent in parents(file)) and self.takes(file)


class _Matcher:
    def __init__(self, patterns: Sequence[str]) -> None:
        self.directory = _Patterns(patterns)
        self.file = _Patterns([pattern for pattern in patterns if not pattern.endswith("/")])

    def below(self, file: str) -> bool:
        return self.file(file) or any(self.directory(parent) for parent in parents(file))


class _Patterns:
    """Does a path match one of the patterns, by its last name or as a whole?"""

    def __init__(self, patterns: Sequence[str]) -> None:
        stripped = [pattern.rstrip("/") for pattern in patterns]
        self._name = _regex([pattern for pattern in stripped if "/" not in pattern])
        self._path = _regex([pattern.lstrip("/") for pattern in stripped if "/" in pattern])

    def __call__(self, path: str) -> bool:
        if self._name is not None and self._name.fullmatch(path, path.rfind("/") + 1):
            return True
        return self._path is not None and self._path.fullmatch(path) is not None


def parents(ref: str) -> list[str]:
    """The directories above a path, outermost first: ``a/b/c`` → ``a``, ``a/b``."""
    return [ref[:at] for at, char in enumerate(ref) if char == "/"]


def translate(pattern: str) -> str:
    """A pattern as a regular expression. Raises `re.error` for an impossible character range."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            out.append("(?:[^/]+/)*")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif pattern[at] == "*":
            out.append("[^/]*")
            at += 1
        elif pattern[at] == "?":
            out.append("[^/]")
            at += 1
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end]
            negated = inside[0] in "!^" and len(inside) > 1
            out.append(("(?!/)[^" if negated else "(?!/)[") + re.sub(r"([\\\[\]&~|])", r"\\\1", inside[negated:]) + "]")
            at = end + 1
        else:
            out.append(re.escape(pattern[at]))
            at += 1
    return "".join(out)


def _regex(patterns: Sequence[str]) -> re.Pattern[str] | None:
    # DOTALL: names may hold newlines.
    return re.compile("|".join(f"(?:{translate(p)})" for p in patterns), re.DOTALL) if patterns else None
