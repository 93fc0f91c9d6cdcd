"""A site with an Atom or RSS feed: a window on its newest entries, with validators, tombstones and a hub if it has one."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from email.utils import formatdate
from xml.sax.saxutils import escape, quoteattr

from sourcebus.testing.providers.server import Answer, Asked, ProviderServer


@dataclass(frozen=True, slots=True)
class Item:
    """An entry: `text` is HTML, `changed_s` Unix seconds."""

    id: str
    title: str
    text: str
    link: str
    changed_s: int


class FeedSite(ProviderServer):
    """The feed is at ``/feed``, each entry's page at ``/page/NAME``.

    `window` is how many entries the feed shows, newest first. `validator` is what it is asked conditionally by: ``etag``,
    ``modified`` (a time in whole seconds, as Last-Modified has it; `age_s` makes all look older) or None. `hub` is named in the
    feed and in a Link header.
    """

    def __init__(self, *, rss: bool = False, window: int = 50, validator: str | None = "etag", hub: str | None = None) -> None:
        super().__init__()
        self.rss, self.window, self.validator, self.hub = rss, window, validator, hub
        self.items: dict[str, Item] = {}
        self.tombstones: list[str] = []
        self.pages: dict[str, str] = {}
        self.age_s = 0
        self.feed_url = f"{self.url}/feed"
        self.on("GET", "/feed", self._feed)
        self.on("GET", "/page/(.*)", lambda asked: self._page(asked.args[0]))

    def write(self, name: str, text: str, *, title: str = "", page: str | None = None) -> str:
        """Publish or replace an entry. Answers its id."""
        ref = f"tag:example.org,2024:{name}"
        with self.lock:
            self.tombstones = [gone for gone in self.tombstones if gone != ref]
            self.items.pop(ref, None)
            self.items = {ref: Item(ref, title or name, text, f"{self.url}/page/{name}", int(time.time())), **self.items}
            if page is not None:
                self.pages[name] = page
        return ref

    def delete(self, ref: str) -> None:
        """Remove an entry and leave its tombstone (RFC 6721)."""
        with self.lock:
            del self.items[ref]
            self.tombstones.append(ref)

    def body(self) -> bytes:
        """The feed as it is now."""
        with self.lock:
            shown = [*self.items.values()][: self.window]
            return (self._rss(shown) if self.rss else self._atom(shown)).encode()

    def link(self) -> str:
        """The ``Link`` header that tells of the hub."""
        return f'<{self.hub}>; rel="hub", <{self.feed_url}>; rel="self"'

    def _feed(self, asked: Asked) -> Answer:
        body, headers = self.body(), {"Content-Type": "application/rss+xml" if self.rss else "application/atom+xml"}
        if self.hub:
            headers["Link"] = self.link()
        if self.validator == "etag":
            headers["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            if asked.headers.get("if-none-match") == headers["ETag"]:
                return Answer(304, b"", headers)
        if self.validator == "modified":
            changed_s = max((item.changed_s for item in self.items.values()), default=0) - self.age_s
            headers["Last-Modified"] = formatdate(changed_s, usegmt=True)
            if asked.headers.get("if-modified-since") == headers["Last-Modified"]:
                return Answer(304, b"", headers)
        return Answer(200, body, headers)

    def _page(self, name: str) -> Answer:
        page = self.pages.get(name)
        return Answer(404) if page is None else Answer(200, page.encode(), {"Content-Type": "text/html; charset=utf-8"})

    def _atom(self, shown: list[Item]) -> str:
        links = f'<link rel="self" href={quoteattr(self.feed_url)}/>'
        links += f'<link rel="hub" href={quoteattr(self.hub)}/>' if self.hub else ""
        gone = "".join(f'<at:deleted-entry ref={quoteattr(ref)} when="2024-01-01T00:00:00Z"/>' for ref in self.tombstones)
        entries = "".join(
            f"<entry><id>{escape(item.id)}</id><title>{escape(item.title)}</title><link href={quoteattr(item.link)}/>"
            f'<updated>2024-01-01T00:00:00Z</updated><content type="html">{escape(item.text)}</content></entry>'
            for item in shown
        )
        spaces = 'xmlns="http://www.w3.org/2005/Atom" xmlns:at="http://purl.org/atompub/tombstones/1.0"'
        return f'<?xml version="1.0"?><feed {spaces}><id>{self.url}</id><title>Site</title>{links}{gone}{entries}</feed>'

    def _rss(self, shown: list[Item]) -> str:
        link = f'<atom:link rel="hub" href={quoteattr(self.hub)}/>' if self.hub else ""
        link += f'<atom:link rel="self" href={quoteattr(self.feed_url)}/>'
        items = "".join(
            f'<item><guid isPermaLink="false">{escape(item.id)}</guid><title>{escape(item.title)}</title>'
            f"<link>{escape(item.link)}</link><description>{escape(item.text)}</description></item>"
            for item in shown
        )
        atom = 'xmlns:atom="http://www.w3.org/2005/Atom"'
        return f'<?xml version="1.0"?><rss version="2.0" {atom}><channel><title>Site</title>{link}{items}</channel></rss>'
