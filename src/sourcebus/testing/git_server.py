"""A real git server on this machine: ``git http-backend`` behind fcgiwrap and nginx, for tests and benchmarks."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from sourcebus.errors import SourceUnavailable
from sourcebus.testing.ports import free_ports

INSTALL = "apt-get install git nginx-light fcgiwrap"

_PATIENCE_S = 10.0

_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {folder}/body; fastcgi_temp_path {folder}/fastcgi;
  proxy_temp_path {folder}/proxy; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /git/ {{ rewrite ^/git(/.*)$ $1 break; {backend} }}
    location /private/ {{ rewrite ^/private(/.*)$ $1 break; auth_basic git; auth_basic_user_file {folder}/users; {backend} }}
    location /old/ {{ rewrite ^/old(/.*)$ $1 break; fastcgi_param HTTP_GIT_PROTOCOL ""; {backend} }}
    location /moved/ {{ rewrite ^/moved(/.*)$ /git$1 permanent; }}
  }}
}}
"""

_BACKEND = """
      fastcgi_param SCRIPT_FILENAME {program}; fastcgi_param GIT_PROJECT_ROOT {repositories};
      fastcgi_param GIT_HTTP_EXPORT_ALL ""; fastcgi_param REMOTE_USER $remote_user; fastcgi_param PATH_INFO $uri;
      fastcgi_param QUERY_STRING $query_string; fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_pass unix:{folder}/cgi;
"""


class GitServer:
    """Serves bare repositories at ``{url}/git/NAME.git``.

    The same repositories are at ``/private/`` for the user ``reader`` with `password` only, at ``/old/`` without version 2 of
    git's protocol, and at ``/moved/`` by a redirect. A context manager; FileNotFoundError names what is not installed.
    """

    def __init__(self, *, password: str = "open-sesame") -> None:
        self._programs = {name: _program(name) for name in ("git", "nginx", "fcgiwrap")}
        self.password = password
        self.folder = Path(tempfile.mkdtemp(prefix="git-"))
        self.repositories = self.folder / "repositories"
        self.repositories.mkdir()
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        exec_path = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
        # As root nginx would give up its rights and could not reach the socket; elsewhere it may not name a user.
        user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
        program = f"{exec_path}/git-http-backend"
        backend = _BACKEND.format(folder=self.folder, program=program, repositories=self.repositories)
        configuration = _NGINX.format(folder=self.folder, user=user, port=self.port, backend=backend)
        (self.folder / "nginx.conf").write_text(configuration, "utf-8")
        (self.folder / "users").write_text(f"reader:{{PLAIN}}{self.password}\n", "utf-8")
        self._run("fcgiwrap", "-f", "-c", "4", "-s", f"unix:{self.folder}/cgi")
        _await((self.folder / "cgi").exists)
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        for name in [*self._running]:
            self._end(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Answer again, after `stop`."""
        self._run("nginx", "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder), "-e", str(self.folder / "nginx.log"))
        _await(self._answers)

    def stop(self) -> None:
        """Refuse every connection, as a server does that is down."""
        self._end("nginx")

    def create(self, name: str, *, branch: str = "main") -> Repository:
        """A new empty repository that anybody may push to."""
        place = self.repositories / f"{name}.git"
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", branch, str(place)], check=True, env=ENVIRONMENT)
        repository = Repository(place, f"{self.url}/git/{name}.git")
        for key, value in {"http.receivepack": "true", "uploadpack.allowFilter": "true", "core.fsync": "none"}.items():
            repository.git("config", key, value)
        return repository

    def _run(self, name: str, *args: str) -> None:
        environment = {"PATH": ENVIRONMENT["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
        log = (self.folder / f"{name}.out").open("ab")
        with log:
            self._running[name] = subprocess.Popen(
                [self._programs[name], *args],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # fcgiwrap does not end its children
            )

    def _end(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is not None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(_PATIENCE_S)

    def _answers(self) -> bool:
        if self._running["nginx"].poll() is not None:
            raise SourceUnavailable("nginx ended: " + (self.folder / "nginx.log").read_text("utf-8")[-500:])
        with socket.socket() as line:
            return line.connect_ex(("127.0.0.1", self.port)) == 0


class Repository:
    """A bare repository of the server."""

    def __init__(self, place: Path, url: str) -> None:
        self.place, self.url = place, url

    def git(self, *args: str, data: bytes = b"") -> str:
        """What git answers in the repository; `CalledProcessError` with its words if it fails."""
        return run_git("--git-dir", str(self.place), *args, data=data)

    def commit(
        self,
        files: Mapping[str, bytes | None],
        *,
        branch: str = "main",
        modes: Mapping[str, str] | None = None,
        orphan: bool = False,
    ) -> str:
        """A commit on top of the branch, made on the server itself: path → content, None removes. Answers its id.

        `modes` are git's (``120000``: a link); with `orphan` the branch begins anew, as after a force push.
        """
        ref = f"refs/heads/{branch}"
        parent = "" if orphan else self.head(branch)
        parts = [f"commit {ref}\ncommitter a <a@example.org> 0 +0000\ndata 0\n".encode()]
        parts += [f"from {parent}\n".encode()] if parent else []
        for path, content in files.items():
            name = _quoted(path)
            if content is None:
                parts.append(b"D " + name + b"\n")
                continue
            mode = (modes or {}).get(path, "100644").encode()
            if mode == b"160000":
                parts.append(b"M 160000 " + content + b" " + name + b"\n")
            else:
                parts.append(b"M " + mode + b" inline " + name + b"\ndata %d\n" % len(content) + content + b"\n")
        if orphan and self.head(branch):
            self.git("update-ref", "-d", ref)
        self.git("fast-import", "--quiet", "--force", data=b"".join(parts))
        return self.head(branch)

    def head(self, branch: str = "main") -> str:
        """The branch's commit, "" if there is none."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}").strip()
        except subprocess.CalledProcessError:
            return ""

    def install_hook(self, script: Path, url: str, secret: str) -> None:
        """Have `script` told of every push, and it tell `url`."""
        hook = self.place / "hooks" / "post-receive"
        hook.parent.mkdir(exist_ok=True)
        shutil.copy(script, hook)
        hook.chmod(0o755)
        self.git("config", "sourcebus.url", url)
        self.git("config", "sourcebus.secret", secret)


class WorkingCopy:
    """A clone that somebody works in, at `folder`, which must not exist yet. `git` runs in it."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self.folder = folder
        run_git("clone", "--quiet", repository.url, str(folder))
        self.git("config", "gc.auto", "0")

    def git(self, *args: str) -> str:
        return run_git("-C", str(self.folder), *args)

    def commit(self, message: str = "change") -> str:
        """Everything as it lies there. Answers the commit's id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def push(self, *args: str) -> None:
        """Over HTTP, by default the branch that is checked out."""
        self.git("push", "--quiet", "origin", *(args or ("HEAD",)))


ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": os.devnull,
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def run_git(*args: str, data: bytes = b"") -> str:
    """git without the configuration of whoever runs it."""
    done = subprocess.run(["git", *args], input=data, capture_output=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, ["git", *args], done.stdout, done.stderr)
    return done.stdout.decode("utf-8", "surrogateescape")


def _program(name: str) -> str:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise FileNotFoundError(f"there is no {name} here: {INSTALL}")
    return found


def _quoted(path: str) -> bytes:
    raw = path.encode("utf-8", "surrogateescape")
    return b'"' + b"".join(b"\\%03o" % byte if byte < 32 or byte in b'"\\' else bytes([byte]) for byte in raw) + b'"'


def _await(there: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + _PATIENCE_S
    while not there():
        if time.monotonic() > ends_s:
            raise TimeoutError("the git server does not start")
        time.sleep(0.005)
