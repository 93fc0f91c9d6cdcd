"""What plain callables and Celery tasks may return, raise and leave out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from sourcebus.connectors import connector_from, extract_with_task
from sourcebus.connectors.adapters import Extracted, Listed
from sourcebus.errors import ConnectorError, ObjectGone
from sourcebus.model import Change, ChangeKind, Cursor, Document, Extraction

EXAMPLE = Path(__file__).parents[2] / "examples" / "existing_extractor"


def returning(value: Extracted) -> Extraction:
    return connector_from(list=lambda: ["a"], version=lambda ref: "v1", extract=lambda ref: value).extract("a")


def test_an_extractor_may_return_text_documents_or_several() -> None:
    assert returning("text").documents == [Document("text")]
    assert returning(Document("text", "title")).documents == [Document("text", "title")]
    assert [document.text for document in returning(["one", Document("two")]).documents] == ["one", "two"]
    assert returning([]).documents == []
    assert returning(None).documents == []


def test_several_unnamed_documents_are_told_apart() -> None:
    assert [document.part for document in returning(["one", "two", "three"]).documents] == ["", "#1", "#2"]
    named = returning([Document("one", part="a"), Document("two", part="b")])
    assert [document.part for document in named.documents] == ["a", "b"]


def test_the_version_of_the_source_wins_over_the_extractors() -> None:
    assert returning(Extraction([], "its own")).version == "v1"
    assert connector_from(list=lambda: ["a"], extract=lambda ref: Extraction([], "its own")).version("a") == "its own"


def test_what_is_no_text_is_refused_by_name() -> None:
    wrong: Any
    for wrong in (b"bytes", {"text": "a task's result"}, ["text", 7]):
        with pytest.raises(ConnectorError, match=r"returned (bytes|dict|int);"):
            returning(wrong)


def test_an_extractor_without_result_needs_a_version() -> None:
    """Else its hash would never change, and neither would the index."""
    with pytest.raises(ConnectorError, match="version="):
        connector_from(list=lambda: ["a"], extract=lambda ref: None).extract("a")


def test_a_listing_may_yield_references_pairs_and_changes() -> None:
    items: list[Listed] = ["a", ("b", "v2"), Change("c", ChangeKind.DELETED)]
    connector = connector_from(list=lambda: items, extract=lambda ref: ref)
    assert [*connector.changes(None)] == [
        Change("a"), Change("b", version="v2"), Change("c", ChangeKind.DELETED), Cursor(None, complete=True),
    ]  # fmt: skip
    assert connector.version("b") == connector.extract("b").version == "v2"
    assert connector.version("c") is None


def test_a_listing_that_fails_is_not_complete() -> None:
    def broken() -> Any:
        yield "a"
        raise ConnectionError("half-way")

    seen: list[object] = []
    with pytest.raises(ConnectionError):
        seen.extend(connector_from(list=broken, extract=str).changes(None))
    assert not any(isinstance(item, Cursor) for item in seen)


def test_the_teams_own_not_found_means_gone() -> None:
    def extract(ref: str) -> str:
        raise LookupError(ref)

    gone = connector_from(list=lambda: ["a"], version=lambda ref: "v", extract=extract, gone_on=(LookupError,))
    with pytest.raises(ObjectGone):
        gone.extract("a")
    fault = connector_from(list=lambda: ["a"], version=lambda ref: "v", extract=extract)
    with pytest.raises(LookupError):
        fault.extract("a")


def test_a_task_runs_here_with_its_own_arguments_and_its_retry_reaches_the_bus() -> None:
    app: Any = Celery("team", broker="amqp://nowhere.invalid//")  # publishing would fail

    @app.task(bind=True, max_retries=5)
    def extract_page(self: Any, site: str, page: str, *, deep: bool) -> str:
        if page == "busy":
            raise self.retry(exc=TimeoutError("busy"), countdown=60)
        return f"{site}/{page}/{deep}"

    run = extract_with_task(extract_page, args=lambda ref: ("intranet", ref), kwargs=lambda ref: {"deep": True})
    assert run("welcome") == "intranet/welcome/True"
    with pytest.raises(TimeoutError):
        run("busy")


def test_a_task_runs_inside_another_task() -> None:
    """The consumer is a task itself, and Celery forbids tasks to wait for tasks."""
    app: Any = Celery("team", broker="memory://")

    @app.task
    def extract_page(page: str) -> str:
        return page.upper()

    @app.task
    def consume() -> str:
        return extract_with_task(extract_page)("text")

    assert consume.apply().get() == "TEXT"


def test_the_example_runs_and_its_extractor_knows_nothing_of_sourcebus() -> None:
    done = subprocess.run([sys.executable, "plug.py"], cwd=EXAMPLE, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    for name in ("extractor.py", "tasks.py"):
        code = [line for line in (EXAMPLE / name).read_text().splitlines() if line.startswith(("import", "from"))]
        assert not any("sourcebus" in line for line in code)
