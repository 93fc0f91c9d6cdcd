"""The pages of a repository's wiki. GitHub has no API for them, but the wiki is a git repository of its own, so git reads it.

A page is named by its file's name without the ending, as in its address and in the ``gollum`` event. Two files of one name in
two folders are one address on GitHub too; the first by path is the page.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import NamedTuple

import httpx

from sourcebus.connectors.documents import document
from sourcebus.connectors.github.repository import Repository
from sourcebus.connectors.github.settings import WIKI, Settings
from sourcebus.connectors.http import Api
from sourcebus.errors import NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import Change, ChangeKind, Extraction, JsonObject

PREFIX = f"{WIKI}/"

_TIMEOUT_S = 120
# github/markup: the endings that GitHub's wiki renders; anything else (images, mostly) is no page.
_PAGE = re.compile(
    r"(.+)\.(md|mkdn?|mdown|markdown|textile|rdoc|org|creole|mediawiki|wiki|rst|asciidoc|adoc|asc|pod|txt)", re.I
)


class Page(NamedTuple):
    path: str
    sha: str


class Wiki:
    """A copy of the wiki in a temporary folder, made when it is first needed and removed by `close`. Git over HTTPS has no part
    in the API's quota."""

    def __init__(self, repository: Repository, settings: Settings, token: str | None) -> None:
        self._repository, self._name = repository, settings.full_name
        self._url = f"{settings.web}/{settings.full_name}.wiki.git"
        self._token = token
        auth = httpx.BasicAuth("x-access-token", token) if token else None
        self._host = Api(settings.web, auth=auth, judge=_judge, cost=0)
        self._known: dict[str, dict[str, Page]] = {}
        self._lock = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def list(self, state: JsonObject) -> Iterator[Change | JsonObject]:
        """What changed since `state` (``{"head": commit}``; without it all pages), and the state to go on from."""
        with self._lock:
            head, old = self._fetch(), state.get("head")
            before = self._pages(old) if head and old and old != head else {}
            pages = self._pages(head) if head else {}
        if head is None and old is not None:
            raise self._hidden()
        if head != old:
            yield from (Change(PREFIX + name, version=page.sha) for name, page in pages.items() if page != before.get(name))
            yield from (Change(PREFIX + name, ChangeKind.DELETED) for name in before if name not in pages)
        yield {"head": head}

    def version(self, name: str) -> str | None:
        with self._lock:
            page = self._page(name)
        return page.sha if page else None

    def extract(self, name: str) -> Extraction:
        with self._lock:
            page = self._page(name)
            if page is None:
                raise ObjectGone(f"{PREFIX}{name} is no page of the wiki")
            data = self._copy("cat-file", "blob", page.sha)
        try:
            return Extraction([document(page.path.rsplit("/", 1)[-1], data)], page.sha)
        except ObjectUnreadable as error:
            raise ObjectUnreadable(error.reason, error.detail, version=page.sha) from error

    def close(self) -> None:
        with self._lock:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder, self._known = None, {}
        self._host.close()

    def _page(self, name: str) -> Page | None:
        head = self._fetch()
        if head is None:
            raise self._hidden()
        return self._pages(head).get(name)

    def _fetch(self) -> str | None:
        """The newest commit, with all that it holds. None: the wiki has no page, or is not there for this token."""
        try:
            told = self._host.call("GET", f"{self._name}.wiki.git/info/refs", params={"service": "git-upload-pack"})
        except ObjectGone:
            self._repository.home()
            return None
        head = _advertised_head(told.content)
        if head is not None and head not in self._known:
            self._copy("fetch", "--quiet", "--no-tags", "--force", self._url, f"{head}:refs/heads/wiki")
        return head

    def _pages(self, commit: str) -> dict[str, Page]:
        """By name. None of a commit that is not there any more, as after a wiki's history was rewritten."""
        if commit in self._known:
            return self._known[commit]
        pages: dict[str, Page] = {}
        try:
            lines = self._copy("ls-tree", "-r", "-z", commit).split(b"\0")
        except _GitFailed:
            return {}
        for line in filter(None, lines):
            about, _, path = line.decode("utf-8", "surrogateescape").partition("\t")
            mode, _kind, sha = about.split(" ")
            if mode.startswith("100") and (named := _PAGE.fullmatch(path.rsplit("/", 1)[-1])):
                pages.setdefault(named[1], Page(path, sha))
        self._known = {commit: pages}
        return pages

    def _hidden(self) -> NeedsAuth:
        # Not "gone": the same answer is given for a wiki that the token may not read.
        return NeedsAuth(f"the wiki of {self._name} has no page yet, or the token may not read it: GitHub says 404 to both")

    def _copy(self, *arguments: str) -> bytes:
        """A git command in the copy, which is made by the first one."""
        if self._folder is None:
            if shutil.which("git") is None:
                raise SourceUnavailable(
                    "reading a wiki needs git: install it for the workers, or leave wiki out of config.kinds"
                )
            self._folder = tempfile.TemporaryDirectory(prefix="sourcebus-wiki-")
            self._git(self._folder.name, "init", "--quiet", "--bare")
        return self._git(self._folder.name, *arguments)

    def _git(self, folder: str, *arguments: str) -> bytes:
        command = ["git", "-C", folder, *arguments]
        try:
            done = subprocess.run(command, env=self._environment(folder), capture_output=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise SourceUnavailable(f"git {arguments[0]} took more than {_TIMEOUT_S} s") from error
        if done.returncode:
            raise _GitFailed(f"git {arguments[0]}: {done.stderr.decode('utf-8', 'replace').strip()[:300]}")
        return done.stdout

    def _environment(self, folder: str) -> dict[str, str]:
        """Git as nobody set it up: no prompt, no user's settings, HTTP only, and the token where `ps` does not show it."""
        settings = {"http.followRedirects": "false", "gc.auto": "0"}
        if self._token:
            proof = base64.b64encode(f"x-access-token:{self._token}".encode()).decode()
            settings[f"http.{self._url}.extraHeader"] = f"Authorization: Basic {proof}"
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": folder,
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": "http:https",
            "GIT_CONFIG_COUNT": str(len(settings)),
            **{f"GIT_CONFIG_KEY_{at}": key for at, key in enumerate(settings)},
            **{f"GIT_CONFIG_VALUE_{at}": value for at, value in enumerate(settings.values())},
        }


class _GitFailed(SourceUnavailable):
    """Git did not do it; the text is what it wrote to standard error."""


def _advertised_head(told: bytes) -> str | None:
    """The commit of HEAD in the answer to ``info/refs`` (gitprotocol-http(5)); None where there is none yet."""
    found = re.search(rb"([0-9a-f]{40}) HEAD(?:\0|\n)", told)
    return found[1].decode() if found else None


def _judge(response: httpx.Response) -> NeedsAuth | None:
    return NeedsAuth("GitHub refuses the wiki (403)") if response.status_code == 403 else None
