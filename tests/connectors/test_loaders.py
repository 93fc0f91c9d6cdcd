"""LlamaIndex readers and LangChain loaders as extractors, with the real packages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sourcebus.connectors import Connector, connector_from, connector_from_loader
from sourcebus.errors import ObjectGone
from sourcebus.model import Change
from sourcebus.testing import ConnectorSuite, SourceUnderTest

pytest.importorskip("langchain_core", reason="pip install langchain-core")
pytest.importorskip("llama_index.core", reason="pip install llama-index-core")

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document as LangChainDocument
from llama_index.core import SimpleDirectoryReader
from llama_index.core.schema import Document as LlamaIndexDocument


class LinesLoader(BaseLoader):
    """Each file of a folder, a document per line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lazy_load(self) -> Iterator[LangChainDocument]:
        for file in sorted(self.folder.iterdir()):
            for line in file.read_text().splitlines():
                yield LangChainDocument(line, metadata={"source": file.name, "at": datetime(2026, 1, 31, tzinfo=UTC)})


class Files(SourceUnderTest):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def connect(self) -> Connector:
        return connector_from_loader(LinesLoader(self.folder).lazy_load, ref=lambda document: document.metadata["source"])

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name

    def delete(self, ref: str) -> None:
        (self.folder / ref).unlink()


class TestLangChainLoader(ConnectorSuite):
    @pytest.fixture
    def source(self, tmp_path: Path) -> SourceUnderTest:
        return Files(tmp_path)


def test_documents_of_one_object_become_its_parts(tmp_path: Path) -> None:
    source = Files(tmp_path)
    source.write("two", "first\nsecond")
    source.write("one", "only")
    documents = source.connect().extract("two").documents
    assert [(document.part, document.text) for document in documents] == [("", "first"), ("#1", "second")]
    assert documents[0].metadata == {"source": "two", "at": "2026-01-31 00:00:00+00:00"}


def test_a_llamaindex_reader_of_single_resources(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Herons\n\nThey stand.")
    reader = SimpleDirectoryReader(str(tmp_path))
    made = connector_from(list=reader.list_resources, extract=reader.load_resource)
    (ref,) = [change.object_ref for change in made.changes(None) if isinstance(change, Change)]
    extraction = made.extract(ref)
    assert "They stand." in extraction.documents[0].text
    assert extraction.documents[0].title == "a.md"
    before = made.version(ref)
    (tmp_path / "a.md").write_text("# Herons\n\nThey wade.")
    assert made.version(ref) not in (None, before)


def test_a_llamaindex_reader_that_loads_everything() -> None:
    loaded = [LlamaIndexDocument(text="one", doc_id="a", metadata={"title": "One"}), LlamaIndexDocument(text="two", doc_id="b")]
    made = connector_from_loader(lambda: loaded, ref=lambda document: document.doc_id)
    assert [document.title for document in made.extract("a").documents] == ["One"]
    assert made.version("a") == made.extract("a").version
    del loaded[0]
    assert made.version("a") is None
    with pytest.raises(ObjectGone):
        made.extract("a")
