"""Issues and pull requests: one document each, with all of its comments.

The version is a hash of what the document shows (title, texts, authors, state, labels, head commit). GitHub's own signs are too
coarse: `updated_at` is in whole seconds, and the ETag of an issue does not cover the texts of its comments.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sourcebus.connectors.github.repository import PAGE, Repository, Told
from sourcebus.connectors.github.settings import ISSUES, PULLS, Settings
from sourcebus.errors import ObjectGone
from sourcebus.model import Change, Document, Extraction, JsonObject

_EVER = "1970-01-01T00:00:00Z"
_COMMENTS = {"comments": "issues/comments", "review_comments": "pulls/comments"}

_SETTLED_MS = 3_000
"""Until then a second change may get the same `updated_at`: the fingerprint, which is made of it, proves nothing yet."""


class _Page(NamedTuple):
    """`items` None: the list is switched off. `since` and `number` ask for the page after it, `at_ms` is GitHub's clock."""

    items: list[Any] | None
    since: str
    number: int
    at_ms: float


class Threads:
    """The issues and pull requests of one repository, those of `settings.kinds`."""

    def __init__(self, repository: Repository, settings: Settings) -> None:
        self._repository, self._name = repository, settings.full_name
        self._kinds = frozenset(settings.kinds) & {ISSUES, PULLS}

    # listing

    def list(self, state: JsonObject, scope: str) -> Iterator[Change | JsonObject]:
        """What changed since `state`, and the states to go on from: ``since`` (and ``page``, within it) for the list of issues,
        which holds pull requests too, and a time for each of the two lists of comments. Without ``since`` everything.

        The lists of comments are followed because an edited comment need not date its issue.
        """
        full = "since" not in state or bool(state.get("full"))
        kinds = {kind for kind in self._kinds if scope == "" or scope.startswith(f"{kind}/")}
        told: JsonObject = {
            "since": state.get("since", _EVER),
            "page": state.get("page", 1),
            **({"full": True} if full else {}),
        }
        comments = {name: state[name] for name in _COMMENTS if name in state}
        for page in self._feed("issues", told["since"], told["page"], {"state": "all"}):
            for name in _COMMENTS:
                comments.setdefault(name, _text_of(page.at_ms))
            if page.items is None:
                yield from self._switched_off(told, kinds)
                break
            yield from self._listed(page.items, kinds, page.at_ms)
            told |= {"since": page.since, "page": page.number}
            yield {**told, **comments}
        if not full:
            yield from self._commented(comments, kinds)
        yield {"since": told["since"], **comments}

    def _switched_off(self, told: JsonObject, kinds: set[str]) -> Iterator[Change]:
        """Moves ``since`` on. The newest comes first."""
        newest = None
        for pull in self._pulls_alone(told["since"]) if PULLS in kinds else ():
            newest = newest or _second_before(pull["updated_at"])
            yield Change(f"{PULLS}/{pull['number']}")
        told["since"] = newest or told["since"]

    def _listed(self, items: Sequence[Any], kinds: set[str], at_ms: float) -> Iterator[Change]:
        for item in items:
            kind = PULLS if "pull_request" in item else ISSUES
            if kind in kinds:
                yield Change(f"{kind}/{item['number']}", fingerprint=_fingerprint(item, at_ms))

    def _commented(self, since: dict[str, str], kinds: set[str]) -> Iterator[Change]:
        """Moves the times in `since` on as it goes."""
        for name, path in _COMMENTS.items():
            if name == "review_comments" and PULLS not in kinds:
                continue
            seen: set[str] = set()
            for page in self._feed(path, since[name], 1, {}):
                items = page.items or ()
                seen |= {ref for item in items if (ref := _commented_on(item)) and ref.split("/")[0] in kinds}
                since[name] = page.since
            yield from (Change(ref) for ref in sorted(seen))

    def _pulls_alone(self, since: str) -> Iterator[Any]:
        """The pull requests of a repository whose issues are switched off, those updated after `since`: their own list knows no
        ``since``, so it is read from the newest on. What is updated meanwhile moves to its front, so nothing is passed by."""
        for pull in self._repository.pages("pulls", {"state": "all", "sort": "updated", "direction": "desc"}):
            if pull["updated_at"] < since:
                return
            yield pull

    def _feed(self, path: str, since: str, number: int, params: JsonObject) -> Iterator[_Page]:
        """The pages of a list in the order of `updated_at`.

        Moving ``since`` on instead of counting pages: what is updated meanwhile goes to the end and would push another one from
        the next page to this one, unseen. One second is always read twice, as more may happen in it.
        """
        while True:
            asked = {**params, "since": since, "sort": "updated", "direction": "asc", "per_page": PAGE, "page": number}
            told = self._repository.read(path, params=asked, accept=(410,))
            if told.status == 410:
                yield _Page(None, since, 1, told.at_ms)
                return
            items, more = told.items()
            moved = _second_before(items[-1]["updated_at"]) if items else since
            since, number = (moved, 1) if moved > since or not more else (since, number + 1)
            yield _Page(items, since, number, told.at_ms)
            if not more:
                return

    # one object

    def version(self, kind: str, number: int) -> str | None:
        try:
            return self.extract(kind, number).version
        except ObjectGone:
            return None

    def fingerprint(self, kind: str, number: int) -> str | None:
        """As a listing gives it; None also where there is no such object."""
        try:
            told = self._read(kind, number)
        except ObjectGone:
            return None
        return _fingerprint(told.json(), told.at_ms)

    def extract(self, kind: str, number: int) -> Extraction:
        try:
            told = self._read(kind, number)
            thread = told.json()
            if kind == ISSUES and ("pull_request" in thread or self._moved_away(told, thread)):
                raise ObjectGone(f"{kind}/{number} is not there")
            read = self._pull(thread, number) if kind == PULLS else self._issue(thread, number)
        except ObjectGone as gone:
            self._repository.confirm_gone(kind, gone)
            raise
        return Extraction([read], _hash(read), _fingerprint(thread, told.at_ms))

    def _read(self, kind: str, number: int) -> Told:
        if kind not in self._kinds:
            raise ObjectGone(f"this source has no {kind}")
        return self._repository.read(f"{kind}/{number}")

    def _moved_away(self, told: Told, issue: JsonObject) -> bool:
        """Whether a redirect led to another repository: the issue was transferred. One of the repository itself is followed."""
        return told.moved and issue["repository_url"].lower() != str(self._repository.home()["url"]).lower()

    def _issue(self, issue: JsonObject, number: int) -> Document:
        entries = self._comments(issue, number)
        return _document(issue, entries, {"kind": "issue", "state": issue["state"], "reason": issue.get("state_reason")})

    def _pull(self, pull: JsonObject, number: int) -> Document:
        entries = self._comments(pull, number)
        for review in self._repository.pages(f"pulls/{number}/reviews"):
            if review.get("body") and review.get("state") != "PENDING":
                entries.append(_entry(review, review["submitted_at"], f"review, {review['state'].lower().replace('_', ' ')}"))
        if pull["review_comments"]:
            for comment in self._repository.pages(f"pulls/{number}/comments"):
                entries.append(_entry(comment, comment["created_at"], f"on {comment['path']}"))
        state = "merged" if pull["merged"] else "draft" if pull.get("draft") and pull["state"] == "open" else pull["state"]
        more = {"kind": "pull_request", "state": state, "base": pull["base"]["ref"], "head": pull["head"]["sha"]}
        return _document(pull, entries, more)

    def _comments(self, issue: JsonObject, number: int) -> list[tuple[str, str]]:
        if not issue["comments"]:
            return []
        comments = self._repository.pages(f"issues/{number}/comments")
        return [_entry(comment, comment["created_at"], "") for comment in comments]


def _document(thread: JsonObject, entries: list[tuple[str, str]], more: JsonObject) -> Document:
    texts = [thread.get("body") or "", *(text for _at, text in sorted(entries, key=lambda entry: entry[0]))]
    metadata = {
        "number": thread["number"],
        "url": thread["html_url"],
        "author": _login(thread),
        "labels": sorted(label["name"] for label in thread.get("labels", ())),
        "created_at": thread["created_at"],
        **more,
    }
    text = "\n\n".join(text for text in texts if text).replace("\0", "")
    return Document(text, thread["title"].replace("\0", ""), media_type="text/markdown", metadata=metadata)


def _entry(comment: JsonObject, at: str, what: str) -> tuple[str, str]:
    return at, f"{_login(comment)} ({', '.join(filter(None, (at[:10], what)))}):\n{comment.get('body') or ''}"


def _login(thing: JsonObject) -> str:
    """Who wrote it; GitHub shows the texts of deleted accounts under this name."""
    user: JsonObject = thing.get("user") or {}
    return str(user.get("login") or "ghost")


def _hash(shown: Document) -> str:
    # Not the address: renaming the repository would make every document a new one, and GitHub redirects the old address.
    about = {key: value for key, value in shown.metadata.items() if key != "url"}
    told = json.dumps([shown.title, shown.text, about], sort_keys=True)
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def _fingerprint(issue: JsonObject, at_ms: float) -> str | None:
    updated = datetime.fromisoformat(issue["updated_at"])
    if at_ms - updated.timestamp() * 1000 < _SETTLED_MS:
        return None
    return f"{issue['updated_at']} {issue['state']} {issue['comments']}"


def _commented_on(comment: JsonObject) -> str | None:
    """The object that a comment of the repository-wide lists belongs to, by its own page's address."""
    parts = str(comment["html_url"]).partition("#")[0].rstrip("/").rsplit("/", 2)
    kind = {"pull": PULLS, "issues": ISSUES}.get(parts[-2]) if len(parts) == 3 else None
    return f"{kind}/{parts[-1]}" if kind and parts[-1].isdecimal() else None


def _second_before(at: str) -> str:
    return _written(datetime.fromisoformat(at) - timedelta(seconds=1))


def _text_of(at_ms: float) -> str:
    """A minute before `at_ms`: the lists of comments are asked later than the time that they go on from."""
    return _written(datetime.fromtimestamp(at_ms / 1000 - 60, UTC))


def _written(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
