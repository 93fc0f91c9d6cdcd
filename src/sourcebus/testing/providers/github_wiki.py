"""The wikis of a simulated GitHub: real git repositories behind git's own HTTP server (``git http-backend``, as CGI)."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sourcebus.testing.providers.github import TOKEN
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer


class WikiServer(ProviderServer):
    """Wikis below `folder`, for git clients with the token. One that has no page yet is not found, as at GitHub."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.tokens = folder, {TOKEN}
        self._path = os.environ.get("PATH", os.defpath)
        self.on("GET", r"/([^/]+/[^/]+\.wiki\.git)(/info/refs)", self._git)
        self.on("POST", r"/([^/]+/[^/]+\.wiki\.git)(/git-upload-pack)", self._git)

    def write(self, full_name: str, pages: Mapping[str, str | bytes | None]) -> None:
        """One commit: file name → content, None removes it."""
        folder = self.folder / f"{full_name}.wiki.git"
        new = not folder.exists()
        if new:
            folder.mkdir(parents=True)
            _run(folder, "init", "--quiet", "--bare", "--initial-branch=master")
        script = [b"commit refs/heads/master\ncommitter mona <mona@example.org> now\ndata 4\nedit\n"]
        if not new:
            script.append(b"from refs/heads/master^0\n")
        for name, content in pages.items():
            data = content.encode() if isinstance(content, str) else content
            path = b'"' + name.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
            script.append(
                b"D " + path + b"\n" if data is None else b"M 100644 inline %s\ndata %d\n%s\n" % (path, len(data), data)
            )
        _run(folder, "fast-import", "--quiet", "--date-format=now", given=b"".join(script))

    def _git(self, asked: Asked) -> Answer:
        proof = base64.b64encode(f"x-access-token:{next(iter(self.tokens), '')}".encode()).decode()
        if asked.headers.get("authorization") != f"Basic {proof}":
            return Answer(401, b"", {"WWW-Authenticate": 'Basic realm="GitHub"'})
        name, rest = asked.args
        if not (self.folder / name).exists():
            return Answer(404, b"Not Found")
        environment = {
            "PATH": self._path,
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            "REQUEST_METHOD": asked.method,
            "PATH_INFO": f"/{name}{rest}",
            "QUERY_STRING": "&".join(f"{key}={value}" for key, value in asked.query.items()),
            "CONTENT_TYPE": asked.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(asked.body)),
            "HTTP_CONTENT_ENCODING": asked.headers.get("content-encoding", ""),
            "HTTP_GIT_PROTOCOL": asked.headers.get("git-protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], env=environment, input=asked.body, capture_output=True, check=True, timeout=30
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        return Answer(int(headers.pop("Status", "200").split()[0]), body, headers)


def _run(folder: Path, *arguments: str, given: bytes = b"") -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], input=given, capture_output=True, check=True, timeout=30)
