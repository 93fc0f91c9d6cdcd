"""What comes of a connector's changes: one listing, and an index that is kept by them as the product keeps its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sourcebus.connectors import Connector
from sourcebus.errors import CursorExpired, ObjectGone, ObjectUnreadable
from sourcebus.model import MAX_REF_BYTES, WHOLE_SOURCE, Change, ChangeKind, Cursor


@dataclass
class Pass:
    """What one listing said: the objects that are there, those it called deleted, the last cursor, and if it was complete."""

    found: dict[str, Change] = field(default_factory=dict[str, Change])
    deleted: set[str] = field(default_factory=set[str])
    cursor: str | None = None
    complete: bool = False


def listing(connector: Connector, cursor: str | None = None, scope: str = WHOLE_SOURCE) -> Pass:
    """One pass of `changes`, checked for what holds of every listing."""
    result, ended = Pass(), False
    for item in connector.changes(cursor, scope):
        if isinstance(item, Cursor):
            result.cursor, result.complete, ended = item.value, result.complete or item.complete, True
            continue
        ended = False
        ref = item.object_ref
        assert isinstance(ref, str), f"{ref!r} is no text"
        assert ref or item.change_kind is ChangeKind.SCAN, "an object needs a name"
        assert len(ref.encode("utf-8", "surrogatepass")) <= MAX_REF_BYTES, f"{ref[:80]!r}… is too long"
        if item.change_kind is ChangeKind.DELETED:
            result.deleted.add(ref)
            result.found.pop(ref, None)
        else:
            result.deleted.discard(ref)
            result.found[ref] = item
    assert ended, "a listing ends with a Cursor"
    return result


class Index:
    """A consumer in memory. Keeps the text and the version of each object, and the cursor of each scope.

    A change is never believed: it only says which object to look at, or which scope to list. What a complete listing leaves out
    is looked at too, and goes only if the source confirms it (DESIGN §6 and §7).
    """

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.texts: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.cursors: dict[str, str | None] = {}

    def take(self, changes: Iterable[Change]) -> None:
        """Follow what a delivery, a watch or a listing says."""
        for change in changes:
            if change.change_kind is ChangeKind.SCAN:
                self.scan(change.object_ref)
            else:
                self.look(change.object_ref)

    def look(self, ref: str) -> None:
        """Bring one object up to date. An object that cannot be read keeps its version and loses its text."""
        try:
            version = self.connector.version(ref)
            if version is None:
                self._drop(ref)
            elif version != self.versions.get(ref):
                extraction = self.connector.extract(ref)
                self.texts[ref] = "\n".join(document.text for document in extraction.documents)
                self.versions[ref] = extraction.version
        except ObjectGone:
            self._drop(ref)
        except ObjectUnreadable as error:
            self.texts.pop(ref, None)
            self.versions[ref] = error.version or ""

    def scan(self, scope: str = WHOLE_SOURCE, *, anew: bool = False) -> None:
        """List a scope, from its cursor if it has one; `anew`: all of it, as a reconcile pass does.

        A listing that fails leaves what it has brought so far, and its last cursor.
        """
        listed: set[str] = set()
        complete = False
        try:
            for item in self.connector.changes(None if anew else self.cursors.get(scope), scope):
                if isinstance(item, Cursor):
                    self.cursors[scope], complete = item.value, complete or item.complete
                else:
                    listed.add(item.object_ref)
                    self.take([item])
        except CursorExpired:
            assert not anew, "a listing without a cursor has none that could expire"
            self.scan(scope, anew=True)
            return
        prefix = WHOLE_SOURCE if scope == WHOLE_SOURCE else self.connector.scope_prefix(scope)
        for ref in [ref for ref in self.versions if complete and ref.startswith(prefix) and ref not in listed]:
            self.look(ref)

    def _drop(self, ref: str) -> None:
        self.texts.pop(ref, None)
        self.versions.pop(ref, None)
