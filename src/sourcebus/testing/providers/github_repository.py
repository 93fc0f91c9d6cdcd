"""A repository as GitHub keeps it: a branch of files, issues and pull requests with comments. Every change announces itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sourcebus.testing.providers.github_git import FILE, LINK, Commit, Git, compared

NOTHING = "0" * 40
Announce = Callable[[str, dict[str, Any]], None]
"""Event and payload."""


@dataclass
class Thread:
    """An issue, or a pull request (with `head`)."""

    number: int
    title: str
    body: str
    created_at: str
    updated_at: str
    state: str = "open"
    labels: list[str] = field(default_factory=list[str])
    head: str | None = None
    merged: bool = False
    comments: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    reviews: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    review_comments: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


class SimulatedRepository:
    """What tests and simulations change. Every method may be called from any thread."""

    def __init__(self, full_name: str, number: int, url: str, lock: threading.RLock, announce: Announce) -> None:
        self.full_name, self.number, self.url = full_name, number, url
        self.git, self.threads = Git(), dict[int, Thread]()
        self.default_branch = "main"
        self.issues_on = True
        self.moved_issues: dict[int, str] = {}
        self.now: Callable[[], float] = time.time
        self._lock, self._announce, self._last = lock, announce, 0

    # files

    def push(
        self, *changes: Mapping[str, str | bytes | None], branch: str = "main", links: Mapping[str, str] | None = None
    ) -> str:
        """One commit for each of `changes` (path → content, None removes it), pushed together. Returns the head."""
        with self._lock:
            before = self.git.branches.get(branch)
            commits: list[tuple[Commit, list[dict[str, str]]]] = []
            for change in changes:
                head = self.git.branches.get(branch)
                old = self.git.files(head)
                new = dict(old)
                for path, content in change.items():
                    new.pop(path, None)
                    if content is not None:
                        new[path] = (FILE, self.git.blob(content.encode() if isinstance(content, str) else content))
                for path, target in (links or {}).items():
                    new[path] = (LINK, self.git.blob(target.encode()))
                commit = self.git.commit(new, (head,) if head else (), f"change {len(change)} files")
                self.git.branches[branch] = commit.sha
                commits.append((commit, compared(old, new)))
            self._pushed(branch, before, commits)
            return self.git.branches[branch]

    def force_push(self, files: Mapping[str, str | bytes], *, branch: str = "main", onto: str | None = None) -> str:
        """Replace the branch by one commit with exactly these files, on top of the commit `onto` (None: a new history)."""
        with self._lock:
            before = self.git.branches.get(branch)
            new = {
                path: (FILE, self.git.blob(text.encode() if isinstance(text, str) else text)) for path, text in files.items()
            }
            commit = self.git.commit(new, (onto,) if onto else (), "rewritten")
            self.git.branches[branch] = commit.sha
            self._pushed(branch, before, [(commit, compared(self.git.files(onto), new))], forced=True)
            return commit.sha

    def delete_branch(self, branch: str) -> None:
        with self._lock:
            before = self.git.branches.pop(branch)
            self._announce("delete", {"ref": branch, "ref_type": "branch", "repository": self.json()})
            self._pushed(branch, before, [])

    def _pushed(
        self, branch: str, before: str | None, commits: list[tuple[Commit, list[dict[str, str]]]], *, forced: bool = False
    ) -> None:
        after = self.git.branches.get(branch)
        told = [_told_commit(commit, files) for commit, files in commits]
        payload = {
            "ref": f"refs/heads/{branch}",
            "before": before or NOTHING,
            "after": after or NOTHING,
            "created": before is None,
            "deleted": after is None,
            "forced": forced,
            "commits": told,
            "head_commit": told[-1] if told else None,
            "repository": self.json(),
        }
        self._announce("push", payload)

    # issues and pull requests

    def open(self, title: str, body: str = "", *, head: str | None = None) -> int:
        """An issue; with `head` (a commit) a pull request. Returns its number."""
        with self._lock:
            self._last += 1
            at = self._at()
            self.threads[self._last] = Thread(self._last, title, body, at, at, head=head)
            self._tell(self._last, "opened")
            return self._last

    def edit(self, number: int, *, action: str = "edited", **fields: Any) -> None:
        """Set fields of the thread: title, body, state, labels, head, merged."""
        with self._lock:
            for name, value in fields.items():
                setattr(self.threads[number], name, value)
            self._touch(number)
            self._tell(number, action)

    def comment(self, number: int, body: str, *, kind: str = "comments", **more: Any) -> int:
        """Add a comment; `kind` reviews or review_comments for those of a pull request. Returns its id."""
        with self._lock:
            self._last_comment = getattr(self, "_last_comment", 0) + 1
            at, page = self._at(), self._page(number)
            comment = {"id": self._last_comment, "body": body, "user": {"login": "mona"}, "created_at": at, "updated_at": at}
            comment |= {"html_url": f"{page}#comment-{self._last_comment}", "submitted_at": at, "path": "README.md", **more}
            comment |= {"state": more.get("state", "COMMENTED")} if kind == "reviews" else {}
            getattr(self.threads[number], kind).append(comment)
            self._touch(number)
            self._tell_comment(number, kind, "submitted" if kind == "reviews" else "created", comment)
            return self._last_comment

    def edit_comment(
        self, number: int, comment_id: int, body: str, *, kind: str = "comments", dates_issue: bool = True
    ) -> None:
        with self._lock:
            comment = next(one for one in getattr(self.threads[number], kind) if one["id"] == comment_id)
            comment |= {"body": body, "updated_at": self._at()}
            if dates_issue:
                self._touch(number)
            self._tell_comment(number, kind, "edited", comment)

    def delete_comment(self, number: int, comment_id: int, *, kind: str = "comments") -> None:
        with self._lock:
            comments = getattr(self.threads[number], kind)
            comment = next(one for one in comments if one["id"] == comment_id)
            comments.remove(comment)
            self._touch(number)
            self._tell_comment(number, kind, "deleted", comment)

    def delete(self, number: int, *, transferred_to: str | None = None) -> None:
        """Remove an issue, or move it to another repository: its address then leads there."""
        with self._lock:
            told = self.issue(number)
            del self.threads[number]
            if transferred_to:
                self.moved_issues[number] = transferred_to
            self._announce(
                "issues", {"action": "transferred" if transferred_to else "deleted", "issue": told, "repository": self.json()}
            )

    # the wiki and the repository

    def wiki_changed(self, *pages: tuple[str, str]) -> None:
        """Announce pages as (name, created or edited); their contents are a git repository's (see `WikiServer`)."""
        told = [{"page_name": name, "title": name, "action": action, "sha": NOTHING} for name, action in pages]
        self._announce("gollum", {"pages": told, "repository": self.json()})

    def rename(self, name: str) -> None:
        with self._lock:
            owner, _, old = self.full_name.partition("/")
            self.full_name = f"{owner}/{name}"
            changes = {"repository": {"name": {"from": old}}}
            self._announce("repository", {"action": "renamed", "changes": changes, "repository": self.json()})

    # as the API tells it

    def json(self) -> dict[str, Any]:
        owner, _, name = self.full_name.partition("/")
        return {
            "id": self.number,
            "name": name,
            "full_name": self.full_name,
            "owner": {"login": owner},
            "private": True,
            "default_branch": self.default_branch,
            "url": f"{self.url}/repos/{self.full_name}",
            "html_url": f"https://github.example/{self.full_name}",
        }

    def issue(self, number: int) -> dict[str, Any]:
        """As the issues API tells it, of pull requests too."""
        thread = self.threads[number]
        told = self._thread(thread) | {"repository_url": f"{self.url}/repos/{self.full_name}"}
        if thread.head is not None:
            told["pull_request"] = {"url": f"{self.url}/repos/{self.full_name}/pulls/{number}"}
        return told

    def pull(self, number: int) -> dict[str, Any]:
        thread = self.threads[number]
        return self._thread(thread) | {
            "merged": thread.merged,
            "draft": False,
            "head": {"sha": thread.head, "ref": "topic"},
            "base": {"ref": self.default_branch, "repo": self.json()},
            "review_comments": len(thread.review_comments),
        }

    def _thread(self, thread: Thread) -> dict[str, Any]:
        return {
            "number": thread.number,
            "title": thread.title,
            "body": thread.body,
            "state": thread.state,
            "user": {"login": "octocat"},
            "labels": [{"name": name} for name in thread.labels],
            "comments": len(thread.comments),
            "created_at": thread.created_at,
            "updated_at": thread.updated_at,
            "html_url": self._page(thread.number),
        }

    def _page(self, number: int) -> str:
        kind = "pull" if self.threads[number].head else "issues"
        return f"https://github.example/{self.full_name}/{kind}/{number}"

    def _at(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.now()))

    def _touch(self, number: int) -> None:
        self.threads[number].updated_at = self._at()

    def _tell(self, number: int, action: str) -> None:
        if self.threads[number].head is None:
            self._announce("issues", {"action": action, "issue": self.issue(number), "repository": self.json()})
        else:
            payload = {"action": action, "number": number, "pull_request": self.pull(number), "repository": self.json()}
            self._announce("pull_request", payload)

    def _tell_comment(self, number: int, kind: str, action: str, comment: dict[str, Any]) -> None:
        payload = {"action": action, "comment": comment, "repository": self.json()}
        if kind == "comments":
            self._announce("issue_comment", payload | {"issue": self.issue(number)})
        elif kind == "reviews":
            self._announce("pull_request_review", payload | {"review": comment, "pull_request": self.pull(number)})
        else:
            self._announce("pull_request_review_comment", payload | {"pull_request": self.pull(number)})


def _told_commit(commit: Commit, files: list[dict[str, str]]) -> dict[str, Any]:
    """Git knows no renames, and neither does a push: what was renamed is one file removed and one added."""
    named: dict[str, list[str]] = {"added": [], "modified": [], "removed": []}
    for file in files:
        if file["status"] == "renamed":
            named["removed"].append(file["previous_filename"])
            named["added"].append(file["filename"])
        else:
            named[file["status"]].append(file["filename"])
    return {"id": commit.sha, "tree_id": commit.tree, "message": commit.message, "distinct": True, **named}
