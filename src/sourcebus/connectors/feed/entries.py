"""From a feed's bytes to its entries: RSS 0.9x to 2.0, RSS 1.0 (RDF) and Atom, through feedparser.

feedparser reads what is really out there: feeds that are not well-formed, name a wrong encoding or mix their vocabularies.
What it makes of HTML is not used; the text goes through the same converter as every other document's.
"""

from __future__ import annotations

import hashlib
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import feedparser

from sourcebus.connectors.documents import document
from sourcebus.errors import ObjectUnreadable, SourceUnavailable
from sourcebus.model import MAX_REF_BYTES, Document

_TOMBSTONE = "{http://purl.org/atompub/tombstones/1.0}deleted-entry"
_TEXTS = ("title", "link", "published", "updated", "author", "summary")
_PLAIN = ("text/plain", "")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `version` is a hash of all that a reader sees of it; counters of comments and the like are left out."""

    ref: str
    version: str
    title: str
    link: str
    contents: tuple[tuple[str, str], ...]
    """Media type and text of each: the contents, or else the summary."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def document(self) -> Document:
        """Its text. HTML is converted."""
        texts = [_text(media_type, content) for media_type, content in self.contents]
        text = "\n\n".join(text for text in texts if text.strip())
        return Document(text or self.title or self.link, self.title or self.link or self.ref, metadata=self.metadata)


@dataclass(frozen=True, slots=True)
class Feed:
    """What a feed shows: a window on its newest entries. `deleted` are those whose tombstone it holds (RFC 6721)."""

    entries: Mapping[str, Entry]
    deleted: frozenset[str]
    hubs: tuple[str, ...]
    topic: str | None
    """The address that the feed gives itself, under which a hub knows it."""


def parse(body: bytes) -> Feed:
    """The feed in `body`. SourceUnavailable where it is none: an error page, mostly."""
    if b"<!ENTITY" in body:
        raise SourceUnavailable("the feed declares entities, which no feed needs: they are not expanded")
    # As a stream: what looks like an address or a path would be opened.
    found = cast("Any", feedparser).parse(io.BytesIO(body), sanitize_html=False, resolve_relative_uris=False)
    if not found.get("version"):
        raise SourceUnavailable("this is no RSS and no Atom feed")
    entries: dict[str, Entry] = {}
    newest: dict[str, tuple[int, ...]] = {}
    for one in found.entries:
        raw: dict[str, Any] = dict(one)  # a plain one: feedparser's own guesses at keys that are not there
        entry, at = _entry(raw), tuple(raw.get("updated_parsed") or raw.get("published_parsed") or ())
        if entry.ref not in entries or at > newest[entry.ref]:  # several of one id are states of one entry (RFC 4287, 4.1.1)
            entries[entry.ref], newest[entry.ref] = entry, at
    links = [link for link in found.feed.get("links", ()) if link.get("href")]
    return Feed(
        entries=entries,
        deleted=frozenset(_tombstones(body)) - entries.keys(),
        hubs=tuple(link["href"] for link in links if link.get("rel") == "hub"),
        topic=next((link["href"] for link in links if link.get("rel") == "self"), None),
    )


def _entry(raw: Mapping[str, Any]) -> Entry:
    texts = {name: str(raw.get(name) or "") for name in _TEXTS}
    contents = tuple((str(one.get("type") or ""), str(one.get("value") or "")) for one in raw.get("content") or ())
    if not contents:
        detail: Mapping[str, Any] = raw.get("summary_detail") or {}
        contents = ((str(detail.get("type") or "text/html"), texts["summary"]),)
    tags = sorted(str(tag.get("term") or "") for tag in raw.get("tags") or ())
    files = [str(one.get("href") or "") for one in raw.get("links") or () if one.get("rel") == "enclosure"]
    seen = json.dumps([texts, contents, tags, files], ensure_ascii=True, sort_keys=True)
    version = hashlib.sha256(seen.encode()).hexdigest()
    metadata = {name: texts[name] for name in ("link", "published", "updated", "author") if texts[name]}
    if tags:
        metadata["tags"] = ", ".join(tags)
    return Entry(
        _ref(raw, texts, version), version, _text("text/html", texts["title"]).strip(), texts["link"], contents, metadata
    )


def _ref(raw: Mapping[str, Any], texts: Mapping[str, str], version: str) -> str:
    """Its id, or its link. An entry that has neither is another one with every change; so is one whose id is endless."""
    ref = str(raw.get("id") or "").strip() or texts["link"].strip() or f"sha256:{version}"
    too_long = len(ref.encode("utf-8", "surrogatepass")) > MAX_REF_BYTES
    return "sha256:" + hashlib.sha256(ref.encode("utf-8", "surrogatepass")).hexdigest() if too_long else ref


def _text(media_type: str, content: str) -> str:
    if media_type in _PLAIN or ("<" not in content and "&" not in content):
        return content.replace("\0", "")
    try:
        return document("entry.html", content.encode("utf-8", "replace")).text
    except ObjectUnreadable:
        return content.replace("\0", "")


def _tombstones(body: bytes) -> Iterator[str]:
    """The ids in ``at:deleted-entry`` elements, which feedparser keeps only one of."""
    if b"deleted-entry" not in body:
        return
    try:
        for _, element in ElementTree.iterparse(io.BytesIO(body)):
            if element.tag == _TOMBSTONE and (ref := element.get("ref", "").strip()):
                yield ref
    except ElementTree.ParseError:
        return  # not well-formed: nothing in it confirms a delete
