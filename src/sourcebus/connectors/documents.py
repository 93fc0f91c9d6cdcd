"""From an object's bytes to a searchable document, for every connector whose objects are files.

Text and code are decoded here. PDF, office files, EPUB and HTML go through MarkItDown, which is imported when the first of
them turns up (it takes two seconds). What a file *is* follows from its first bytes; its name only settles the rest.
"""

from __future__ import annotations

import codecs
import io
import mimetypes
import re
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sourcebus.errors import ObjectUnreadable
from sourcebus.model import Document

if TYPE_CHECKING:
    from markitdown import DocumentConverter

MAX_UNPACKED_BYTES = 256_000_000
"""An office file that unpacks to more than this is not opened (a 42 kB "zip bomb" can unpack to petabytes)."""

MAX_UNPACK_RATIO = 200
"""Nor one that unpacks to this many times its size, once that is over 10 MB. Real office files reach about 20."""

MAX_ENTRIES = 20_000

_SAMPLE = 8_192
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b")) + b"\x7f"
_ASCII = bytes(range(128))
_WESTERN = "äöüÄÖÜßéèêëÉàâçñóíúáîïôûåøÅØæÆœ«»„“”’–·§°´€".encode("cp1252")
_MARKUP = (".md", ".markdown", ".mdx", ".rst", ".txt", ".adoc")
_HTML = (".html", ".htm", ".xhtml")
_OFFICE = {"word/": ".docx", "ppt/": ".pptx", "xl/": ".xlsx"}


def document(name: str, data: bytes) -> Document:
    """The document in a file of this name. Raises `ObjectUnreadable`: ``binary``, ``broken``, ``too_large`` (unpacked)."""
    suffix = _suffix(name)
    if data.startswith(b"%PDF-"):
        return _converted(name, data, ".pdf")
    if data.startswith(b"PK\x03\x04"):
        return _converted(name, data, _check_archive(data))
    text, encoding = decode(data)
    if suffix in _HTML:
        return _converted(name, text.encode("utf-8", "replace"), ".html", charset="utf-8")
    if suffix == ".ipynb":
        return _converted(name, data, ".ipynb", charset="utf-8")
    title = _heading(text) if suffix in _MARKUP else ""
    media_type = mimetypes.guess_type(name)[0] or "text/plain"
    return Document(text, title or name, media_type=media_type, metadata={"bytes": len(data), "encoding": encoding})


def decode(data: bytes) -> tuple[str, str]:
    """The text, and the encoding it was found to be in. Raises `ObjectUnreadable` (``binary``) for what is no text."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _clean(data.decode(encoding, "replace")), encoding.removesuffix("-sig")
    sample = data[:_SAMPLE]
    if b"\0" in sample:
        return _wide(data, sample)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _legacy(data, sample)
    if _control_share(sample) > 0.1 or "\0" in text:
        raise _binary("too many control characters for a text")
    return text, "utf-8"


def _wide(data: bytes, sample: bytes) -> tuple[str, str]:
    """UTF-16 without a byte order mark: of Latin letters every other byte is zero."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(data) % 2 == 0 and max(even, odd) > 0.4 * len(sample) / 2 and min(even, odd) * 20 < len(sample):
        encoding = "utf-16-be" if even > odd else "utf-16-le"
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            raise _binary("has NUL bytes") from None
        if sum(char < " " and char not in "\t\n\r\f" for char in text[:_SAMPLE]) * 20 < len(text[:_SAMPLE]):
            return text, encoding
    raise _binary("has NUL bytes")


def _legacy(data: bytes, sample: bytes) -> tuple[str, str]:
    """Not UTF-8: mostly UTF-8 with a few broken bytes, or an older encoding."""
    if _control_share(sample) > 0.05 or b"\0" in data:
        raise _binary("is neither UTF-8 nor a text in an older encoding")
    repaired = data.decode("utf-8", "replace")
    broken = repaired.count("\N{REPLACEMENT CHARACTER}")
    whole = sum(len(run) for run in re.findall(r"[^\x00-\x7f\ufffd]+", repaired[: 8 * _SAMPLE]))
    if whole > broken:
        return repaired, "utf-8 (damaged)"
    encoding = _guess(data)
    return data.decode(encoding, "replace"), encoding


def _guess(data: bytes) -> str:
    # The lines with foreign bytes tell the encoding; the ASCII around them only costs time.
    telling = b"\n".join(line for line in data[: 64 * _SAMPLE].split(b"\n") if not line.isascii())[: 4 * _SAMPLE]
    foreign = telling.translate(None, _ASCII)
    western = len(foreign) - len(foreign.translate(None, _WESTERN))
    if len(foreign) < 0.25 * len(telling) and western >= 0.9 * len(foreign):
        return "cp1252"  # few foreign letters and all of them Western; what is asked below often takes them for Turkish
    from charset_normalizer import from_bytes  # here, because it is rarely needed and slow to import

    best = from_bytes(telling).best()
    return best.encoding if best is not None else "latin-1"


def _control_share(sample: bytes) -> float:
    return 1 - len(sample.translate(None, _CONTROL)) / len(sample) if sample else 0.0


def _binary(detail: str) -> ObjectUnreadable:
    return ObjectUnreadable("binary", detail)


def _check_archive(data: bytes) -> str:
    """What kind of office file a zip archive is. Raises for other archives, damaged ones and bombs."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            kind = archive.read("mimetype")[:64] if _small(archive, "mimetype") else b""
    except Exception as error:  # zipfile raises half a dozen types for damaged archives
        raise ObjectUnreadable("broken", f"is a damaged archive ({type(error).__name__}: {error})") from error
    unpacked = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ENTRIES or unpacked > MAX_UNPACKED_BYTES:
        raise ObjectUnreadable("too_large", f"unpacks to {unpacked} bytes in {len(entries)} parts")
    if unpacked > 10_000_000 and unpacked > MAX_UNPACK_RATIO * len(data):
        raise ObjectUnreadable("too_large", f"unpacks to {unpacked // len(data)} times its size")
    if kind.startswith(b"application/epub"):
        return ".epub"
    for prefix, suffix in _OFFICE.items():
        if any(entry.filename.startswith(prefix) for entry in entries):
            return suffix
    raise _binary("is an archive")


def _small(archive: zipfile.ZipFile, name: str) -> bool:
    return name in archive.NameToInfo and archive.getinfo(name).file_size < 1_000


def _converted(name: str, data: bytes, suffix: str, *, charset: str | None = None) -> Document:
    from markitdown import StreamInfo

    try:
        result = _converter(suffix).convert(io.BytesIO(data), StreamInfo(extension=suffix, filename=name, charset=charset))
        text, title = _clean(result.markdown), _clean(result.title or "").strip()
    except Exception as error:  # whatever a damaged file makes a parser raise, RecursionError included
        raise ObjectUnreadable("broken", f"cannot be converted ({type(error).__name__}: {error})"[:500]) from error
    media_type = mimetypes.guess_type(f"x{suffix}")[0] or "application/octet-stream"
    return Document(text, title or _heading(text) or name, media_type=media_type, metadata={"bytes": len(data)})


def _converter(suffix: str) -> DocumentConverter:
    """MarkItDown's converter itself: its front end would guess again, with a neural network, what is known already."""
    from markitdown import converters

    kinds: dict[str, Callable[[], Any]] = {
        ".pdf": converters.PdfConverter,
        ".docx": converters.DocxConverter,
        ".pptx": converters.PptxConverter,
        ".xlsx": converters.XlsxConverter,
        ".epub": converters.EpubConverter,
        ".html": converters.HtmlConverter,
        ".ipynb": converters.IpynbConverter,
    }
    return kinds[suffix]()


def _heading(text: str) -> str:
    """The title in the front matter, else the first heading among the first lines: ``# Title``, or an underlined line."""
    start = text[:_SAMPLE]
    if front := re.match(r"---\r?\n(.*?)\n---\r?\n", start, re.DOTALL):
        if named := re.search(r"""^title:\s*["']?(.+?)["']?\s*$""", front[1], re.MULTILINE):
            return named[1][:300]
        start = start[front.end() :]
    lines = start.splitlines()[:60]
    for at, line in enumerate(lines):
        if match := re.match(r"#{1,3}\s+(.+?)\s*#*$", line):
            return match[1][:300]
        below = lines[at + 1] if at + 1 < len(lines) else ""
        if line.strip() and re.fullmatch(r"(=|-|\*){3,}\s*", below) and not re.match(r"[\s\-=*|]", line):
            return line.strip()[:300]
    return ""


def _suffix(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def _clean(text: str) -> str:
    """Without NUL, which no database stores as text."""
    return text.replace("\0", "")
