"""The event's written forms: what is written reads back equal, and what is wrong is refused by name."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from sourcebus.errors import InvalidInput
from sourcebus.intake import events
from sourcebus.model import ChangeKind, Signal, SourceChanged

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
EVENTS = st.builds(
    SourceChanged,
    source_id=TEXT.filter(bool),
    object_ref=TEXT.filter(bool),
    change_kind=st.sampled_from(ChangeKind),
    observed_at=st.none()
    | st.datetimes(
        datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        datetime(9000, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]),
    ),
    signal=st.sampled_from(Signal),
    version=st.none() | TEXT,
    trace=st.none() | TEXT,
)
PLAIN: dict[str, Any] = {"source_id": "docs", "object_ref": "a/b.md"}
CLOUD: dict[str, Any] = {"specversion": "1.0", "type": "source.changed", "id": "1", "source": "/v1/sources/docs", "data": PLAIN}


def over_the_wire(obj: object) -> object:
    return json.loads(json.dumps(obj))


@given(EVENTS)
def test_what_is_written_plain_reads_back_equal(event: SourceChanged) -> None:
    assert events.decode(over_the_wire(events.encode(event))) == event


@given(EVENTS)
def test_what_is_written_as_a_cloudevent_reads_back_equal(event: SourceChanged) -> None:
    assert events.decode(over_the_wire(events.to_cloudevent(event))) == event


@given(EVENTS)
def test_the_cloudevents_sdk_accepts_what_is_written(event: SourceChanged) -> None:
    written = json.dumps(events.to_cloudevent(event)).encode()
    judged = from_structured_event(HTTPMessage({"content-type": "application/cloudevents+json"}, written))
    assert judged.get_type() == "source.changed"
    assert judged.get_data() == events.encode(event)
    assert judged.get_time() == event.observed_at or event.observed_at is None


@given(EVENTS)
def test_what_the_cloudevents_sdk_writes_is_read(event: SourceChanged) -> None:
    theirs = CloudEvent({"id": "7", "source": "/their/system", "type": "source.changed"}, events.encode(event))
    structured = to_structured(theirs, JSONFormat())
    expected = event if event.observed_at is not None else replace(event, observed_at=theirs.get_time())
    assert events.decode(json.loads(structured.body)) == expected
    binary = to_binary(theirs, JSONFormat())
    read = events.decode(events.from_headers(binary.headers.items(), json.loads(binary.body)))
    assert read == expected


def test_only_source_and_object_are_required() -> None:
    assert events.decode(PLAIN) == SourceChanged("docs", "a/b.md", ChangeKind.UPDATED, None, Signal.WEBHOOK)


def test_the_whole_source_is_a_scan_of_the_empty_reference() -> None:
    assert events.decode(PLAIN | {"object_ref": "", "change_kind": "scan"}).object_ref == ""
    with pytest.raises(InvalidInput, match=r"^object_ref: is empty; name the object"):
        events.decode(PLAIN | {"object_ref": ""})


def test_a_cloudevent_without_data_speaks_through_its_envelope() -> None:
    envelope = {
        "specversion": "1.0",
        "type": "source.changed",
        "id": "1",
        "source": "/v1/sources/team%2Fdocs",
        "subject": "a/b.md",
        "time": "2026-01-31T09:30:00Z",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    event = events.decode(envelope)
    assert (event.source_id, event.object_ref) == ("team/docs", "a/b.md")
    assert event.observed_at == datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    assert event.trace == envelope["traceparent"]
    assert events.decode(envelope | {"source": "team/docs"}) == event, "a foreign source is the id as it stands"


def test_data_wins_over_the_envelope() -> None:
    event = events.decode(CLOUD | {"subject": "other", "source": "other", "time": "2026-01-31T09:30:00Z"})
    assert (event.source_id, event.object_ref) == ("docs", "a/b.md")


def test_a_subject_is_left_out_where_cloudevents_forbid_its_characters() -> None:
    written = events.to_cloudevent(SourceChanged("docs", "line\nbreak"))
    assert "subject" not in written
    assert events.decode(written).object_ref == "line\nbreak"


def test_binary_mode_headers_are_percent_decoded_and_case_blind() -> None:
    envelope = [("CE-SpecVersion", "1.0"), ("Ce-Type", "source.changed"), ("ce-id", "1"), ("ce-source", "docs")]
    headers = [*envelope, ("ce-subject", "a%20%E2%82%AC"), ("accept", "*/*")]
    assert events.decode(events.from_headers(headers, None)).object_ref == "a €"


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (None, "event: is null, not an object"),
        ([], "event: is a list, not an object"),
        ("x", "event: is a string, not an object"),
        ({}, "source_id: is missing"),
        ({"source_id": "docs"}, "object_ref: is missing"),
        (PLAIN | {"source_id": ""}, "source_id: is empty"),
        (PLAIN | {"source_id": 7}, "source_id: is 7; send a string"),
        (PLAIN | {"source_id": "x" * 513}, "source_id: is 513 bytes long; send at most 512"),
        (PLAIN | {"object_ref": "é" * 2049}, "object_ref: is 4098 bytes long; send at most 4096"),
        (PLAIN | {"source_id": "\ud800"}, "source_id: holds half of a surrogate pair"),
        (PLAIN | {"change_kind": "renamed"}, "change_kind: is 'renamed'; send one of created, updated, deleted, scan"),
        (PLAIN | {"change_kind": None}, "change_kind: is missing"),
        (PLAIN | {"change_kind": ["updated"]}, "change_kind: is a list"),
        (PLAIN | {"signal": {"a": 1}}, "signal: is an object"),
        (PLAIN | {"observed_at": "yesterday"}, "observed_at: is 'yesterday'; send RFC 3339"),
        (PLAIN | {"observed_at": "2026-01-31T09:30:00"}, "observed_at: is '2026-01-31T09:30:00'; send RFC 3339"),
        (PLAIN | {"observed_at": 1738315800}, "observed_at: is 1738315800"),
        (PLAIN | {"observed_at": "0001-01-01T00:00:00+14:00"}, "observed_at: is"),
        (PLAIN | {"version": 3}, "version: is 3"),
        (PLAIN | {"trace": "x" * 1025}, "trace: is 1025 bytes long"),
        (PLAIN | {"change_knd": "scan"}, "change_knd: is not a field of an event; fields are"),
        (CLOUD | {"specversion": "0.3"}, "specversion: is '0.3'"),
        (CLOUD | {"type": "com.example.other"}, "type: is 'com.example.other'; send \"source.changed\""),
        (CLOUD | {"id": ""}, "id: is ''; CloudEvents require it"),
        (CLOUD | {"source": None}, "source: is missing; CloudEvents require it"),
        (CLOUD | {"data": "text"}, "data: is a string, not an object"),
        (CLOUD | {"data": {"source_id": "docs"}}, "data.object_ref: is missing"),
        (CLOUD | {"data": None, "data_base64": "%%%"}, "data_base64: is not base64 of a JSON object"),
        (CLOUD | {"data": None, "data_base64": 7}, "data_base64: is not base64 of a JSON object"),
    ],
)
def test_what_is_wrong_is_refused_by_name(obj: object, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        events.decode(obj)
    assert str(refused.value).startswith(message)


def test_a_file_name_that_is_not_utf8_is_a_reference_too() -> None:
    event = SourceChanged("docs", os.fsdecode(b"caf\xe9.txt"))
    assert events.decode(over_the_wire(events.encode(event))) == event
    assert events.decode(over_the_wire(events.to_cloudevent(event))) == event


def test_base64_data_is_read() -> None:
    data = base64.b64encode(json.dumps(PLAIN).encode()).decode()
    assert events.decode({**CLOUD, "data": None, "data_base64": data}).object_ref == "a/b.md"


def test_a_bad_event_in_a_batch_is_named_by_its_index() -> None:
    with pytest.raises(InvalidInput) as refused:
        events.decode_batch([PLAIN, CLOUD, PLAIN, {"source_id": "", "object_ref": "x"}])
    assert refused.value.field == "events[3].source_id"
    with pytest.raises(InvalidInput) as refused:
        events.decode_batch([PLAIN, CLOUD | {"data": {"source_id": "docs"}}])
    assert refused.value.field == "events[1].data.object_ref"


def test_a_batch_is_a_list_or_one_event() -> None:
    assert events.decode_batch([]) == []
    assert len(events.decode_batch([PLAIN, CLOUD])) == 2
    assert len(events.decode_batch(PLAIN)) == 1


def test_a_batch_over_the_limit_is_refused_whole() -> None:
    with pytest.raises(InvalidInput, match="events: 3 events in one batch; send at most 2 at a time"):
        events.decode_batch([PLAIN] * 3, max_events=2)
