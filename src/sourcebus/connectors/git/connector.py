"""The connector itself: the files of one branch, as `Connector` and `Hears` ask for them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from sourcebus.connectors.base import Connector, Recommended
from sourcebus.connectors.credentials import Credentials
from sourcebus.connectors.documents import document
from sourcebus.connectors.git.command import Git, GitFailed, Login
from sourcebus.connectors.git.hooks import Hooks
from sourcebus.connectors.git.mirror import Entry, Mirror, healing
from sourcebus.connectors.git.remote import Remote
from sourcebus.connectors.git.settings import GitSettings
from sourcebus.connectors.git.snapshot import EMPTY, Snapshot, selected
from sourcebus.connectors.rounds import Rounds
from sourcebus.errors import CursorExpired, InvalidInput, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import (
    WHOLE_SOURCE,
    Change,
    ChangeKind,
    Cursor,
    Delivery,
    Extraction,
    Heard,
    Quota,
    QuotaLeft,
    Subscription,
)

SECRETS = ("token", "user", "password", "webhook")

TOKEN_USER = "x-access-token"
"""The user that a token goes with where none is given: GitHub asks for this one, the others take any."""

_LFS = b"version https://git-lfs.github.com/spec/v1\n"
_CURSOR = re.compile(r"([0-9a-f]{40}(?:[0-9a-f]{24})?)\.([0-9a-f]{8})")


class GitConnector(Connector):
    """The files at the head of a branch. An `object_ref` is a path, a version is the blob's id, a cursor names a commit.

    Every answer is of a commit that the server named after the question was asked, or after the thread's batch began
    (`Batched`). Only an `extract` right after a `version` of the same object in the same thread reads what `version` told of.
    """

    name = "git"
    # GitLab allows 600 git commands a minute and user (docs.gitlab.com, "Rate limits on Git SSH operations");
    # nobody publishes less. A claim is charged little beforehand, because a batch of them costs one question.
    recommended = Recommended(
        quota=Quota(rate=10.0, burst=100.0, concurrency=8),
        window_ms=2_000,
        poll_interval_s=300.0,
        reconcile_interval_s=21_600.0,
    )

    def __init__(self, settings: GitSettings, credentials: Credentials) -> None:
        login = _login(credentials)
        git = Git(settings.url, login, timeout_s=settings.timeout_s)
        self._settings = settings
        self._remote = Remote(settings.url, git, login)
        self._mirror = Mirror(
            git,
            settings.mirror,
            ref=settings.ref,
            max_bytes=settings.max_bytes,
            max_mirror_bytes=settings.max_mirror_bytes,
            timeout_s=settings.timeout_s,
        )
        self._hooks = Hooks(settings, credentials.all("webhook"))
        self._latest: Snapshot | None = None
        self._rounds = Rounds(self._look)
        self._thread = threading.local()

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None = None) -> Self:
        """See docs/connectors/git.md for the settings and the names in the secret."""
        return cls(GitSettings.check(config), Credentials.parse(secret, SECRETS))

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        """Everything at the branch's head without a cursor, what differs from the cursor's commit with one.

        The difference is of two trees, so it is right after a force push, too. `CursorExpired` only if the server
        does not give the old commit any more, or the source's settings are others now.
        """
        before = self._commit_of(cursor) if cursor is not None else None
        snapshot = self._rounds.now()
        prefix = self.scope_prefix(scope)
        if snapshot.commit is None:
            if before is not None:
                raise SourceUnavailable(f"{self._settings.shown} has no commit any more")
            yield Cursor(None, complete=True)
            return
        value = f"{snapshot.commit}.{self._settings.marks}"
        if before is None:
            yield from (Change(path, version=blob) for path, blob in snapshot.files.items() if path.startswith(prefix))
            yield Cursor(value, complete=True)
            return
        for path, blob in self._since(before, snapshot.commit) if before != snapshot.commit else ():
            if path.startswith(prefix):
                yield Change(path, ChangeKind.DELETED) if blob is None else Change(path, version=blob)
        yield Cursor(value)

    def version(self, ref: str) -> str | None:
        self._thread.told = None
        snapshot = self._newest()
        self._thread.told = (ref, snapshot)
        return snapshot.files.get(ref)

    def extract(self, ref: str) -> Extraction:
        told, self._thread.told = getattr(self._thread, "told", None), None
        snapshot = told[1] if told is not None and told[0] == ref else self._newest()
        blob = snapshot.files.get(ref)
        if blob is None or snapshot.commit is None:
            raise ObjectGone(f"there is no file {ref!r} at commit {(snapshot.commit or 'none')[:12]}")
        try:
            return Extraction([document(_shown(ref.rpartition("/")[2]), self._read(snapshot.commit, blob))], blob)
        except ObjectUnreadable as unreadable:
            raise ObjectUnreadable(unreadable.reason, unreadable.detail, version=blob) from unreadable

    def begin_batch(self) -> None:
        self._thread.began_s = time.monotonic()

    def scope_prefix(self, scope: str) -> str:
        return scope if scope == WHOLE_SOURCE or scope.endswith("/") else f"{scope}/"

    def parse_webhook(self, delivery: Delivery, subscriptions: Sequence[Subscription]) -> Heard:
        """A push hook of GitHub, GitLab, Gitea, Forgejo or Gogs, or of examples/git-post-receive."""
        del subscriptions  # the hook is set up at the git server, by hand
        return self._hooks.parse(delivery)

    def take_cost(self) -> float:
        return self._remote.take_cost()

    def quota_left(self) -> QuotaLeft | None:
        return self._remote.quota_left()

    def close(self) -> None:
        self._remote.close()

    def _newest(self) -> Snapshot:
        return self._rounds.now(getattr(self._thread, "began_s", None))

    def _look(self) -> Snapshot:
        """The newest snapshot, fetched if the branch moved."""
        commit = self._remote.commit(self._settings.ref)
        if commit is None:
            return self._without_commit()
        if self._latest is not None and self._latest.commit == commit:
            return self._latest
        here, asked = self._mirror.fetch(commit)
        if asked:
            self._remote.charge()
        self._latest = self._snapshot(here)
        return self._latest

    def _without_commit(self) -> Snapshot:
        """An empty repository is an empty source. One that had commits is not: it was taken away, or its branch was."""
        seen = self._latest is not None or self._mirror.head() is not None
        if seen or self._settings.branch is not None or not self._remote.is_empty():
            raise SourceUnavailable(
                f"{self._settings.shown} has no commit: the branch was deleted or renamed. Nothing is deleted from the index;"
                " set config.branch to the branch to follow, or remove the source"
            )
        return EMPTY

    def _snapshot(self, commit: str) -> Snapshot:
        known = self._latest
        if known is not None and known.commit is not None:
            try:
                return known.then(commit, self._mirror.difference(known.commit, commit), self._settings.selection)
            except GitFailed:
                pass  # the mirror was made anew since, without the old commit
        files = healing(self._mirror, commit, lambda: [*self._mirror.files(commit)])
        return Snapshot.of(commit, files, self._settings.selection)

    def _since(self, before: str, commit: str) -> Iterable[Entry]:
        if not self._mirror.has(before):
            self._remote.charge()
            self._mirror.bring(before)
        found = healing(self._mirror, commit, lambda: [*self._mirror.difference(before, commit)])
        return selected(found, self._settings.selection)

    def _commit_of(self, cursor: str) -> str:
        known = _CURSOR.fullmatch(cursor)
        if known is None:
            raise CursorExpired(f"{cursor[:80]!r} is no cursor of this connector")
        if known[2] != self._settings.marks:
            raise CursorExpired("the source's settings are others than when the cursor was made")
        return known[1]

    def _read(self, commit: str, oid: str) -> bytes:
        data = healing(self._mirror, commit, lambda: self._mirror.blob(oid))
        if not isinstance(data, bytes):
            size = "" if data is None else f"{data} bytes, "
            raise ObjectUnreadable("too_large", f"{size}more than the {self._settings.max_bytes} allowed: see max_bytes")
        if data.startswith(_LFS) and len(data) < 1024:
            raise ObjectUnreadable("lfs_pointer", "its content lies in Git LFS, which is not read")
        return data


def _login(credentials: Credentials) -> Login | None:
    user, password, token = credentials.one("user"), credentials.one("password"), credentials.one("token")
    if password is not None and token is not None:
        raise InvalidInput("secret", "has a password and a token", "give one of them")
    if password is not None and user is None:
        raise InvalidInput("secret", "has a password but no user", "add the user")
    secret = token if password is None else password
    if secret is None:
        return None
    if any(char in (user or "") + secret for char in "\r\n\0") or ":" in (user or ""):
        raise InvalidInput("secret", "has a line break, or a colon in the user", "give it as the git server shows it")
    return Login(user or TOKEN_USER, secret)


def _shown(name: str) -> str:
    """The file's name as a title that every database stores: bytes that are not UTF-8 become replacement characters."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
