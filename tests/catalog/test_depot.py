"""Contents that came in deliveries: the newest state of each object stays, in every database."""

from __future__ import annotations

import pytest

from sourcebus.catalog import Catalog
from sourcebus.errors import UnknownSource
from sourcebus.model import Content, Source


def test_the_newest_state_stays_whatever_arrives_last(catalog: Catalog) -> None:
    depot = catalog.depot("s")
    assert depot.get("a") is None
    depot.put([Content("a", "v1", b"one\0", "A\0", "text/html", 1.0), Content("\udcff/ü", "v1", b"other")])
    assert depot.get("a") == Content("a", "v1", b"one\0", "A", "text/html", 1.0)
    depot.put([Content("a", "v3", b"three", order=3.0), Content("a", "v2", b"two", order=2.0)])
    assert dict(depot.refs()) == {"a": "v3", "\udcff/ü": "v1"}
    depot.put([Content("a", "", None, order=5.0), Content("a", "v4", b"four", order=4.0), Content("\udcff/ü", "v2", b"again")])
    gone = depot.get("a")
    assert gone is not None
    assert gone.body is None
    assert dict(depot.refs()) == {"\udcff/ü": "v2"}


def test_more_than_a_page_is_listed(catalog: Catalog) -> None:
    catalog.depot("s").put([Content(f"{number}", "v", b"") for number in range(2_001)])
    assert len(dict(catalog.depot("s").refs())) == 2_001


def test_a_source_takes_its_contents_with_it(catalog: Catalog) -> None:
    catalog.depot("s").put([Content("a", "v", b"text")])
    catalog.remove_source("s")
    with pytest.raises(UnknownSource):
        catalog.depot("s").get("a")
    catalog.add_source(Source("s", "webhook"))
    assert catalog.depot("s").get("a") is None
    with pytest.raises(UnknownSource):
        catalog.depot("nobody").put([Content("a", "v", b"text")])
