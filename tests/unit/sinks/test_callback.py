"""A plain function as a sink."""

from __future__ import annotations

import pytest

from sourcebus.model import Document, Outcome
from sourcebus.sinks import CallbackSink, Sink, as_json

OUTCOMES = [
    Outcome("s", "a", 1, "indexed", 1, "v1", documents=[Document("text", "title", metadata={"k": 1})]),
    Outcome("s", "b", 2, "unchanged", 2),
    Outcome("s", "c", 3, "note", 3),
    Outcome("s", "d", 4, "unreadable", 4, "v4"),
    Outcome("s", "e", 5, "deleted", 5),
]


def test_the_function_sees_what_changes_documents_in_order() -> None:
    seen: list[Outcome] = []
    sink: Sink = CallbackSink(seen.append)
    sink.write(OUTCOMES)
    assert [outcome.object_ref for outcome in seen] == ["a", "d", "e"]


def test_what_the_function_raises_is_seen() -> None:
    def refuse(outcome: Outcome) -> None:
        raise ValueError(outcome.object_ref)

    with pytest.raises(ValueError, match="a"):
        CallbackSink(refuse).write(OUTCOMES)


def test_an_outcome_as_json() -> None:
    item = as_json(OUTCOMES[0])
    assert item["documents"] == [
        {"part": "", "title": "title", "text": "text", "media_type": "text/plain", "metadata": {"k": 1}},
    ]
    assert (item["source_id"], item["object_ref"], item["version"], item["what"]) == ("s", "a", "v1", "indexed")
    assert as_json(OUTCOMES[4])["documents"] == []
