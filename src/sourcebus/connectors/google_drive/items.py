"""A file of Drive's: whether it is an object here, and how its states are told apart.

Version and fingerprint: docs/decisions/0009-google-drive-versions.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import md5, sha256
from typing import Any, cast

from sourcebus.model import Document

JsonFile = Mapping[str, Any]

FIELDS = (
    "id,name,mimeType,trashed,parents,driveId,ownedByMe,version,headRevisionId,"
    "md5Checksum,sha256Checksum,size,modifiedTime,webViewLink"
)
"""The properties that are asked for, everywhere the same: a listing then gives the version that a look gives."""

FOLDER = "application/vnd.google-apps.folder"

_APPS = "application/vnd.google-apps."
EXPORTS = {
    f"{_APPS}document": ("text/markdown", ".md"),
    f"{_APPS}spreadsheet": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xlsx"),
    f"{_APPS}presentation": ("text/plain", ".txt"),
}
"""What Google's own documents are exported as: the format with the most text that is not drawn. CSV has one sheet only."""

_HASHES: Sequence[tuple[str, str, Callable[[bytes], Any]]] = (
    ("sha256Checksum", "sha256", sha256),
    ("md5Checksum", "md5", lambda data: md5(data, usedforsecurity=False)),
)
_PICTURES = re.compile(r"^\[[^\]\n]+\]:\s*<data:[^>\n]*>[ \t]*$\n?", re.MULTILINE)


def is_folder(file: JsonFile) -> bool:
    return file.get("mimeType") == FOLDER


def is_exported(file: JsonFile) -> bool:
    """One of Google's own documents, which has no bytes but can be exported as text."""
    return file.get("mimeType") in EXPORTS


def is_object(file: JsonFile) -> bool:
    """It has a text: not a folder, a shortcut (its target is a file of its own), a form, a map, a site or a drawing."""
    return is_exported(file) or not str(file.get("mimeType", "")).startswith(_APPS)


def is_trashed(file: JsonFile) -> bool:
    """It, or a folder above it, lies in the bin."""
    return bool(file.get("trashed"))


def parent_of(file: JsonFile) -> str | None:
    """The id of the folder that the file lies in (there is one at most); None where we may not see it."""
    parents = file.get("parents")
    return str(cast("list[Any]", parents)[0]) if isinstance(parents, list) and parents else None


def fingerprint_of(file: JsonFile) -> str | None:
    """Google's count of all changes to the file, views and shares among them: equal means unchanged, unequal means little."""
    return f"v{file['version']}" if file.get("version") else None


def version_of(file: JsonFile) -> str | None:
    """The strong version of a file with bytes; None for Google's own documents, whose text alone tells (`version_of_text`)."""
    if is_exported(file):
        return None
    for name, algorithm, _make in _HASHES:
        if file.get(name):
            return _version(f"{algorithm}:{file[name]}", file)
    return _version(f"rev:{file.get('headRevisionId') or file.get('version')}", file)


def version_of_bytes(file: JsonFile, data: bytes) -> str:
    """The version of these bytes, in the same form as the file's own."""
    for name, algorithm, make in _HASHES:
        if file.get(name):
            return _version(f"{algorithm}:{make(data).hexdigest()}", file)
    return version_of(file) or ""


def version_of_text(file: JsonFile, made: Document) -> str:
    """The version of an exported document."""
    return _version(f"text:{sha256(made.text.encode('utf-8', 'surrogatepass')).hexdigest()}", file)


def version_unread(file: JsonFile, reason: str) -> str:
    """Of a state that cannot be read: it is tried again when anything about the file has changed."""
    return f"{reason}|{file.get('version', '')}"


def without_pictures(text: str) -> str:
    """Exported Markdown carries its pictures as base64 at its end: nothing to search for, and most of the bytes."""
    return _PICTURES.sub("", text)


def _version(content: str, file: JsonFile) -> str:
    name = f"{file.get('name', '')}\n{file.get('mimeType', '')}"
    return f"{content}|{sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
