"""What a source's config says, checked without asking GitHub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

from sourcebus.connectors.base import refuse_unknown
from sourcebus.connectors.config import patterns_at
from sourcebus.connectors.patterns import Selection
from sourcebus.errors import InvalidInput
from sourcebus.model import MAX_REF_BYTES

CONTENTS, ISSUES, PULLS, WIKI = KINDS = ("contents", "issues", "pulls", "wiki")

_KEYS = ("owner", "repo", "kinds", "branch", "include", "exclude", "max_bytes", "api", "web")
_DEFAULT_KINDS = (CONTENTS, ISSUES, PULLS)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True)
class Settings:
    """`api` and `web` are base URLs without a slash at the end; `branch` None is the repository's default branch."""

    owner: str
    repo: str
    kinds: tuple[str, ...]
    branch: str | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    max_bytes: int
    api: str
    web: str

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.repo}"

    def takes(self) -> Selection:
        """Which files are objects."""
        return Selection(self.include, self.exclude)

    def seal(self) -> str:
        """Changes with everything that decides which objects there are: a cursor made under another one is of no use."""
        told = json.dumps([self.full_name.lower(), sorted(self.kinds), self.branch, self.include, self.exclude, self.api])
        return hashlib.blake2b(told.encode(), digest_size=6).hexdigest()

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> Settings:
        """Raises `InvalidInput` naming the key."""
        refuse_unknown(config, _KEYS)
        api = _url(config, "api", "https://api.github.com")
        return cls(
            owner=_name(config, "owner"),
            repo=_name(config, "repo").removesuffix(".git"),
            kinds=_kinds(config),
            branch=_branch(config),
            include=tuple(patterns_at(config, "include")),
            exclude=tuple(patterns_at(config, "exclude")),
            max_bytes=_bytes(config),
            api=api,
            web=_url(config, "web", _web_of(api)),
        )


def can_be(ref: str) -> bool:
    """Whether a reference can be one at all: text, and not longer than any may be."""
    return not re.search(r"[\ud800-\udfff]", ref) and len(ref.encode()) <= MAX_REF_BYTES


def _name(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value.strip(".") == "":
        problem = "is missing" if value is None else f"is {value!r}"
        raise InvalidInput(f"config.{key}", problem, "give it as in https://github.com/OWNER/REPO")
    return value


def _kinds(config: Mapping[str, Any]) -> tuple[str, ...]:
    value = config.get("kinds", list(_DEFAULT_KINDS))
    given = cast("list[Any]", value) if isinstance(value, list | tuple) else []
    if not given or any(kind not in KINDS for kind in given):
        raise InvalidInput("config.kinds", f"is {value!r}", "give a list of " + ", ".join(KINDS))
    return tuple(kind for kind in KINDS if kind in given)


def _branch(config: Mapping[str, Any]) -> str | None:
    value = config.get("branch")
    if value is None:
        return None
    # git-check-ref-format(1), as far as it could be mistaken for something else in a URL
    if not isinstance(value, str) or not value or re.search(r"[\x00-\x20~^:?*\[\\\x7f]|\.\.|^/|/$|//|@\{", value):
        raise InvalidInput("config.branch", f"is {value!r}", "give a branch's name, such as main, without refs/heads/")
    if value.startswith("refs/"):
        raise InvalidInput("config.branch", f"is {value!r}", "leave out refs/heads/")
    return value


def _bytes(config: Mapping[str, Any]) -> int:
    value = config.get("max_bytes", 20_000_000)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000_000:
        raise InvalidInput(
            "config.max_bytes", f"is {value!r}", "give a number of bytes from 1 to 100000000, GitHub's own limit"
        )
    return value


def _url(config: Mapping[str, Any], key: str, default: str) -> str:
    value = config.get(key, default)
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        good = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment or parts.username)
        )
    except ValueError:
        good = False
    if not good:
        raise InvalidInput(f"config.{key}", f"is {value!r}", "give a URL such as https://github.example.com/api/v3")
    return cast("str", value).rstrip("/")


def _web_of(api: str) -> str:
    """Where the repositories of this API are cloned from: GitHub Enterprise Server has its API below the same host."""
    if api == "https://api.github.com":
        return "https://github.com"
    return api.removesuffix("/api/v3")
