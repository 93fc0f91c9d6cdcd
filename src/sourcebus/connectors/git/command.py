"""The ``git`` command, run so that neither a repository, a server nor a name in a payload can make it do anything else.

No shell, no prompt, no hooks, no configuration but what is given here, one transport (the URL's own), no redirects, a time
limit, and credentials in the environment only: they are in no argument list, no file and no error text.
"""

from __future__ import annotations

import base64
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from sourcebus.errors import ConnectorError, NeedsAuth, SourceUnavailable, Throttled

_WORDS = 600
"""How much of what git said goes into an error text, in characters."""

_STEP_S = 0.25

MOST_SAID_BYTES = 300_000_000
"""The longest answer of a command: a listing of about three million files. A few small trees that hold each other can make one
of billions ("git bomb")."""

_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "maintenance.auto": "false",
    "protocol.version": "2",
    "safe.directory": "*",
    "submodule.recurse": "false",
}

_REFUSED = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "access denied",
    "permission denied",
    "host key verification failed",
    "returned error: 401",
    "returned error: 403",
)


@dataclass(frozen=True, slots=True)
class Login:
    """What a source proves itself by over HTTP: Basic (RFC 7617), which every git host takes, tokens included."""

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    @property
    def secrets(self) -> tuple[str, str]:
        return self.password, self.header.removeprefix("Basic ")


class GitFailed(Exception):
    """The command ended with an error: its words, without any secret. Not for callers of the connector: see `meaning`."""

    def __init__(self, verb: str, words: str) -> None:
        self.verb, self.words = verb, words
        super().__init__(f"git {verb}: {words}" if words else f"git {verb} failed")


class Git:
    """Runs git for one source. Any thread may use it."""

    def __init__(self, url: str, login: Login | None = None, *, timeout_s: float = 300.0) -> None:
        self._login, self._timeout_s = login, timeout_s
        scheme = urlsplit(url).scheme
        settings = dict(_SETTINGS) | {"remote.origin.url": url}
        if login is not None and scheme in ("http", "https"):
            parts = urlsplit(url)
            settings[f"http.{parts.scheme}://{parts.netloc}/.extraHeader"] = f"Authorization: {login.header}"
        self._remote = _environment(settings, protocol=scheme)
        # No transport at all: what a damaged or hostile repository names is not asked for.
        self._local = _environment(_SETTINGS, protocol="none")

    def local(self, repository: Path, verb: str, *args: str) -> bytes:
        """What a command says of a repository on this machine. Talks to nobody."""
        return self._run(["--git-dir", str(repository), verb, *args], self._local, verb)

    def remote(
        self,
        verb: str,
        *args: str,
        repository: Path | None = None,
        settings: Mapping[str, str] | None = None,
        watch: Callable[[], None] | None = None,
    ) -> bytes:
        """What a command says that talks to the source, whose URL is known as ``origin``.

        `watch` is called a few times a second meanwhile; what it raises ends the command.
        """
        where = ["--git-dir", str(repository)] if repository else []
        environment = _environment(settings or {}, base=self._remote)
        return self._run([*where, verb, *args], environment, verb, watch)

    def blob(self, repository: Path, oid: str, max_bytes: int) -> bytes | int | None:
        """A blob's bytes; its size, if that is more than `max_bytes`; None if it is not in this repository."""
        process = self._start(["--git-dir", str(repository), "cat-file", "--batch"], self._local)
        try:
            asked, answer = _pipe(process.stdin), _pipe(process.stdout)
            asked.write(oid.encode() + b"\n")
            asked.close()
            head = answer.readline(200).split()
            if len(head) != 3 or head[1] != b"blob":
                complained = _pipe(process.stderr).read(4 * _WORDS)
                if head[1:] == [b"missing"] and not complained:
                    return None
                raise GitFailed("cat-file", self._words(complained) or f"{oid} is no blob")
            size = int(head[2])
            if size > max_bytes:
                return size
            data = answer.read(size)
            if len(data) != size:
                raise GitFailed("cat-file", f"{oid} ends early")
            return data
        finally:
            _end(process)

    def _run(
        self, args: Sequence[str], environment: Mapping[str, str], verb: str, watch: Callable[[], None] | None = None
    ) -> bytes:
        process = self._start(args, environment)
        try:
            said, complained = self._hear(process, verb, watch or (lambda: None))
            status = process.wait()
        finally:
            _end(process)
        if status:
            raise GitFailed(verb, self._words(complained))
        return said

    def _hear(self, process: subprocess.Popen[bytes], verb: str, watch: Callable[[], None]) -> tuple[bytes, bytes]:
        """All that it says and complains, until it closes both."""
        ends_s, heard_bytes = time.monotonic() + self._timeout_s, 0
        said, complained = list[bytes](), list[bytes]()
        with selectors.DefaultSelector() as both:
            both.register(_pipe(process.stdout), selectors.EVENT_READ, said)
            both.register(_pipe(process.stderr), selectors.EVENT_READ, complained)
            while both.get_map():
                ready = both.select(_STEP_S)
                if not ready:
                    watch()
                for key, _ in ready:
                    data = os.read(key.fd, 1_048_576)
                    heard_bytes += len(data)
                    if data:
                        key.data.append(data)
                    else:
                        both.unregister(key.fileobj)
                if heard_bytes > MOST_SAID_BYTES:
                    raise SourceUnavailable(f"git {verb} says more than {MOST_SAID_BYTES} bytes: too many files for one source")
                if time.monotonic() > ends_s:
                    raise SourceUnavailable(f"git {verb} took longer than {self._timeout_s:g} s")
        return b"".join(said), b"".join(complained)

    def _start(self, args: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["git", "--no-pager", *args],
                env=dict(environment),
                # Outside of any repository: one that this process happens to stand in has an origin of its own.
                cwd=os.sep if "ls-remote" in args else None,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that its helpers (git-remote-https, ssh) end with it
            )
        except FileNotFoundError as error:
            raise SourceUnavailable("there is no git command on this machine: apt-get install git") from error

    def _words(self, complained: bytes) -> str:
        words = " ".join(complained.decode("utf-8", "replace").split())
        for secret in self._login.secrets if self._login else ():
            words = words.replace(secret, "***")
        return words[-_WORDS:]


def meaning(failed: GitFailed) -> ConnectorError:
    """What git's words mean for the source, where the command talked to it."""
    words = failed.words.lower()
    if any(sign in words for sign in _REFUSED):
        return NeedsAuth(f"{failed}. Check the credentials, and that they may read this repository")
    if "returned error: 429" in words:
        return Throttled(str(failed))
    if "unable to update url base from redirection" in words or "returned error: 30" in words:
        return SourceUnavailable(f"{failed}. The server redirects: give the URL that it leads to")
    if "transport" in words and "not allowed" in words:
        return SourceUnavailable(f"{failed}. The server leads to another protocol, which is not followed")
    return SourceUnavailable(str(failed))


def _environment(
    settings: Mapping[str, str], *, protocol: str = "", base: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """The whole environment of a command; `settings` are added to those of `base`."""
    found = dict(base) if base is not None else _bare(protocol)
    first = int(found.get("GIT_CONFIG_COUNT", "0"))
    for at, (key, value) in enumerate(settings.items(), first):
        found[f"GIT_CONFIG_KEY_{at}"], found[f"GIT_CONFIG_VALUE_{at}"] = key, value
    found["GIT_CONFIG_COUNT"] = str(first + len(settings))
    return found


def _bare(protocol: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "SSH_AUTH_SOCK") if name in os.environ}
    proxies = {name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy", "no_proxy")}
    certificates = {name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ}
    return {
        **kept,
        **proxies,
        **certificates,
        "GIT_ALLOW_PROTOCOL": protocol,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=20",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # all three were asked for
    return stream


def _end(process: subprocess.Popen[bytes]) -> None:
    """Its whole group, if it still runs: a git-remote-https that hangs would hold the pipes open."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended just now
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                pass  # what it never read
