"""What a push hook says: of GitHub, GitLab, Gitea, Forgejo and Gogs, and of the script in examples/git-post-receive.

A hook only ever says where to look. Where its list of paths may be incomplete the whole source is scanned instead, which
costs one question and the difference of two trees. GitLab, Gitea and Forgejo do not say whether a push threw commits away,
and list only some of the commits of a large one, so that theirs always mean a scan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from sourcebus.connectors.git.settings import GitSettings
from sourcebus.connectors.signing import check_age, check_hmac, check_token
from sourcebus.errors import InvalidInput, Unverified
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Delivery, Heard

MOST_PATHS = 1_000
"""A push of more paths is a scan: its listing costs less than as many events."""

_SIGNATURES = (
    ("x-hub-signature-256", "sha256="),  # GitHub, and the others beside their own
    ("x-forgejo-signature", ""),
    ("x-gitea-signature", ""),
    ("x-gogs-signature", ""),
)
_EVENTS = ("x-github-event", "x-forgejo-event", "x-gitea-event", "x-gogs-event", "x-gitlab-event", "x-sourcebus-event")
_IDS = ("x-github-delivery", "x-forgejo-delivery", "x-gitea-delivery", "x-gogs-delivery", "x-gitlab-event-uuid")
_PUSH = ("push", "Push Hook")
_COMPLETE_BELOW = 20
"""A GitHub payload with so many commits or more may be cut."""

_KINDS = (("removed", ChangeKind.DELETED), ("modified", ChangeKind.UPDATED), ("added", ChangeKind.CREATED))
_SCAN = Change(WHOLE_SOURCE, ChangeKind.SCAN)


class Hooks:
    """The deliveries to one source's hook."""

    def __init__(self, settings: GitSettings, secrets: Sequence[str]) -> None:
        self._settings, self._secrets = settings, secrets

    def parse(self, delivery: Delivery) -> Heard:
        """As `Hears.parse_webhook`."""
        self._prove(delivery)
        headers = delivery.headers
        kind = next((headers[name] for name in _EVENTS if name in headers), "")
        delivery_id = next((headers[name] for name in _IDS if headers.get(name)), None)
        if kind not in _PUSH:
            return Heard(delivery_id=delivery_id, note=f"{kind[:60] or 'something without an event header'}: not a push")
        push = _body(delivery)
        if "x-sourcebus-event" in headers:  # the others sign no time; theirs are told apart by their ids
            check_age(str(push.get("sent_s", "")), delivery.received_at_ms)
        changes, note = self._changes(push)
        return Heard(changes, delivery_id=delivery_id, note=note)

    def _prove(self, delivery: Delivery) -> None:
        headers = delivery.headers
        for name, prefix in _SIGNATURES:
            if name in headers:
                check_hmac(delivery.body, headers[name], self._secrets, prefix=prefix)
                return
        if not self._secrets:
            raise Unverified("this source has no webhook secret, so nothing can be proven: set one")
        if "x-gitlab-token" not in headers:
            raise Unverified("has none of the headers X-Hub-Signature-256, X-Gitea-Signature, X-Gitlab-Token")
        check_token(headers["x-gitlab-token"], self._secrets)

    def _changes(self, push: Mapping[str, Any]) -> tuple[Sequence[Change], str]:
        ref = push.get("ref")
        if not isinstance(ref, str):
            raise InvalidInput("body.ref", "is missing", "send a push event")
        if not ref.startswith("refs/heads/"):
            return (), f"a push to {ref[:200]}, which is no branch"
        branch = self._settings.branch or _default_branch(push)
        if branch is not None and ref != f"refs/heads/{branch}":
            return (), f"a push to {ref[:200]}, not to {branch[:200]}"
        if _is_zero(push.get("after")):
            return [_SCAN], f"{ref[:200]} was deleted"
        if not self._is_ours(push):
            return [_SCAN], "names another repository than this source's URL: renamed, or a hook meant for another source?"
        paths = _paths(push) if branch is not None else None
        if paths is None or len(paths) > MOST_PATHS:
            return [_SCAN], ""
        changes = [Change(path, kind) for path, kind in paths.items() if self._settings.selection.selects(path)]
        return changes, "" if changes else "a push that changed none of this source's files"

    def _is_ours(self, push: Mapping[str, Any]) -> bool:
        repository, project = _object(push, "repository"), _object(push, "project")
        name = project.get("path_with_namespace") or repository.get("full_name")
        if not isinstance(name, str):
            return True  # the script's, which knows no public name
        path = urlsplit(self._settings.url).path.rstrip("/").removesuffix(".git")
        return path.lower().endswith("/" + name.lower())


def _body(delivery: Delivery) -> Mapping[str, Any]:
    text: bytes | str = delivery.body
    if delivery.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):  # GitHub and Gitea, if told to
        text = parse_qs(delivery.body.decode("utf-8", "replace")).get("payload", [""])[0]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            "body", f"is no JSON ({type(error).__name__})", "send JSON, or a form with a field payload"
        ) from error
    if not isinstance(found, dict):
        raise InvalidInput("body", "is no JSON object", "send a push event")
    return cast("Mapping[str, Any]", found)


def _paths(push: Mapping[str, Any]) -> dict[str, ChangeKind] | None:
    """Every path that the push changed and what happened to it last; None if they may not be all."""
    if "paths" in push:
        return _listed(push["paths"])
    if push.get("forced") is not False or push.get("created") is not False or _is_zero(push.get("before")):
        return None
    commits = push.get("commits")
    return _of_commits(cast("list[Any]", commits), push.get("after")) if isinstance(commits, list) else None


def _of_commits(commits: Sequence[Any], head: Any) -> dict[str, ChangeKind] | None:
    found = [cast("Mapping[str, Any]", one) for one in commits if isinstance(one, dict)]
    if not 0 < len(commits) < _COMPLETE_BELOW or len(found) != len(commits) or found[-1].get("id") != head:
        return None
    paths: dict[str, ChangeKind] = {}
    for commit in found:
        for key, kind in _KINDS:
            names = commit.get(key)
            if not isinstance(names, list) or not all(isinstance(name, str) for name in cast("list[Any]", names)):
                return None
            listed = _listed(dict.fromkeys(cast("list[Any]", names), kind))
            if listed is None:
                return None
            paths |= listed
    return paths


def _listed(paths: Any) -> dict[str, ChangeKind] | None:
    """Path → kind, if all of them are usable."""
    if not isinstance(paths, dict):
        return None
    found: dict[str, ChangeKind] = {}
    for path, kind in cast("Mapping[Any, Any]", paths).items():
        # a replacement character stands for bytes that the provider could not show, a quote begins git's own quoting
        if not isinstance(path, str) or not path or "\N{REPLACEMENT CHARACTER}" in path or path.startswith('"'):
            return None
        if kind not in (ChangeKind.CREATED, ChangeKind.UPDATED, ChangeKind.DELETED):
            return None
        found[path] = ChangeKind(kind)
    return found


def _default_branch(push: Mapping[str, Any]) -> str | None:
    for key in ("repository", "project"):
        if isinstance(name := _object(push, key).get("default_branch"), str) and name:
            return name
    return None


def _object(push: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = push.get(key)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _is_zero(oid: Any) -> bool:
    return isinstance(oid, str) and oid != "" and not oid.strip("0")
