"""Calendar entries and contacts as text: iCalendar (RFC 5545) and vCard (RFC 6350), which share their content lines."""

from __future__ import annotations

import re

from sourcebus.connectors.documents import decode
from sourcebus.model import Document

CARD_TYPES = ("text/calendar", "text/vcard", "text/x-vcard", "text/directory")
CARD_SUFFIXES = (".ics", ".ifb", ".vcf", ".vcard")

_LINE = re.compile(r"(?:[\w-]+\.)?(?P<name>[\w-]+)(?P<parameters>(?:;(?:[^:;\"]|\"[^\"]*\")*)*):(?P<value>.*)", re.DOTALL)
_TITLES = ("SUMMARY", "FN")
_MACHINE = frozenset(
    (
        "BEGIN", "END", "VERSION", "PRODID", "UID", "DTSTAMP", "CREATED", "LAST-MODIFIED", "REV", "SEQUENCE", "CALSCALE",
        "METHOD", "TRANSP", "CLASS", "N", "PHOTO", "LOGO", "SOUND", "KEY", "TRIGGER", "ACTION", "TZID", "TZOFFSETFROM",
        "TZOFFSETTO", "TZNAME", "TZURL",
    )
)  # fmt: skip
"""Properties that say nothing to a reader, or say it in binary."""

_ESCAPES = {"\\n": "\n", "\\N": "\n"}


def card(name: str, data: bytes) -> Document:
    """The document of an .ics or .vcf file: one line a property, titled by the first summary or full name.

    Raises `ObjectUnreadable` (``binary``). A file that is neither of the two comes back as the text that it is.
    """
    text, encoding = decode(data)
    media_type = "text/vcard" if "BEGIN:VCARD" in text[:4_096].upper() else "text/calendar"
    lines = [line for line in map(_property, _unfolded(text)) if line]
    title = next((value for wanted in _TITLES for key, value in lines if key == wanted), name)
    shown = "\n".join(f"{key.replace('-', ' ').capitalize()}: {value}" for key, value in lines)
    return Document(shown or text, title[:300], media_type=media_type, metadata={"bytes": len(data), "encoding": encoding})


def _unfolded(text: str) -> list[str]:
    """A line that begins with white space goes on from the one before (RFC 5545 §3.1)."""
    return re.sub(r"\r?\n[ \t]", "", text).splitlines()


def _property(line: str) -> tuple[str, str] | None:
    match = _LINE.fullmatch(line)
    if match is None or match["name"].upper() in _MACHINE or match["name"].upper().startswith("X-"):
        return None
    if "ENCODING=B" in match["parameters"].upper() or match["value"].startswith("data:"):
        return None
    value = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[0], found[1]), match["value"]).strip()
    return (match["name"].upper(), value) if value.strip(";") else None
