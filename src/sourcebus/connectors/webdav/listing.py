"""What is below the collection, and what changed there since a cursor.

A collection with a sync token (RFC 6578) tells what changed and what is gone. The others are listed, one level at a time:
servers rightly refuse ``Depth: infinity``. Where no collection has a token, a pass lists everything and is complete.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import structlog

from sourcebus.connectors.http import Api
from sourcebus.connectors.patterns import Selection
from sourcebus.connectors.refs import is_ref, parent_of
from sourcebus.connectors.webdav.members import Member
from sourcebus.connectors.webdav.multistatus import (
    PROPFIND_COLLECTION,
    PROPFIND_MEMBERS,
    Multistatus,
    Response,
    names_precondition,
    parse_multistatus,
    sync_collection,
)
from sourcebus.connectors.webdav.paths import Paths
from sourcebus.errors import CursorExpired, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import MAX_REF_BYTES, WHOLE_SOURCE, Change, ChangeKind, Cursor

_CURSOR_VERSION = 1
_INSUFFICIENT_STORAGE = 507
_MAX_PAGES = 100_000

_log = structlog.get_logger(__name__)


@dataclass
class Progress:
    """What a cursor says. `tokens` are of collections that have one, `names` digests of what the others held.

    `todo` are collections that a listing of everything has still to visit; None once it has ended. `tokenless` are those
    of which their parent's listing has just said that they have no token; it is not kept.
    """

    tokens: dict[str, str] = field(default_factory=dict[str, str])
    names: dict[str, str] = field(default_factory=dict[str, str])
    todo: list[str] | None = None
    tokenless: set[str] = field(default_factory=set[str])

    def knows(self, collection: str) -> bool:
        return collection in self.tokens or collection in self.names

    def forget(self, collection: str) -> None:
        """It and all below it."""
        for known in (self.tokens, self.names):
            for path in [path for path in known if path.startswith(collection)]:
                del known[path]

    def dump(self) -> Cursor:
        said: dict[str, Any] = {"v": _CURSOR_VERSION, "tokens": self.tokens, "names": self.names}
        if self.todo is not None:
            said["todo"] = self.todo
        return Cursor(json.dumps(said, separators=(",", ":")))

    @classmethod
    def parse(cls, cursor: str) -> Progress:
        try:
            said = cast("dict[str, Any]", json.loads(cursor))
            if said["v"] != _CURSOR_VERSION:
                raise ValueError(f"is of version {said['v']}")
            todo = said.get("todo")
            tokens = {str(path): str(token) for path, token in said["tokens"].items()}
            names = {str(path): str(digest) for path, digest in said["names"].items()}
            return cls(tokens, names, None if todo is None else [str(path) for path in todo])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CursorExpired(f"the cursor cannot be read ({type(error).__name__}: {error})") from error


class Listing:
    """Lists below `paths`. `trusts_etags`: a strong ETag is a version."""

    def __init__(self, api: Api, paths: Paths, selection: Selection, *, trusts_etags: bool, uses_sync: bool) -> None:
        self._api, self._paths, self._selection = api, paths, selection
        self._trusts_etags, self._uses_sync = trusts_etags, uses_sync

    def changes(self, cursor: str | None, scope: str) -> Iterator[Change | Cursor]:
        root = scope if scope == WHOLE_SOURCE or scope.endswith("/") else scope + "/"
        progress = Progress.parse(cursor) if cursor is not None else Progress(todo=[root])
        if root != WHOLE_SOURCE and not (is_ref(root[:-1]) and self._selects_collection(root)):
            return iter([Cursor(None, complete=True)])
        if progress.todo is None and not progress.tokens:
            progress = Progress(todo=[root])
        return self._everything(progress) if progress.todo is not None else self._delta(root, progress)

    def look(self, ref: str) -> Member:
        """One object as it is now. Raises `ObjectGone` also for a collection, or what the patterns leave out."""
        if not is_ref(ref) or len(ref.encode("utf-8", "surrogatepass")) > MAX_REF_BYTES or not self._selection.selects(ref):
            raise ObjectGone(f"{ref!r} names no object of this source")
        try:
            answer, multistatus = self._propfind(self._paths.url(ref), "0", PROPFIND_MEMBERS)
        except (ObjectUnreadable, SourceUnavailable) as error:
            # 400 (Radicale), 500 (WsgiDAV) for a name that the server would never give. The collection above has the last word.
            odd = getattr(error, "reason", "") == "refused" or _is_no_text(ref)
            if odd and all(member.ref != ref for member in self._level(parent_of(ref))[0]):
                raise ObjectGone(f"{ref!r} is not in its collection, and the server does not take its name") from error
            raise
        for response in multistatus.responses:
            if self._paths.ref(response.href) == ref and not response.is_collection and response.status == 200:
                return Member.of(ref, response, answer.headers)
        raise ObjectGone(f"{ref!r} is not there, or is a collection")

    # everything

    def _everything(self, progress: Progress) -> Iterator[Change | Cursor]:
        complete = True
        todo = progress.todo = progress.todo or []
        while todo:
            collection = todo[0]
            try:
                yield from self._visit(collection, progress)
            except (ObjectGone, NotACollection) as error:
                _must_not_be_the_base(collection, error)
                progress.forget(collection)
            except ObjectUnreadable as error:
                _must_not_be_the_base(collection, error)
                complete = False
                _log.warning("connectors.listing_incomplete", collection=collection, error=str(error))
            todo.remove(collection)
            yield progress.dump()
        progress.todo = None
        yield Cursor(progress.dump().value, complete=complete)

    def _visit(self, collection: str, progress: Progress) -> Iterator[Change | Cursor]:
        """Everything in one collection; what is below it goes to the end of `todo`."""
        assert progress.todo is not None
        if collection in progress.tokens or (collection not in progress.tokenless and self._has_token(collection)):
            try:
                yield from self._synced(collection, progress, progress.todo)
                return
            except NoSync:
                progress.tokens.pop(collection, None)
            except TokenRefused as error:
                progress.tokens.pop(collection, None)
                raise CursorExpired(str(error)) from error
        members, below = self._level(collection, progress.tokenless)
        progress.names[collection] = _digest(member.ref for member in members)
        yield from (member.change(self._trusts_etags) for member in members)
        progress.todo.extend(path for path in below if path not in progress.todo and not progress.knows(path))

    def _has_token(self, collection: str) -> bool:
        if not self._uses_sync:
            return False
        _, multistatus = self._propfind(self._paths.url(collection), "0", PROPFIND_COLLECTION)
        return any(response.sync_token for response in self._own(collection, multistatus))

    # what changed

    def _delta(self, root: str, progress: Progress) -> Iterator[Change | Cursor]:
        """Of a source where some collection has a sync token."""
        known = sorted([*progress.tokens, *progress.names], key=lambda path: (path.count("/"), path))
        fresh: list[str] = []
        for collection in known:
            if not progress.knows(collection):
                continue  # its parent has just said that it is gone
            try:
                if collection in progress.tokens:
                    yield from self._synced(collection, progress, fresh)
                else:
                    yield from self._relisted(collection, progress, fresh)
            except (TokenRefused, NoSync) as error:
                if collection == root:
                    raise CursorExpired(str(error)) from error
                yield from self._anew(collection, progress, fresh)
            except (ObjectGone, NotACollection) as error:
                _must_not_be_the_base(collection, error)
                yield Change(collection, ChangeKind.SCAN)
                progress.forget(collection)
            except ObjectUnreadable as error:
                _must_not_be_the_base(collection, error)
                _log.warning("connectors.listing_incomplete", collection=collection, error=str(error))
            yield progress.dump()
        new = Progress(progress.tokens, progress.names, [path for path in fresh if not progress.knows(path)])
        while new.todo:
            collection = new.todo.pop(0)
            try:
                yield from (item for item in self._visit(collection, new) if isinstance(item, Change))
            except (ObjectGone, NotACollection):
                progress.forget(collection)
            except ObjectUnreadable as error:
                _log.warning("connectors.listing_incomplete", collection=collection, error=str(error))
        yield progress.dump()

    def _anew(self, collection: str, progress: Progress, fresh: list[str]) -> Iterator[Change]:
        """A collection whose token is void, for one made anew: a scan of its own finds what is gone."""
        progress.forget(collection)
        yield Change(collection, ChangeKind.SCAN)
        fresh.append(collection)

    def _relisted(self, collection: str, progress: Progress, fresh: list[str]) -> Iterator[Change]:
        """A collection without a token, in a source that has some: gone members show in the digest of the names."""
        members, below = self._level(collection)
        digest = _digest(member.ref for member in members)
        if digest != progress.names[collection]:
            yield Change(collection, ChangeKind.SCAN)
        progress.names[collection] = digest
        yield from (member.change(self._trusts_etags) for member in members)
        known = {path for path in (*progress.tokens, *progress.names) if path and parent_of(path) == collection}
        for gone in sorted(known - set(below)):
            yield Change(gone, ChangeKind.SCAN)
            progress.forget(gone)
        fresh.extend(path for path in below if not progress.knows(path))

    # one collection

    def _level(self, collection: str, tokenless: set[str] | None = None) -> tuple[list[Member], list[str]]:
        """The objects in a collection, and the collections in it; those without a sync token are added to `tokenless`."""
        asked = PROPFIND_COLLECTION if tokenless is not None and self._uses_sync else PROPFIND_MEMBERS
        answer, multistatus = self._propfind(self._paths.url(collection), "1", asked)
        own = self._own(collection, multistatus)
        if not any(response.is_collection for response in own):
            if own or collection:
                raise NotACollection(f"{self._paths.url(collection)} is no collection")
            raise SourceUnavailable("config.url: the answer is about other paths; does a proxy rewrite them?")
        members: list[Member] = []
        below: list[str] = []
        for response in multistatus.responses:
            self._sort(collection, response, answer, members, below, [])
            if tokenless is not None and response.is_collection and response.sync_token is None:
                tokenless.add((self._paths.ref(response.href) or "").rstrip("/") + "/")
        return members, below

    def _own(self, collection: str, multistatus: Multistatus) -> list[Response]:
        """What an answer says of the collection itself."""
        names = (collection, collection[:-1])
        return [response for response in multistatus.responses if self._paths.ref(response.href) in names]

    def _synced(self, collection: str, progress: Progress, below: list[str]) -> Iterator[Change | Cursor]:
        """What changed in a collection since its token, page by page (507 says that there is more, RFC 6578 §3.6)."""
        for _ in range(_MAX_PAGES):
            before = progress.tokens.get(collection, "")
            answer, multistatus = self._report(collection, before)
            if multistatus.sync_token is None:
                raise NoSync(f"{collection or 'config.url'}: REPORT gives no sync token")
            members: list[Member] = []
            gone: list[str] = []
            more = False
            found: list[str] = []
            for response in multistatus.responses:
                more |= self._sort(collection, response, answer, members, found, gone)
            yield from (member.change(self._trusts_etags) for member in members)
            yield from self._removed(gone, progress)
            below.extend(path for path in found if path not in below and not progress.knows(path))
            progress.tokens[collection] = multistatus.sync_token
            if not more:
                return
            if multistatus.sync_token == before:
                raise SourceUnavailable(f"{collection or 'config.url'}: the server cuts its answer short and does not go on")
            yield progress.dump()

    def _removed(self, gone: Sequence[str], progress: Progress) -> Iterator[Change]:
        for ref in gone:
            collection = ref.removesuffix("/") + "/"
            if progress.knows(collection):
                progress.forget(collection)
                yield Change(collection, ChangeKind.SCAN)
            elif not ref.endswith("/") and self._selection.selects(ref):
                yield Change(ref, ChangeKind.DELETED)

    def _sort(
        self,
        collection: str,
        response: Response,
        answer: httpx.Response,
        members: list[Member],
        below: list[str],
        gone: list[str],
    ) -> bool:
        """Put one line of an answer where it belongs. True: it says that the answer was cut short."""
        ref = self._paths.ref(response.href)
        if response.status == _INSUFFICIENT_STORAGE:
            return True
        if ref is None:
            _log.warning("connectors.name_unusable", href=response.href[:500])
        elif ref.removesuffix("/") == collection.removesuffix("/") or parent_of(ref) != collection:
            pass  # the collection itself, or what is not in it
        elif response.status in (404, 410):
            gone.append(ref)
        elif response.is_collection:
            path = ref.removesuffix("/") + "/"
            if self._selects_collection(path):
                below.append(path)
        elif response.status == 200 and self._selection.selects(ref):
            members.append(Member.of(ref.removesuffix("/"), response, answer.headers))
        return False

    def _selects_collection(self, path: str) -> bool:
        names = path[:-1].split("/")
        return all(self._selection.enters("/".join(names[: depth + 1])) for depth in range(len(names)))

    def _propfind(self, url: str, depth: str, body: bytes) -> tuple[httpx.Response, Multistatus]:
        return self._ask("PROPFIND", url, depth, body)

    def _report(self, collection: str, token: str) -> tuple[httpx.Response, Multistatus]:
        url, body = self._paths.url(collection), sync_collection(token)
        answer = self._api.call("REPORT", url, headers=_headers("0"), content=body, accept=(400, 403, 405, 409, 415, 501))
        if answer.is_success:
            return answer, parse_multistatus(answer.content)
        if token and (answer.status_code in (403, 409) or names_precondition(answer.content, "valid-sync-token")):
            raise TokenRefused(f"REPORT {collection}: HTTP {answer.status_code}: the sync token is not valid any more")
        raise NoSync(f"REPORT {collection}: HTTP {answer.status_code}")

    def _ask(self, method: str, url: str, depth: str, body: bytes) -> tuple[httpx.Response, Multistatus]:
        answer = self._api.call(method, url, headers=_headers(depth), content=body)
        if answer.status_code != 207:
            raise SourceUnavailable(f"{method}: HTTP {answer.status_code} instead of 207: is config.url a WebDAV collection?")
        return answer, parse_multistatus(answer.content)


class NoSync(Exception):
    """The collection has no sync tokens after all."""


class TokenRefused(Exception):
    """The sync token is void."""


class NotACollection(Exception):
    """There is something else at its path."""


def _must_not_be_the_base(collection: str, error: Exception) -> None:
    """What is wrong with a collection is said of that one; of the base it means that the source is unavailable."""
    if collection == WHOLE_SOURCE:
        raise SourceUnavailable(f"config.url: {error}") from error


def _headers(depth: str) -> dict[str, str]:
    return {"Depth": depth, "Content-Type": "application/xml; charset=utf-8"}


def _is_no_text(ref: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in ref)


def _digest(names: Iterator[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(names):
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()
