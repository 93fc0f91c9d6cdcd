"""The connector itself: its settings, and the calls of `Connector` on a `Store`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import structlog

from sourcebus.connectors.base import Connector, Recommended, refuse_unknown
from sourcebus.connectors.config import patterns_at
from sourcebus.connectors.documents import document
from sourcebus.connectors.fsspec.settings import SETTINGS, options_of, url_of
from sourcebus.connectors.fsspec.store import Entry, Store
from sourcebus.connectors.fsspec.tokens import fingerprint_of, hash_of, unread_version, version_of
from sourcebus.connectors.patterns import Selection
from sourcebus.connectors.refs import is_ref
from sourcebus.errors import InvalidInput, NeedsAuth, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import MAX_REF_BYTES, WHOLE_SOURCE, Change, ChangeKind, Cursor, Extraction, Quota

_READS = 3
"""A file that changes while it is read is read so often, before it is left for later."""

_MAX_DEPTH = 100

_log = structlog.get_logger(__name__)


class FsspecConnector(Connector):
    """The files below a URL. A reference is the path below it, a scope a directory's path."""

    name = "fsspec"
    recommended = Recommended(quota=Quota(rate=20.0, burst=40.0, concurrency=4), window_ms=30_000, poll_interval_s=600.0)

    def __init__(self, store: Store, selection: Selection, max_bytes: int = 20_000_000, *, trusts_tokens: bool = True) -> None:
        self._store, self._selection, self._max_bytes, self._trusts = store, selection, max_bytes, trusts_tokens

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        """See docs/connectors/fsspec.md for the settings."""
        refuse_unknown(config, SETTINGS)
        selection = Selection(patterns_at(config, "include"), patterns_at(config, "exclude"))
        version = config.get("version", "auto")
        if version not in ("auto", "content"):
            raise InvalidInput("config.version", f"is {version!r}", "use one of auto, content")
        max_bytes = config.get("max_bytes", 20_000_000)
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
            raise InvalidInput("config.max_bytes", f"is {max_bytes!r}", "give a whole number, at least 1")
        return cls(Store(url_of(config), options_of(config, secret)), selection, max_bytes, trusts_tokens=version == "auto")

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        """List everything below `scope`: no filesystem of fsspec's keeps a record of changes, so `cursor` is not used."""
        del cursor
        root = scope if scope == WHOLE_SOURCE or scope.endswith("/") else scope + "/"
        complete = True
        todo = [root] if root == WHOLE_SOURCE or (is_ref(root[:-1]) and self._enters(root)) else []
        while todo:
            directory = todo.pop()
            try:
                entries = self._store.entries(directory)
            except ObjectGone as error:
                if directory == WHOLE_SOURCE:
                    raise SourceUnavailable(f"config.url: {error}") from error
                self._check_root()
                continue
            except ObjectUnreadable as error:
                if directory == WHOLE_SOURCE:
                    raise NeedsAuth(f"config.url: {error}") from error
                _log.warning("connectors.listing_incomplete", collection=directory, error=str(error))
                complete = False
                continue
            yield from (self._change(entry) for entry in entries if self._takes(entry))
            todo += [f"{entry.ref}/" for entry in entries if self._descends(entry)]
        yield Cursor(None, complete=complete)

    def version(self, ref: str) -> str | None:
        try:
            entry = self._look(ref)
            version = self._token(entry)
            if version is None and _is_too_long(entry, self._max_bytes):
                return unread_version(entry.info)
            return version or hash_of(self._store.read(ref, self._max_bytes))
        except ObjectGone:
            return None

    def fingerprint(self, ref: str) -> str | None:
        try:
            entry = self._look(ref)
        except ObjectGone:
            return None
        return None if self._token(entry) else fingerprint_of(entry.info)

    def extract(self, ref: str) -> Extraction:
        entry = self._look(ref)
        if _is_too_long(entry, self._max_bytes):
            version = self._token(entry) or unread_version(entry.info)
            raise ObjectUnreadable("too_large", f"has {entry.size} bytes, more than {self._max_bytes}", version=version)
        for _ in range(_READS):
            data = self._store.read(ref, self._max_bytes)
            after = self._look(ref)
            token = self._token(entry)
            if token == self._token(after) and (token or fingerprint_of(entry.info) == fingerprint_of(after.info)):
                return self._extraction(ref, data, token, None if token else fingerprint_of(entry.info))
            entry = after
        raise SourceUnavailable(f"{ref!r} changed each time while it was read")

    def scope_prefix(self, scope: str) -> str:
        return scope if scope == WHOLE_SOURCE or scope.endswith("/") else f"{scope}/"

    def take_cost(self) -> float:
        """Listings, looks and reads. See `Costly`."""
        return self._store.take_cost()

    def close(self) -> None:
        self._store.close()

    def _extraction(self, ref: str, data: bytes, token: str | None, fingerprint: str | None) -> Extraction:
        version = token or hash_of(data)
        name = ref.rpartition("/")[2].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        try:
            return Extraction([document(name, data)], version, fingerprint)
        except ObjectUnreadable as unreadable:
            raise ObjectUnreadable(
                unreadable.reason, unreadable.detail, version=version, fingerprint=fingerprint
            ) from unreadable

    def _look(self, ref: str) -> Entry:
        if not is_ref(ref) or not self._selection.selects(ref):
            raise ObjectGone(f"{ref!r} names no file of this source")
        return self._store.entry(ref)

    def _token(self, entry: Entry) -> str | None:
        return version_of(self._store.protocol, entry.info) if self._trusts else None

    def _change(self, entry: Entry) -> Change:
        token = self._token(entry)
        return Change(entry.ref, ChangeKind.UPDATED, token, None if token else fingerprint_of(entry.info))

    def _takes(self, entry: Entry) -> bool:
        fits = len(entry.ref.encode("utf-8", "surrogatepass")) <= MAX_REF_BYTES
        return entry.kind == "file" and fits and self._selection.selects(entry.ref)

    def _descends(self, entry: Entry) -> bool:
        return entry.kind == "directory" and entry.ref.count("/") < _MAX_DEPTH and self._enters(f"{entry.ref}/")

    def _enters(self, directory: str) -> bool:
        names = directory[:-1].split("/")
        return all(self._selection.enters("/".join(names[: depth + 1])) for depth in range(len(names)))

    def _check_root(self) -> None:
        """A directory that went while it was listed is gone, unless everything is."""
        try:
            self._store.entries(WHOLE_SOURCE)
        except (ObjectGone, ObjectUnreadable) as error:
            raise SourceUnavailable(f"config.url: {error}") from error


def _is_too_long(entry: Entry, max_bytes: int) -> bool:
    return entry.size is not None and entry.size > max_bytes
