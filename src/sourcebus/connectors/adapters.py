"""Plug in extractors that exist already, without changing them: plain callables, Celery tasks, LlamaIndex readers, LangChain
loaders."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, Self, runtime_checkable

from sourcebus.connectors.base import Connector, Recommended, refuse_unknown
from sourcebus.errors import ConnectorError, ObjectGone
from sourcebus.model import WHOLE_SOURCE, Change, ChangeKind, Cursor, Document, Extraction

Listed = str | tuple[str, str] | Change
"""What a listing may yield for one object: its reference, (reference, version), or a whole `Change`."""


@runtime_checkable
class LlamaIndexDocument(Protocol):
    """A LlamaIndex ``Document`` or node, as far as it is looked at."""

    metadata: dict[str, Any]

    def get_content(self) -> str: ...


@runtime_checkable
class LangChainDocument(Protocol):
    """A LangChain ``Document``, as far as it is looked at."""

    metadata: dict[str, Any]
    page_content: str


Text = str | Document | LlamaIndexDocument | LangChainDocument

Extracted = Text | Extraction | Sequence[Text] | Iterator[Text] | None
"""What an extractor may return: text, documents (ours, LlamaIndex's or LangChain's), an `Extraction`, or None where it stored
the text elsewhere itself."""


def connector_from(
    *,
    list: Callable[[], Iterable[Listed]],
    extract: Callable[[str], Extracted],
    version: Callable[[str], str | None] | None = None,
    name: str = "callables",
    recommended: Recommended | None = None,
    gone_on: tuple[type[Exception], ...] = (FileNotFoundError,),
) -> Connector:
    """A connector made of plain callables.

    `list()` gives every object of the source. `extract(ref)` reads one. `version(ref)` gives its strong version, None if it
    is gone. Without it the version is the one that `list` gives beside the reference (then each event looks through the
    listing until it finds its object), or else a hash of what `extract` returns (then each event extracts).

    An exception of a type in `gone_on` means that the object does not exist any more. `ConnectorError`s pass through; all
    others count as faults that may pass, and the event is tried again.
    """
    return _Callables(list, extract, version, name, recommended or Recommended(), gone_on)


def extract_with_task(
    task: Callable[..., Any],
    *,
    args: Callable[[str], Sequence[Any]] = lambda ref: (ref,),
    kwargs: Callable[[str], Mapping[str, Any]] | None = None,
) -> Callable[[str], Any]:
    """An `extract` for `connector_from` that runs a Celery task that a team already has.

    The task is called in this process (``task(*args)``): nothing is queued a second time, a bound `self` and `self.request`
    work, and `self.retry(exc=...)` raises its exception to the bus, which backs off and counts attempts for all sources alike.
    `args` and `kwargs` map the object's reference to the task's own arguments.
    """

    binding = threading.Lock()

    def extract(ref: str) -> Any:
        with binding:  # a task is bound to its app by the first touch, and Celery does not expect several threads to do that
            getattr(task, "name", None)
        return task(*args(ref), **(kwargs(ref) if kwargs else {}))

    return extract


def celery_task_connector(
    task: Callable[..., Any],
    *,
    list: Callable[[], Iterable[Listed]],
    version: Callable[[str], str | None] | None = None,
    args: Callable[[str], Sequence[Any]] = lambda ref: (ref,),
    kwargs: Callable[[str], Mapping[str, Any]] | None = None,
    name: str = "celery_task",
    recommended: Recommended | None = None,
    gone_on: tuple[type[Exception], ...] = (FileNotFoundError,),
) -> Connector:
    """A connector around a Celery task: `connector_from` with `extract_with_task`."""
    return connector_from(
        list=list,
        extract=extract_with_task(task, args=args, kwargs=kwargs),
        version=version,
        name=name,
        recommended=recommended,
        gone_on=gone_on,
    )


def connector_from_loader(
    load: Callable[[], Iterable[LlamaIndexDocument | LangChainDocument]],
    *,
    ref: Callable[[Any], str],
    name: str = "loader",
    recommended: Recommended | None = None,
) -> Connector:
    """A connector made of something that only loads everything: a LlamaIndex reader's ``load_data``, a LangChain loader's
    ``lazy_load``.

    `ref` names the object that a document belongs to (``lambda document: document.metadata["source"]``); several documents
    of one object become its parts. The version is a hash of what was loaded. Each look at an object loads everything, so it is
    for small sources: where one object can be loaded by itself, `connector_from` is the better way.
    """

    def listed() -> Iterator[str]:
        yield from dict.fromkeys(ref(document) for document in load())

    def extract(wanted: str) -> list[Text]:
        found: list[Text] = [document for document in load() if ref(document) == wanted]
        if not found:
            raise ObjectGone(f"{wanted!r} was not loaded")
        return found

    def version(wanted: str) -> str | None:
        try:
            return _content_hash(_documents(extract(wanted)))
        except ObjectGone:
            return None

    return connector_from(list=listed, extract=extract, version=version, name=name, recommended=recommended)


class _Callables(Connector):
    def __init__(
        self,
        listing: Callable[[], Iterable[Listed]],
        extract: Callable[[str], Extracted],
        version: Callable[[str], str | None] | None,
        name: str,
        recommended: Recommended,
        gone_on: tuple[type[Exception], ...],
    ) -> None:
        self.name, self.recommended = name, recommended
        self._listing, self._extract, self._version, self._gone_on = listing, extract, version, gone_on

    @classmethod
    def create(cls, config: Mapping[str, Any], secret: str | None) -> Self:
        del secret
        refuse_unknown(config, ())
        raise ConnectorError("callables do not travel in a config: build it with connector_from and register the result")

    def changes(self, cursor: str | None, scope: str = WHOLE_SOURCE) -> Iterator[Change | Cursor]:
        del cursor  # always lists everything
        for item in self._listing():
            change = _change(item)
            if change.object_ref.startswith(scope):
                yield change
        yield Cursor(None, complete=True)

    def version(self, ref: str) -> str | None:
        try:
            with self._gone(ref):
                return self._source_version(ref) or self._read(ref, None).version
        except ObjectGone:
            return None

    def extract(self, ref: str) -> Extraction:
        with self._gone(ref):
            # The version is taken first: if the object changes in between, the stored version is too old, never too new.
            return self._read(ref, self._source_version(ref))

    def _source_version(self, ref: str) -> str | None:
        """The version that the source itself gives; None if it gives none at all. Raises `ObjectGone`."""
        if self._version is not None:
            version = self._version(ref)
            if version is None:
                raise ObjectGone(f"version({ref!r}) says that it is gone")
            return version
        for item in self._listing():
            change = _change(item)
            if change.object_ref == ref:
                if change.change_kind is ChangeKind.DELETED:
                    break
                return change.version
        raise ObjectGone(f"{ref!r} is not in the listing")

    def _read(self, ref: str, version: str | None) -> Extraction:
        got = self._extract(ref)
        if isinstance(got, Extraction):
            return Extraction(got.documents, version or got.version, got.fingerprint)
        if got is None and version is None:
            raise ConnectorError("extract returned nothing and the source gives no versions: pass version= to connector_from")
        documents = _documents(got)
        return Extraction(documents, version or _content_hash(documents))

    @contextmanager
    def _gone(self, ref: str) -> Generator[None]:
        try:
            yield
        except self._gone_on as error:
            raise ObjectGone(f"{ref!r} is gone ({type(error).__name__}: {error})") from error


def _change(item: Listed) -> Change:
    if isinstance(item, Change):
        return item
    if isinstance(item, str):
        return Change(item)
    ref, version = item
    return Change(ref, version=version)


def _documents(got: Extracted) -> list[Document]:
    """What an extractor returned, as documents; several of one name are told apart by their position."""
    if got is None or isinstance(got, Extraction):
        return []
    several = isinstance(got, list | tuple | Iterator)  # not just any iterable: a dict's keys are no texts
    documents = [_document(item) for item in (got if several else [got])]
    seen: set[str] = set()
    for position, document in enumerate(documents):
        if document.part in seen:
            documents[position] = replace(document, part=f"{document.part}#{position}")
        seen.add(documents[position].part)
    return documents


def _document(item: object) -> Document:
    if isinstance(item, Document):
        return item
    if isinstance(item, str):
        return Document(item)
    if isinstance(item, LlamaIndexDocument):
        return _foreign(item.get_content(), item.metadata)
    if isinstance(item, LangChainDocument):
        return _foreign(item.page_content, item.metadata)
    raise ConnectorError(f"extract returned {type(item).__name__}; text, Document, a list of these or Extraction is expected")


_TITLES = ("title", "file_name", "page_title", "subject")


def _foreign(text: str, metadata: Mapping[str, Any]) -> Document:
    """Metadata as JSON has it; what JSON has no form for (a date) as text."""
    known = json.loads(json.dumps(metadata, default=str, skipkeys=True))
    title = next((str(known[name]) for name in _TITLES if known.get(name)), "")
    return Document(text.replace("\0", ""), title, metadata=known)


def _content_hash(documents: Sequence[Document]) -> str:
    parts = [[d.part, d.title, d.media_type, d.text, dict(d.metadata)] for d in documents]
    canonical = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
