"""GitHub on loopback: the REST API of repositories, with ETags and rate limits, and its webhooks.

Facts: providers.json of the design, docs.github.com. Deliveries are signed as GitHub does and never sent again by themselves.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from sourcebus.testing.providers.courier import Courier, Faults, Sent
from sourcebus.testing.providers.github_git import LINK, compared
from sourcebus.testing.providers.github_repository import SimulatedRepository
from sourcebus.testing.providers.server import Answer, Asked, ProviderServer, pages

TOKEN = "ghp_simulated"

_NAME = "([^/]+/[^/]+)"
_NOT_FOUND = Answer(404, {"message": "Not Found", "status": "404"})

Handler = Callable[[SimulatedRepository, Asked], Answer]


class GithubServer(ProviderServer):
    """Any number of repositories behind one API. `tokens` are those that may see them.

    `tree_limit` is how many entries a recursive tree has before it is cut, `compare_limit` how many files a comparison names.
    """

    def __init__(self, *, faults: Faults | None = None, tree_limit: int = 100_000, compare_limit: int = 300) -> None:
        super().__init__()
        self.tokens = {TOKEN}
        self.tree_limit, self.compare_limit = tree_limit, compare_limit
        self.limit, self.remaining = 5000, 5000
        self.hook_permission = True
        self.hidden: set[str] = set()
        self.courier = Courier(faults=faults)
        self.delivered: list[tuple[str, str, Sent]] = []
        self._repositories: list[SimulatedRepository] = []
        self._hooks: dict[int, dict[str, Any]] = {}
        self._next_hook = 5000
        self._renamed: dict[str, SimulatedRepository] = {}
        for method, path, handler in self._table():
            self._add(method, f"/repos/{_NAME}{path}", handler)
        self.on("GET", r"/repositories/(\d+)(/.*)?", self._by_number)

    def close(self) -> None:
        self.courier.close()
        super().close()

    def repository(self, full_name: str = "octo/docs") -> SimulatedRepository:
        """A new, empty repository."""
        with self.lock:
            number = 1000 + len(self._repositories)
            made = SimulatedRepository(
                full_name, number, self.url, self.lock, lambda event, payload: self._announce(number, event, payload)
            )
            self._repositories.append(made)
            self._renamed[full_name.lower()] = made
            return made

    # limits, as GitHub words them

    def primary_limit(self, reset_s: float = 60.0, *, status: int = 403) -> Answer:
        headers = {**self._limits(), "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(round(time.time() + reset_s))}
        return Answer(status, {"message": "API rate limit exceeded for user ID 1."}, headers)

    def secondary_limit(self, retry_after_s: int | None = None, *, status: int = 403) -> Answer:
        headers = self._limits() | ({"Retry-After": str(retry_after_s)} if retry_after_s is not None else {})
        return Answer(status, {"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}, headers)

    def forbidden(self) -> Answer:
        return Answer(403, {"message": "Resource not accessible by personal access token"}, self._limits())

    # webhooks

    def add_hook(
        self, full_name: str, url: str, secret: str, *, events: tuple[str, ...] = ("*",), kind: str = "repository"
    ) -> int:
        """A webhook as a person sets it up; `kind` organization: one that tells of all repositories. Returns its id."""
        with self.lock:
            hook_id = self._next_hook
            self._next_hook += 1
            config = {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}
            self._hooks[hook_id] = {"id": hook_id, "active": True, "events": [*events], "config": config} | {
                "of": full_name,
                "kind": kind,
            }
            self._deliver(
                self._hooks[hook_id], "ping", {"zen": "Keep it logically awesome.", "hook_id": hook_id} | self._of(full_name)
            )
            return hook_id

    def hook(self, hook_id: int) -> dict[str, Any]:
        """The webhook, to look at or change (``active``)."""
        return self._hooks[hook_id]

    def delete_hook(self, hook_id: int) -> None:
        """As a person does at GitHub: the hook itself is told."""
        with self.lock:
            hook = self._hooks.pop(hook_id)
            self._deliver(
                hook, "meta", {"action": "deleted", "hook_id": hook_id, "hook": {"id": hook_id}} | self._of(hook["of"])
            )

    def redeliver(self, guid: str) -> None:
        """Send a delivery again, under the same GUID."""
        with self.lock:
            event, sent = next((event, sent) for event, name, sent in self.delivered if name == guid)
            hook = next(hook for hook in self._hooks.values() if hook["config"]["url"] == sent.url)
            self._send(hook, event, guid, sent.body)

    def _announce(self, number: int, event: str, payload: dict[str, Any]) -> None:
        repository = next(one for one in self._repositories if one.number == number)
        for hook in self._hooks.values():
            wanted = "*" in hook["events"] or event in hook["events"]
            mine = hook["kind"] == "organization" or self._find(hook["of"]) is repository
            if hook["active"] and wanted and mine:
                self._deliver(hook, event, payload | {"sender": {"login": "octocat"}})

    def _of(self, full_name: str) -> dict[str, Any]:
        found = self._find(full_name)
        return {"repository": found.json()} if found else {}

    def _deliver(self, hook: dict[str, Any], event: str, payload: dict[str, Any]) -> None:
        self._send(hook, event, str(uuid.uuid4()), json.dumps(payload).encode())

    def _send(self, hook: dict[str, Any], event: str, guid: str, body: bytes) -> None:
        headers = headers_of(event, guid, body, hook["config"]["secret"], hook_id=hook["id"], target=hook["kind"])
        self.delivered.append((event, guid, self.courier.post(hook["config"]["url"], body, headers)))

    # the API

    def _add(self, method: str, path: str, handler: Handler) -> None:
        def route(asked: Asked) -> Answer:
            name = asked.args[0]
            repository = self._find(name)
            if (refused := self._refused(asked, repository)) is not None:
                return refused
            assert repository is not None
            if repository.full_name.lower() != name.lower():
                moved = f"{self.url}/repositories/{repository.number}{asked.path[len(f'/repos/{quote(name)}') :]}"
                query = "&".join(f"{key}={quote(value)}" for key, value in asked.query.items())
                return Answer(301, {"message": "Moved Permanently"}, {"Location": f"{moved}?{query}" if query else moved})
            return self._answered(asked, handler(repository, asked))

        self.on(method, path, route)

    def _by_number(self, asked: Asked) -> Answer:
        repository = next((one for one in self._repositories if str(one.number) == asked.args[0]), None)
        if repository is None:
            return _NOT_FOUND
        path = f"/repos/{repository.full_name}{asked.args[1]}"
        return self._answer(Asked(asked.method, path, asked.query, asked.headers, asked.body))

    def _refused(self, asked: Asked, repository: SimulatedRepository | None) -> Answer | None:
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return Answer(401, {"message": "Bad credentials"})
        if self.remaining <= 0:
            return self.primary_limit()
        if repository is None or repository.full_name in self.hidden:
            self.remaining -= 1
            return Answer(404, _NOT_FOUND.body, self._limits())
        return None

    def _answered(self, asked: Asked, answer: Answer) -> Answer:
        """With ETag, rate limit and date; 304 where the asker has it already, which costs nothing."""
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        etag = f'W/"{hashlib.sha256(body).hexdigest()}"'
        kind = {"Content-Type": "application/json; charset=utf-8"} if not isinstance(answer.body, bytes) else {}
        if asked.method == "GET" and answer.status == 200:
            if asked.headers.get("if-none-match") == etag:
                return Answer(304, b"", {**self._limits(), "ETag": etag})
            answer = Answer(200, body, {**kind, **answer.headers, "ETag": etag})
        self.remaining -= 1
        return Answer(answer.status, answer.body, {**answer.headers, **self._limits()})

    def _limits(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(self.remaining, 0)),
            "X-RateLimit-Used": str(self.limit - self.remaining),
            "X-RateLimit-Reset": str(round(time.time() + 3600)),
            "X-RateLimit-Resource": "core",
        }

    def _find(self, full_name: str) -> SimulatedRepository | None:
        now = next((one for one in self._repositories if one.full_name.lower() == full_name.lower()), None)
        return now or self._renamed.get(full_name.lower())

    def _table(self) -> list[tuple[str, str, Handler]]:
        return [
            ("GET", "", lambda repo, _asked: Answer(200, repo.json())),
            ("GET", "/branches", _branches),
            ("GET", "/git/ref/heads/(.+)", _ref),
            ("GET", "/git/trees/([0-9a-f]{40})", self._tree),
            ("GET", "/git/blobs/([0-9a-f]{40})", _blob),
            ("GET", "/contents/?(.*)", _contents),
            ("GET", r"/compare/([0-9a-f]+)\.\.\.([0-9a-f]+)", self._compare),
            ("GET", "/issues", _issues),
            ("GET", r"/issues/(\d+)", self._issue),
            ("GET", r"/issues/(\d+)/comments", lambda repo, asked: _of_thread(repo, asked, "comments")),
            ("GET", "/issues/comments", lambda repo, asked: _all_comments(repo, asked, "comments")),
            ("GET", "/pulls", _pulls),
            ("GET", r"/pulls/(\d+)", _pull),
            ("GET", r"/pulls/(\d+)/reviews", lambda repo, asked: _of_thread(repo, asked, "reviews")),
            ("GET", r"/pulls/(\d+)/comments", lambda repo, asked: _of_thread(repo, asked, "review_comments")),
            ("GET", "/pulls/comments", lambda repo, asked: _all_comments(repo, asked, "review_comments")),
            ("GET", "/hooks", self._list_hooks),
            ("POST", "/hooks", self._create_hook),
            ("GET", r"/hooks/(\d+)", self._one_hook),
            ("PATCH", r"/hooks/(\d+)", self._one_hook),
            ("DELETE", r"/hooks/(\d+)", self._one_hook),
        ]

    def _tree(self, repo: SimulatedRepository, asked: Asked) -> Answer:
        sha = asked.args[1]
        tree = repo.git.commits[sha].tree if sha in repo.git.commits else sha
        if tree not in repo.git.trees:
            return _NOT_FOUND
        found = list(repo.git.entries(tree, recursive="recursive" in asked.query))
        cut = "recursive" in asked.query and len(found) > self.tree_limit
        lines = [
            {"path": line.name, "mode": line.mode, "type": line.kind, "sha": line.sha}
            for line in found[: self.tree_limit if cut else None]
        ]
        return Answer(200, {"sha": tree, "tree": lines, "truncated": cut})

    def _compare(self, repo: SimulatedRepository, asked: Asked) -> Answer:
        base, head, git = asked.args[1], asked.args[2], repo.git
        if base not in git.commits or head not in git.commits:
            return _NOT_FOUND
        merge_base = git.merge_base(head, base)
        if merge_base is None:
            return Answer(404, {"message": "No common ancestor between those commits."})
        status = (
            "identical" if base == head else "ahead" if merge_base == base else "behind" if merge_base == head else "diverged"
        )
        files = compared(git.files(merge_base), git.files(head))
        return Answer(200, {"status": status, "commits": [], "files": files[: self.compare_limit]})

    def _issue(self, repo: SimulatedRepository, asked: Asked) -> Answer:
        number = int(asked.args[1])
        if number in repo.moved_issues:
            return Answer(301, {"message": "Moved Permanently"}, {"Location": repo.moved_issues[number]})
        if number not in repo.threads:
            return _NOT_FOUND
        return (
            Answer(200, repo.issue(number)) if repo.issues_on else Answer(410, {"message": "Issues are disabled for this repo"})
        )

    # the API of webhooks

    def _list_hooks(self, repo: SimulatedRepository, _asked: Asked) -> Answer:
        return self._for_admins([_shown(hook) for hook in self._hooks.values() if self._find(hook["of"]) is repo])

    def _create_hook(self, repo: SimulatedRepository, asked: Asked) -> Answer:
        if not self.hook_permission:
            return _NOT_FOUND
        wanted = asked.json()
        mine = [hook for hook in self._hooks.values() if self._find(hook["of"]) is repo]
        if any(hook["config"]["url"] == wanted["config"]["url"] for hook in mine):
            errors = [{"resource": "Hook", "code": "custom", "message": "Hook already exists on this repository"}]
            return Answer(422, {"message": "Validation Failed", "errors": errors})
        config = wanted["config"]
        made = self.add_hook(repo.full_name, config["url"], config["secret"], events=tuple(wanted["events"]))
        return Answer(201, _shown(self._hooks[made]))

    def _one_hook(self, _repo: SimulatedRepository, asked: Asked) -> Answer:
        hook = self._hooks.get(int(asked.args[1]))
        if hook is None:
            return _NOT_FOUND
        if asked.method == "DELETE" and self.hook_permission:
            del self._hooks[hook["id"]]
            return Answer(204)
        if asked.method == "PATCH" and self.hook_permission:
            hook |= {key: value for key, value in asked.json().items() if key in ("active", "events", "config")}
        return self._for_admins(_shown(hook))

    def _for_admins(self, body: Any) -> Answer:
        return Answer(200, body) if self.hook_permission else _NOT_FOUND


def headers_of(
    event: str, guid: str, body: bytes, secret: str, *, hook_id: int = 1, target: str = "repository"
) -> dict[str, str]:
    """The headers of a delivery, with both signatures over the raw body."""
    return {
        "Accept": "*/*",
        "User-Agent": "GitHub-Hookshot/044aadd",
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": guid,
        "X-GitHub-Hook-ID": str(hook_id),
        "X-GitHub-Hook-Installation-Target-Type": target,
        "X-GitHub-Hook-Installation-Target-ID": "79929171",
        "X-Hub-Signature": "sha1=" + hmac.new(secret.encode(), body, "sha1").hexdigest(),
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest(),
    }


def _shown(hook: dict[str, Any]) -> dict[str, Any]:
    """Without the secret: GitHub never tells it."""
    shown = {key: hook[key] for key in ("id", "active", "events")}
    return shown | {"config": {**hook["config"], "secret": "********"}}


def _branches(repo: SimulatedRepository, asked: Asked) -> Answer:
    return _page(asked, [{"name": name, "commit": {"sha": sha}} for name, sha in sorted(repo.git.branches.items())])


def _ref(repo: SimulatedRepository, asked: Asked) -> Answer:
    if not repo.git.commits:
        return Answer(409, {"message": "Git Repository is empty."})
    sha = repo.git.branches.get(asked.args[1])
    return Answer(200, {"ref": f"refs/heads/{asked.args[1]}", "object": {"sha": sha, "type": "commit"}}) if sha else _NOT_FOUND


def _blob(repo: SimulatedRepository, asked: Asked) -> Answer:
    data = repo.git.blobs.get(asked.args[1])
    return _NOT_FOUND if data is None else Answer(200, data)


def _contents(repo: SimulatedRepository, asked: Asked) -> Answer:
    files = repo.git.files(repo.git.branches.get(asked.query.get("ref", repo.default_branch)))
    path = asked.args[1]
    entry = files.get(path)
    if entry is not None and entry[0] == LINK:
        target = repo.git.blobs[entry[1]].decode()
        if target not in files:
            return Answer(200, {"type": "symlink", "target": target, "path": path, "sha": entry[1], "size": len(target)})
        entry = files[target]
    if entry is not None:
        return _file(repo, path, entry[1])
    inside = {name[len(path) + 1 if path else 0 :].split("/")[0] for name in files if name.startswith(f"{path}/") or not path}
    if not inside:
        return _NOT_FOUND
    whole = {name: f"{path}/{name}" if path else name for name in inside}
    return Answer(
        200,
        [
            {"name": name, "path": at, "type": "file" if at in files else "dir"} | _size(repo, files, at)
            for name, at in whole.items()
        ],
    )


def _size(repo: SimulatedRepository, files: dict[str, tuple[str, str]], path: str) -> dict[str, Any]:
    if path not in files:
        return {"sha": "0" * 40, "size": 0}
    return {"sha": files[path][1], "size": len(repo.git.blobs[files[path][1]])}


def _file(repo: SimulatedRepository, path: str, sha: str) -> Answer:
    """Up to 1 MB with its content, up to 100 MB without, nothing beyond."""
    data = repo.git.blobs[sha]
    if len(data) > 100_000_000:
        errors = [{"resource": "Blob", "field": "data", "code": "too_large"}]
        return Answer(403, {"message": "This API returns blobs up to 100 MB in size.", "errors": errors})
    told = {"type": "file", "path": path, "name": path.rsplit("/", 1)[-1], "sha": sha, "size": len(data)}
    held = {"encoding": "base64", "content": base64.encodebytes(data).decode()}
    return Answer(200, told | (held if len(data) <= 1_000_000 else {"encoding": "none", "content": ""}))


def _issues(repo: SimulatedRepository, asked: Asked) -> Answer:
    if not repo.issues_on:
        return Answer(410, {"message": "Issues are disabled for this repo"})
    return _page(asked, _since(asked, [repo.issue(number) for number in repo.threads]))


def _pulls(repo: SimulatedRepository, asked: Asked) -> Answer:
    pulls = [repo.pull(number) for number, thread in repo.threads.items() if thread.head is not None]
    return _page(asked, sorted(pulls, key=lambda pull: pull["updated_at"], reverse=asked.query.get("direction") == "desc"))


def _pull(repo: SimulatedRepository, asked: Asked) -> Answer:
    thread = repo.threads.get(int(asked.args[1]))
    return _NOT_FOUND if thread is None or thread.head is None else Answer(200, repo.pull(thread.number))


def _of_thread(repo: SimulatedRepository, asked: Asked, kind: str) -> Answer:
    thread = repo.threads.get(int(asked.args[1]))
    return _NOT_FOUND if thread is None else _page(asked, getattr(thread, kind))


def _all_comments(repo: SimulatedRepository, asked: Asked, kind: str) -> Answer:
    return _page(asked, _since(asked, [comment for thread in repo.threads.values() for comment in getattr(thread, kind)]))


def _since(asked: Asked, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Later than ``since``, oldest first."""
    since = asked.query.get("since", "")
    return sorted((item for item in items if item["updated_at"] > since), key=lambda item: item["updated_at"])


def _page(asked: Asked, items: list[dict[str, Any]]) -> Answer:
    number, size = int(asked.query.get("page", 1)), int(asked.query.get("per_page", 30))
    page, after = pages(items, (number - 1) * size, size)
    link = {"Link": f'<{asked.path}?page={number + 1}>; rel="next"'} if after is not None else {}
    return Answer(200, list(page), link)
