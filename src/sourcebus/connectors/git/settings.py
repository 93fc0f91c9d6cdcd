"""A source's settings, checked: which repository, which branch, which files, where its mirror lies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import urlsplit

from sourcebus.connectors.base import refuse_unknown
from sourcebus.connectors.config import number_at, patterns_at
from sourcebus.connectors.patterns import Selection
from sourcebus.errors import InvalidInput
from sourcebus.settings import Settings

KEYS = ("url", "branch", "include", "exclude", "protocols", "max_bytes", "max_mirror_bytes", "timeout_s", "cache_dir")

PROTOCOLS = ("https", "http", "ssh", "file")

# git-check-ref-format(1), and no dash at the front, which a command could take for an option
_NO_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|\.lock(/|$)|^-|^/|/$|\.$|^@$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class GitSettings:
    """`branch` None: the repository's own default. `marks` tells settings apart that list different objects."""

    url: str
    branch: str | None
    selection: Selection
    max_bytes: int
    max_mirror_bytes: int
    timeout_s: float
    mirror: Path
    marks: str

    @property
    def ref(self) -> str:
        """The ref to follow, as the server calls it."""
        return "HEAD" if self.branch is None else f"refs/heads/{self.branch}"

    @property
    def shown(self) -> str:
        """What is followed, for people."""
        return f"{self.url} ({'its default branch' if self.branch is None else 'branch ' + self.branch})"

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> Self:
        """Raises `InvalidInput` naming the key and the fix."""
        refuse_unknown(config, KEYS)
        url, branch = _url(config), _branch(config)
        include, exclude = patterns_at(config, "include"), patterns_at(config, "exclude")
        max_bytes = int(number_at(config, "max_bytes", default=20_000_000))
        marks = hashlib.sha256(repr((url, branch, sorted(include), sorted(exclude))).encode()).hexdigest()[:8]
        # The size limit is part of the name: a mirror made for a smaller one lacks what is larger.
        name = hashlib.sha256(repr((url, branch, max_bytes)).encode()).hexdigest()[:32]
        return cls(
            url=url,
            branch=branch,
            selection=Selection(include, exclude),
            max_bytes=max_bytes,
            max_mirror_bytes=int(number_at(config, "max_mirror_bytes", default=10_000_000_000)),
            timeout_s=number_at(config, "timeout_s", default=300.0),
            mirror=_cache_dir(config) / name,
            marks=marks,
        )


def _url(config: Mapping[str, Any]) -> str:
    url = config.get("url")
    if not isinstance(url, str) or not url:
        raise InvalidInput("config.url", "is missing" if url is None else f"is {url!r}", "give the repository's URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("config.url", f"is no URL ({error})", "give one such as https://host/group/project.git") from error
    del port  # only to have it checked
    allowed = _protocols(config)
    if parts.scheme not in allowed:
        fix = f"add it to config.protocols (allowed now: {', '.join(allowed)})" if parts.scheme in PROTOCOLS else ""
        raise InvalidInput(
            "config.url", f"has the protocol {parts.scheme!r}", fix or "write https://host/path, or ssh://user@host/path"
        )
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise InvalidInput("config.url", "holds credentials", "put them into the secret: user and token, or user and password")
    if parts.query or parts.fragment or re.search(r"[\x00-\x20\x7f]", url):
        raise InvalidInput("config.url", "has a query, a fragment or a space in it", "give the plain address that git clones")
    if parts.scheme != "file" and not parts.hostname:
        raise InvalidInput("config.url", "has no host", "write https://host/path")
    if (parts.hostname or "").startswith("-") or (parts.username or "").startswith("-") or parts.path.startswith("/-"):
        raise InvalidInput("config.url", "has a name that begins with a dash", "give the repository's URL")
    return url


def _protocols(config: Mapping[str, Any]) -> Sequence[str]:
    protocols = config.get("protocols", ["https", "http"])
    if not isinstance(protocols, list | tuple) or not protocols or not set(cast("list[Any]", protocols)) <= set(PROTOCOLS):
        raise InvalidInput("config.protocols", f"is {protocols!r}", "give a list of " + ", ".join(PROTOCOLS))
    return cast("Sequence[str]", protocols)


def _branch(config: Mapping[str, Any]) -> str | None:
    branch = config.get("branch")
    if branch is None:
        return None
    if not isinstance(branch, str) or not branch or _NO_BRANCH.search(branch.removeprefix("refs/heads/") or "-"):
        raise InvalidInput("config.branch", f"is {branch!r}", "give a branch's name, such as main")
    return branch.removeprefix("refs/heads/")


def _cache_dir(config: Mapping[str, Any]) -> Path:
    value = config.get("cache_dir")
    if value is None:
        return Settings().data_dir.absolute() / "git"
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise InvalidInput("config.cache_dir", f"is {value!r}", "give the full path of a directory")
    return Path(value)
