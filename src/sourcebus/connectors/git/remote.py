"""Asking the server which commit a branch is at, as cheaply as it can be asked.

Over HTTP that is one request: the command ``ls-refs`` of git's protocol version 2 (gitprotocol-v2, gitprotocol-http), on a
connection that stays open, with the answer's status, ``Retry-After`` and ``RateLimit`` fields at hand, which the git command
keeps to itself. A server that does not speak it, and every other transport, is asked by ``git ls-remote``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx

from sourcebus.connectors.git.command import Git, GitFailed, Login, meaning
from sourcebus.connectors.http import Api
from sourcebus.errors import ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import QuotaLeft

_OID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MAX_REFS_BYTES = 64_000_000
_FLUSH, _DELIMITER = b"0000", b"0001"


class _NotSpoken(Exception):
    """The server does not speak protocol version 2."""


class Remote:
    """The server's refs, from any thread. Counts what each thread has asked (`Costly`)."""

    def __init__(self, url: str, git: Git, login: Login | None, *, timeout_s: float = 30.0) -> None:
        self._git = git
        self._spent = threading.local()
        headers = {"Git-Protocol": "version=2", "Content-Type": "application/x-git-upload-pack-request"}
        if login is not None:
            headers["Authorization"] = login.header
        spoken = urlsplit(url).scheme in ("http", "https")
        self._api = Api(url, headers=headers, timeout_s=timeout_s, max_bytes=_MAX_REFS_BYTES) if spoken else None
        self._plain = self._api is None

    def close(self) -> None:
        if self._api is not None:
            self._api.close()

    def take_cost(self) -> float:
        """See `Costly`: one unit for every request and every command that talked to the server."""
        spent = getattr(self._spent, "units", 0.0)
        self._spent.units = 0.0
        return spent + (self._api.take_cost() if self._api else 0.0)

    def quota_left(self) -> QuotaLeft | None:
        return self._api.quota_left() if self._api else None

    def charge(self) -> None:
        """The calling thread has had a command talk to the server."""
        self._spent.units = getattr(self._spent, "units", 0.0) + 1.0

    def commit(self, ref: str) -> str | None:
        """The commit that `ref` (``HEAD`` or ``refs/heads/…``) is at now; None if there is no such ref."""
        return self._refs(ref).get(ref)

    def is_empty(self) -> bool:
        """Whether the repository has no branch at all."""
        return not any(name.startswith("refs/heads/") for name in self._refs("refs/heads/"))

    def _refs(self, prefix: str) -> dict[str, str]:
        if self._api is not None and not self._plain:
            try:
                return self._ls_refs(self._api, prefix)
            except (_NotSpoken, ObjectGone, ObjectUnreadable):
                pass  # version 1, a server of plain files, or no repository at all: git knows them all apart
        refs = self._ls_remote(prefix)
        self._plain = True
        return refs

    def _ls_refs(self, api: Api, prefix: str) -> dict[str, str]:
        asked = _packet(b"command=ls-refs\n") + _packet(b"agent=sourcebus\n") + _DELIMITER
        asked += _packet(b"ref-prefix " + prefix.encode() + b"\n") + _FLUSH
        answer = api.call("POST", "git-upload-pack", content=asked)
        if answer.headers.get("content-type", "") != "application/x-git-upload-pack-result":
            raise _NotSpoken
        return _parsed(answer)

    def _ls_remote(self, prefix: str) -> dict[str, str]:
        self.charge()
        pattern = f"{prefix}*" if prefix.endswith("/") else prefix
        try:
            said = self._git.remote("ls-remote", "--", "origin", pattern)
        except GitFailed as failed:
            raise meaning(failed) from failed
        pairs = (line.split(b"\t", 1) for line in said.splitlines())
        return {name.decode("utf-8", "surrogateescape"): oid.decode() for oid, name in pairs if _OID.fullmatch(oid)}


def _packet(line: bytes) -> bytes:
    """A pkt-line (gitprotocol-common): four hex digits of its own length, then the line."""
    return b"%04x" % (len(line) + 4) + line


def _parsed(answer: httpx.Response) -> dict[str, str]:
    refs: dict[str, str] = {}
    for line in _packets(answer.content):
        if line.startswith(b"ERR "):
            raise _NotSpoken
        oid, _, rest = line.rstrip(b"\n").partition(b" ")
        if not _OID.fullmatch(oid) or not rest:
            raise _NotSpoken
        refs[rest.split(b" ", 1)[0].decode("utf-8", "surrogateescape")] = oid.decode()
    return refs


def _packets(data: bytes) -> Iterator[bytes]:
    """The lines up to the flush packet. An answer without one was cut off: `SourceUnavailable`, never "no such ref"."""
    at = 0
    while at < len(data):
        try:
            size = int(data[at : at + 4], 16)
        except ValueError:
            raise _NotSpoken from None
        if size == 0:
            return
        if size < 4 or at + size > len(data):
            raise SourceUnavailable("the server's list of refs is cut off")
        yield data[at + 4 : at + size]
        at += size
    raise _NotSpoken
