"""What a delivery of GitHub says: proven by its raw bytes, then mapped to the objects that its payload names.

Sources: docs.github.com, "Webhook events and payloads", "Validating webhook deliveries". A GUID (``X-GitHub-Delivery``) is the
same when a delivery is sent again; there is no timestamp.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast
from urllib.parse import parse_qs

from sourcebus.connectors.github.settings import CONTENTS, ISSUES, PULLS, WIKI, Settings, can_be
from sourcebus.connectors.signing import check_hmac
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard, JsonObject, Subscription

_MOST_COMMITS = 2048
"""A push names at most so many commits, and a commit at most `_MOST_FILES` files."""

_MOST_FILES = 3000
_MOST_NAMED = 300
"""A push of more files than this is one scan: comparing the commits costs one or two calls, looking at each file one."""

_KINDS = {
    "created": ChangeKind.CREATED,
    "opened": ChangeKind.CREATED,
    "deleted": ChangeKind.DELETED,
    "transferred": ChangeKind.DELETED,
}

EVENTS = {
    CONTENTS: ("push", "create", "delete"),
    ISSUES: ("issues", "issue_comment"),
    PULLS: (
        "pull_request",
        "pull_request_review",
        "pull_request_review_comment",
        "pull_request_review_thread",
        "issue_comment",
    ),
    WIKI: ("gollum",),
}
"""The events that each kind of object needs. Those in `ALWAYS` are about the repository and the hook."""

ALWAYS = ("repository", "meta")


class Webhooks:
    """Reads deliveries for one source. Talks to nobody."""

    def __init__(self, settings: Settings, secrets: Sequence[str]) -> None:
        self._settings, self._secrets, self._takes = settings, tuple(secrets), settings.takes()
        self._read: Mapping[str, Callable[[JsonObject], Heard]] = {
            "push": self._push,
            "create": self._branch,
            "delete": self._branch,
            "issues": lambda told: self._thread(told, "issue"),
            "issue_comment": lambda told: self._thread(told, "issue", about="comment"),
            "pull_request": lambda told: self._thread(told, "pull_request"),
            "pull_request_review": lambda told: self._thread(told, "pull_request", about="review"),
            "pull_request_review_comment": lambda told: self._thread(told, "pull_request", about="comment"),
            "pull_request_review_thread": lambda told: self._thread(told, "pull_request", about="thread"),
            "gollum": self._gollum,
            "repository": self._repository,
            "meta": lambda told: Heard(lost=[str(told["hook_id"])], note="the webhook was deleted at GitHub"),
        }

    def parse(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        """See `Hears.parse_webhook`."""
        headers = delivery.headers
        self._prove(delivery, [one.secret for one in subscriptions if one.secret])
        event, guid = headers.get("x-github-event", ""), headers.get("x-github-delivery")
        if not event:
            raise InvalidInput("X-GitHub-Event", "is missing", "is this a GitHub webhook?")
        told = _payload(delivery)
        read = self._read.get(event)
        try:
            if (other := self._other_repository(event, told, headers, subscriptions)) is not None:
                return Heard(delivery_id=guid, note=other)
            heard = read(told) if read else Heard(note=f"{event}: of no interest")
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise InvalidInput("body", f"is no payload of a {event!r} event ({type(error).__name__}: {error})") from error
        return Heard(changes=heard.changes, delivery_id=guid, lost=heard.lost, note=heard.note)

    def _prove(self, delivery: Delivery, more: Sequence[str]) -> None:
        signature = delivery.headers.get("x-hub-signature-256")
        if signature is None and "x-hub-signature" in delivery.headers:
            raise Unverified(
                "only the legacy SHA-1 signature is there, which proves nothing any more: X-Hub-Signature-256 is needed"
            )
        check_hmac(delivery.body, signature, [*self._secrets, *more], prefix="sha256=")

    def _other_repository(
        self, event: str, told: JsonObject, headers: Mapping[str, str], subscriptions: Sequence[Subscription]
    ) -> str | None:
        """Why nothing follows from a payload that is not about this source's repository; None: it is.

        A hook of an organisation or an app tells of all of its repositories, so that of another one is of no interest. A hook
        set up at another *repository* is a mistake that somebody has to see: `InvalidInput`, which GitHub's list of deliveries
        shows.
        """
        repository = told.get("repository")
        if repository is None:
            return f"{event}: not about a repository"
        name = str(repository["full_name"])
        if self._settings.full_name.lower() in (name.lower(), _old_name(told).lower()):
            return None
        # Renamed at GitHub: the config says the old name, but the hook knows the repository.
        if any(one.state.get("repository_id") == repository["id"] for one in subscriptions):
            return None
        if headers.get("x-github-hook-installation-target-type", "repository") == "repository":
            raise InvalidInput(
                "repository", f"is {name!r}, not {self._settings.full_name!r}", "is this source's hook set up there?"
            )
        return f"{event}: of the repository {name}, which is not this source's"

    def _push(self, told: JsonObject) -> Heard:
        if CONTENTS not in self._settings.kinds:
            return Heard(note="push: this source has no contents")
        if not self._is_ours(told["ref"], told["repository"]):
            return Heard(note=f"push: of {told['ref']}, which is not the source's branch")
        if told["deleted"] or told["created"] or told["forced"]:
            return _scan(
                CONTENTS, "push: the branch was " + next(word for word in ("deleted", "created", "forced") if told[word])
            )
        commits = cast("list[JsonObject]", told["commits"])
        if not commits or len(commits) >= _MOST_COMMITS or commits[-1]["id"] != told["after"]:
            return _scan(CONTENTS, f"push: does not name all of its commits ({len(commits)})")
        kinds: dict[str, ChangeKind] = {}
        for commit in commits:
            files = {word: cast("list[str]", commit[word]) for word in ("added", "modified", "removed")}
            if sum(map(len, files.values())) >= _MOST_FILES:
                return _scan(CONTENTS, "push: a commit does not name all of its files")
            kinds |= dict.fromkeys(files["added"], ChangeKind.CREATED)
            kinds |= dict.fromkeys(files["modified"], ChangeKind.UPDATED)
            kinds |= dict.fromkeys(files["removed"], ChangeKind.DELETED)
        if len(kinds) > _MOST_NAMED:
            return _scan(CONTENTS, f"push: {len(kinds)} files")
        chosen = {f"{CONTENTS}/{path}": kind for path, kind in kinds.items() if path and self._takes.selects(path)}
        return _of([Change(ref, kind) for ref, kind in chosen.items() if can_be(ref)], "push")

    def _branch(self, told: JsonObject) -> Heard:
        ours = told["ref_type"] == "branch" and self._is_ours(f"refs/heads/{told['ref']}", told["repository"])
        if not ours or CONTENTS not in self._settings.kinds:
            return Heard(note=f"{told['ref_type']} {told['ref']}: not the source's branch")
        return _scan(CONTENTS, "the branch came or went")

    def _is_ours(self, ref: str, repository: JsonObject) -> bool:
        return ref == f"refs/heads/{self._settings.branch or repository['default_branch']}"

    def _thread(self, told: JsonObject, key: str, *, about: str = "") -> Heard:
        """An issue or a pull request, or a comment `about` it."""
        kind = PULLS if key == "pull_request" or "pull_request" in told[key] else ISSUES
        number, action = told[key]["number"], str(told["action"])
        if type(number) is not int or number < 1:
            raise TypeError("the number is none")
        change = ChangeKind.UPDATED if about else _KINDS.get(action, ChangeKind.UPDATED)
        changes = [Change(f"{kind}/{number}", change)] if kind in self._settings.kinds else []
        return _of(changes, f"{about or key} {action}")

    def _gollum(self, told: JsonObject) -> Heard:
        pages = cast("list[JsonObject]", told["pages"]) if WIKI in self._settings.kinds else []
        named = {str(page["page_name"]): str(page["action"]) for page in pages}
        changes = [Change(f"{WIKI}/{name}", _KINDS.get(action, ChangeKind.UPDATED)) for name, action in named.items()]
        return _of([change for change in changes if can_be(change.object_ref)], "gollum")

    def _repository(self, told: JsonObject) -> Heard:
        action = str(told["action"])
        changes: JsonObject = told.get("changes") or {}
        if action in ("deleted", "privatized", "renamed", "transferred"):
            # Whether the source can still be read is for a scan to find out, and to call for a person if not.
            return Heard([Change(WHOLE_SOURCE, ChangeKind.SCAN)], note=f"the repository was {action}")
        if "default_branch" in changes and self._settings.branch is None and CONTENTS in self._settings.kinds:
            return _scan(CONTENTS, "the default branch is another one")
        return Heard(note=f"repository {action}: of no interest")


def _payload(delivery: Delivery) -> JsonObject:
    body = delivery.body
    try:
        if delivery.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            body = parse_qs(body.decode(), strict_parsing=True, max_num_fields=8)["payload"][0].encode()
        told = json.loads(body)
    except (ValueError, KeyError, RecursionError) as error:
        raise InvalidInput(
            "body", f"is no JSON ({type(error).__name__})", "set the webhook's content type to application/json"
        ) from error
    if not isinstance(told, dict):
        raise InvalidInput("body", "is no JSON object")
    return cast("JsonObject", told)


def _old_name(told: JsonObject) -> str:
    """What the repository was called before the rename or transfer that this payload tells of; "" for any other."""
    owner, _, name = str(told["repository"]["full_name"]).partition("/")
    changes: JsonObject = told.get("changes") or {}
    if told.get("action") == "renamed" and "repository" in changes:
        return f"{owner}/{changes['repository']['name']['from']}"
    if told.get("action") == "transferred" and "owner" in changes:
        before: JsonObject = changes["owner"]["from"]
        was: JsonObject = before.get("user") or before.get("organization") or {}
        return f"{was.get('login', '')}/{name}"
    return ""


def _of(changes: Sequence[Change], what: str) -> Heard:
    return Heard(changes, note="" if changes else f"{what}: nothing that this source has")


def _scan(kind: str, note: str) -> Heard:
    return Heard([Change(f"{kind}/", ChangeKind.SCAN)], note=note)
