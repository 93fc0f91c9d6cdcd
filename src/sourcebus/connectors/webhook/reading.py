"""Getting at objects: by HTTP, as configured, or from the depot where they came in deliveries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol, cast
from urllib.parse import quote

import httpx

from sourcebus.connectors.base import Depot
from sourcebus.connectors.documents import document
from sourcebus.connectors.http import Api
from sourcebus.connectors.webhook.payload import find
from sourcebus.connectors.webhook.settings import Listing, Read
from sourcebus.errors import ConnectorError, ObjectGone, ObjectUnreadable, SourceUnavailable
from sourcebus.model import Change, Content, Cursor, Document, Extraction

_SUFFIXES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "application/pdf": ".pdf",
    "application/json": ".json",
}
_MOST_PAGES = 100_000
_NOT_BY_HEAD = (404, 405, 410, 501)  # servers without HEAD answer so; that an object is gone is only believed of GET


class Reader(Protocol):
    """The half of a `Connector` that gets objects; see there."""

    def changes(self, scope: str) -> Iterator[Change | Cursor]: ...

    def version(self, ref: str) -> str | None: ...

    def extract(self, ref: str) -> Extraction: ...


class HttpReader:
    """Reads by the configured URL. The reference fills a place in the path or query, so it cannot lead to another server."""

    def __init__(self, read: Read, listing: Listing | None, authorization: str | None) -> None:
        self._read, self._listing = read, listing
        headers = {"Authorization": authorization} if authorization else {}
        base = read.url if read.url != "{ref}" else (listing.url if listing else "http://invalid.invalid")
        self.api = Api(_origin(base), headers=headers, trusted=(_origin(listing.url),) if listing else ())

    def version(self, ref: str) -> str | None:
        try:
            return self._version_of(self._get(ref, head=self._head_tells()))
        except ObjectGone:
            return None

    def extract(self, ref: str) -> Extraction:
        response = self._get(ref)
        version = self._version_of(response)
        return Extraction([self._document(ref, response)], version)

    def changes(self, scope: str) -> Iterator[Change | Cursor]:
        listing = self._listing
        if listing is None:
            yield Cursor(None)  # nothing can be listed, so absence says nothing
            return
        url = listing.url
        for _ in range(_MOST_PAGES):
            page = self._asked(url)
            for item in cast("list[object]", find(listing.items, page, "config.list.items") or []):
                change = self._listed(listing, item)
                if change.object_ref.startswith(scope):
                    yield change
            following = find(listing.next, page, "config.list.next")
            if not following:
                yield Cursor(None, complete=True)
                return
            url = str(httpx.URL(url).join(str(following)))
        raise SourceUnavailable(f"the listing does not end after {_MOST_PAGES} pages")

    def _asked(self, url: str) -> Any:
        try:
            return self.api.json("GET", url)
        except (ObjectGone, ObjectUnreadable) as error:  # of the listing itself: it says nothing of any object
            raise SourceUnavailable(f"the listing: {error}") from error

    @staticmethod
    def _listed(listing: Listing, item: object) -> Change:
        ref, version = find(listing.ref, item, "config.list.ref"), find(listing.version, item, "config.list.version")
        if isinstance(ref, bool) or not isinstance(ref, (str, int)) or ref == "":
            raise SourceUnavailable(f"config.list.ref finds {ref!r:.80} in an item of the listing, no reference")
        return Change(str(ref), version=None if version is None else str(version))

    def _get(self, ref: str, *, head: bool = False) -> httpx.Response:
        url, headers = self._url(ref), self._read.headers
        if head:
            response = self.api.call("HEAD", url, headers=headers, accept=_NOT_BY_HEAD)
            if response.status_code not in _NOT_BY_HEAD:
                return response
        return self.api.call("GET", url, headers=headers)

    def _url(self, ref: str) -> str:
        try:
            whole = quote(ref, safe="")
            path = quote(ref, safe="/")
        except UnicodeEncodeError:
            raise ObjectGone(f"{ref!r} is no text that a URL can hold") from None
        if self._read.url == "{ref}":
            if not ref.startswith(("http://", "https://")):
                raise ObjectGone(f"{ref!r:.80} is no http(s) URL")
            return ref
        if any(part in ("", ".", "..") for part in ref.split("/")) and ("{path}" in self._read.url or ref in (".", "..", "")):
            raise ObjectGone(f"{ref!r:.80} is no path below the configured URL")
        return self._read.url.replace("{ref}", whole).replace("{path}", path)

    def _head_tells(self) -> bool:
        return self._read.version_header is not None and self._read.version is None

    def _version_of(self, response: httpx.Response) -> str:
        """Header, expression, or a hash of the content. A weak ETag (W/) proves nothing (RFC 9110 §8.8.1)."""
        if self._read.version is not None:
            found = find(self._read.version, _json(response), "config.read.version")
            if isinstance(found, (str, int, float)) and not isinstance(found, bool):
                return str(found)
        elif self._read.version_header is not None:
            value = response.headers.get(self._read.version_header, "")
            if value and not value.startswith("W/"):
                return value
        if response.request.method == "HEAD":
            response = self.api.call("GET", str(response.request.url), headers=self._read.headers)
        return "sha256:" + hashlib.sha256(response.content).hexdigest()

    def _document(self, ref: str, response: httpx.Response) -> Document:
        media_type = self._read.media_type or response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self._read.text is not None:
            payload = _json(response)
            text, title = (
                find(self._read.text, payload, "config.read.text"),
                find(self._read.title, payload, "config.read.title"),
            )
            if not isinstance(text, str):
                raise ObjectUnreadable("no_text", f"config.read.text finds {type(text).__name__} in the answer, no text")
            return shown(ref, text.encode("utf-8", "replace"), str(title or ""), self._read.media_type or "text/plain")
        return shown(ref, response.content, "", media_type)


class DepotReader:
    """Reads what came in deliveries. What the depot does not have never was, or is gone."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    def version(self, ref: str) -> str | None:
        content = self._depot.get(ref)
        return None if content is None or content.body is None else content.version

    def extract(self, ref: str) -> Extraction:
        content = self._depot.get(ref)
        if content is None or content.body is None:
            raise ObjectGone(f"no delivery brought {ref!r:.80}, or the last one took it away")
        return Extraction([_opened(content, content.body)], content.version)

    def changes(self, scope: str) -> Iterator[Change | Cursor]:
        for ref, version in self._depot.refs():
            if ref.startswith(scope):
                yield Change(ref, version=version)
        yield Cursor(None, complete=True)


def _opened(content: Content, body: bytes) -> Document:
    return shown(content.object_ref, body, content.title, content.media_type)


def shown(ref: str, body: bytes, title: str, media_type: str) -> Document:
    """Bytes as a document: what its type says, else what its name and bytes say. ObjectUnreadable."""
    name = ref.rsplit("/", 1)[-1]
    suffix = _SUFFIXES.get(media_type, "")
    made = document(name if name.lower().endswith(suffix) else name + suffix, body)
    return Document(
        made.text, title or (ref if made.title == name + suffix else made.title), "", made.media_type, made.metadata
    )


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise ConnectorError(f"{response.request.url.copy_with(query=None)}: the answer is no JSON") from None


def _origin(url: str) -> str:
    parts = httpx.URL(url.replace("{", "%7B").replace("}", "%7D"))
    return str(parts.copy_with(path="/", query=None, fragment=None))
