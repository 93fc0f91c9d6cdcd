"""The deliveries log and the hooks' secret addresses, on both databases."""

from __future__ import annotations

from dataclasses import replace

from cryptography.fernet import Fernet

from sourcebus.catalog import Catalog
from sourcebus.model import Delivery, DeliveryLine, Source


def line(number: int, source_id: str = "s") -> DeliveryLine:
    sent = Delivery("POST", {"a": "b"}, b"\x00\xff", number)
    return DeliveryLine(source_id, number, "POST", "stored", {"a": "b"}, {}, 2, 1.5, {"note": "ü\ud800"}, sent)


def test_of_each_source_and_kind_the_newest_stay(catalog: Catalog) -> None:
    catalog.add_source(Source("other", "filesystem"))
    catalog.log_deliveries([(line(0, "other"), False)], keep=3, keep_refused=2)
    for start in (0, 7):
        lines = [(line(number), refused) for number in range(start, start + 7) for refused in (False, True)]
        catalog.log_deliveries([*lines, (line(99, "not there"), False)], keep=3, keep_refused=2)
    assert sorted(one.at_ms for one in catalog.deliveries("s")) == [11, 12, 12, 13, 13]
    assert [one.at_ms for one in catalog.deliveries("s", limit=2)] == [13, 13]
    assert len(catalog.deliveries("other")) == 1
    assert catalog.deliveries("s")[0].detail == {"note": "ü\ud800"}


def test_they_go_with_their_source(catalog: Catalog) -> None:
    catalog.log_deliveries([(line(1), False)], keep=3, keep_refused=2)
    (kept,) = catalog.deliveries("s")
    catalog.remove_source("s")
    assert catalog.delivery(kept.id) is None
    catalog.add_source(Source("s", "filesystem"))
    assert catalog.deliveries("s") == []


def test_requests_and_addresses_are_encrypted_and_come_back(catalog_url: str) -> None:
    with Catalog.open(catalog_url, secret_key=Fernet.generate_key().decode()) as catalog:
        catalog.add_source(Source("s", "filesystem", hook_token="unguessable"))
        assert catalog.source("s").hook_token == "unguessable"
        assert catalog.update_source(replace(catalog.source("s"), hook_token="another")).hook_token == "another"
        catalog.log_deliveries([(line(1), False)], keep=3, keep_refused=2)
        kept = catalog.delivery(catalog.deliveries("s")[0].id)
        assert kept is not None and kept.delivery == line(1).delivery
    with Catalog.open(catalog_url, secret_key=Fernet.generate_key().decode()) as catalog:
        unreadable = catalog.delivery(kept.id)
        assert unreadable is not None and unreadable.delivery is None, "kept with another key"
